//! Bytes of two tiles, each times its weight, into as many sums: the innermost step of folding.
//!
//! On x86-64 with AVX2 it is one interleaving, one widening and one `pmaddwd` for eight sums, spelled out through
//! `pulp`'s safe wrappers because the compiler does not find it; elsewhere plain arithmetic. Integers: both
//! give the same sums.

use super::TILE_BYTES;

/// A sum for every byte of a tile.
pub(super) type ByteSums = [i32; TILE_BYTES];

/// The digits of two weights, in turn, as a register takes them.
pub(super) type Digits = [i16; 16];

/// How bytes are weighed on this CPU.
pub(super) trait Weigh: Copy {
    /// `sums + digits[0]·a + digits[1]·b`, the bytes signed.
    fn weigh(self, sums: ByteSums, tiles: [[u8; TILE_BYTES]; 2], digits: &Digits) -> ByteSums;
    /// Hints that these bytes are wanted soon.
    fn ahead(self, bytes: *const u8);
    /// The low and the high halves of every byte, once `flips` are exclusive-ored to it.
    fn halves(self, tile: [u8; TILE_BYTES], flips: [u8; TILE_BYTES]) -> [[u8; TILE_BYTES]; 2];
}

/// Arithmetic that every CPU has.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Weigh for Portable {
    #[inline(always)]
    fn weigh(self, mut sums: ByteSums, [a, b]: [[u8; TILE_BYTES]; 2], digits: &Digits) -> ByteSums {
        let (of_a, of_b) = (i32::from(digits[0]), i32::from(digits[1]));
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += i32::from(a.cast_signed()) * of_a + i32::from(b.cast_signed()) * of_b;
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

/// AVX2.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Wide(pulp::x86::V3);

#[cfg(target_arch = "x86_64")]
impl Wide {
    /// If the CPU has it.
    #[inline(always)]
    pub(super) fn new() -> Option<Self> {
        pulp::x86::V3::try_new().map(Self)
    }
}

#[cfg(target_arch = "x86_64")]
impl Weigh for Wide {
    #[inline(always)]
    fn weigh(self, sums: ByteSums, [a, b]: [[u8; TILE_BYTES]; 2], digits: &Digits) -> ByteSums {
        let pulp::x86::V3 { avx, avx2, .. } = self.0;
        let (a, b, digits) = (pulp::cast(a), pulp::cast(b), pulp::cast(*digits));
        let (low, high) = (avx2._mm256_unpacklo_epi8(a, b), avx2._mm256_unpackhi_epi8(a, b));
        // In the order of the bytes: each word's first eight, then its last eight.
        let [s0, s1, s2, s3]: [[i32; 8]; 4] = pulp::cast(sums);
        let p0 = avx2._mm256_madd_epi16(avx2._mm256_cvtepi8_epi16(avx._mm256_castsi256_si128(low)), digits);
        let p1 = avx2._mm256_madd_epi16(avx2._mm256_cvtepi8_epi16(avx._mm256_castsi256_si128(high)), digits);
        let p2 = avx2._mm256_madd_epi16(avx2._mm256_cvtepi8_epi16(avx2._mm256_extracti128_si256::<1>(low)), digits);
        let p3 = avx2._mm256_madd_epi16(avx2._mm256_cvtepi8_epi16(avx2._mm256_extracti128_si256::<1>(high)), digits);
        let sums: [[i32; 8]; 4] = [
            pulp::cast(avx2._mm256_add_epi32(pulp::cast(s0), p0)),
            pulp::cast(avx2._mm256_add_epi32(pulp::cast(s1), p1)),
            pulp::cast(avx2._mm256_add_epi32(pulp::cast(s2), p2)),
            pulp::cast(avx2._mm256_add_epi32(pulp::cast(s3), p3)),
        ];
        pulp::cast(sums)
    }

    #[inline(always)]
    fn ahead(self, bytes: *const u8) {
        self.0.sse._mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(bytes.cast());
    }

    #[inline(always)]
    fn halves(self, tile: [u8; TILE_BYTES], flips: [u8; TILE_BYTES]) -> [[u8; TILE_BYTES]; 2] {
        let pulp::x86::V3 { avx, avx2, .. } = self.0;
        let tile = avx2._mm256_xor_si256(pulp::cast(tile), pulp::cast(flips));
        let half = avx._mm256_set1_epi8(0xf);
        let high = avx2._mm256_and_si256(avx2._mm256_srli_epi16::<4>(tile), half);
        [pulp::cast(avx2._mm256_and_si256(tile, half)), pulp::cast(high)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn both_ways_agree_on_extremes_and_noise() {
        let Some(wide) = Wide::new() else { return };
        let mut stream = Seed::from_number(1).stream();
        let mut bytes = || std::array::from_fn(|_| stream.bits_32().to_le_bytes()[0]);
        let tiles = [([0x80; 32], [0x80; 32]), ([0x7f; 32], [0x80; 32]), (bytes(), bytes()), (bytes(), bytes())];
        for (a, b) in tiles {
            for [of_a, of_b] in [[1, 0], [i16::MAX, i16::MAX], [17, 4_000]] {
                let digits = std::array::from_fn(|n| if n % 2 == 0 { of_a } else { of_b });
                let sums = std::array::from_fn(|n| 1_000 * i32::try_from(n).unwrap());
                assert_eq!(wide.weigh(sums, [a, b], &digits), Portable.weigh(sums, [a, b], &digits));
                assert_eq!(wide.halves(a, b), Portable.halves(a, b));
            }
        }
    }
}
