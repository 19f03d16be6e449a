//! Aggregation that bears updates which lie: rules over the words of a round, read a tile at a time.
//!
//! ```text
//!                      tile: the same blocks of every update
//!   WordSource ─► ┌ update 0 │ w w w … ┐
//!                 │ update 1 │ w w w … │ ─► sorted lane by lane, the ends cut off ─► Tally of what was kept
//!                 └ …        │ w w w … ┘ ─► distances of all pairs ─► who is kept ─► Tally of these
//! ```
//!
//! The basis is orthonormal, so the distance of two updates in lanes is the Frobenius distance of the matrices that
//! they stand for, and nothing is decoded to weights. Every value is an integer in units of a power of two: a rule's
//! result is exact, and the order of updates has no say in it but where a tie is broken, by their number. Updates
//! count the same, whatever number of examples they claim, because a claim is what a liar is free to choose.
//!
//! It knows no workers, phases or stores; what it holds of the updates is one tile, [`TILE_BYTES_MAX`] at most.

mod distance;
mod extent;
mod krum;
mod network;
mod sorted;

use thiserror::Error;

use crate::layout::Layout;
use crate::quantize::{EncodeError, Scales, check_scales};
use crate::tally::Tally;
use crate::word::{Profile, WORD_BYTES, Word};
pub use distance::Distances;
pub use extent::{Extent, WHOLE};
use sorted::Trimmed;

/// Most updates that a rule takes. It keeps a sum of squared distances within 128 bits: `2³⁰` lanes, differences below
/// `2¹⁶` at scales up to `2²⁸` quanta, and `2¹⁰` terms.
pub const UPDATES_MAX: usize = 1 << 10;
/// Most blocks that are read of one update at once: 64 KiB.
const TILE_BLOCKS_MAX: usize = 1 << 12;
/// Most bytes that a tile of all updates takes.
pub const TILE_BYTES_MAX: usize = 1 << 24;

/// Where the words of a round's updates are read from, again and again.
pub trait WordSource {
    /// Why words cannot be read.
    type Error;

    /// Number of updates; they are numbered from 0.
    fn updates(&self) -> usize;

    /// Fills `words` with those of an update, from block `first` on. A rule reads an update from its first block to
    /// its last, in order.
    ///
    /// # Errors
    /// If the words are not there.
    fn read(&mut self, update: usize, first: usize, words: &mut [Word]) -> Result<(), Self::Error>;
}

/// Why a rule has no result.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RobustError<E> {
    /// Words could not be read.
    #[error(transparent)]
    Source(E),
    /// The scales do not fit the layout.
    #[error(transparent)]
    Scales(EncodeError),
    /// Fewer updates than the rule needs, or more than it takes.
    #[error("{updates} updates, the rule takes {min} to {max}")]
    Updates {
        /// Updates of the source.
        updates: usize,
        /// Fewest that the rule takes.
        min: usize,
        /// Most that it takes.
        max: usize,
    },
    /// Not one share an update.
    #[error("{found} shares for {updates} updates")]
    Shares {
        /// Shares given.
        found: usize,
        /// Updates of the source.
        updates: usize,
    },
}

/// The rules over one layout's words.
#[derive(Clone, Copy, Debug)]
pub struct Robust<'a> {
    layout: &'a Layout,
    profile: Profile,
    shares: Option<&'a [u32]>,
}

impl<'a> Robust<'a> {
    /// Rules over whole updates.
    #[must_use]
    pub const fn new(layout: &'a Layout, profile: Profile) -> Self {
        Self { layout, profile, shares: None }
    }

    /// Rules over updates that are shrunk first, each to its share of [`WHOLE`]: see [`Extent::share`].
    ///
    /// # Panics
    /// If a share is above [`WHOLE`].
    #[must_use]
    pub fn shrunk(self, shares: &'a [u32]) -> Self {
        assert!(shares.iter().all(|&share| share <= WHOLE), "a share is at most {WHOLE}");
        let shares = shares.iter().any(|&share| share != WHOLE).then_some(shares);
        Self { shares, ..self }
    }

    /// The mean of every lane without its `trim` smallest and `trim` largest values (Yin et al., ICML 2018); with
    /// `trim` 0 the mean.
    ///
    /// # Errors
    /// If words cannot be read, or `trim` leaves nothing.
    pub fn trimmed_mean<S: WordSource>(&self, source: &mut S, trim: usize) -> Result<Tally, RobustError<S::Error>> {
        let min = trim.saturating_mul(2).saturating_add(1);
        let updates = self.check(source, min)?;
        let trimmed = Trimmed::new(updates, trim, self.profile, self.shares);
        let mut sums = vec![0; self.layout.blocks() * self.profile.width()];
        self.tiles(source, |first, blocks, words| {
            let width = self.profile.width();
            trimmed.sum(words, &mut sums[first * width..(first + blocks) * width]);
        })?;
        let of_one = if self.shares.is_some() { u64::from(WHOLE) } else { 1 };
        let kept = (updates - 2 * trim) as u64;
        Ok(Tally::of_sums(self.layout, self.profile, sums, kept * of_one))
    }

    /// The median of every lane; between two middle values their mean (Yin et al., ICML 2018).
    ///
    /// # Errors
    /// If words cannot be read, or there are none.
    pub fn median<S: WordSource>(&self, source: &mut S) -> Result<Tally, RobustError<S::Error>> {
        let trim = source.updates().saturating_sub(1) / 2;
        self.trimmed_mean(source, trim)
    }

    /// The mean of the `selected` updates that lie closest to their `n − malicious − 2` nearest others (multi-Krum;
    /// Blanchard et al., NeurIPS 2017), and their numbers, ascending. Distances are between updates as they came;
    /// shares apply to the mean.
    ///
    /// # Errors
    /// If words cannot be read, or there are not `2·malicious + 3` and `selected` updates.
    pub fn multi_krum<S: WordSource>(
        &self,
        source: &mut S,
        scales: &[Scales],
        malicious: usize,
        selected: usize,
    ) -> Result<(Tally, Vec<usize>), RobustError<S::Error>> {
        let min = malicious.saturating_mul(2).saturating_add(3);
        self.check(source, min.max(selected))?;
        let chosen = self.distances(source, scales)?.closest(malicious, selected);
        let shares: Option<Vec<u32>> = self.shares.map(|shares| chosen.iter().map(|&n| shares[n]).collect());
        let of_chosen = Robust { layout: self.layout, profile: self.profile, shares: shares.as_deref() };
        let tally = of_chosen.trimmed_mean(&mut Chosen { source, numbers: &chosen }, 0)?;
        Ok((tally, chosen))
    }

    /// Squared distances of all pairs of updates.
    ///
    /// # Errors
    /// If words cannot be read, there are none, or the scales do not fit the layout.
    pub fn distances<S: WordSource>(
        &self,
        source: &mut S,
        scales: &[Scales],
    ) -> Result<Distances, RobustError<S::Error>> {
        check_scales(self.layout, scales).map_err(RobustError::Scales)?;
        let updates = self.check(source, 1)?;
        let mut distances = Distances::new(updates);
        self.tiles(source, |first, blocks, words| {
            let mut end = 0;
            for (layer, &scales) in self.layout.layers().iter().zip(scales) {
                let start = end;
                end += layer.blocks().len();
                let (from, to) = (start.clamp(first, first + blocks), end.clamp(first, first + blocks));
                if from < to {
                    distances.add(self.profile, scales, words, blocks, from - first..to - first);
                }
            }
        })?;
        Ok(distances)
    }

    fn check<S: WordSource>(&self, source: &S, min: usize) -> Result<usize, RobustError<S::Error>> {
        let updates = source.updates();
        let min = min.max(1);
        if !(min..=UPDATES_MAX).contains(&updates) {
            return Err(RobustError::Updates { updates, min, max: UPDATES_MAX });
        }
        match self.shares {
            Some(shares) if shares.len() != updates => Err(RobustError::Shares { found: shares.len(), updates }),
            _ => Ok(updates),
        }
    }

    /// Reads tile after tile and hands it on: its first block, its blocks, and their words, update by update.
    fn tiles<S: WordSource>(
        &self,
        source: &mut S,
        mut take: impl FnMut(usize, usize, &[Word]),
    ) -> Result<(), RobustError<S::Error>> {
        let (updates, all) = (source.updates(), self.layout.blocks());
        let most = tile_blocks(updates).min(all);
        let mut words = vec![[0; WORD_BYTES]; updates * most];
        for first in (0..all).step_by(most) {
            let blocks = most.min(all - first);
            for (update, words) in words[..updates * blocks].chunks_exact_mut(blocks).enumerate() {
                source.read(update, first, words).map_err(RobustError::Source)?;
            }
            take(first, blocks, &words[..updates * blocks]);
        }
        Ok(())
    }
}

/// Blocks of a tile of so many updates.
const fn tile_blocks(updates: usize) -> usize {
    let share = TILE_BYTES_MAX / WORD_BYTES / updates;
    if share < TILE_BLOCKS_MAX { share } else { TILE_BLOCKS_MAX }
}

/// Some of a source's updates.
struct Chosen<'a, S> {
    source: &'a mut S,
    numbers: &'a [usize],
}

impl<S: WordSource> WordSource for Chosen<'_, S> {
    type Error = S::Error;

    fn updates(&self) -> usize {
        self.numbers.len()
    }

    fn read(&mut self, update: usize, first: usize, words: &mut [Word]) -> Result<(), S::Error> {
        self.source.read(self.numbers[update], first, words)
    }
}

/// Updates that are in memory, as words.
impl WordSource for &[Vec<Word>] {
    type Error = std::convert::Infallible;

    fn updates(&self) -> usize {
        self.len()
    }

    fn read(&mut self, update: usize, first: usize, words: &mut [Word]) -> Result<(), Self::Error> {
        words.copy_from_slice(&self[update][first..first + words.len()]);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
