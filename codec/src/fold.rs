//! Many updates' words into one integer sum: the kernel behind [`Tally`](crate::Tally).
//!
//! Four words at a time, one cache line, are read from four updates and summed in registers; the partial sums
//! of a stretch of lines stay in the cache until a batch of updates is through, so that the wide sums are touched
//! once a batch rather than once an update. Words are summed byte by byte:
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
    /// Largest magnitudes of the wave's and of the residual's lanes.
    type Output = [u32; 2];

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) -> [u32; 2] {
        match self.profile {
            Profile::Plain => self.fold::<PlainSums, PLAIN_WIDTH>(),
            Profile::Nibble => self.fold::<NibbleSums, NIBBLE_WIDTH>(),
        }
    }
}

impl Fold<'_> {
    #[inline(always)]
    fn fold<P: Sums<W>, const W: usize>(self) -> [u32; 2] {
        let weight = self.batch.iter().map(|&(_, weight)| i64::from(weight)).sum();
        let (mut sums, mut peaks) = (self.sums.as_chunks_mut::<W>().0, P::NO_PEAKS);
        let mut first = self.blocks.start;
        let mut stretch = [P::default(); STRETCH];
        while !sums.is_empty() {
            let now = sums.split_off_mut(..sums.len().min(STRETCH * TILE)).expect("no more than there are");
            let tiles = &mut stretch[..now.len().div_ceil(TILE)];
            tiles.fill(P::default());
            let blocks = first..first + now.len();
            let (fours, few) = self.batch.as_chunks::<4>();
            for four in fours {
                peaks = add_stretch(four.map(|(words, weight)| (&words[blocks.clone()], weight)), tiles, peaks);
            }
            for &(words, weight) in few {
                peaks = add_stretch([(&words[blocks.clone()], weight)], tiles, peaks);
            }
            for (tile, sums) in tiles.iter().zip(now.chunks_mut(TILE)) {
                tile.finish(weight, sums);
            }
            first = blocks.end;
        }
        P::largest(&peaks)
    }
}

/// Adds a few updates' words to a stretch of tiles. By value throughout: what is reached through a reference is
/// not kept in registers.
#[inline(always)]
fn add_stretch<P: Sums<W>, const W: usize, const N: usize>(
    parts: [Part<'_>; N],
    tiles: &mut [P],
    mut peaks: P::Peaks,
) -> P::Peaks {
    let whole = parts[0].0.len() / TILE;
    for (n, tile) in tiles[..whole].iter_mut().enumerate() {
        let mut now = *tile;
        for (words, weight) in parts {
            let line = words[n * TILE..].first_chunk().expect("a whole tile");
            (now, peaks) = now.add(line, weight, peaks);
        }
        *tile = now;
    }
    if let Some(tile) = tiles.get_mut(whole) {
        for (words, weight) in parts {
            let mut line = [[0; WORD_BYTES]; TILE];
            line[..words.len() - whole * TILE].copy_from_slice(&words[whole * TILE..]);
            (*tile, peaks) = tile.add(&line, weight, peaks);
        }
    }
    peaks
}

/// Tiles whose partial sums are kept before they are added to the wide ones: 16 KiB of plain ones.
const STRETCH: usize = 64;

/// The partial sums of one tile in one profile, and the extremes of its lanes so far.
trait Sums<const W: usize>: Default + Copy {
    /// Extremes, position by position of a tile.
    type Peaks: Copy;
    /// Of no word.
    const NO_PEAKS: Self::Peaks;
    /// Adds one update's tile.
    fn add(self, words: &[Word; TILE], weight: i32, peaks: Self::Peaks) -> (Self, Self::Peaks);
    /// Adds the partial sums to the wide ones, given the sum of weights.
    fn finish(&self, weight: i64, sums: &mut [[i64; W]]);
    /// The largest magnitudes, of the wave and of the residual.
    fn largest(peaks: &Self::Peaks) -> [u32; 2];
}

/// Bytes of a tile: one cache line.
const LINE: usize = TILE * WORD_BYTES;
/// Bytes of a plain word that are unsigned digits.
const PLAIN_FLIP: [u8; WORD_BYTES] = [0x80, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Low halves of four nibble words' bytes that are signed.
const NIBBLE_FLIPS: [u8; LINE] = {
    let mut flips = [8; LINE];
    let mut word = 0;
    while word < TILE {
        flips[word * WORD_BYTES] = 0;
        flips[word * WORD_BYTES + 1] = 0;
        word += 1;
    }
    flips
};

/// A sum for every byte of four plain words.
#[derive(Clone, Copy, Default)]
struct PlainSums([[i32; WORD_BYTES]; TILE]);

/// Least and greatest bytes, and least and greatest pairs of bytes.
#[derive(Clone, Copy)]
struct PlainPeaks {
    bytes: [[i8; LINE]; 2],
    pairs: [[i16; LINE / 2]; 2],
}

impl Sums<PLAIN_WIDTH> for PlainSums {
    type Peaks = PlainPeaks;
    const NO_PEAKS: PlainPeaks = PlainPeaks { bytes: [[0; LINE]; 2], pairs: [[0; LINE / 2]; 2] };

    #[inline(always)]
    fn add(self, words: &[Word; TILE], weight: i32, peaks: PlainPeaks) -> (Self, PlainPeaks) {
        let [a, b, c, d] = self.0;
        let [wa, wb, wc, wd] = words;
        let sums = [
            plus(a, wa, &PLAIN_FLIP, weight),
            plus(b, wb, &PLAIN_FLIP, weight),
            plus(c, wc, &PLAIN_FLIP, weight),
            plus(d, wd, &PLAIN_FLIP, weight),
        ];
        let line = words.as_flattened().first_chunk::<LINE>().expect("four words are a line");
        let PlainPeaks { bytes, pairs } = peaks;
        (Self(sums), PlainPeaks { bytes: wider_bytes(bytes, line), pairs: wider_pairs(pairs, line) })
    }

    #[inline(always)]
    fn finish(&self, weight: i64, sums: &mut [[i64; PLAIN_WIDTH]]) {
        for (digits, out) in self.0.iter().zip(sums) {
            let mut sums = *out;
            for (lane, sum) in sums[..WAVE_LANES].iter_mut().enumerate() {
                *sum += 256 * i64::from(digits[2 * lane + 1]) + i64::from(digits[2 * lane]) + 128 * weight;
            }
            for (sum, &digit) in sums[WAVE_LANES..].iter_mut().zip(&digits[2 * WAVE_LANES..]) {
                *sum += i64::from(digit);
            }
            *out = sums;
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

/// A sum for every high and every low half of the bytes of four nibble words.
#[derive(Clone, Copy, Default)]
struct NibbleSums {
    high: [[i32; WORD_BYTES]; TILE],
    low: [[i32; WORD_BYTES]; TILE],
}

impl Sums<NIBBLE_WIDTH> for NibbleSums {
    /// Least and greatest bytes, high halves, and low halves.
    type Peaks = [[[i8; LINE]; 2]; 3];
    const NO_PEAKS: Self::Peaks = [[[0; LINE]; 2]; 3];

    #[inline(always)]
    fn add(self, words: &[Word; TILE], weight: i32, peaks: Self::Peaks) -> (Self, Self::Peaks) {
        let line = words.as_flattened().first_chunk::<LINE>().expect("four words are a line");
        let (mut high, mut low, mut flipped) = ([0u8; LINE], [0u8; LINE], [0u8; LINE]);
        for (high, &byte) in high.iter_mut().zip(line) {
            *high = (byte.cast_signed() >> 4).cast_unsigned();
        }
        for (low, &byte) in low.iter_mut().zip(line) {
            *low = ((byte << 4).cast_signed() >> 4).cast_unsigned();
        }
        for ((flipped, &byte), &flip) in flipped.iter_mut().zip(line).zip(&NIBBLE_FLIPS) {
            *flipped = (byte ^ flip) & 0xf;
        }
        let ([ha, hb, hc, hd], [la, lb, lc, ld]) = (self.high, self.low);
        let ([wa, wb, wc, wd], [fa, fb, fc, fd]) = (four(&high), four(&flipped));
        let plain = &[0; WORD_BYTES];
        let high_sums = [
            plus(ha, wa, plain, weight),
            plus(hb, wb, plain, weight),
            plus(hc, wc, plain, weight),
            plus(hd, wd, plain, weight),
        ];
        let low_sums = [
            plus(la, fa, plain, weight),
            plus(lb, fb, plain, weight),
            plus(lc, fc, plain, weight),
            plus(ld, fd, plain, weight),
        ];
        let [bytes, highs, lows] = peaks;
        let peaks = [wider_bytes(bytes, line), wider_bytes(highs, &high), wider_bytes(lows, &low)];
        (Self { high: high_sums, low: low_sums }, peaks)
    }

    #[inline(always)]
    fn finish(&self, weight: i64, sums: &mut [[i64; NIBBLE_WIDTH]]) {
        for ((high, low), sums) in self.high.iter().zip(&self.low).zip(sums) {
            for (lane, sum) in sums[..WAVE_LANES].iter_mut().enumerate() {
                *sum += 16 * i64::from(high[lane]) + i64::from(low[lane]);
            }
            let halves = high[WAVE_LANES..].iter().zip(&low[WAVE_LANES..]);
            for (pair, (&high, &low)) in sums[WAVE_LANES..].as_chunks_mut::<2>().0.iter_mut().zip(halves) {
                pair[0] += i64::from(low) - 8 * weight;
                pair[1] += i64::from(high);
            }
        }
    }

    fn largest([bytes, highs, lows]: &Self::Peaks) -> [u32; 2] {
        let words = |lines: &[[i8; LINE]; 2]| -> Vec<[i8; WORD_BYTES]> {
            lines.iter().flat_map(|line| line.as_chunks().0).copied().collect()
        };
        let wave = words(bytes).iter().flat_map(|word| &word[..WAVE_LANES]).map(|q| q.unsigned_abs()).max();
        let halves = words(highs).into_iter().chain(words(lows));
        let residual = halves.flat_map(|word| word.into_iter().skip(WAVE_LANES)).map(i8::unsigned_abs).max();
        [wave.map_or(0, u32::from), residual.map_or(0, u32::from)]
    }
}

/// The four words of a line.
#[inline(always)]
fn four(line: &[u8; LINE]) -> &[Word; TILE] {
    line.as_chunks().0.first_chunk().expect("a line is four words")
}

/// `sums + weight·(bytes ^ flip)`, the bytes signed. By value: through a reference it is not vectorised.
#[inline(always)]
fn plus(mut sums: [i32; WORD_BYTES], word: &Word, flip: &[u8; WORD_BYTES], weight: i32) -> [i32; WORD_BYTES] {
    for ((sum, &byte), &flip) in sums.iter_mut().zip(word).zip(flip) {
        *sum += i32::from((byte ^ flip).cast_signed()) * weight;
    }
    sums
}

/// Least and greatest so far, with one line more.
#[inline(always)]
fn wider_bytes([mut least, mut greatest]: [[i8; LINE]; 2], line: &[u8; LINE]) -> [[i8; LINE]; 2] {
    for ((least, greatest), &byte) in least.iter_mut().zip(&mut greatest).zip(line) {
        *least = (*least).min(byte.cast_signed());
        *greatest = (*greatest).max(byte.cast_signed());
    }
    [least, greatest]
}

/// The same of its pairs of bytes.
#[inline(always)]
fn wider_pairs([mut least, mut greatest]: [[i16; LINE / 2]; 2], line: &[u8; LINE]) -> [[i16; LINE / 2]; 2] {
    for ((least, greatest), &pair) in least.iter_mut().zip(&mut greatest).zip(line.as_chunks().0) {
        let pair = i16::from_le_bytes(pair);
        *least = (*least).min(pair);
        *greatest = (*greatest).max(pair);
    }
    [least, greatest]
}
