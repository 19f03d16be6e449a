//! All codes by value: the nearest one to a weight in a look-up and, now and then, a step.
//!
//! Angle and radius are rounded *together*: what counts is the weight that a code stands for, and the nearest
//! value is often that of another radius and angle than the nearest ones of each. The line of values is cut into
//! buckets of one width, each with the first code that a value in it can have; a search goes up from there, seldom
//! by more than a code. It is exact, and the same on every machine: floats are only compared. It knows nothing of
//! scales, parameters or training.

use super::super::code::Code;
use super::super::engine::Engine;
use super::super::layer::unit;
use super::super::radius::RadiusMap;

/// Buckets a code of 8 bits, where all fit the first cache, and of 16 bits, where they fit the second.
const BUCKETS: [usize; 2] = [16, 2];

/// The codes of one width and one radius map, by value.
#[derive(Clone, Debug)]
pub(super) struct Ladder<C> {
    /// What the codes are worth at scale 1, from the least on.
    values: Vec<f32>,
    /// The largest float to which no later code is nearer; infinity for the last.
    ends: Vec<f32>,
    codes: Vec<C>,
    /// For each bucket the first code that is the nearest to a value in it.
    starts: Vec<u16>,
    /// Buckets a unit of value.
    density: f32,
}

impl<C: Code> Ladder<C> {
    /// Sorts the engine's values; of codes of one value the lowest bits stand first.
    pub(super) fn new(map: RadiusMap) -> Self {
        let engine = Engine::<C>::new(map);
        let mut rungs: Vec<(i32, C)> = (0..C::CODES).map(C::from_bits).map(|code| (engine.value(code), code)).collect();
        rungs.sort_by_key(|rung| rung.0);
        let codes = rungs.iter().map(|rung| rung.1).collect();
        let values: Vec<f32> = rungs.iter().map(|rung| unit(rung.0)).collect();
        let middles = values.windows(2).map(|pair| down(f64::midpoint(pair[0].into(), pair[1].into())));
        let ends = middles.chain([f32::INFINITY]).collect();
        let buckets = rungs.len() * BUCKETS[C::BYTES - 1];
        let density = buckets as f32 / (2.0 * values[rungs.len() - 1]);
        let mut ladder = Self { values, ends, codes, starts: vec![0; buckets], density };
        ladder.fill();
        ladder
    }

    /// A bucket starts at the number of codes that end in the buckets before it. [`Ladder::bucket`] never falls, so
    /// that a value of the bucket is beyond all of them however its product is rounded.
    fn fill(&mut self) {
        let ends: Vec<usize> = self.ends.iter().map(|&end| self.bucket(end)).collect();
        let mut start = 0;
        for (bucket, place) in self.starts.iter_mut().enumerate() {
            start += ends[start..].iter().take_while(|&&end| end < bucket).count();
            *place = u16::try_from(start).expect("there are at most 2^16 codes");
        }
    }

    /// The largest value.
    pub(super) fn top(&self) -> f32 {
        self.values[self.values.len() - 1]
    }

    /// The code nearest to a value and what it is worth; of two that are as near the lower one.
    #[inline(always)]
    pub(super) fn nearest(&self, value: f32) -> (C, f32) {
        let mut index = usize::from(self.starts[self.bucket(value)]);
        // The first step without a branch: it is the one that nobody can foretell.
        index += usize::from(value > self.ends[index]);
        while value > self.ends[index] {
            index += 1;
        }
        (self.codes[index], self.values[index])
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

/// The largest float that is not above a value.
fn down(value: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "rounded, and then down")]
    let rounded = value as f32;
    if f64::from(rounded) > value { rounded.next_down() } else { rounded }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::code::{Code8, Code16};
    use super::*;

    /// The least distance of a value to any code's.
    fn least<C: Code>(ladder: &Ladder<C>, value: f32) -> f64 {
        ladder.values.iter().map(|&rung| (f64::from(rung) - f64::from(value)).abs()).fold(f64::INFINITY, f64::min)
    }

    fn every_code_is_found<C: Code>() {
        for map in RadiusMap::ALL {
            let (ladder, engine) = (Ladder::<C>::new(map), Engine::<C>::new(map));
            for code in (0..C::CODES).map(C::from_bits) {
                assert_eq!(ladder.nearest(unit(engine.value(code))).1, unit(engine.value(code)));
            }
            for (pair, &end) in ladder.values.windows(2).zip(&ladder.ends) {
                assert_eq!(ladder.nearest(end).1, pair[0], "{map:?}: a tie goes down");
                assert_eq!(ladder.nearest(end.next_up()).1, pair[1], "{map:?}");
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
            assert!(Ladder::<Code8>::new(map).values.windows(2).all(|pair| pair[0] < pair[1]), "{map:?}");
        }
    }

    #[test]
    fn what_is_beyond_the_codes_or_no_number_has_a_code() {
        let ladder = Ladder::<Code8>::new(RadiusMap::Lorentz);
        let top = ladder.top();
        assert_eq!([9.0, f32::INFINITY].map(|value| ladder.nearest(value).1), [top; 2]);
        assert_eq!([-9.0, f32::NEG_INFINITY, f32::NAN].map(|value| ladder.nearest(value).1), [-top; 3]);
    }

    proptest! {
        #[test]
        fn no_code_is_nearer(values in prop::collection::vec(-4f32..4.0, 200)) {
            for map in RadiusMap::ALL {
                let ladder = Ladder::<Code8>::new(map);
                for &value in &values {
                    let found = (f64::from(ladder.nearest(value).1) - f64::from(value)).abs();
                    prop_assert_eq!(found, least(&ladder, value));
                }
            }
        }
    }
}
