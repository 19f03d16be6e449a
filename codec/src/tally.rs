//! The exact weighted sum of many updates, in place: memory is one integer a slot, whatever the cohort.
//!
//! Integer addition commutes, so the sum does not depend on the order of arrival, the machine or the
//! number of threads. The tally knows neither workers nor scales; it only adds.

use std::ops::Range;

use thiserror::Error;

use crate::fold::{Batch, Fold, Update, batches};
use crate::layout::Layout;
use crate::pack::Padding;
use crate::quantize::EncodeError;
use crate::word::{Profile, Word};

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
    /// A share of more than the whole.
    #[error("an update of weight {weight} cannot be shrunk to {shrunk}")]
    Share {
        /// What it counts.
        weight: u32,
        /// What it is to be added as.
        shrunk: u32,
    },
}

/// Most that all weights of a round may come to: with lanes of at most 2¹⁵ no sum can leave an `i64`.
const WEIGHT_MAX: u64 = 1 << 48;

/// The running sum of one round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    profile: Profile,
    /// Blocks of each layer, counted over the whole layout.
    layers: Vec<Range<usize>>,
    padding: Padding,
    sums: Vec<i64>,
    weight: u64,
    peaks: Vec<[u32; 2]>,
}

impl Tally {
    /// An empty sum.
    #[must_use]
    pub fn new(layout: &Layout, profile: Profile) -> Self {
        Self { sums: vec![0; layout.blocks() * profile.width()], ..Self::empty(layout, profile) }
    }

    /// Without a place for sums.
    fn empty(layout: &Layout, profile: Profile) -> Self {
        let mut end = 0;
        let layers = layout.layers().iter().map(|layer| {
            let start = end;
            end += layer.blocks().len();
            start..end
        });
        Self {
            profile,
            layers: layers.collect(),
            padding: Padding::of(layout, profile),
            sums: Vec::new(),
            weight: 0,
            peaks: vec![[0; 2]; layout.layers().len()],
        }
    }

    /// A sum that came about elsewhere, of values that count `weight` together.
    pub(crate) fn of_sums(layout: &Layout, profile: Profile, sums: Vec<i64>, weight: u64) -> Self {
        debug_assert_eq!(sums.len(), layout.blocks() * profile.width(), "one sum a slot");
        Self { sums, weight, ..Self::empty(layout, profile) }
    }

    /// Adds `weight ×` the words; on an error the sum is as it was.
    ///
    /// # Errors
    /// If the words do not fit the layout or the weight is 0 or too large.
    pub fn add(&mut self, words: &[u8], weight: u32) -> Result<(), TallyError> {
        self.add_all(&[Update { words, weight }]).map_err(|(_, error)| error)
    }

    /// Adds `shrunk ×` the words, which count `weight` in the mean all the same: an update at the share
    /// `shrunk / weight` of its length. On an error the sum is as it was.
    ///
    /// # Errors
    /// As [`Tally::add`].
    pub fn add_shrunk(&mut self, words: &[u8], weight: u32, shrunk: u32) -> Result<(), TallyError> {
        let total = self.weight + u64::from(weight);
        if weight == 0 {
            return Err(TallyError::NoWeight);
        } else if shrunk > weight {
            return Err(TallyError::Share { weight, shrunk });
        } else if total > WEIGHT_MAX {
            return Err(TallyError::Weight);
        }
        let checked = [(self.check(words)?, shrunk)];
        for batch in batches(&checked) {
            self.fold(&batch);
        }
        self.weight = total;
        Ok(())
    }

    /// Adds many updates at once, which touches the sums less often; on an error the sum is as it was.
    ///
    /// # Errors
    /// As [`Tally::add`], with the index of the update that is at fault.
    pub fn add_all(&mut self, updates: &[Update<'_>]) -> Result<(), (usize, TallyError)> {
        let mut total = self.weight;
        let mut checked = Vec::with_capacity(updates.len());
        for (n, update) in updates.iter().enumerate() {
            checked.push((self.check(update.words).map_err(|error| (n, error))?, update.weight));
            if update.weight == 0 {
                return Err((n, TallyError::NoWeight));
            }
            total += u64::from(update.weight);
            if total > WEIGHT_MAX {
                return Err((n, TallyError::Weight));
            }
        }
        for batch in batches(&checked) {
            self.fold(&batch);
        }
        self.weight = total;
        Ok(())
    }

    fn fold(&mut self, batch: &Batch<'_>) {
        let (profile, width) = (self.profile, self.profile.width());
        for (layer, peaks) in self.layers.iter().zip(&mut self.peaks) {
            let (blocks, sums) = (layer.clone(), &mut self.sums[layer.start * width..layer.end * width]);
            let found = Fold { profile, batch, blocks, sums }.run();
            *peaks = [peaks[0].max(found[0]), peaks[1].max(found[1])];
        }
    }

    fn check<'a>(&self, words: &'a [u8]) -> Result<&'a [Word], TallyError> {
        let (chunks, rest) = words.as_chunks();
        let blocks = self.layers.last().map_or(0, |layer| layer.end);
        if chunks.len() != blocks || !rest.is_empty() {
            return Err(EncodeError::WordBytes { found: words.len(), blocks }.into());
        }
        self.padding.check(self.profile, chunks)?;
        Ok(chunks)
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
    use proptest::prelude::*;

    use super::*;
    use crate::layout::LayerSpec;
    use crate::quantize::decode_words;
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
            let mut tally = Tally::new(&layout, Profile::Plain);
            for &i in order {
                tally.add(&updates[i].0, updates[i].1).unwrap();
            }
            tally
        };
        assert_eq!(fold(&[0, 1, 2, 3, 4]), fold(&[3, 0, 4, 2, 1]));
    }

    #[test]
    fn the_mean_is_weighted() {
        let layout = layout();
        let mut tally = Tally::new(&layout, Profile::Plain);
        for (q, weight) in [(10, 1), (-20, 3)] {
            tally.add(&Profile::Plain.pack(&[q; 14]).repeat(4), weight).unwrap();
        }
        assert_eq!(tally.sum(7), 10 - 60);
        assert_eq!(tally.mean(7), -12.5);
        assert_eq!(tally.peaks(), [[20, 20]]);
    }

    #[test]
    fn a_shrunk_update_counts_whole_and_is_added_in_part() {
        let layout = layout();
        let mut tally = Tally::new(&layout, Profile::Plain);
        let of = |q| Profile::Plain.pack(&[q; 14]).repeat(4);
        tally.add_shrunk(&of(100), 1 << 16, 1 << 14).unwrap();
        tally.add_shrunk(&of(-7), 1 << 16, 1 << 16).unwrap();
        tally.add_shrunk(&of(127), 1 << 16, 0).unwrap();
        assert_eq!(tally.mean(3), (25.0 - 7.0) / 3.0);
        let before = tally.clone();
        assert_eq!(tally.add_shrunk(&of(1), 3, 4), Err(TallyError::Share { weight: 3, shrunk: 4 }));
        assert_eq!(tally.add_shrunk(&of(1), 0, 0), Err(TallyError::NoWeight));
        assert_eq!(tally, before);
    }

    #[test]
    fn a_refused_update_leaves_no_trace() {
        let layout = layout();
        let mut tally = Tally::new(&layout, Profile::Plain);
        assert_eq!(tally.add(&words(1), 0), Err(TallyError::NoWeight));
        assert!(tally.add(&words(1)[..16], 1).is_err());
        tally.add(&words(1), 7).unwrap();
        tally.weight = WEIGHT_MAX;
        let before = tally.clone();
        assert_eq!(tally.add(&words(2), 1), Err(TallyError::Weight));
        assert_eq!(tally, before);
    }

    /// The sum, lane by lane, from the definition.
    fn slowly(layout: &Layout, profile: Profile, updates: &[Update<'_>]) -> Vec<i64> {
        let mut sums = vec![0; layout.blocks() * profile.width()];
        for update in updates {
            let add = |slot: crate::window::Slot, q: i32| sums[slot.index] += i64::from(q) * i64::from(update.weight);
            decode_words(layout, profile, 0, update.words, add).unwrap();
        }
        sums
    }

    proptest! {
        #[test]
        fn the_sum_of_decoded_words_is_the_decoding_of_the_sum(
            seed: u64,
            weights in prop::collection::vec(prop_oneof![1..40u32, Just(1 << 24), Just(u32::MAX)], 1..80),
            edge in 1..40usize,
        ) {
            let spec = |name: &str, cols| LayerSpec { name: name.into(), rows: 8, cols, block: 8, residual: 30, gain_exponent: 4 };
            let layout = Layout::new(&Seed::from_number(1), vec![spec("a", 8 * edge), spec("b", 48)]).unwrap();
            let mut stream = Seed::from_number(seed).stream();
            let words: Vec<Vec<u8>> = weights
                .iter()
                .map(|_| (0..layout.blocks() * WORD_BYTES).map(|_| stream.bits_32().to_le_bytes()[0]).collect())
                .collect();
            let updates: Vec<_> = words.iter().zip(&weights).map(|(words, &weight)| Update { words, weight }).collect();
            for profile in [Profile::Plain, Profile::Nibble] {
                let (mut at_once, mut one_by_one) = (Tally::new(&layout, profile), Tally::new(&layout, profile));
                at_once.add_all(&updates).unwrap();
                updates.iter().for_each(|update| one_by_one.add(update.words, update.weight).unwrap());
                prop_assert_eq!(&at_once, &one_by_one);
                prop_assert_eq!(&at_once.sums, &slowly(&layout, profile, &updates));
            }
        }

        #[test]
        fn peaks_are_the_largest_magnitudes(seed: u64) {
            let layout = layout();
            for profile in [Profile::Plain, Profile::Nibble] {
                let bytes = if profile == Profile::Plain { words(seed) } else { vec![0x97; 64] };
                let spec = LayerSpec { name: "w".into(), rows: 16, cols: 16, block: 8, residual: 30, gain_exponent: 4 };
                let layout = if profile == Profile::Plain { layout.clone() } else { Layout::new(&Seed::from_number(1), vec![spec]).unwrap() };
                let mut tally = Tally::new(&layout, profile);
                tally.add(&bytes, 3).unwrap();
                let mut expected = [0; 2];
                decode_words(&layout, profile, 0, &bytes, |slot, q| {
                    let peak = &mut expected[usize::from(!slot.wave)];
                    *peak = q.unsigned_abs().max(*peak);
                }).unwrap();
                prop_assert_eq!(tally.peaks(), &[expected]);
            }
        }
    }
}
