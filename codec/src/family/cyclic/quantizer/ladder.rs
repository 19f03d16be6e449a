//! All codes by value: the nearest one to a weight in a look-up and, now and then, a step.
//!
//! Angle and radius are rounded *together*: what counts is the weight that a code stands for, and the nearest
//! value is often that of another radius and angle than the nearest ones of each. The line of values is cut into
//! buckets of one width, each with the first code that a value in it can have; a search goes up from there,
//! over less than one code in four on average. It is exact, and the same on every machine: floats are only
//! compared. It knows nothing of scales, parameters or training.

use super::super::code::Code;
use super::super::engine::Engine;
use super::super::layer::unit;
use super::super::radius::RadiusMap;

/// Buckets a code: of 8 bits, where all fit the first cache, and of 16 bits, where they fit the second.
const BUCKETS: [usize; 2] = [16, 4];

/// The codes of one width and one radius map, by value.
#[derive(Clone, Debug)]
pub(super) struct Ladder<C> {
    rungs: Vec<Rung<C>>,
    /// For each bucket the first rung that is the nearest to a value in it.
    starts: Vec<u32>,
    /// Buckets a unit of value.
    density: f32,
}

/// A code, and where it ends to be the nearest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rung<C> {
    /// The largest float to which no higher code is nearer.
    until: f32,
    /// What the code is worth at scale 1.
    pub(super) value: f32,
    /// The code.
    pub(super) code: C,
}

impl<C: Code> Ladder<C> {
    /// Sorts the engine's values; of codes of one value, if there were any, the lowest bits stand first.
    pub(super) fn new(map: RadiusMap) -> Self {
        let engine = Engine::<C>::new(map);
        let rung = |code| Rung { until: f32::INFINITY, value: unit(engine.value(code)), code };
        let mut rungs: Vec<Rung<C>> = (0..C::CODES).map(C::from_bits).map(rung).collect();
        rungs.sort_by(|a, b| a.value.total_cmp(&b.value));
        for index in 1..rungs.len() {
            rungs[index - 1].until = middle(rungs[index - 1].value, rungs[index].value);
        }
        let buckets = rungs.len() * BUCKETS[C::BYTES - 1];
        let top = rungs.last().map_or(1.0, |rung| rung.value);
        let mut ladder = Self { rungs, starts: vec![0; buckets], density: buckets as f32 / (2.0 * top) };
        ladder.fill();
        ladder
    }

    /// A bucket starts at the number of rungs that end in the buckets before it. [`Ladder::bucket`] never falls, so
    /// that a value of the bucket is beyond all of them, however its product was rounded.
    fn fill(&mut self) {
        let ends: Vec<usize> = self.rungs.iter().map(|rung| self.bucket(rung.until)).collect();
        let mut start = 0;
        for (bucket, place) in self.starts.iter_mut().enumerate() {
            start += ends[start..].iter().take_while(|&&end| end < bucket).count();
            *place = u32::try_from(start).expect("there are at most 2^16 codes");
        }
    }

    /// The largest value.
    pub(super) fn top(&self) -> f32 {
        self.rungs.last().map_or(1.0, |rung| rung.value)
    }

    /// The code nearest to a value, of two that are as near the lower one.
    #[inline(always)]
    pub(super) fn nearest(&self, value: f32) -> &Rung<C> {
        let mut index = self.starts[self.bucket(value)] as usize;
        while value > self.rungs[index].until {
            index += 1;
        }
        &self.rungs[index]
    }

    /// The bucket of a value, the first or the last of what is beyond them.
    #[inline(always)]
    fn bucket(&self, value: f32) -> usize {
        let half = (self.starts.len() / 2) as f32;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, as it is to")]
        let bucket = (value * self.density + half) as u32;
        (bucket as usize).min(self.starts.len() - 1)
    }
}

/// The middle of two floats, rounded down: a float is above it if and only if it is nearer to the upper.
fn middle(below: f32, above: f32) -> f32 {
    let exact = (f64::from(below) + f64::from(above)) / 2.0;
    #[expect(clippy::cast_possible_truncation, reason = "rounded, and then down")]
    let rounded = exact as f32;
    if f64::from(rounded) > exact { rounded.next_down() } else { rounded }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::code::{Code8, Code16};
    use super::*;

    /// The least distance of a value to any code's.
    fn least<C: Code>(ladder: &Ladder<C>, value: f32) -> f64 {
        let distance = |rung: &Rung<C>| (f64::from(rung.value) - f64::from(value)).abs();
        ladder.rungs.iter().map(distance).fold(f64::INFINITY, f64::min)
    }

    fn every_code_is_found<C: Code>() {
        for map in RadiusMap::ALL {
            let (ladder, engine) = (Ladder::<C>::new(map), Engine::<C>::new(map));
            for code in (0..C::CODES).map(C::from_bits) {
                assert_eq!(ladder.nearest(unit(engine.value(code))).value, unit(engine.value(code)));
            }
            for pair in ladder.rungs.windows(2) {
                assert_eq!(ladder.nearest(pair[0].until).value, pair[0].value, "{map:?}: a tie goes down");
                assert_eq!(ladder.nearest(pair[0].until.next_up()).value, pair[1].value, "{map:?}");
            }
        }
    }

    #[test]
    fn every_code_and_both_sides_of_every_border_are_found() {
        every_code_is_found::<Code8>();
        every_code_is_found::<Code16>();
    }

    #[test]
    fn codes_of_eight_bits_all_differ_in_value() {
        for map in RadiusMap::ALL {
            assert!(Ladder::<Code8>::new(map).rungs.windows(2).all(|pair| pair[0].value < pair[1].value), "{map:?}");
        }
    }

    #[test]
    fn what_is_beyond_the_codes_or_no_number_has_a_code() {
        let ladder = Ladder::<Code8>::new(RadiusMap::Lorentz);
        let top = ladder.top();
        assert_eq!([9.0, f32::INFINITY].map(|value| ladder.nearest(value).value), [top; 2]);
        assert_eq!([-9.0, f32::NEG_INFINITY, f32::NAN].map(|value| ladder.nearest(value).value), [-top; 3]);
    }

    proptest! {
        #[test]
        fn no_code_is_nearer(values in prop::collection::vec(-4f32..4.0, 200)) {
            for map in RadiusMap::ALL {
                let ladder = Ladder::<Code8>::new(map);
                for &value in &values {
                    let found = (f64::from(ladder.nearest(value).value) - f64::from(value)).abs();
                    prop_assert_eq!(found, least(&ladder, value));
                }
            }
        }
    }
}
