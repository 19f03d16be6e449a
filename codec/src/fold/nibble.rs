//! Partial sums of nibble words, and the extremes of their lanes.

use super::plain::{flipped, flips, lower, shifted, wider_bytes};
use super::weigh::{DigitSums, Digits, PairSums, Pairs, Weigh, add_wide};
use super::{Sums, TILE_BYTES};
use crate::layout::WAVE_LANES;
use crate::word::{NIBBLE_WIDTH, WORD_BYTES};

/// 16-bit pairs of a word; the first is the wave.
const PAIRS: usize = WORD_BYTES / 2;
/// What a flip adds to a half of a byte, and to the wave's even byte.
const FLIPPED: u8 = 8;
const FLIPPED_WAVE: i32 = 1 << 7;
/// The flips of a word's pairs: every half of a byte but the highest; of the wave, its even byte.
const FLIPS: [i16; PAIRS] = [0x80, 0x888, 0x888, 0x888, 0x888, 0x888, 0x888, 0x888];

/// The sums of a tile's pairs, shifted right by 0, 4, 8 and 12 bits; aligned like a cache line.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct NibbleSums([DigitSums; 4]);

/// Least and greatest bytes, and least and greatest flipped low halves of bytes of two tiles, in turn.
#[derive(Clone, Copy)]
pub(super) struct NibblePeaks {
    bytes: [[i8; TILE_BYTES]; 2],
    low: [[[u8; TILE_BYTES]; 2]; 2],
}

impl Sums<NIBBLE_WIDTH> for NibbleSums {
    type Peaks = NibblePeaks;
    const NO_PEAKS: NibblePeaks = NibblePeaks { bytes: [[0; TILE_BYTES]; 2], low: [[[FLIPPED; TILE_BYTES]; 2]; 2] };

    #[inline(always)]
    fn add(
        self,
        by: impl Weigh,
        [a, b]: [[u8; TILE_BYTES]; 2],
        digits: &Digits,
        peaks: NibblePeaks,
    ) -> (Self, NibblePeaks) {
        let bytes = wider_bytes(wider_bytes(peaks.bytes, a), b);
        let [first, last] = by.interleaved([a, b]);
        let (first, last) = (flipped(first, FIRST_FLIPS), flipped(last, LAST_FLIPS));
        let [low_first, low_last] = peaks.low;
        let low = [wider_low(low_first, first), wider_low(low_last, last)];
        let [[s0, t0], [s1, t1], [s2, t2], [s3, t3]] = self.0;
        let sums = Self([
            [by.weigh(s0, first, digits), by.weigh(t0, last, digits)],
            [by.weigh(s1, shifted::<4>(first), digits), by.weigh(t1, shifted::<4>(last), digits)],
            [by.weigh(s2, shifted::<8>(first), digits), by.weigh(t2, shifted::<8>(last), digits)],
            [by.weigh(s3, shifted::<12>(first), digits), by.weigh(t3, shifted::<12>(last), digits)],
        ]);
        (sums, NibblePeaks { bytes, low })
    }

    #[inline(always)]
    fn finish(&self, by: impl Weigh, weight: i32, shift: u32, sums: &mut [[i64; NIBBLE_WIDTH]]) {
        let [[s0, t0], [s1, t1], [s2, t2], [s3, t3]] = self.0;
        let even = lower::<8>(s0, s2);
        // Of the first pair, which is the wave, there are no lanes of four bits.
        let [_, pairs_1, pairs_2, pairs_3] = lanes(by, [s0, s1, s2, s3], weight);
        let [pairs_4, pairs_5, pairs_6, pairs_7] = lanes(by, [t0, t1, t2, t3], weight);
        let residual = [pairs_1, pairs_2, pairs_3, pairs_4, pairs_5, pairs_6, pairs_7];
        for (word, sums) in sums.iter_mut().enumerate() {
            let (of_wave, rest) = sums.split_at_mut(WAVE_LANES);
            let at = word * PAIRS / 2;
            of_wave[0] += i64::from(even[at] - FLIPPED_WAVE * weight) << shift;
            of_wave[1] += i64::from(s2[at]) << shift;
            for (n, lanes) in residual.iter().enumerate() {
                add_wide(&mut rest[4 * n..], lanes, word, shift);
            }
        }
    }

    fn largest(NibblePeaks { bytes, low }: &NibblePeaks) -> [u32; 2] {
        let words = || bytes.iter().flat_map(|tile| tile.as_chunks::<WORD_BYTES>().0);
        let wave = words().flat_map(|word| &word[..WAVE_LANES]).map(|q| q.unsigned_abs()).max();
        let high = words().flat_map(|word| &word[WAVE_LANES..]).map(|q| (q >> 4).unsigned_abs()).max();
        // The low halves of the wave's bytes, which are no lanes, begin the first halves of words.
        let [first, last] = low;
        let first = first.iter().flat_map(|tile| tile.as_chunks::<WORD_BYTES>().0).flat_map(|word| &word[4..]);
        let low = first.chain(last.as_flattened()).map(|half| half.abs_diff(FLIPPED)).max();
        [wave.map_or(0, u32::from), u32::from(high.max(low).unwrap_or(0))]
    }
}

const FIRST_FLIPS: Pairs = flips(&FLIPS, 0);
const LAST_FLIPS: Pairs = flips(&FLIPS, PAIRS / 2);

/// The four lanes of every pair of one half of the words, pair by pair.
#[inline(always)]
fn lanes(by: impl Weigh, [s0, s1, s2, s3]: [PairSums; 4], weight: i32) -> [PairSums; 4] {
    let unflipped = |mut sums: PairSums| {
        for sum in &mut sums {
            *sum = sum.wrapping_sub(i32::from(FLIPPED) * weight);
        }
        sums
    };
    let (d0, d1) = (unflipped(lower::<4>(s0, s1)), unflipped(lower::<4>(s1, s2)));
    let ([low_first, low_last], [high_first, high_last]) =
        (by.woven(d0, d1), by.woven(unflipped(lower::<4>(s2, s3)), s3));
    let ([a, b], [c, d]) = (by.woven_by_twos(low_first, high_first), by.woven_by_twos(low_last, high_last));
    [a, b, c, d]
}

/// Least and greatest low halves so far, with more bytes'.
#[inline(always)]
fn wider_low([mut least, mut greatest]: [[u8; TILE_BYTES]; 2], pairs: Pairs) -> [[u8; TILE_BYTES]; 2] {
    let bytes: [u8; TILE_BYTES] = pulp::cast(pairs);
    for ((least, greatest), byte) in least.iter_mut().zip(&mut greatest).zip(bytes) {
        *least = (*least).min(byte & 0xf);
        *greatest = (*greatest).max(byte & 0xf);
    }
    [least, greatest]
}
