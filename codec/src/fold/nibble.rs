//! Partial sums of nibble words, and the extremes of their lanes.

use super::plain::wider_bytes;
use super::weigh::{ByteSums, Digits, Weigh, of_word};
use super::{Sums, TILE, TILE_BYTES};
use crate::layout::WAVE_LANES;
use crate::word::{NIBBLE_WIDTH, WORD_BYTES};

/// Flips that make the signed halves of a tile's bytes unsigned, 8 more than they are; the low half of a wave's byte
/// is unsigned as it stands.
const FLIPS: [u8; TILE_BYTES] = {
    let mut flips = [0x88; TILE_BYTES];
    let mut word = 0;
    while word < TILE {
        flips[word * WORD_BYTES] = 0x80;
        flips[word * WORD_BYTES + 1] = 0x80;
        word += 1;
    }
    flips
};
/// What a flip adds.
const FLIPPED: u8 = 8;

/// A sum for every low and every high half of a tile's bytes; aligned like a cache line.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct NibbleSums {
    low: ByteSums,
    high: ByteSums,
}

/// Least and greatest bytes, and least and greatest flipped halves.
#[derive(Clone, Copy)]
pub(super) struct NibblePeaks {
    bytes: [[i8; TILE_BYTES]; 2],
    halves: [[u8; TILE_BYTES]; 2],
}

impl Sums<NIBBLE_WIDTH> for NibbleSums {
    type Peaks = NibblePeaks;
    const NO_PEAKS: NibblePeaks = NibblePeaks { bytes: [[0; TILE_BYTES]; 2], halves: [[FLIPPED; TILE_BYTES]; 2] };

    #[inline(always)]
    fn add(
        self,
        by: impl Weigh,
        [a, b]: [[u8; TILE_BYTES]; 2],
        digits: &Digits,
        peaks: NibblePeaks,
    ) -> (Self, NibblePeaks) {
        let NibblePeaks { bytes, halves } = peaks;
        let ([low_a, high_a], [low_b, high_b]) = (by.halves(a, FLIPS), by.halves(b, FLIPS));
        let low = by.weigh(self.low, [low_a, low_b], digits);
        let high = by.weigh(self.high, [high_a, high_b], digits);
        let halves = wider_halves(wider_halves(halves, low_a, high_a), low_b, high_b);
        (Self { low, high }, NibblePeaks { bytes: wider_bytes(wider_bytes(bytes, a), b), halves })
    }

    #[inline(always)]
    fn finish(&self, weight: i64, shift: u32, sums: &mut [[i64; NIBBLE_WIDTH]]) {
        for (word, sums) in sums.iter_mut().enumerate() {
            *sums = finished(of_word(&self.low, word), of_word(&self.high, word), weight, shift, *sums);
        }
    }

    fn largest(NibblePeaks { bytes, halves }: &NibblePeaks) -> [u32; 2] {
        let waves = bytes.iter().flat_map(|tile| tile.as_chunks::<WORD_BYTES>().0);
        let wave = waves.flat_map(|word| &word[..WAVE_LANES]).map(|q| q.unsigned_abs()).max();
        let words = halves.iter().flat_map(|tile| tile.as_chunks::<WORD_BYTES>().0);
        let residual = words.flat_map(|word| &word[WAVE_LANES..]).map(|half| half.abs_diff(FLIPPED)).max();
        [wave.map_or(0, u32::from), residual.map_or(0, u32::from)]
    }
}

/// A word's sums by lane. By value: through references it is not vectorised.
#[inline(always)]
fn finished(
    low: [i32; WORD_BYTES],
    high: [i32; WORD_BYTES],
    weight: i64,
    shift: u32,
    sums: [i64; NIBBLE_WIDTH],
) -> [i64; NIBBLE_WIDTH] {
    let (mut out, flipped) = (sums, i64::from(FLIPPED) * weight);
    for lane in 0..WAVE_LANES {
        out[lane] += (16 * (i64::from(high[lane]) - flipped) + i64::from(low[lane])) << shift;
    }
    for byte in WAVE_LANES..WORD_BYTES {
        out[2 * byte - WAVE_LANES] += (i64::from(low[byte]) - flipped) << shift;
        out[2 * byte - WAVE_LANES + 1] += (i64::from(high[byte]) - flipped) << shift;
    }
    out
}

/// Least and greatest halves so far, with one tile's more.
#[inline(always)]
fn wider_halves(
    [mut least, mut greatest]: [[u8; TILE_BYTES]; 2],
    low: [u8; TILE_BYTES],
    high: [u8; TILE_BYTES],
) -> [[u8; TILE_BYTES]; 2] {
    for (((least, greatest), low), high) in least.iter_mut().zip(&mut greatest).zip(low).zip(high) {
        *least = (*least).min(low.min(high));
        *greatest = (*greatest).max(low.max(high));
    }
    [least, greatest]
}
