//! `Radial128`: a block as a clamped cone around its centre, in two representations of 64 bits each.
//!
//! ```text
//!  hi  Seed0, for inference   [63:32] r, Q1.30 signed  | [31:0] θ, Q1.30 signed
//!  lo  Seed1, for training    [63:32] r as f32         | [31:0] θ as f32
//! ```
//!
//! `W(i,j) = clamp(r − d·r + θ, 0, 1)` with `d = √(x² + y²)`, and `x`, `y` running from −1 to 1 over the columns and
//! the rows, both ends included (an edge of one value stands at 0). `r` and θ lie in `[-2, 2)`, which is what Seed0
//! can hold in 32 bits with two bits before the point (one of them the sign). Its step, 2⁻³⁰, is finer than an
//! `f32`'s spacing above 2⁻⁶, so for the usual parameters the *inference* seed is the more exact one. Any Seed0 is a
//! block; a Seed1 outside the range, or not finite, is not. This file does not know layers, rounds or words.

use thiserror::Error;

use crate::family::fit::{Fit, FitError, Training, check_start, check_values, descend};
use crate::quality::mean_square_difference;
use crate::scalar::Scalar;

/// One block of the radial pattern: an inference seed of integers and a training seed of two floats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Radial128 {
    seed0: u64,
    seed1: u64,
}

const _: () = assert!(size_of::<Radial128>() == 16);

const FRACTION_BITS: u32 = 30;
const ONE: f64 = (1u32 << FRACTION_BITS) as f64;
/// Both parameters lie in `-LIMIT..LIMIT`.
const LIMIT: f32 = 2.0;
/// The range in which training keeps a parameter: Seed0's, and no number that rounds to 2 as an `f32`.
const RANGE: (f64, f64) = (-2.0, 2.0 - 1.0 / (1u32 << 23) as f64);

/// Why 128 bits are not a radial block.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum RadialError {
    /// Seed1's radius lies outside the range, or is not a number.
    #[error("radius {0} in bits 32 to 63 of Seed1 is outside [-2, 2)")]
    Radius(f32),
    /// Seed1's offset lies outside the range, or is not a number.
    #[error("offset {0} in bits 0 to 31 of Seed1 is outside [-2, 2)")]
    Offset(f32),
}

/// Where the gradient of the mean squared error comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Derivative {
    /// By formula; where the clamp has a kink, see [`RadialTarget::gradient`].
    Analytic,
    /// `(L(p + ε) − L(p − ε))/2ε` with `ε = 1e-3` for each parameter: exact as long as no value crosses the clamp.
    Central,
}

const CENTRAL_STEP: f64 = 1e-3;

impl Radial128 {
    /// A block from its two parameters; Seed0 is Seed1 rounded to 2⁻³⁰.
    ///
    /// # Errors
    /// If a parameter is not in `[-2, 2)`.
    pub fn new(r: f32, theta: f32) -> Result<Self, RadialError> {
        Self::check(r, theta)?;
        Ok(Self { seed0: seed0(f64::from(r), f64::from(theta)), seed1: seed1(r, theta) })
    }

    /// A block from trained parameters, each seed rounded from the `f64` by itself; both held to `[-2, 2)`.
    fn from_trained(r: f64, theta: f64) -> Self {
        Self { seed0: seed0(r, theta), seed1: seed1(f32::from_f64(r), f32::from_f64(theta)) }
    }

    fn check(r: f32, theta: f32) -> Result<(), RadialError> {
        if !(-LIMIT..LIMIT).contains(&r) {
            return Err(RadialError::Radius(r));
        }
        if !(-LIMIT..LIMIT).contains(&theta) {
            return Err(RadialError::Offset(theta));
        }
        Ok(())
    }

    /// A block from its two words, as stored.
    ///
    /// # Errors
    /// If Seed1 is out of range. Seed0 may hold any bits.
    pub fn from_bits(seed0: u64, seed1: u64) -> Result<Self, RadialError> {
        let block = Self { seed0, seed1 };
        let (r, theta) = block.parameters();
        Self::check(r, theta)?;
        Ok(block)
    }

    /// Seed0 and Seed1.
    #[must_use]
    pub const fn bits(self) -> (u64, u64) {
        (self.seed0, self.seed1)
    }

    /// The 16 bytes on disk: Seed0 then Seed1, little-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.seed1) << 64 | u128::from(self.seed0)).to_le_bytes()
    }

    /// The inverse of [`Radial128::to_bytes`].
    ///
    /// # Errors
    /// As [`Radial128::from_bits`].
    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, RadialError> {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self::from_bits(u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes([i, j, k, l, m, n, o, p]))
    }

    /// Seed1: `r` and θ, exact.
    #[must_use]
    pub fn parameters(self) -> (f32, f32) {
        let (r, theta) = halves(self.seed1);
        (f32::from_bits(r), f32::from_bits(theta))
    }

    /// Seed0: `r` and θ in units of 2⁻³⁰.
    #[must_use]
    pub fn quantized_parameters(self) -> (i32, i32) {
        let (r, theta) = halves(self.seed0);
        (r.cast_signed(), theta.cast_signed())
    }

    /// `W` from the training seed into `out`, row-major.
    ///
    /// # Panics
    /// If `out` is not of `rows × cols` values.
    pub fn decode_into(self, rows: usize, cols: usize, out: &mut [f32]) {
        let (r, theta) = self.parameters();
        fill((f64::from(r), f64::from(theta)), rows, cols, out);
    }

    /// `W` from the inference seed into `out`, row-major.
    ///
    /// # Panics
    /// If `out` is not of `rows × cols` values.
    pub fn decode_quantized_into(self, rows: usize, cols: usize, out: &mut [f32]) {
        let (r, theta) = self.quantized_parameters();
        fill((f64::from(r) / ONE, f64::from(theta) / ONE), rows, cols, out);
    }
}

fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
    (u32::from_le_bytes([e, f, g, h]), u32::from_le_bytes([a, b, c, d]))
}

fn seed1(r: f32, theta: f32) -> u64 {
    u64::from(r.to_bits()) << 32 | u64::from(theta.to_bits())
}

fn seed0(r: f64, theta: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "a cast of a float saturates, and 2 − 2⁻³⁰ is the last step")]
    let fixed = |value: f64| u64::from(((value * ONE).round() as i32).cast_unsigned());
    fixed(r) << 32 | fixed(theta)
}

/// The coordinate of a row or column in `[-1, 1]`.
fn coordinate(index: usize, edge: usize) -> f64 {
    if edge < 2 { 0.0 } else { (2 * index) as f64 / (edge - 1) as f64 - 1.0 }
}

/// Distances from the centre, row-major.
fn distances(rows: usize, cols: usize) -> impl Iterator<Item = f64> {
    let columns: Vec<f64> = (0..cols).map(|j| coordinate(j, cols).powi(2)).collect();
    (0..rows * cols).map(move |n| (coordinate(n / cols, rows).powi(2) + columns[n % cols]).sqrt())
}

/// `r − d·r + θ`, before the clamp.
fn cone((r, theta): (f64, f64), distance: f64) -> f64 {
    r * (1.0 - distance) + theta
}

fn fill(parameters: (f64, f64), rows: usize, cols: usize, out: &mut [f32]) {
    assert_eq!(Some(out.len()), rows.checked_mul(cols), "a block of {rows} × {cols}");
    for (value, d) in out.iter_mut().zip(distances(rows, cols)) {
        *value = f32::from_f64(cone(parameters, d).clamp(0.0, 1.0));
    }
}

/// The values that a radial block is fitted to.
#[derive(Clone, Debug)]
pub struct RadialTarget<'a> {
    values: &'a [f32],
    shape: (usize, usize),
    distances: Vec<f64>,
}

impl<'a> RadialTarget<'a> {
    /// A target of rows × cols values, row-major. Values outside `[0, 1]` are allowed, and out of reach.
    ///
    /// # Errors
    /// If there are not rows × cols finite values, or none.
    pub fn new(values: &'a [f32], rows: usize, cols: usize) -> Result<Self, FitError> {
        check_values(values, rows, cols)?;
        Ok(Self { values, shape: (rows, cols), distances: distances(rows, cols).collect() })
    }

    /// Mean squared error of `(r, θ)`.
    #[must_use]
    pub fn loss(&self, r: f64, theta: f64) -> f64 {
        let square = |(&w, &d): (&f32, &f64)| (cone((r, theta), d).clamp(0.0, 1.0) - f64::from(w)).powi(2);
        self.values.iter().zip(&self.distances).map(square).sum::<f64>() / self.values.len() as f64
    }

    /// `∂/∂r` and `∂/∂θ` of [`RadialTarget::loss`].
    ///
    /// `∂W/∂r = 1 − d` and `∂W/∂θ = 1` where `0 ≤ r − d·r + θ ≤ 1`, 0 elsewhere. At the two kinks themselves the
    /// subgradient taken is that of the inside, so that a value which a block reaches exactly can still be left
    /// inwards; a block that is clamped everywhere has no gradient, and stays as it is.
    #[must_use]
    pub fn gradient(&self, r: f64, theta: f64, derivative: Derivative) -> [f64; 2] {
        match derivative {
            Derivative::Analytic => self.analytic_gradient(r, theta),
            Derivative::Central => {
                let slope = |above: f64, below: f64| (above - below) / (2.0 * CENTRAL_STEP);
                [
                    slope(self.loss(r + CENTRAL_STEP, theta), self.loss(r - CENTRAL_STEP, theta)),
                    slope(self.loss(r, theta + CENTRAL_STEP), self.loss(r, theta - CENTRAL_STEP)),
                ]
            }
        }
    }

    fn analytic_gradient(&self, r: f64, theta: f64) -> [f64; 2] {
        let mut sums = [0.0; 2];
        for (&w, &d) in self.values.iter().zip(&self.distances) {
            let value = cone((r, theta), d);
            if (0.0..=1.0).contains(&value) {
                let error = value - f64::from(w);
                sums = [sums[0] + error * (1.0 - d), sums[1] + error];
            }
        }
        sums.map(|sum| 2.0 * sum / self.values.len() as f64)
    }

    /// Trains `(r, θ)` from `start`, both held to `[-2, 2)`.
    ///
    /// The reported error is that of [`Radial128::decode_into`], from the training seed.
    ///
    /// # Errors
    /// If a parameter starts outside its range.
    pub fn encode(
        &self,
        start: (f64, f64),
        derivative: Derivative,
        training: &Training,
    ) -> Result<Fit<Radial128>, FitError> {
        let start = [check_start("r", start.0, RANGE)?, check_start("θ", start.1, RANGE)?];
        let hold = |p: &mut [f64; 2]| *p = p.map(|value| value.clamp(RANGE.0, RANGE.1));
        let gradient = |p: &[f64; 2]| self.gradient(p[0], p[1], derivative);
        let ([r, theta], steps) = descend(start, training, gradient, hold);
        let block = Radial128::from_trained(r, theta);
        let mut decoded = vec![0.0; self.values.len()];
        block.decode_into(self.shape.0, self.shape.1, &mut decoded);
        Ok(Fit { block, steps, rmse: mean_square_difference(self.values, &decoded).sqrt() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::seed::Seed;

    const EDGE: usize = 32;

    /// The reference's target, `1 − d/√2`.
    fn reference() -> Vec<f32> {
        distances(EDGE, EDGE).map(|d| f32::from_f64(1.0 - d / 2f64.sqrt())).collect()
    }

    fn decode(block: Radial128) -> (Vec<f32>, Vec<f32>) {
        let mut seeds = (vec![f32::NAN; EDGE * EDGE], vec![f32::NAN; EDGE * EDGE]);
        block.decode_into(EDGE, EDGE, &mut seeds.0);
        block.decode_quantized_into(EDGE, EDGE, &mut seeds.1);
        seeds
    }

    #[test]
    fn fields_stand_where_the_diagram_says() {
        let block = Radial128::new(0.5, -0.25).unwrap();
        let (hi, lo) = block.bits();
        assert_eq!((hi >> 32, hi & 0xffff_ffff), (1 << 29, 0xf000_0000), "two's complement");
        assert_eq!(lo >> 32, u64::from(0.5f32.to_bits()));
        assert_eq!(lo & 0xffff_ffff, u64::from((-0.25f32).to_bits()));
        assert_eq!(block.quantized_parameters(), (1 << 29, -(1 << 28)));
    }

    #[test]
    fn parameters_out_of_range_are_refused_by_name() {
        let error = Radial128::new(2.0, 0.0).unwrap_err();
        assert_eq!(error, RadialError::Radius(2.0));
        assert_eq!(error.to_string(), "radius 2 in bits 32 to 63 of Seed1 is outside [-2, 2)");
        assert_eq!(Radial128::new(0.0, -2.5), Err(RadialError::Offset(-2.5)));
        assert!(matches!(Radial128::new(f32::NAN, 0.0), Err(RadialError::Radius(_))));
        assert!(matches!(Radial128::from_bytes([0xff; 16]), Err(RadialError::Radius(_))));
        assert_eq!(Radial128::new(-2.0, 0.0).unwrap().quantized_parameters().0, i32::MIN);
    }

    #[test]
    fn the_corner_and_the_centre_are_where_the_formula_puts_them() {
        let mut out = [0.0; 9];
        Radial128::new(0.5, 0.25).unwrap().decode_into(3, 3, &mut out);
        assert_eq!((out[4], out[1]), (0.75, 0.25), "d is 0 in the centre and 1 in the middle of an edge");
        assert!((f64::from(out[0]) - (0.75 - 0.5 * 2f64.sqrt())).abs() < 1e-7);
        let mut one = [0.0];
        Radial128::new(0.5, 0.25).unwrap().decode_into(1, 1, &mut one);
        assert_eq!(one, [0.75]);
    }

    #[test]
    fn the_reference_is_reached_from_every_corner_of_its_range() {
        let values = reference();
        let target = RadialTarget::new(&values, EDGE, EDGE).unwrap();
        for start in [(0.8, -0.5), (0.8, 0.5), (1.0, -0.5), (1.0, 0.5), (0.9, 0.0)] {
            let fit = target.encode(start, Derivative::Analytic, &Training::constant(0.01, 4_000)).unwrap();
            let (r, theta) = fit.block.parameters();
            assert!(fit.rmse <= 3e-8, "{start:?}: {fit:?}");
            assert!(
                (f64::from(r) - 0.5f64.sqrt()).abs() < 6e-8 && (f64::from(theta) - 1.0 + 0.5f64.sqrt()).abs() < 6e-8
            );
            let quantized = mean_square_difference(&values, &decode(fit.block).1).sqrt();
            assert!(quantized <= fit.rmse, "Seed0's step is finer than an f32's at 0.7: {quantized:e}");
        }
    }

    #[test]
    fn two_hundred_steps_from_the_middle_are_enough_for_1e_5() {
        let values = reference();
        let target = RadialTarget::new(&values, EDGE, EDGE).unwrap();
        for derivative in [Derivative::Analytic, Derivative::Central] {
            let fit = target.encode((0.9, 0.0), derivative, &Training::constant(0.01, 200)).unwrap();
            assert!(fit.rmse < 1e-5, "{derivative:?}: {fit:?}");
        }
    }

    #[test]
    fn at_the_kink_the_gradient_is_that_of_the_inside() {
        let at =
            |value: f32, theta| RadialTarget::new(&[value], 1, 1).unwrap().gradient(0.0, theta, Derivative::Analytic);
        assert_eq!(at(0.5, 1.0), [1.0, 1.0]);
        assert_eq!(at(0.5, 0.0), [-1.0, -1.0]);
        assert_eq!(at(0.5, 1.5), [0.0, 0.0], "clamped, so nothing moves");
        assert_eq!(at(0.5, -0.5), [0.0, 0.0]);
    }

    #[test]
    fn what_is_no_target_or_no_start_is_refused() {
        assert!(matches!(RadialTarget::new(&[0.0; 3], 2, 2), Err(FitError::Shape { .. })));
        let target = RadialTarget::new(&[0.5], 1, 1).unwrap();
        for start in [(f64::NAN, 0.0), (0.0, 2.0), (-2.1, 0.0)] {
            let error = target.encode(start, Derivative::Analytic, &Training::constant(0.01, 1)).unwrap_err();
            assert!(matches!(error, FitError::Start { .. }));
        }
    }

    proptest! {
        #[test]
        fn any_bits_return_or_are_refused(seed0: u64, seed1: u64) {
            if let Ok(block) = Radial128::from_bits(seed0, seed1) {
                prop_assert_eq!(block.bits(), (seed0, seed1));
                prop_assert_eq!(Radial128::from_bytes(block.to_bytes()), Ok(block));
                let (a, b) = decode(block);
                prop_assert!(a.iter().chain(&b).all(|w| (0.0..=1.0).contains(w)));
            }
        }

        #[test]
        fn both_seeds_say_the_same(r in -2.0..2.0f32, theta in -2.0..2.0f32) {
            let block = Radial128::new(r, theta).unwrap();
            prop_assert_eq!(block.parameters(), (r, theta));
            let (trained, quantized) = decode(block);
            for (a, b) in trained.iter().zip(quantized) {
                prop_assert!((a - b).abs() < 2e-9 + f32::EPSILON, "{} and {}", a, b);
            }
        }

        #[test]
        fn the_analytic_gradient_is_the_central_difference(r in -1.5..1.5f64, theta in -1.0..1.5f64, seed: u64) {
            let mut stream = Seed::from_number(seed).stream();
            let values: Vec<f32> = (0..15).map(|_| f32::from_f64(stream.unit())).collect();
            let target = RadialTarget::new(&values, 3, 5).unwrap();
            // Away from the kinks the loss is a quadratic, on which the central difference is exact.
            let crosses = |&d: &f64| [0.0, 1.0].iter().any(|kink| (cone((r, theta), d) - kink).abs() < 2.0 * CENTRAL_STEP);
            prop_assume!(!target.distances.iter().any(crosses));
            let analytic = target.gradient(r, theta, Derivative::Analytic);
            let central = target.gradient(r, theta, Derivative::Central);
            for (a, c) in analytic.iter().zip(central) {
                prop_assert!((a - c).abs() < 1e-10, "{} and {}", a, c);
            }
        }
    }
}
