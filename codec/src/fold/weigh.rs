//! Bytes of two tiles, each times its weight, into as many sums: the innermost step of folding.
//!
//! On x86-64 it is an interleaving, a widening and a `pmaddwd` for eight sums with AVX2 or sixteen with AVX-512,
//! spelled out through `pulp`'s safe wrappers because the compiler does not find it; elsewhere plain arithmetic.
//! Integers: all give the same sums.

#[cfg(target_arch = "x86_64")]
use pulp::x86::{V3, V4};

use super::{TILE, TILE_BYTES};
use crate::word::WORD_BYTES;

/// Bytes of half a word.
const HALF: usize = WORD_BYTES / 2;

/// A sum for every byte of a tile, as registers interleave them: the first halves of its words, then the last.
pub(super) type ByteSums = [[i32; TILE * HALF]; 2];

/// The digits of two weights, in turn, as a register takes them.
pub(super) type Digits = [i16; 32];

/// How bytes are weighed on this CPU.
pub(super) trait Weigh: Copy {
    /// `sums + digits[0]·a + digits[1]·b`, the bytes signed.
    fn weigh(self, sums: ByteSums, tiles: [[u8; TILE_BYTES]; 2], digits: &Digits) -> ByteSums;
    /// Hints that these bytes are wanted soon.
    fn ahead(self, bytes: *const u8);
    /// The low and the high halves of every byte, once `flips` are exclusive-ored to it.
    fn halves(self, tile: [u8; TILE_BYTES], flips: [u8; TILE_BYTES]) -> [[u8; TILE_BYTES]; 2];
}

/// The sums of one word of a tile, byte by byte.
#[inline(always)]
pub(super) fn of_word(sums: &ByteSums, word: usize) -> [i32; WORD_BYTES] {
    let [first, last] = sums;
    let mut bytes = [0; WORD_BYTES];
    bytes[..HALF].copy_from_slice(&first[word * HALF..][..HALF]);
    bytes[HALF..].copy_from_slice(&last[word * HALF..][..HALF]);
    bytes
}

/// Arithmetic that every CPU has.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Weigh for Portable {
    #[inline(always)]
    fn weigh(self, mut sums: ByteSums, [a, b]: [[u8; TILE_BYTES]; 2], digits: &Digits) -> ByteSums {
        let (of_a, of_b) = (i32::from(digits[0]), i32::from(digits[1]));
        for (n, (a, b)) in a.into_iter().zip(b).enumerate() {
            let (word, byte) = (n / WORD_BYTES, n % WORD_BYTES);
            sums[byte / HALF][word * HALF + byte % HALF] +=
                i32::from(a.cast_signed()) * of_a + i32::from(b.cast_signed()) * of_b;
        }
        sums
    }

    #[inline(always)]
    fn ahead(self, _: *const u8) {}

    #[inline(always)]
    fn halves(self, tile: [u8; TILE_BYTES], flips: [u8; TILE_BYTES]) -> [[u8; TILE_BYTES]; 2] {
        let (mut low, mut high) = (tile, tile);
        for ((low, high), flip) in low.iter_mut().zip(&mut high).zip(flips) {
            *low = (*low ^ flip) & 0xf;
            *high = (*high ^ flip) >> 4;
        }
        [low, high]
    }
}

#[cfg(target_arch = "x86_64")]
impl Weigh for V3 {
    #[inline(always)]
    fn weigh(self, [first, last]: ByteSums, [a, b]: [[u8; TILE_BYTES]; 2], digits: &Digits) -> ByteSums {
        let (a, b, digits) = (pulp::cast(a), pulp::cast(b), pulp::cast(*digits));
        let [digits, _]: [std::arch::x86_64::__m256i; 2] = digits;
        let (low, high) = (self.avx2._mm256_unpacklo_epi8(a, b), self.avx2._mm256_unpackhi_epi8(a, b));
        [added_256(self, first, low, digits), added_256(self, last, high, digits)]
    }

    #[inline(always)]
    fn ahead(self, bytes: *const u8) {
        self.sse._mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(bytes.cast());
    }

    #[inline(always)]
    fn halves(self, tile: [u8; TILE_BYTES], flips: [u8; TILE_BYTES]) -> [[u8; TILE_BYTES]; 2] {
        let tile = self.avx2._mm256_xor_si256(pulp::cast(tile), pulp::cast(flips));
        let half = self.avx._mm256_set1_epi8(0xf);
        let high = self.avx2._mm256_and_si256(self.avx2._mm256_srli_epi16::<4>(tile), half);
        [pulp::cast(self.avx2._mm256_and_si256(tile, half)), pulp::cast(high)]
    }
}

/// `sums` and the products of interleaved bytes.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn added_256(
    by: V3,
    sums: [i32; TILE * HALF],
    bytes: std::arch::x86_64::__m256i,
    digits: std::arch::x86_64::__m256i,
) -> [i32; TILE * HALF] {
    let V3 { avx, avx2, .. } = by;
    let [first, second]: [std::arch::x86_64::__m256i; 2] = pulp::cast(sums);
    let low = avx2._mm256_cvtepi8_epi16(avx._mm256_castsi256_si128(bytes));
    let high = avx2._mm256_cvtepi8_epi16(avx2._mm256_extracti128_si256::<1>(bytes));
    pulp::cast([
        avx2._mm256_add_epi32(first, avx2._mm256_madd_epi16(low, digits)),
        avx2._mm256_add_epi32(second, avx2._mm256_madd_epi16(high, digits)),
    ])
}

#[cfg(target_arch = "x86_64")]
impl Weigh for V4 {
    #[inline(always)]
    fn weigh(self, [first, last]: ByteSums, [a, b]: [[u8; TILE_BYTES]; 2], digits: &Digits) -> ByteSums {
        let (a, b, digits) = (pulp::cast(a), pulp::cast(b), pulp::cast(*digits));
        let (low, high) = (self.avx2._mm256_unpacklo_epi8(a, b), self.avx2._mm256_unpackhi_epi8(a, b));
        let wide = self.avx512bw;
        let low = wide._mm512_madd_epi16(wide._mm512_cvtepi8_epi16(low), digits);
        let high = wide._mm512_madd_epi16(wide._mm512_cvtepi8_epi16(high), digits);
        let narrow = self.avx512f;
        [
            pulp::cast(narrow._mm512_add_epi32(pulp::cast(first), low)),
            pulp::cast(narrow._mm512_add_epi32(pulp::cast(last), high)),
        ]
    }

    #[inline(always)]
    fn ahead(self, bytes: *const u8) {
        (*self).ahead(bytes);
    }

    #[inline(always)]
    fn halves(self, tile: [u8; TILE_BYTES], flips: [u8; TILE_BYTES]) -> [[u8; TILE_BYTES]; 2] {
        (*self).halves(tile, flips)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    fn agrees_with_portable(by: impl Weigh) {
        let mut stream = Seed::from_number(1).stream();
        let mut bytes = || std::array::from_fn(|_| stream.bits_32().to_le_bytes()[0]);
        let tiles = [([0x80; 32], [0x80; 32]), ([0x7f; 32], [0x80; 32]), (bytes(), bytes()), (bytes(), bytes())];
        for (a, b) in tiles {
            for [of_a, of_b] in [[1, 0], [i16::MAX, i16::MAX], [17, 4_000]] {
                let digits = std::array::from_fn(|n| if n % 2 == 0 { of_a } else { of_b });
                let sums =
                    std::array::from_fn(|half| std::array::from_fn(|n| [1, 300][half] * i32::try_from(n).unwrap()));
                assert_eq!(by.weigh(sums, [a, b], &digits), Portable.weigh(sums, [a, b], &digits));
                assert_eq!(by.halves(a, b), Portable.halves(a, b));
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
    fn sums_are_found_again_by_word() {
        let (a, mut digits) = (std::array::from_fn(|n| u8::try_from(n).unwrap()), [0; 32]);
        digits[0] = 1;
        let sums = Portable.weigh([[0; TILE * HALF]; 2], [a, a], &digits);
        for word in 0..TILE {
            let expected: [i32; WORD_BYTES] = std::array::from_fn(|n| i32::from(a[word * WORD_BYTES + n]));
            assert_eq!(of_word(&sums, word), expected);
        }
    }
}
