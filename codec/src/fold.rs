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
        let (sums, rest) = self.sums.as_chunks_mut::<W>().0.as_chunks_mut::<TILE>();
        let mut peaks = P::NO_PEAKS;
        for (sums, first) in sums.iter_mut().zip(self.blocks.clone().step_by(TILE)) {
            let mut tile = P::default();
            for (words, part) in self.batch {
                let words = words[first..].first_chunk().expect("every update has every block");
                tile.add(words, *part, &mut peaks);
            }
            tile.finish(weight, sums);
        }
        if !rest.is_empty() {
            let first = self.blocks.end - rest.len();
            let (mut tile, mut last) = (P::default(), [[0; W]; TILE]);
            for (words, part) in self.batch {
                let mut padded = [[0; WORD_BYTES]; TILE];
                padded[..rest.len()].copy_from_slice(&words[first..self.blocks.end]);
                tile.add(&padded, *part, &mut peaks);
            }
            tile.finish(weight, &mut last);
            for (sums, last) in rest.iter_mut().zip(last) {
                for (sum, last) in sums.iter_mut().zip(last) {
                    *sum += last;
                }
            }
        }
        P::largest(&peaks)
    }
}

/// The partial sums of one tile in one profile, and the extremes of its lanes so far.
trait Sums<const W: usize>: Default {
    /// Extremes, position by position of a tile.
    type Peaks;
    /// Of no word.
    const NO_PEAKS: Self::Peaks;
    /// Adds one update's tile.
    fn add(&mut self, words: &[Word; TILE], weight: i32, peaks: &mut Self::Peaks);
    /// Adds the partial sums to the wide ones, given the sum of weights.
    fn finish(self, weight: i64, sums: &mut [[i64; W]; TILE]);
    /// The largest magnitudes, of the wave and of the residual.
    fn largest(peaks: &Self::Peaks) -> [u32; 2];
}

/// Bytes of a tile: one cache line.
const LINE: usize = TILE * WORD_BYTES;
/// Bytes of a plain word that are unsigned digits.
const PLAIN_FLIP: [u8; WORD_BYTES] = [0x80, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Low halves of a nibble word's bytes that are signed.
const NIBBLE_FLIP: [u8; WORD_BYTES] = [0, 0, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8];

/// A sum for every byte of four plain words.
#[derive(Default)]
struct PlainSums([[i32; WORD_BYTES]; TILE]);

/// Least and greatest bytes, and least and greatest pairs of bytes.
struct PlainPeaks {
    bytes: [[i8; LINE]; 2],
    pairs: [[i16; LINE / 2]; 2],
}

impl Sums<PLAIN_WIDTH> for PlainSums {
    type Peaks = PlainPeaks;
    const NO_PEAKS: PlainPeaks = PlainPeaks { bytes: [[0; LINE]; 2], pairs: [[0; LINE / 2]; 2] };

    #[inline(always)]
    fn add(&mut self, words: &[Word; TILE], weight: i32, peaks: &mut PlainPeaks) {
        let [a, b, c, d] = self.0;
        let [wa, wb, wc, wd] = words;
        self.0 = [
            plus(a, wa, &PLAIN_FLIP, weight),
            plus(b, wb, &PLAIN_FLIP, weight),
            plus(c, wc, &PLAIN_FLIP, weight),
            plus(d, wd, &PLAIN_FLIP, weight),
        ];
        let line = words.as_flattened().first_chunk::<LINE>().expect("four words are a line");
        peaks.bytes = wider_bytes(peaks.bytes, line);
        peaks.pairs = wider_pairs(peaks.pairs, line);
    }

    #[inline(always)]
    fn finish(self, weight: i64, sums: &mut [[i64; PLAIN_WIDTH]; TILE]) {
        for (digits, sums) in self.0.iter().zip(sums) {
            for (lane, sum) in sums[..WAVE_LANES].iter_mut().enumerate() {
                *sum += 256 * i64::from(digits[2 * lane + 1]) + i64::from(digits[2 * lane]) + 128 * weight;
            }
            for (sum, &digit) in sums[WAVE_LANES..].iter_mut().zip(&digits[2 * WAVE_LANES..]) {
                *sum += i64::from(digit);
            }
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
#[derive(Default)]
struct NibbleSums {
    high: [[i32; WORD_BYTES]; TILE],
    low: [[i32; WORD_BYTES]; TILE],
}

impl Sums<NIBBLE_WIDTH> for NibbleSums {
    /// Least and greatest bytes, high halves, and low halves.
    type Peaks = [[[i8; LINE]; 2]; 3];
    const NO_PEAKS: Self::Peaks = [[[0; LINE]; 2]; 3];

    #[inline(always)]
    fn add(&mut self, words: &[Word; TILE], weight: i32, peaks: &mut Self::Peaks) {
        let line = words.as_flattened().first_chunk::<LINE>().expect("four words are a line");
        let (mut high, mut low, mut flipped) = ([0u8; LINE], [0u8; LINE], [0u8; LINE]);
        for (n, &byte) in line.iter().enumerate() {
            high[n] = (byte.cast_signed() >> 4).cast_unsigned();
            low[n] = ((byte << 4).cast_signed() >> 4).cast_unsigned();
            flipped[n] = (byte ^ NIBBLE_FLIP[n % WORD_BYTES]) & 0xf;
        }
        let ([ha, hb, hc, hd], [la, lb, lc, ld]) = (self.high, self.low);
        let ([wa, wb, wc, wd], [fa, fb, fc, fd]) = (four(&high), four(&flipped));
        let plain = &[0; WORD_BYTES];
        self.high = [
            plus(ha, wa, plain, weight),
            plus(hb, wb, plain, weight),
            plus(hc, wc, plain, weight),
            plus(hd, wd, plain, weight),
        ];
        self.low = [
            plus(la, fa, plain, weight),
            plus(lb, fb, plain, weight),
            plus(lc, fc, plain, weight),
            plus(ld, fd, plain, weight),
        ];
        let [bytes, highs, lows] = *peaks;
        *peaks = [wider_bytes(bytes, line), wider_bytes(highs, &high), wider_bytes(lows, &low)];
    }

    #[inline(always)]
    fn finish(self, weight: i64, sums: &mut [[i64; NIBBLE_WIDTH]; TILE]) {
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
