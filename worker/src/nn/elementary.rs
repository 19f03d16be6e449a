//! Exponential and normal distribution for both floats: `f32` as polynomials that vectorise, `f64` exact to its last bits.
//!
//! The `f32` forms call no maths library, so a loop over them is vectorised and gives the same bits on every machine.
//! The `f64` forms are there to check gradients. It knows no layers.

use std::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

use candle_core::cpu::erf::erf_f64;

/// What the layers need of a float beyond arithmetic.
pub trait Elementary: Sized + Clone {
    /// The value of an `f32`, exactly.
    fn from_f32(value: f32) -> Self;
    /// The nearest value to a constant of a formula.
    fn constant(value: f64) -> Self;
    /// A slice of `f32`, if that is this type.
    fn same(values: &[f32]) -> Option<&[Self]>;
    /// `eˣ`. For `f32` within 2·10⁻⁷ of it, 0 below −87 and no larger than e⁸⁸.
    fn exp(self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// `Φ(x)` and `φ(x)`, the standard normal distribution and its density. For `f32` within 3·10⁻⁷.
    fn normal(self) -> (Self, Self);
}

/// `ln 2` in two parts, the first with so few bits that its product with a small integer is exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// `eʳ ≈ 1 + r + r²·(E₀ + E₁r + …)` for `|r| ≤ ln 2 / 2` (Cephes `expf`, S. L. Moshier, 1989).
const EXP: [f32; 6] = [0.5, 0.166_666_65, 0.041_665_796, 0.008_333_452, 0.001_398_199_9, 0.000_198_756_91];
/// Adding it to a number rounds that to an integer, which the low bits then hold.
const ROUNDER: f32 = 12_582_912.0;
/// `1 − erf(z) ≈ t·(A₀ + A₁t + …)·e^(−z²)` with `t = 1/(1 + Pz)` (Abramowitz and Stegun 7.1.26).
const TAIL: [f32; 5] = [0.254_829_6, -0.284_496_73, 1.421_413_8, -1.453_152, 1.061_405_4];
const TAIL_P: f32 = 0.327_591_1;
const FRAC_1_SQRT_TAU: f32 = 0.398_942_3;

impl Elementary for f32 {
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "rounding to nearest is what is asked for")]
    fn constant(value: f64) -> Self {
        value as Self
    }

    fn same(values: &[f32]) -> Option<&[Self]> {
        Some(values)
    }

    #[inline(always)]
    fn exp(self) -> Self {
        // Comparisons are such that NaN stays NaN.
        let x = if self > 88.0 { 88.0 } else { self };
        let low = x < -87.0;
        let x = if low { -87.0 } else { x };
        let shifted = x * LOG2_E + ROUNDER;
        let n = shifted - ROUNDER;
        let r = (x - n * LN_2[0]) - n * LN_2[1];
        let high = EXP[3] + r * (EXP[4] + r * EXP[5]);
        let polynomial = 1.0 + (r + r * r * (EXP[0] + r * (EXP[1] + r * (EXP[2] + r * high))));
        let power = Self::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
        if low { 0.0 } else { polynomial * power }
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Self::sqrt(self)
    }

    #[inline(always)]
    fn normal(self) -> (Self, Self) {
        let z = Self::abs(self) * FRAC_1_SQRT_2;
        let bell = Elementary::exp(-(z * z));
        let t = 1.0 / (1.0 + TAIL_P * z);
        let tail = 0.5 * t * (TAIL[0] + t * (TAIL[1] + t * (TAIL[2] + t * (TAIL[3] + t * TAIL[4])))) * bell;
        (if self < 0.0 { tail } else { 1.0 - tail }, FRAC_1_SQRT_TAU * bell)
    }
}

impl Elementary for f64 {
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        Self::from(value)
    }

    #[inline(always)]
    fn constant(value: f64) -> Self {
        value
    }

    fn same(_: &[f32]) -> Option<&[Self]> {
        None
    }

    #[inline(always)]
    fn exp(self) -> Self {
        Self::exp(self)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Self::sqrt(self)
    }

    #[inline(always)]
    fn normal(self) -> (Self, Self) {
        let density = Self::exp(-0.5 * self * self) / std::f64::consts::TAU.sqrt();
        (0.5 * (1.0 + erf_f64(self * std::f64::consts::FRAC_1_SQRT_2)), density)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_precision_follows_double() {
        for n in -9_000..=9_000i16 {
            let x = f32::from(n) / 100.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(Elementary::exp(x)) - exact).abs() / exact;
            assert!(error < 2e-7 || (x < -87.0 && Elementary::exp(x) == 0.0) || x > 88.0, "exp({x}): {error:e}");
            let (cdf, density) = Elementary::normal(x);
            let (exact_cdf, exact_density) = Elementary::normal(f64::from(x));
            assert!((f64::from(cdf) - exact_cdf).abs() < 3e-7, "Φ({x}) = {cdf}, {exact_cdf}");
            assert!((f64::from(density) - exact_density).abs() < 3e-7, "φ({x})");
        }
    }

    #[test]
    fn what_is_not_a_number_stays_none() {
        assert!(Elementary::exp(f32::NAN).is_nan() && Elementary::normal(f32::NAN).0.is_nan());
        assert_eq!(Elementary::exp(f32::NEG_INFINITY), 0.0);
    }
}
