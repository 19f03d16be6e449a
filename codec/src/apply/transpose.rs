//! The transpose of an 8×8 square, in registers where the CPU has AVX.
//!
//! The compiler does not find these shuffles by itself, and tiles are made of them, so they are spelled
//! out, through `pulp`'s safe wrappers. Moving values rounds nothing: every path gives the same bits.

/// Edge of a square.
pub(crate) const SQUARE: usize = 8;

/// How squares are turned on this CPU, found out once per kernel.
#[derive(Clone, Copy)]
pub struct Turn {
    #[cfg(target_arch = "x86_64")]
    wide: Option<pulp::x86::V3>,
}

impl Turn {
    /// The best way that this CPU has.
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            wide: pulp::x86::V3::try_new(),
        }
    }

    /// The transpose of a square of `f32`.
    #[inline(always)]
    pub(crate) fn square(self, lines: [[f32; SQUARE]; SQUARE]) -> [[f32; SQUARE]; SQUARE] {
        #[cfg(target_arch = "x86_64")]
        if let Some(wide) = self.wide {
            return shuffled(wide, lines);
        }
        by_elements(lines)
    }
}

/// The transpose of any square, value by value.
#[inline(always)]
pub(crate) fn by_elements<T: Copy>(lines: [[T; SQUARE]; SQUARE]) -> [[T; SQUARE]; SQUARE] {
    std::array::from_fn(|j| lines.map(|line| line[j]))
}

/// Pairs, then pairs of pairs, then halves. Written out: a closure would not be inlined into the function
/// that has the registers.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn shuffled(wide: pulp::x86::V3, lines: [[f32; SQUARE]; SQUARE]) -> [[f32; SQUARE]; SQUARE] {
    let avx = wide.avx;
    let [a, b, c, d, e, f, g, h] = lines;
    let (a, b, c, d) = (pulp::cast(a), pulp::cast(b), pulp::cast(c), pulp::cast(d));
    let (e, f, g, h) = (pulp::cast(e), pulp::cast(f), pulp::cast(g), pulp::cast(h));
    let (ab, ab_high) = (avx._mm256_unpacklo_ps(a, b), avx._mm256_unpackhi_ps(a, b));
    let (cd, cd_high) = (avx._mm256_unpacklo_ps(c, d), avx._mm256_unpackhi_ps(c, d));
    let (ef, ef_high) = (avx._mm256_unpacklo_ps(e, f), avx._mm256_unpackhi_ps(e, f));
    let (gh, gh_high) = (avx._mm256_unpacklo_ps(g, h), avx._mm256_unpackhi_ps(g, h));
    let upper = [
        avx._mm256_shuffle_ps::<LOW>(ab, cd),
        avx._mm256_shuffle_ps::<HIGH>(ab, cd),
        avx._mm256_shuffle_ps::<LOW>(ab_high, cd_high),
        avx._mm256_shuffle_ps::<HIGH>(ab_high, cd_high),
    ];
    let lower = [
        avx._mm256_shuffle_ps::<LOW>(ef, gh),
        avx._mm256_shuffle_ps::<HIGH>(ef, gh),
        avx._mm256_shuffle_ps::<LOW>(ef_high, gh_high),
        avx._mm256_shuffle_ps::<HIGH>(ef_high, gh_high),
    ];
    [
        pulp::cast(avx._mm256_permute2f128_ps::<FIRST>(upper[0], lower[0])),
        pulp::cast(avx._mm256_permute2f128_ps::<FIRST>(upper[1], lower[1])),
        pulp::cast(avx._mm256_permute2f128_ps::<FIRST>(upper[2], lower[2])),
        pulp::cast(avx._mm256_permute2f128_ps::<FIRST>(upper[3], lower[3])),
        pulp::cast(avx._mm256_permute2f128_ps::<SECOND>(upper[0], lower[0])),
        pulp::cast(avx._mm256_permute2f128_ps::<SECOND>(upper[1], lower[1])),
        pulp::cast(avx._mm256_permute2f128_ps::<SECOND>(upper[2], lower[2])),
        pulp::cast(avx._mm256_permute2f128_ps::<SECOND>(upper[3], lower[3])),
    ]
}

/// The two low values of each operand's lanes, or the two high ones.
#[cfg(target_arch = "x86_64")]
const LOW: i32 = 0x44;
#[cfg(target_arch = "x86_64")]
const HIGH: i32 = 0xee;
/// The first halves of both operands, or the second ones.
#[cfg(target_arch = "x86_64")]
const FIRST: i32 = 0x20;
#[cfg(target_arch = "x86_64")]
const SECOND: i32 = 0x31;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_turn_a_square() {
        let lines: [[f32; SQUARE]; SQUARE] = std::array::from_fn(|i| std::array::from_fn(|j| (10 * i + j) as f32));
        let turned = by_elements(lines);
        assert_eq!(turned[2], [2.0, 12.0, 22.0, 32.0, 42.0, 52.0, 62.0, 72.0]);
        assert_eq!(Turn::new().square(lines), turned);
        assert_eq!(Turn::new().square(turned), lines);
    }
}
