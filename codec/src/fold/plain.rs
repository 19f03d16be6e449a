//! Partial sums of plain words, and the extremes of their lanes.

use super::weigh::{DigitSums, Digits, PairSums, Pairs, Weigh, add_wide};
use super::{Sums, TILE, TILE_BYTES};
use crate::layout::WAVE_LANES;
use crate::word::{PLAIN_WIDTH, WORD_BYTES};

/// 16-bit pairs of a word.
const PAIRS: usize = WORD_BYTES / 2;
/// The flips of a word's pairs: the even bytes of the residual. Those of the wave are unsigned as they are.
const FLIPS: [i16; PAIRS] = [0, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80];

/// The sums of a tile's pairs, and of their odd bytes; aligned, or registers would straddle cache lines.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct PlainSums {
    pairs: DigitSums,
    odd: DigitSums,
}

/// Least and greatest bytes, and least and greatest pairs of first halves.
#[derive(Clone, Copy)]
pub(super) struct PlainPeaks {
    bytes: [[i8; TILE_BYTES]; 2],
    pairs: [Pairs; 2],
}

impl Sums<PLAIN_WIDTH> for PlainSums {
    type Peaks = PlainPeaks;
    const NO_PEAKS: PlainPeaks = PlainPeaks { bytes: [[0; TILE_BYTES]; 2], pairs: [[0; TILE_BYTES / 2]; 2] };

    #[inline(always)]
    fn add(
        self,
        by: impl Weigh,
        [a, b]: [[u8; TILE_BYTES]; 2],
        digits: &Digits,
        peaks: PlainPeaks,
    ) -> (Self, PlainPeaks) {
        let bytes = wider_bytes(wider_bytes(peaks.bytes, a), b);
        let [first, last] = by.interleaved([a, b]);
        let pairs = wider_pairs(peaks.pairs, first);
        let (first, last) = (flipped(first, FIRST_FLIPS), flipped(last, LAST_FLIPS));
        let ([pair_first, pair_last], [odd_first, odd_last]) = (self.pairs, self.odd);
        let sums = Self {
            pairs: [by.weigh(pair_first, first, digits), by.weigh(pair_last, last, digits)],
            odd: [by.weigh(odd_first, shifted::<8>(first), digits), by.weigh(odd_last, shifted::<8>(last), digits)],
        };
        (sums, PlainPeaks { bytes, pairs })
    }

    #[inline(always)]
    fn finish(&self, by: impl Weigh, weight: i32, shift: u32, sums: &mut [[i64; PLAIN_WIDTH]]) {
        let ([pair_first, pair_last], [odd_first, odd_last]) = (self.pairs, self.odd);
        let even_first = without(lower::<8>(pair_first, odd_first), &FIRST_FLIPS, weight);
        let even_last = without(lower::<8>(pair_last, odd_last), &LAST_FLIPS, weight);
        let [wave, first] = by.woven(even_first, odd_first);
        let [middle, last] = by.woven(even_last, odd_last);
        for (word, sums) in sums.iter_mut().enumerate() {
            let (of_wave, rest) = sums.split_at_mut(WAVE_LANES);
            let [x_low, x_high, y_low, y_high] = std::array::from_fn(|n| i64::from(wave[word * PAIRS / 2 + n]));
            of_wave[0] += (256 * x_high + x_low) << shift;
            of_wave[1] += (256 * y_high + y_low) << shift;
            add_wide(rest, &first, word, shift);
            add_wide(&mut rest[4..], &middle, word, shift);
            add_wide(&mut rest[8..], &last, word, shift);
        }
    }

    fn largest(peaks: &PlainPeaks) -> [u32; 2] {
        // Pairs of two tiles in turn, those of a wave before two more.
        let waves = peaks.pairs.iter().flat_map(|pairs| pairs.as_chunks::<PAIRS>().0);
        let wave = waves.flat_map(|word| &word[..2 * WAVE_LANES]).map(|q| q.unsigned_abs()).max();
        let words = peaks.bytes.iter().flat_map(|bytes| bytes.as_chunks::<WORD_BYTES>().0);
        let residual = words.flat_map(|word| &word[2 * WAVE_LANES..]).map(|q| q.unsigned_abs()).max();
        [wave.map_or(0, u32::from), residual.map_or(0, u32::from)]
    }
}

const FIRST_FLIPS: Pairs = flips(&FLIPS, 0);
const LAST_FLIPS: Pairs = flips(&FLIPS, PAIRS / 2);

/// The flips of one half of every word of two tiles, in turn.
pub(super) const fn flips(word: &[i16; PAIRS], first: usize) -> Pairs {
    let mut flips = [0; TILE_BYTES / 2];
    let mut n = 0;
    while n < flips.len() {
        flips[n] = word[first + n / 2 % (PAIRS / 2)];
        n += 1;
    }
    flips
}

/// Sums of a digit without what its flips have added: the flip's bit, once for each of the weights.
#[inline(always)]
pub(super) fn without(mut sums: PairSums, flips: &Pairs, weight: i32) -> PairSums {
    for (sum, &[flip, _]) in sums.iter_mut().zip(flips.as_chunks().0) {
        *sum -= i32::from(flip) * weight;
    }
    sums
}

/// What the digit below comes to: the sums of pairs, less those of the pairs shifted right.
#[inline(always)]
pub(super) fn lower<const BITS: u32>(mut sums: PairSums, higher: PairSums) -> PairSums {
    for (sum, higher) in sums.iter_mut().zip(higher) {
        *sum = sum.wrapping_sub(higher << BITS);
    }
    sums
}

/// Pairs with bits flipped.
#[inline(always)]
pub(super) fn flipped(mut pairs: Pairs, flips: Pairs) -> Pairs {
    for (pair, flip) in pairs.iter_mut().zip(flips) {
        *pair ^= flip;
    }
    pairs
}

/// Pairs without their last bits.
#[inline(always)]
pub(super) fn shifted<const BITS: u32>(mut pairs: Pairs) -> Pairs {
    for pair in &mut pairs {
        *pair >>= BITS;
    }
    pairs
}

/// Least and greatest so far, with one tile more. By value: what is reached through a reference stays in memory.
#[inline(always)]
pub(super) fn wider_bytes(
    [mut least, mut greatest]: [[i8; TILE_BYTES]; 2],
    tile: [u8; TILE_BYTES],
) -> [[i8; TILE_BYTES]; 2] {
    for ((least, greatest), byte) in least.iter_mut().zip(&mut greatest).zip(tile) {
        *least = (*least).min(byte.cast_signed());
        *greatest = (*greatest).max(byte.cast_signed());
    }
    [least, greatest]
}

/// The same of pairs.
#[inline(always)]
fn wider_pairs([mut least, mut greatest]: [Pairs; 2], pairs: Pairs) -> [Pairs; 2] {
    for ((least, greatest), pair) in least.iter_mut().zip(&mut greatest).zip(pairs) {
        *least = (*least).min(pair);
        *greatest = (*greatest).max(pair);
    }
    [least, greatest]
}

const _: () = assert!(TILE * PAIRS * 2 == TILE_BYTES);
