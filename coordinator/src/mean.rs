//! The mean delta of a commit, lane by lane: exact sums over every window that its updates were trained in.
//!
//! ```text
//!   base, turn, scales ─► Tally ─┐        Σ  factor · sum · 2^(exponent + 20)      i128, exact
//!   base, turn, scales ─► Tally ─┼─► lane ─────────────────────────────────── · 2^−20
//!   base, turn, scales ─► Tally ─┘                  2^10 · examples
//! ```
//!
//! A lane that an update's window does not name is one that the update did not move. Sums are integers, so
//! nothing depends on an order. It knows no workers, rounds or rules of staleness.

use packfed_codec::{EncodeError, Layout, Profile, QUANTUM_EXPONENT, Scales, Tally, Window};

use crate::staleness::FACTOR_BITS;

/// Updates against one base.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Their sum, weighted by examples.
    pub tally: &'a Tally,
    /// Turn of the residual window that they were trained in.
    pub turn: u32,
    /// The scales that they were quantized with.
    pub scales: &'a [Scales],
    /// What each of them counts for: [`FRESH`](crate::staleness::FRESH) is one.
    pub factor: u32,
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Mean {
    turns: Vec<u32>,
    lanes: Vec<f64>,
    examples: u64,
}

impl Mean {
    /// The mean of all updates of some parts, over all their examples: one that counts for less moves the
    /// mean less, whatever else is in it.
    ///
    /// # Errors
    /// If the scales of a part do not fit the layout.
    pub fn of(layout: &Layout, profile: Profile, parts: &[Part<'_>]) -> Result<Self, EncodeError> {
        let mut sums = vec![0i128; layout.lanes()];
        let mut examples = 0;
        for part in parts.iter().filter(|part| part.tally.weight() > 0) {
            check(layout, part.scales)?;
            examples += part.tally.weight();
            Window::new(profile, part.turn).for_each_slot(layout, |slot| {
                let exponent = part.scales[slot.layer].exponent(slot.wave);
                // |sum| < 2^63, a factor is at most 2^10, a shift at most 28.
                let scaled = i128::from(part.tally.sum(slot.index)) << (exponent - QUANTUM_EXPONENT);
                sums[slot.lane] += scaled * i128::from(part.factor);
            });
        }
        let unit = 2f64.powi(i32::from(QUANTUM_EXPONENT) - FACTOR_BITS.cast_signed());
        let lanes = sums.into_iter().map(|sum| if sum == 0 { 0.0 } else { sum as f64 / examples as f64 * unit });
        let mut turns: Vec<u32> = parts.iter().filter(|part| part.tally.weight() > 0).map(|part| part.turn).collect();
        turns.sort_unstable();
        turns.dedup();
        Ok(Self { turns, lanes: lanes.collect(), examples })
    }

    /// Turns of the windows that the updates were trained in, ascending.
    #[must_use]
    pub fn turns(&self) -> &[u32] {
        &self.turns
    }

    /// The mean delta of a lane of the state; 0 where no window names it.
    #[must_use]
    pub fn lane(&self, lane: usize) -> f64 {
        self.lanes[lane]
    }

    /// Examples behind the updates; 0 if there are none.
    #[must_use]
    pub const fn examples(&self) -> u64 {
        self.examples
    }
}

/// Scales may come from a store.
fn check(layout: &Layout, scales: &[Scales]) -> Result<(), EncodeError> {
    let layers = layout.layers().len();
    if scales.len() != layers {
        return Err(EncodeError::ScaleCount { found: scales.len(), layers });
    }
    for (layer, scales) in scales.iter().enumerate() {
        if let Some(exponent) = [scales.wave, scales.residual].into_iter().find(|e| !Scales::EXPONENTS.contains(e)) {
            return Err(EncodeError::Scale { layer, exponent });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use packfed_codec::{LayerSpec, Seed};

    use super::*;
    use crate::staleness::FRESH;

    fn layout() -> Layout {
        let spec = LayerSpec { name: "w".into(), rows: 4, cols: 4, block: 4, residual: 16, gain_exponent: 4 };
        Layout::new(&Seed::from_number(1), vec![spec]).unwrap()
    }

    /// One block whose lanes are all `q`, from so many examples.
    fn tally(q: i32, examples: u32) -> Tally {
        let mut tally = Tally::new(&layout(), Profile::Plain);
        tally.add(&Profile::Plain.pack(&[q; 14]), examples).unwrap();
        tally
    }

    const SCALES: [Scales; 1] = [Scales { wave: -12, residual: -6 }];
    const COARSER: [Scales; 1] = [Scales { wave: -10, residual: -5 }];

    #[test]
    fn a_lane_is_moved_by_the_windows_that_name_it_over_all_examples() {
        // Turn 0 names residual lanes 0 to 11 of 16, turn 1 names 12 to 15 and 0 to 7.
        let (first, second) = (tally(8, 3), tally(-4, 1));
        let part = |tally, turn, scales, factor| Part { tally, turn, scales, factor };
        let parts = [part(&first, 0, &SCALES, FRESH), part(&second, 1, &COARSER, FRESH / 2)];
        let mean = Mean::of(&layout(), Profile::Plain, &parts).unwrap();
        let (both, only_first, only_second) =
            (3.0 * 8.0 / 64.0 - 0.5 * 4.0 / 32.0, 3.0 * 8.0 / 64.0, -0.5 * 4.0 / 32.0);
        assert_eq!(mean.lane(0), (3.0 * 8.0 / 4096.0 - 0.5 * 4.0 / 1024.0) / 4.0, "the wave");
        assert_eq!([2, 2 + 7, 2 + 8, 2 + 11].map(|lane| mean.lane(lane) * 4.0), [both, both, only_first, only_first]);
        assert_eq!([2 + 12, 2 + 15].map(|lane| mean.lane(lane) * 4.0), [only_second; 2]);
        assert_eq!((mean.turns(), mean.examples()), ([0, 1].as_slice(), 4));
        let backwards = Mean::of(&layout(), Profile::Plain, &[parts[1], parts[0]]).unwrap();
        assert_eq!(backwards, mean, "parts have no order");
    }

    #[test]
    fn the_largest_sums_do_not_overflow() {
        let mut tally = Tally::new(&layout(), Profile::Plain);
        let word = Profile::Plain.pack(&[-32_768; 2]);
        for _ in 0..1 << 16 {
            tally.add(&word, u32::MAX).unwrap();
        }
        let scales = [Scales { wave: 8, residual: 8 }];
        let part = Part { tally: &tally, turn: 0, scales: &scales, factor: FRESH };
        assert_eq!(Mean::of(&layout(), Profile::Plain, &[part; 100]).unwrap().lane(0), -32_768.0 * 256.0);
    }

    #[test]
    fn a_part_without_updates_is_no_part() {
        let empty = Tally::new(&layout(), Profile::Plain);
        let mean =
            |tally, scales| Mean::of(&layout(), Profile::Plain, &[Part { tally, turn: 3, scales, factor: FRESH }]);
        let none = mean(&empty, &SCALES).unwrap();
        assert_eq!((none.turns(), none.examples(), none.lane(0)), ([].as_slice(), 0, 0.0));
        let one = tally(1, 1);
        assert_eq!(mean(&one, &[]), Err(EncodeError::ScaleCount { found: 0, layers: 1 }));
        let error = mean(&one, &[Scales { wave: 9, residual: 0 }]);
        assert_eq!(error, Err(EncodeError::Scale { layer: 0, exponent: 9 }));
    }
}
