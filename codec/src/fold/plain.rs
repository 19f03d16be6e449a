//! Partial sums of plain words, and the extremes of their lanes.

use super::weigh::{ByteSums, Digits, Weigh, of_word};
use super::{Sums, TILE, TILE_BYTES};
use crate::layout::WAVE_LANES;
use crate::word::{PLAIN_WIDTH, WORD_BYTES};

/// Bytes that are unsigned digits.
const FLIPS: [u8; TILE_BYTES] = {
    let mut flips = [0; TILE_BYTES];
    let mut word = 0;
    while word < TILE {
        flips[word * WORD_BYTES] = 0x80;
        flips[word * WORD_BYTES + 2] = 0x80;
        word += 1;
    }
    flips
};

/// A sum for every byte of a tile; aligned, or registers would straddle cache lines.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct PlainSums(ByteSums);

/// Least and greatest bytes, and least and greatest pairs of bytes.
#[derive(Clone, Copy)]
pub(super) struct PlainPeaks {
    bytes: [[i8; TILE_BYTES]; 2],
    pairs: [[i16; TILE_BYTES / 2]; 2],
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
        let PlainPeaks { bytes, pairs } = peaks;
        let bytes = wider_bytes(wider_bytes(bytes, a), b);
        let pairs = wider_pairs(wider_pairs(pairs, a), b);
        (Self(by.weigh(self.0, [flipped(a), flipped(b)], digits)), PlainPeaks { bytes, pairs })
    }

    #[inline(always)]
    fn finish(&self, weight: i64, shift: u32, sums: &mut [[i64; PLAIN_WIDTH]]) {
        for (word, sums) in sums.iter_mut().enumerate() {
            *sums = finished(of_word(&self.0, word), weight, shift, *sums);
        }
    }

    fn largest(peaks: &PlainPeaks) -> [u32; 2] {
        let waves = peaks.pairs.iter().flat_map(|pairs| pairs.as_chunks::<{ WORD_BYTES / 2 }>().0);
        let wave = waves.flat_map(|word| &word[..WAVE_LANES]).map(|q| q.unsigned_abs()).max();
        let words = peaks.bytes.iter().flat_map(|bytes| bytes.as_chunks::<WORD_BYTES>().0);
        let residual = words.flat_map(|word| &word[2 * WAVE_LANES..]).map(|q| q.unsigned_abs()).max();
        [wave.map_or(0, u32::from), residual.map_or(0, u32::from)]
    }
}

/// A word's sums by lane. By value: through references it is not vectorised.
#[inline(always)]
fn finished(digits: [i32; WORD_BYTES], weight: i64, shift: u32, sums: [i64; PLAIN_WIDTH]) -> [i64; PLAIN_WIDTH] {
    let [x_low, x_high, y_low, y_high, ..] = digits.map(i64::from);
    let (mut out, rest) = (sums, digits.last_chunk::<{ PLAIN_WIDTH - WAVE_LANES }>().expect("bytes of the residual"));
    for (sum, digit) in out[WAVE_LANES..].iter_mut().zip(*rest) {
        *sum += i64::from(digit) << shift;
    }
    out[0] += (256 * x_high + x_low + 128 * weight) << shift;
    out[1] += (256 * y_high + y_low + 128 * weight) << shift;
    out
}

/// A tile whose every byte is a signed digit.
#[inline(always)]
fn flipped(mut tile: [u8; TILE_BYTES]) -> [u8; TILE_BYTES] {
    for (byte, flip) in tile.iter_mut().zip(FLIPS) {
        *byte ^= flip;
    }
    tile
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

/// The same of its pairs of bytes.
#[inline(always)]
fn wider_pairs(
    [mut least, mut greatest]: [[i16; TILE_BYTES / 2]; 2],
    tile: [u8; TILE_BYTES],
) -> [[i16; TILE_BYTES / 2]; 2] {
    for ((least, greatest), &pair) in least.iter_mut().zip(&mut greatest).zip(tile.as_chunks().0) {
        let pair = i16::from_le_bytes(pair);
        *least = (*least).min(pair);
        *greatest = (*greatest).max(pair);
    }
    [least, greatest]
}
