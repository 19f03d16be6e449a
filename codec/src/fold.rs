//! Many updates' words into one integer sum: the kernel behind [`Tally`](crate::Tally).
//!
//! A tile of four words, one cache line, is read from every update of a batch and summed in registers,
//! so that the wide sums are touched once a batch rather than once an update. Words are summed byte by byte:
//!
//! ```text
//!  plain   x = 256·high + low        low bytes unsigned, the others signed
//!  nibble  every byte is 16·high + low; of a wave's byte low is unsigned, of the others both are signed
//! ```
//!
//! A byte is flipped where it makes unsigned digits signed, and the sum of weights takes that back. Partial
//! sums are `i32`: a batch ends before its weights could carry one over. It knows no layers but where they end.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::layout::WAVE_LANES;
use crate::word::{NIBBLE_WIDTH, PLAIN_WIDTH, Profile, WORD_BYTES, Word};

/// One update's words, 16 bytes a block, and what it counts for.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// The words.
    pub words: &'a [u8],
    /// Its weight, at least 1.
    pub weight: u32,
}

/// Words of a tile.
const TILE: usize = 4;
/// Updates that are summed before the sums are written back.
const BATCH: usize = 64;
/// Most that the weights of a batch may come to: `2⁷·2²⁴ ≤ 2³¹`.
const BATCH_WEIGHT: u64 = (1 << 24) - 1;

/// The words of one update, and a weight that fits a batch.
type Part<'a> = (&'a [Word], i32);

/// Cuts updates into batches. A weight too large for any batch is split: `w = Σ parts`.
pub(crate) fn batches<'a>(updates: &[(&'a [Word], u32)]) -> Vec<Vec<Part<'a>>> {
    let mut batches: Vec<Vec<Part<'a>>> = Vec::new();
    let mut total = BATCH_WEIGHT;
    for &(words, weight) in updates {
        let mut left = u64::from(weight);
        while left > 0 {
            let part = left.min(BATCH_WEIGHT);
            left -= part;
            let whole = i32::try_from(part).expect("a part is below 2^24");
            match batches.last_mut() {
                Some(batch) if total + part <= BATCH_WEIGHT && batch.len() < BATCH => batch.push((words, whole)),
                _ => {
                    total = 0;
                    batches.push(vec![(words, whole)]);
                }
            }
            total += part;
        }
    }
    batches
}

/// Adds a batch's words of some blocks to their sums; compiled for every instruction set.
pub(crate) struct Fold<'a> {
    pub(crate) profile: Profile,
    pub(crate) batch: &'a [Part<'a>],
    pub(crate) blocks: Range<usize>,
    /// Sums of these blocks, `width` a block.
    pub(crate) sums: &'a mut [i64],
}

impl WithSimd for Fold<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) {
        let Self { profile, batch, blocks, sums } = self;
        let weight = batch.iter().map(|&(_, weight)| i64::from(weight)).sum();
        match profile {
            Profile::Plain => {
                let mut sums = sums.as_chunks_mut::<PLAIN_WIDTH>().0.iter_mut();
                for first in blocks.clone().step_by(TILE) {
                    let digits = add_tile(batch, first, blocks.end);
                    for (digits, sums) in digits.iter().zip(&mut sums) {
                        add_plain(digits, weight, sums);
                    }
                }
            }
            Profile::Nibble => {
                let mut sums = sums.as_chunks_mut::<NIBBLE_WIDTH>().0.iter_mut();
                for first in blocks.clone().step_by(TILE) {
                    let (high, low) = add_nibbles(batch, first, blocks.end);
                    for ((high, low), sums) in high.iter().zip(&low).zip(&mut sums) {
                        add_nibble(high, low, weight, sums);
                    }
                }
            }
        }
    }
}

/// Four words of one update; beyond the last they are zero.
#[inline(always)]
fn tile(words: &[Word], first: usize, end: usize) -> [Word; TILE] {
    if let Some(tile) = words[first..end].first_chunk() {
        return *tile;
    }
    let mut tile = [[0; WORD_BYTES]; TILE];
    tile[..end - first].copy_from_slice(&words[first..end]);
    tile
}

/// Bytes of a plain word that are unsigned digits.
const PLAIN_FLIP: [u8; WORD_BYTES] = [0x80, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The weighted sums of a tile's bytes.
#[inline(always)]
fn add_tile(batch: &[Part<'_>], first: usize, end: usize) -> [[i32; WORD_BYTES]; TILE] {
    let [mut a, mut b, mut c, mut d] = [[0i32; WORD_BYTES]; TILE];
    for &(words, weight) in batch {
        let [wa, wb, wc, wd] = tile(words, first, end);
        add_bytes(&mut a, &wa, weight);
        add_bytes(&mut b, &wb, weight);
        add_bytes(&mut c, &wc, weight);
        add_bytes(&mut d, &wd, weight);
    }
    [a, b, c, d]
}

#[inline(always)]
fn add_bytes(sums: &mut [i32; WORD_BYTES], word: &Word, weight: i32) {
    for ((sum, &byte), &flip) in sums.iter_mut().zip(word).zip(&PLAIN_FLIP) {
        *sum += i32::from((byte ^ flip).cast_signed()) * weight;
    }
}

#[inline(always)]
fn add_plain(digits: &[i32; WORD_BYTES], weight: i64, sums: &mut [i64; PLAIN_WIDTH]) {
    for (lane, sum) in sums[..WAVE_LANES].iter_mut().enumerate() {
        *sum += 256 * i64::from(digits[2 * lane + 1]) + i64::from(digits[2 * lane]) + 128 * weight;
    }
    for (sum, &digit) in sums[WAVE_LANES..].iter_mut().zip(&digits[2 * WAVE_LANES..]) {
        *sum += i64::from(digit);
    }
}

/// Low halves of a nibble word's bytes that are signed.
const NIBBLE_FLIP: [u8; WORD_BYTES] = [0, 0, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8];

/// The weighted sums of a tile's high and low halves of bytes.
#[inline(always)]
fn add_nibbles(batch: &[Part<'_>], first: usize, end: usize) -> ([[i32; WORD_BYTES]; TILE], [[i32; WORD_BYTES]; TILE]) {
    let (mut high, mut low) = ([[0i32; WORD_BYTES]; TILE], [[0i32; WORD_BYTES]; TILE]);
    for &(words, weight) in batch {
        let words = tile(words, first, end);
        for ((high, low), word) in high.iter_mut().zip(&mut low).zip(&words) {
            let (mut now_high, mut now_low) = (*high, *low);
            for (((high, low), &byte), &flip) in now_high.iter_mut().zip(&mut now_low).zip(word).zip(&NIBBLE_FLIP) {
                *high += i32::from(byte.cast_signed() >> 4) * weight;
                *low += i32::from((byte ^ flip) & 0xf) * weight;
            }
            (*high, *low) = (now_high, now_low);
        }
    }
    (high, low)
}

#[inline(always)]
fn add_nibble(high: &[i32; WORD_BYTES], low: &[i32; WORD_BYTES], weight: i64, sums: &mut [i64; NIBBLE_WIDTH]) {
    for (lane, sum) in sums[..WAVE_LANES].iter_mut().enumerate() {
        *sum += 16 * i64::from(high[lane]) + i64::from(low[lane]);
    }
    let halves = high[WAVE_LANES..].iter().zip(&low[WAVE_LANES..]);
    for (pair, (&high, &low)) in sums[WAVE_LANES..].as_chunks_mut::<2>().0.iter_mut().zip(halves) {
        pair[0] += i64::from(low) - 8 * weight;
        pair[1] += i64::from(high);
    }
}

/// Largest magnitudes of the wave's and of the residual's lanes among words; compiled for every instruction set.
pub(crate) struct Peaks<'a> {
    pub(crate) profile: Profile,
    pub(crate) words: &'a [Word],
}

impl WithSimd for Peaks<'_> {
    type Output = [u32; 2];

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) -> [u32; 2] {
        match self.profile {
            Profile::Plain => plain_peaks(self.words),
            Profile::Nibble => nibble_peaks(self.words),
        }
    }
}

/// Lanes of a tile's bytes, whose extremes are kept apart until the end.
const LINE: usize = TILE * WORD_BYTES;

#[inline(always)]
fn plain_peaks(words: &[Word]) -> [u32; 2] {
    let mut bytes = [0u8; LINE];
    let mut pairs = [0u16; LINE / 2];
    let lines = words.as_flattened().as_chunks::<LINE>();
    let mut last = [0; LINE];
    last[..lines.1.len()].copy_from_slice(lines.1);
    for line in lines.0.iter().chain([&last]) {
        for (peak, byte) in bytes.iter_mut().zip(line) {
            *peak = (*peak).max(byte.cast_signed().unsigned_abs());
        }
        for (peak, &pair) in pairs.iter_mut().zip(line.as_chunks::<2>().0) {
            *peak = (*peak).max(i16::from_le_bytes(pair).unsigned_abs());
        }
    }
    let wave = pairs.as_chunks::<{ WORD_BYTES / 2 }>().0.iter().flat_map(|word| &word[..WAVE_LANES]);
    let residual = bytes.as_chunks::<WORD_BYTES>().0.iter().flat_map(|word| &word[2 * WAVE_LANES..]);
    [wave.copied().max().map_or(0, u32::from), residual.copied().max().map_or(0, u32::from)]
}

#[inline(always)]
fn nibble_peaks(words: &[Word]) -> [u32; 2] {
    let (mut bytes, mut halves) = ([0u8; WORD_BYTES], [0u8; WORD_BYTES]);
    for word in words {
        for ((peak, half), &byte) in bytes.iter_mut().zip(&mut halves).zip(word) {
            *peak = (*peak).max(byte.cast_signed().unsigned_abs());
            let high = (byte.cast_signed() >> 4).unsigned_abs();
            let low = ((byte << 4).cast_signed() >> 4).unsigned_abs();
            *half = (*half).max(high).max(low);
        }
    }
    let peak = |bytes: &[u8]| bytes.iter().copied().max().map_or(0, u32::from);
    [peak(&bytes[..WAVE_LANES]), peak(&halves[WAVE_LANES..])]
}
