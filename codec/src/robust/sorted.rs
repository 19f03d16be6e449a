//! Every lane's values in order, the ends cut off, the rest summed: the kernel of median and trimmed mean.
//!
//! A sorting network runs over rows of lanes at once, one row an update, so that an exchange is a minimum and a
//! maximum of whole registers and no branch depends on a value.

use super::distance::low_half;
use super::network::{Exchange, middle};
use crate::word::{NIBBLE_WIDTH, Nibble, PLAIN_WIDTH, Packing, Plain, Profile, WORD_BYTES, Word};

/// Words of a row: their lanes fill whole registers in either profile.
const ROW: usize = 16;

/// Sums of the middle values of every lane.
pub(super) struct Trimmed<'a> {
    profile: Profile,
    shares: Option<&'a [u32]>,
    exchanges: Vec<Exchange>,
    updates: usize,
    trim: usize,
}

impl<'a> Trimmed<'a> {
    /// Of so many updates without their `trim` smallest and largest, each shrunk to its share.
    pub(super) fn new(updates: usize, trim: usize, profile: Profile, shares: Option<&'a [u32]>) -> Self {
        Self { profile, shares, exchanges: middle(updates, trim), updates, trim }
    }

    /// The sums of a tile: the words of as many blocks as there are sums, update by update.
    pub(super) fn sum(&self, words: &[Word], sums: &mut [i64]) {
        pulp::Arch::new().dispatch(Tile { trimmed: self, words, sums });
    }
}

/// One tile; compiled for every instruction set.
struct Tile<'a> {
    trimmed: &'a Trimmed<'a>,
    words: &'a [Word],
    sums: &'a mut [i64],
}

impl pulp::WithSimd for Tile<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: pulp::Simd>(self, _: V) {
        match self.trimmed.profile {
            Profile::Plain => self.by_share::<Plain, PLAIN_WIDTH>(),
            Profile::Nibble => self.by_share::<Nibble, NIBBLE_WIDTH>(),
        }
    }
}

impl Tile<'_> {
    /// Whole lanes fit 16 bits; a lane times its share fits 32, as `−2¹⁵·2¹⁶` does just so.
    #[inline(always)]
    fn by_share<P: Packing<W>, const W: usize>(self) {
        match self.trimmed.shares {
            None => self.rows::<P, W, i16>(|_, lane| low_half(lane)),
            Some(shares) => {
                self.rows::<P, W, i32>(|update, lane| lane.wrapping_mul(shares[update].cast_signed()));
            }
        }
    }

    #[inline(always)]
    fn rows<P: Packing<W>, const W: usize, T: Copy + Ord + Default + Into<i64>>(
        self,
        value: impl Fn(usize, i32) -> T + Copy,
    ) {
        let Trimmed { updates, trim, .. } = *self.trimmed;
        let blocks = self.words.len() / updates;
        let mut rows = vec![[[T::default(); W]; ROW]; updates];
        for (first, sums) in (0..blocks).step_by(ROW).zip(self.sums.chunks_mut(ROW * W)) {
            for (update, row) in rows.iter_mut().enumerate() {
                let words = &self.words[update * blocks..][first..blocks.min(first + ROW)];
                fill::<P, W, T>(row, words, |lane| value(update, lane));
            }
            for &(low, high) in &self.trimmed.exchanges {
                let (below, above) = rows.split_at_mut(high);
                exchange(below[low].as_flattened_mut(), above[0].as_flattened_mut());
            }
            for row in &rows[trim..updates - trim] {
                for (sum, &lane) in sums.iter_mut().zip(row.as_flattened()) {
                    *sum += lane.into();
                }
            }
        }
    }
}

/// Unpacks a row; what is missing at its end is zero.
#[inline(always)]
fn fill<P: Packing<W>, const W: usize, T: Copy>(row: &mut [[T; W]; ROW], words: &[Word], value: impl Fn(i32) -> T) {
    let mut all = [[0; WORD_BYTES]; ROW];
    all[..words.len()].copy_from_slice(words);
    for (lanes, word) in row.iter_mut().zip(&all) {
        *lanes = P::unpack(word).map(&value);
    }
}

/// The smaller of every two values to the first row.
#[inline(always)]
fn exchange<T: Copy + Ord>(low: &mut [T], high: &mut [T]) {
    for (low, high) in low.iter_mut().zip(high) {
        (*low, *high) = ((*low).min(*high), (*low).max(*high));
    }
}
