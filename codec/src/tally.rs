//! The exact weighted sum of many updates, in place: memory is one integer a slot, whatever the cohort.
//!
//! Integer addition commutes, so the sum does not depend on the order of arrival, the machine or the
//! number of threads. The tally knows neither workers nor scales; it only adds.

use thiserror::Error;

use crate::layout::Layout;
use crate::quantize::{EncodeError, decode_words};
use crate::window::Window;
use crate::word::Profile;

/// Why an update cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TallyError {
    /// The words do not fit the layout.
    #[error(transparent)]
    Words(#[from] EncodeError),
    /// An update of no weight says nothing.
    #[error("an update needs a weight of at least 1")]
    NoWeight,
    /// The sum of weights would leave its range.
    #[error("the weights of one round exceed 2^48")]
    Weight,
}

/// Most that all weights of a round may come to: with lanes of at most 2¹⁵ no sum can leave an `i64`.
const WEIGHT_MAX: u64 = 1 << 48;

/// The running sum of one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    profile: Profile,
    turn: u32,
    sums: Vec<i64>,
    weight: u64,
    peaks: Vec<[u32; 2]>,
}

impl Tally {
    /// An empty sum for one turn of the window.
    #[must_use]
    pub fn new(layout: &Layout, profile: Profile, turn: u32) -> Self {
        let slots = layout.blocks() * Window::new(profile, turn).width();
        Self { profile, turn, sums: vec![0; slots], weight: 0, peaks: vec![[0; 2]; layout.layers().len()] }
    }

    /// Adds `weight ×` the words; on an error the sum is as it was.
    ///
    /// # Errors
    /// If the words do not fit the layout or the weight is 0 or too large.
    pub fn add(&mut self, layout: &Layout, words: &[u8], weight: u32) -> Result<(), TallyError> {
        if weight == 0 {
            return Err(TallyError::NoWeight);
        }
        let total = self.weight + u64::from(weight);
        if total > WEIGHT_MAX {
            return Err(TallyError::Weight);
        }
        decode_words(layout, self.profile, self.turn, words, |_, _| {})?;
        decode_words(layout, self.profile, self.turn, words, |slot, q| {
            self.sums[slot.index] += i64::from(q) * i64::from(weight);
            let peak = &mut self.peaks[slot.layer][usize::from(!slot.wave)];
            *peak = (*peak).max(q.unsigned_abs());
        })?;
        self.weight = total;
        Ok(())
    }

    /// Sum of the weights so far.
    #[must_use]
    pub const fn weight(&self) -> u64 {
        self.weight
    }

    /// Largest magnitude of any lane so far, for each layer: of the wave, and of the residual.
    #[must_use]
    pub fn peaks(&self) -> &[[u32; 2]] {
        &self.peaks
    }

    /// The exact integer sum of one slot.
    #[must_use]
    pub fn sum(&self, slot: usize) -> i64 {
        self.sums[slot]
    }

    /// The weighted mean of one slot in units of its scale; 0 while the tally is empty.
    #[must_use]
    pub fn mean(&self, slot: usize) -> f64 {
        if self.weight == 0 { 0.0 } else { self.sums[slot] as f64 / self.weight as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::LayerSpec;
    use crate::seed::Seed;
    use crate::word::WORD_BYTES;

    fn layout() -> Layout {
        let spec = LayerSpec { name: "w".into(), rows: 8, cols: 8, block: 4, residual: 16, gain_exponent: 4 };
        Layout::new(&Seed::from_number(1), vec![spec]).unwrap()
    }

    /// Uneven words, so that a swapped lane or weight would show.
    fn words(n: u64) -> Vec<u8> {
        let mut stream = Seed::from_number(n).stream();
        (0..4 * WORD_BYTES).map(|_| stream.bits_32().to_le_bytes()[0]).collect()
    }

    #[test]
    fn the_order_of_arrival_does_not_show() {
        let layout = layout();
        let updates: Vec<_> = (0..5u32).map(|n| (words(n.into()), 3 * n + 1)).collect();
        let fold = |order: &[usize]| {
            let mut tally = Tally::new(&layout, Profile::Plain, 2);
            for &i in order {
                tally.add(&layout, &updates[i].0, updates[i].1).unwrap();
            }
            tally
        };
        assert_eq!(fold(&[0, 1, 2, 3, 4]), fold(&[3, 0, 4, 2, 1]));
    }

    #[test]
    fn the_mean_is_weighted() {
        let layout = layout();
        let mut tally = Tally::new(&layout, Profile::Plain, 0);
        for (q, weight) in [(10, 1), (-20, 3)] {
            tally.add(&layout, &Profile::Plain.pack(&[q; 14]).repeat(4), weight).unwrap();
        }
        assert_eq!(tally.sum(7), 10 - 60);
        assert_eq!(tally.mean(7), -12.5);
        assert_eq!(tally.peaks(), [[20, 20]]);
    }

    #[test]
    fn a_refused_update_leaves_no_trace() {
        let layout = layout();
        let mut tally = Tally::new(&layout, Profile::Plain, 0);
        assert_eq!(tally.add(&layout, &words(1), 0), Err(TallyError::NoWeight));
        assert!(tally.add(&layout, &words(1)[..16], 1).is_err());
        tally.add(&layout, &words(1), 7).unwrap();
        tally.weight = WEIGHT_MAX;
        let before = tally.clone();
        assert_eq!(tally.add(&layout, &words(2), 1), Err(TallyError::Weight));
        assert_eq!(tally, before);
    }
}
