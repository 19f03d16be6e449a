//! Many updates' words into one integer sum: the kernel behind [`Tally`](crate::Tally).
//!
//! Words of two updates at a time are weighed in one multiply-add; the partial sums of a stretch of words stay in
//! the cache until a batch of updates is through, so that the wide sums are touched once a batch rather than once
//! an update, while the next updates' words are fetched. Words are summed as they lie, in 16-bit pairs of bytes, and
//! what each digit of a pair comes to is the difference of two sums:
//!
//! ```text
//!  plain   pair = 256·odd + even                  sums of  pair, pair >> 8                            even = S_0 − 256·S_1
//!  nibble  pair = 4096·n₃ + 256·n₂ + 16·n₁ + n₀   sums of  pair, pair >> 4, pair >> 8, pair >> 12     n₀ = S_0 − 16·S_1 …
//! ```
//!
//! A pair is signed, so all its digits but the first are unsigned: where they should not be, their sign bit is
//! flipped, and the sum of weights takes that back. A weight is written in digits of 15 bits, with batches for each
//! digit. Sums are `i32` and wrap: the sum of a pair may leave its range, but what a digit comes to does not, for a
//! batch ends before its weights could make it. It knows no layers but where they end.

mod nibble;
mod plain;
mod weigh;

use std::ops::Range;

use pulp::NullaryFnOnce;
#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};

use crate::word::{NIBBLE_WIDTH, PLAIN_WIDTH, Profile, WORD_BYTES, Word};
use nibble::NibbleSums;
use plain::PlainSums;
use weigh::{Digits, Portable, Weigh};

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
/// Bytes of a tile: one AVX-512 register, or two of AVX2.
const TILE_BYTES: usize = TILE * WORD_BYTES;
/// Bytes of the partial sums that are kept before they are added to the wide ones: half the nearest cache.
const STRETCH_BYTES: usize = 16 << 10;
/// Most tiles that these are.
const STRETCH_MAX: usize = STRETCH_BYTES / size_of::<PlainSums>();
/// Bits of a weight's digit: a multiply-add takes signed 16-bit factors.
const DIGIT_BITS: u32 = 15;
/// Pairs of a batch: `2·32·2⁸·2¹⁵ < 2³¹`.
const PAIRS_MAX: usize = 32;

/// The words of two updates and one digit of their weights.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Pair<'a> {
    digits: Digits,
    words: [&'a [Word]; 2],
}

impl<'a> Pair<'a> {
    fn new((a, of_a): (&'a [Word], i16), (b, of_b): (&'a [Word], i16)) -> Self {
        Self { words: [a, b], digits: std::array::from_fn(|n| if n % 2 == 0 { of_a } else { of_b }) }
    }

    /// The whole tiles of both updates' words of some blocks, and what is left with words of zeros behind it.
    #[inline(always)]
    fn tiles(&self, blocks: &Range<usize>) -> ([&'a [[u8; TILE_BYTES]]; 2], [[u8; TILE_BYTES]; 2]) {
        let [a, b] = self.words;
        let (a, rest_a) = a[blocks.clone()].as_flattened().as_chunks();
        let (b, rest_b) = b[blocks.clone()].as_flattened().as_chunks();
        let mut last = [[0; TILE_BYTES]; 2];
        last[0][..rest_a.len()].copy_from_slice(rest_a);
        last[1][..rest_b.len()].copy_from_slice(rest_b);
        ([a, b], last)
    }
}

/// Updates that are summed before the wide sums are touched.
#[derive(Clone, Debug)]
pub(crate) struct Batch<'a> {
    pairs: Vec<Pair<'a>>,
    /// The digits' place: they count `2^shift`.
    shift: u32,
}

impl Batch<'_> {
    /// Sum of the digits, at most `2·32·2¹⁵`.
    fn weight(&self) -> i32 {
        self.pairs.iter().map(|pair| i32::from(pair.digits[0]) + i32::from(pair.digits[1])).sum()
    }
}

/// Cuts updates into batches, digit by digit of their weights.
pub(crate) fn batches<'a>(updates: &[(&'a [Word], u32)]) -> Vec<Batch<'a>> {
    let mut batches = Vec::new();
    for shift in (0..u32::BITS).step_by(DIGIT_BITS as usize) {
        let digit = |weight: u32| i16::try_from(weight >> shift & ((1 << DIGIT_BITS) - 1)).expect("15 bits");
        let weighed: Vec<_> = updates.iter().map(|&(words, weight)| (words, digit(weight))).collect();
        let weighed: Vec<_> = weighed.into_iter().filter(|&(_, digit)| digit != 0).collect();
        for weighed in weighed.chunks(2 * PAIRS_MAX) {
            let pair = |two: &[(&'a [Word], i16)]| match *two {
                [a, b] => Pair::new(a, b),
                [a] => Pair::new(a, (a.0, 0)),
                _ => unreachable!("chunks of one or two"),
            };
            batches.push(Batch { pairs: weighed.chunks(2).map(pair).collect(), shift });
        }
    }
    batches
}

/// Adds a batch's words of some blocks to their sums.
pub(crate) struct Fold<'a> {
    pub(crate) profile: Profile,
    pub(crate) batch: &'a Batch<'a>,
    pub(crate) blocks: Range<usize>,
    /// Sums of these blocks, `width` a block.
    pub(crate) sums: &'a mut [i64],
}

impl Fold<'_> {
    /// Adds them, and returns the largest magnitudes of the wave's and of the residual's lanes.
    pub(crate) fn run(self) -> [u32; 2] {
        #[cfg(target_arch = "x86_64")]
        if let Some(wide) = V4::try_new() {
            return wide.vectorize(Weighed { fold: self, by: wide });
        } else if let Some(wide) = V3::try_new() {
            return wide.vectorize(Weighed { fold: self, by: wide });
        }
        Weighed { fold: self, by: Portable }.call()
    }

    #[inline(always)]
    fn fold<P: Sums<W>, const W: usize>(self, by: impl Weigh) -> [u32; 2] {
        let (weight, shift) = (self.batch.weight(), self.batch.shift);
        let (mut sums, mut peaks) = (self.sums.as_chunks_mut::<W>().0, P::NO_PEAKS);
        let mut first = self.blocks.start;
        let stretch = &mut [P::default(); STRETCH_MAX][..STRETCH_BYTES / size_of::<P>()];
        while !sums.is_empty() {
            let now = sums.split_off_mut(..sums.len().min(stretch.len() * TILE)).expect("no more than there are");
            let tiles = &mut stretch[..now.len().div_ceil(TILE)];
            tiles.fill(P::default());
            let blocks = first..first + now.len();
            let mut next = self.batch.pairs.chunks(2).skip(1);
            for pairs in self.batch.pairs.chunks(2) {
                let ahead =
                    next.next().map_or_else(|| ahead(&self.batch.pairs, blocks.end), |next| ahead(next, blocks.start));
                peaks = add_stretch(by, &pairs[0], pairs.get(1), &blocks, tiles, ahead, peaks);
            }
            for (tile, sums) in tiles.iter().zip(now.chunks_mut(TILE)) {
                tile.finish(by, weight, shift, sums);
            }
            first = blocks.end;
        }
        P::largest(&peaks)
    }
}

/// A fold by one instruction set, for which it is compiled.
struct Weighed<'a, B> {
    fold: Fold<'a>,
    by: B,
}

impl<B: Weigh> NullaryFnOnce for Weighed<'_, B> {
    type Output = [u32; 2];

    #[inline(always)]
    fn call(self) -> [u32; 2] {
        match self.fold.profile {
            Profile::Plain => self.fold.fold::<PlainSums, PLAIN_WIDTH>(self.by),
            Profile::Nibble => self.fold.fold::<NibbleSums, NIBBLE_WIDTH>(self.by),
        }
    }
}

/// Where the words of a block of the first two pairs stand.
#[inline(always)]
fn ahead(pairs: &[Pair<'_>], block: usize) -> [*const u8; 4] {
    let at = |words: &[Word]| words.as_ptr().wrapping_add(block).cast();
    let last = pairs.len().min(2) - 1;
    let ([a, b], [c, d]) = (pairs[0].words, pairs[last].words);
    [at(a), at(b), at(c), at(d)]
}

/// Adds the words of one pair, or of two that stay in registers together, to a stretch of tiles. By value
/// throughout: what is reached through a reference is not kept in registers.
#[inline(always)]
fn add_stretch<P: Sums<W>, const W: usize>(
    by: impl Weigh,
    pair: &Pair<'_>,
    next: Option<&Pair<'_>>,
    blocks: &Range<usize>,
    tiles: &mut [P],
    ahead: [*const u8; 4],
    mut peaks: P::Peaks,
) -> P::Peaks {
    let ([a, b], rest) = pair.tiles(blocks);
    let (whole, last) = tiles.split_at_mut(a.len());
    if let Some(next) = next {
        let ([c, d], next_rest) = next.tiles(blocks);
        for (n, ((((tile, &a), &b), &c), &d)) in whole.iter_mut().zip(a).zip(b).zip(c).zip(d).enumerate() {
            for ahead in ahead {
                by.ahead(ahead.wrapping_add(n * TILE_BYTES));
            }
            let (sums, wider) = tile.add(by, [a, b], &pair.digits, peaks);
            (*tile, peaks) = sums.add(by, [c, d], &next.digits, wider);
        }
        for tile in &mut *last {
            (*tile, peaks) = tile.add(by, next_rest, &next.digits, peaks);
        }
    } else {
        for ((tile, &a), &b) in whole.iter_mut().zip(a).zip(b) {
            (*tile, peaks) = tile.add(by, [a, b], &pair.digits, peaks);
        }
    }
    for tile in last {
        (*tile, peaks) = tile.add(by, rest, &pair.digits, peaks);
    }
    peaks
}

/// The partial sums of one tile in one profile, and the extremes of its lanes so far.
trait Sums<const W: usize>: Default + Copy {
    /// Extremes, position by position of a tile.
    type Peaks: Copy;
    /// Of no word.
    const NO_PEAKS: Self::Peaks;
    /// Adds one tile of two updates.
    fn add(
        self,
        by: impl Weigh,
        tiles: [[u8; TILE_BYTES]; 2],
        digits: &Digits,
        peaks: Self::Peaks,
    ) -> (Self, Self::Peaks);
    /// Adds `2^shift ×` the partial sums to the wide ones, given the sum of digits.
    fn finish(&self, by: impl Weigh, weight: i32, shift: u32, sums: &mut [[i64; W]]);
    /// The largest magnitudes, of the wave and of the residual.
    fn largest(peaks: &Self::Peaks) -> [u32; 2];
}
