//! Two tiles side by side, each times its weight, into as many sums: the innermost step of folding.
//!
//! On x86-64 it is an interleaving and a `pmaddwd` for eight sums with AVX2 or sixteen with AVX-512, spelled out
//! through `pulp`'s safe wrappers because the compiler does not find them; elsewhere plain arithmetic. Integers that
//! wrap: all give the same sums.

#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256i, __m512i};

use super::{TILE, TILE_BYTES};
use crate::word::WORD_BYTES;

/// 16-bit pairs of bytes of half a word.
const HALF: usize = WORD_BYTES / 4;

/// The pairs of one half of every word of two tiles, in turn: `[a₀ b₀ a₁ b₁ …]`.
pub(super) type Pairs = [i16; 2 * TILE * HALF];

/// A sum for every two pairs.
pub(super) type PairSums = [i32; TILE * HALF];

/// The digits of two weights, in turn, as a register takes them.
pub(super) type Digits = [i16; 2 * TILE * HALF];

/// How tiles are weighed on this CPU.
pub(super) trait Weigh: Copy {
    /// The pairs of the first halves of the words of two tiles, and those of the last halves.
    fn interleaved(self, tiles: [[u8; TILE_BYTES]; 2]) -> [Pairs; 2];
    /// `sums + digits[0]·a + digits[1]·b`, wrapping.
    fn weigh(self, sums: PairSums, pairs: Pairs, digits: &Digits) -> PairSums;
    /// Of every word's four sums in `a` and in `b`, the first two and the last two in turn: `[a₀ b₀ a₁ b₁]`, `[a₂ b₂ a₃ b₃]`.
    fn woven(self, a: PairSums, b: PairSums) -> [PairSums; 2];
    /// The same by twos: `[a₀ a₁ b₀ b₁]`, `[a₂ a₃ b₂ b₃]`.
    fn woven_by_twos(self, a: PairSums, b: PairSums) -> [PairSums; 2];
    /// Hints that these bytes are wanted soon.
    fn ahead(self, bytes: *const u8);
}

/// Sums of the same digit of every pair: of first halves, and of last.
pub(super) type DigitSums = [PairSums; 2];

/// Adds `2^shift ×` one word's four sums to as many wide ones.
#[inline(always)]
pub(super) fn add_wide(wide: &mut [i64], sums: &PairSums, word: usize, shift: u32) {
    let wide: &mut [i64; HALF] = wide.first_chunk_mut().expect("four lanes");
    // By value: through the reference, it is not vectorised.
    let mut now = *wide;
    for (wide, &sum) in now.iter_mut().zip(&sums[word * HALF..][..HALF]) {
        *wide += i64::from(sum) << shift;
    }
    *wide = now;
}

/// Arithmetic that every CPU has.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Weigh for Portable {
    #[inline(always)]
    fn interleaved(self, [a, b]: [[u8; TILE_BYTES]; 2]) -> [Pairs; 2] {
        let mut halves = [[0; 2 * TILE * HALF]; 2];
        for (n, (&a, &b)) in a.as_chunks().0.iter().zip(b.as_chunks().0).enumerate() {
            let (word, pair) = (n / (2 * HALF), n % (2 * HALF));
            let at = 2 * (word * HALF + pair % HALF);
            halves[pair / HALF][at] = i16::from_le_bytes(a);
            halves[pair / HALF][at + 1] = i16::from_le_bytes(b);
        }
        halves
    }

    #[inline(always)]
    fn weigh(self, mut sums: PairSums, pairs: Pairs, digits: &Digits) -> PairSums {
        let (of_a, of_b) = (i32::from(digits[0]), i32::from(digits[1]));
        for (sum, &[a, b]) in sums.iter_mut().zip(pairs.as_chunks().0) {
            *sum = sum.wrapping_add((i32::from(a) * of_a).wrapping_add(i32::from(b) * of_b));
        }
        sums
    }

    #[inline(always)]
    fn woven(self, a: PairSums, b: PairSums) -> [PairSums; 2] {
        let at = |n: usize, part: usize| n / HALF * HALF + 2 * part + n % HALF / 2;
        [0, 1].map(|part| std::array::from_fn(|n| if n % 2 == 0 { a[at(n, part)] } else { b[at(n, part)] }))
    }

    #[inline(always)]
    fn woven_by_twos(self, a: PairSums, b: PairSums) -> [PairSums; 2] {
        let at = |n: usize, part: usize| n / HALF * HALF + 2 * part + n % 2;
        [0, 1].map(|part| std::array::from_fn(|n| if n % HALF < 2 { a[at(n, part)] } else { b[at(n, part)] }))
    }

    #[inline(always)]
    fn ahead(self, _: *const u8) {}
}

#[cfg(target_arch = "x86_64")]
impl Weigh for V3 {
    #[inline(always)]
    fn interleaved(self, [a, b]: [[u8; TILE_BYTES]; 2]) -> [Pairs; 2] {
        let ([a, c], [b, d]): ([__m256i; 2], [__m256i; 2]) = (pulp::cast(a), pulp::cast(b));
        let avx2 = self.avx2;
        let first = [avx2._mm256_unpacklo_epi16(a, b), avx2._mm256_unpacklo_epi16(c, d)];
        let last = [avx2._mm256_unpackhi_epi16(a, b), avx2._mm256_unpackhi_epi16(c, d)];
        [pulp::cast(first), pulp::cast(last)]
    }

    #[inline(always)]
    fn weigh(self, sums: PairSums, pairs: Pairs, digits: &Digits) -> PairSums {
        let ([s, t], [a, b]): ([__m256i; 2], [__m256i; 2]) = (pulp::cast(sums), pulp::cast(pairs));
        let [digits, _]: [__m256i; 2] = pulp::cast(*digits);
        let avx2 = self.avx2;
        pulp::cast([
            avx2._mm256_add_epi32(s, avx2._mm256_madd_epi16(a, digits)),
            avx2._mm256_add_epi32(t, avx2._mm256_madd_epi16(b, digits)),
        ])
    }

    #[inline(always)]
    fn woven(self, a: PairSums, b: PairSums) -> [PairSums; 2] {
        let ([a, c], [b, d]): ([__m256i; 2], [__m256i; 2]) = (pulp::cast(a), pulp::cast(b));
        let avx2 = self.avx2;
        [
            pulp::cast([avx2._mm256_unpacklo_epi32(a, b), avx2._mm256_unpacklo_epi32(c, d)]),
            pulp::cast([avx2._mm256_unpackhi_epi32(a, b), avx2._mm256_unpackhi_epi32(c, d)]),
        ]
    }

    #[inline(always)]
    fn woven_by_twos(self, a: PairSums, b: PairSums) -> [PairSums; 2] {
        let ([a, c], [b, d]): ([__m256i; 2], [__m256i; 2]) = (pulp::cast(a), pulp::cast(b));
        let avx2 = self.avx2;
        [
            pulp::cast([avx2._mm256_unpacklo_epi64(a, b), avx2._mm256_unpacklo_epi64(c, d)]),
            pulp::cast([avx2._mm256_unpackhi_epi64(a, b), avx2._mm256_unpackhi_epi64(c, d)]),
        ]
    }

    #[inline(always)]
    fn ahead(self, bytes: *const u8) {
        self.sse._mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(bytes.cast());
    }
}

#[cfg(target_arch = "x86_64")]
impl Weigh for V4 {
    #[inline(always)]
    fn interleaved(self, [a, b]: [[u8; TILE_BYTES]; 2]) -> [Pairs; 2] {
        let (a, b): (__m512i, __m512i) = (pulp::cast(a), pulp::cast(b));
        [pulp::cast(self.avx512bw._mm512_unpacklo_epi16(a, b)), pulp::cast(self.avx512bw._mm512_unpackhi_epi16(a, b))]
    }

    #[inline(always)]
    fn weigh(self, sums: PairSums, pairs: Pairs, digits: &Digits) -> PairSums {
        let products = self.avx512bw._mm512_madd_epi16(pulp::cast(pairs), pulp::cast(*digits));
        pulp::cast(self.avx512f._mm512_add_epi32(pulp::cast(sums), products))
    }

    #[inline(always)]
    fn woven(self, a: PairSums, b: PairSums) -> [PairSums; 2] {
        let (a, b): (__m512i, __m512i) = (pulp::cast(a), pulp::cast(b));
        let wide = self.avx512f;
        [pulp::cast(wide._mm512_unpacklo_epi32(a, b)), pulp::cast(wide._mm512_unpackhi_epi32(a, b))]
    }

    #[inline(always)]
    fn woven_by_twos(self, a: PairSums, b: PairSums) -> [PairSums; 2] {
        let (a, b): (__m512i, __m512i) = (pulp::cast(a), pulp::cast(b));
        let wide = self.avx512f;
        [pulp::cast(wide._mm512_unpacklo_epi64(a, b)), pulp::cast(wide._mm512_unpackhi_epi64(a, b))]
    }

    #[inline(always)]
    fn ahead(self, bytes: *const u8) {
        (*self).ahead(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    fn agrees_with_portable(by: impl Weigh) {
        let mut stream = Seed::from_number(1).stream();
        let mut bytes = || std::array::from_fn(|_| stream.bits_32().to_le_bytes()[0]);
        let tiles = [([0x80; 64], [0x80; 64]), ([0x7f; 64], [0x80; 64]), (bytes(), bytes()), (bytes(), bytes())];
        for (a, b) in tiles {
            let halves = by.interleaved([a, b]);
            assert_eq!(halves, Portable.interleaved([a, b]));
            for [of_a, of_b] in [[1, 0], [i16::MAX, i16::MAX], [17, 4_000]] {
                let digits = std::array::from_fn(|n| if n % 2 == 0 { of_a } else { of_b });
                let sums = std::array::from_fn(|n| i32::MAX - 300 * i32::try_from(n).unwrap());
                for pairs in halves {
                    let weighed = by.weigh(sums, pairs, &digits);
                    assert_eq!(weighed, Portable.weigh(sums, pairs, &digits));
                    assert_eq!(by.woven(sums, weighed), Portable.woven(sums, weighed));
                    assert_eq!(by.woven_by_twos(sums, weighed), Portable.woven_by_twos(sums, weighed));
                }
            }
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn all_ways_agree_on_extremes_and_noise() {
        V3::try_new().into_iter().for_each(agrees_with_portable);
        V4::try_new().into_iter().for_each(agrees_with_portable);
    }

    #[test]
    fn sums_of_a_word_are_woven() {
        let (a, b) = (
            std::array::from_fn(|n| i32::try_from(n).unwrap()),
            std::array::from_fn(|n| 100 + i32::try_from(n).unwrap()),
        );
        let [first, last] = Portable.woven(a, b);
        assert_eq!((&first[4..8], &last[4..8]), (&[4, 104, 5, 105][..], &[6, 106, 7, 107][..]));
        let [first, last] = Portable.woven_by_twos(a, b);
        assert_eq!((&first[4..8], &last[4..8]), (&[4, 5, 104, 105][..], &[6, 7, 106, 107][..]));
    }

    #[test]
    fn one_word_is_added() {
        let mut wide = [1, 1, 1, 1, 1];
        add_wide(&mut wide[1..], &std::array::from_fn(|n| -i32::try_from(n).unwrap()), 2, 15);
        assert_eq!(wide, [1, 1 - (8 << 15), 1 - (9 << 15), 1 - (10 << 15), 1 - (11 << 15)]);
    }
}
