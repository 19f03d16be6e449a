//! `Packed64`: a block as one amplitude on a fixed hashed pattern, 64 bits.
//!
//! ```text
//!  [63:32] r, Q0.32 | [31:0] θ, Q0.32 turns
//! ```
//!
//! `W(i,j) = κ(r)·sin θ·m(i,j)` with `κ(r) = tanh(2·artanh r) = 2r/(1+r²)`, `m = 1 + 0.1·sin(2π·h/256)` and
//! `h = (31i + 17j) mod 256`. Every 64 bits are a block: Q0.32 cannot reach `r = 1`, so `κ < 1` whatever the bits
//! are, and a turn wraps by itself; there is nothing for a decoder to refuse. Two parameters and one degree of
//! freedom, the amplitude `A = κ·sin θ`: the least-squares amplitude is known in closed form, and is what the
//! trained one is tested against. This file does not know layers, rounds or the federation's word.

use std::f64::consts::TAU;
use std::sync::LazyLock;

use crate::family::fit::{Fit, FitError, Training, check_start, check_values, descend};
use crate::quality::mean_square_difference;
use crate::scalar::Scalar;

/// One block of the hashed pattern: radius and angle as Q0.32, any bits valid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Packed64(u64);

const _: () = assert!(size_of::<Packed64>() == 8);

/// The radii between which the encoder keeps `r`.
pub const HASHED_RADII: (f64, f64) = (1e-6, 0.999);
/// Where the encoder starts unless told otherwise: `(r, θ)` in the middle, with an amplitude of 0 and a slope.
pub const HASHED_START: (f64, f64) = (0.5, 0.0);

const PERIOD: usize = 256;
const ROW_STEP: usize = 31;
const COL_STEP: usize = 17;
/// Rows by which a column step outruns a row step: `31 ≡ 17·47 (mod 256)`, so `h(i, j) = 17·(j + 47i)`.
const ROW_TURN: usize = 47;
const _: () = assert!(COL_STEP * ROW_TURN % PERIOD == ROW_STEP);
const ONE: f64 = (1u64 << 32) as f64;

static PATTERN: LazyLock<[f64; PERIOD]> =
    LazyLock::new(|| std::array::from_fn(|h| 1.0 + 0.1 * (TAU / PERIOD as f64 * h as f64).sin()));

/// `h = (31i + 17j) mod 256`, for any indices.
const fn hash(i: usize, j: usize) -> usize {
    (ROW_STEP * (i % PERIOD) + COL_STEP * (j % PERIOD)) % PERIOD
}

/// `κ(r) = 2r/(1+r²)`.
fn kappa(r: f64) -> f64 {
    2.0 * r / (1.0 + r * r)
}

/// `∂A/∂r` and `∂A/∂θ` of `A = κ(r)·sin θ`.
fn amplitude_slopes(r: f64, theta: f64) -> (f64, f64) {
    let (sin, cos) = theta.sin_cos();
    let square = r * r;
    (2.0 * (1.0 - square) / ((1.0 + square) * (1.0 + square)) * sin, kappa(r) * cos)
}

impl Packed64 {
    /// The nearest block to a radius, held in Q0.32's `[0, 1)`, and an angle in radians, taken modulo 2π.
    ///
    /// A number that is not finite becomes 0.
    #[must_use]
    pub fn new(r: f64, theta: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both are held in 0 to 2^32")]
        let fixed = |fraction: f64| (fraction * ONE).round() as u64;
        let turns = if theta.is_finite() { (theta / TAU).rem_euclid(1.0) } else { 0.0 };
        let radius = if r.is_finite() { r.clamp(0.0, 1.0) } else { 0.0 };
        let mask = u64::from(u32::MAX);
        Self(fixed(radius).min(mask) << 32 | fixed(turns) & mask)
    }

    /// The block of 64 bits; every one of them is a block.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The 64 bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Eight bytes, little-endian.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }

    /// The inverse of [`Packed64::to_bytes`].
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_le_bytes(bytes))
    }

    /// Radius in `[0, 1)` and angle in radians, `[0, 2π)`.
    #[must_use]
    pub fn polar(self) -> (f64, f64) {
        ((self.0 >> 32) as f64 / ONE, (self.0 & u64::from(u32::MAX)) as f64 / ONE * TAU)
    }

    /// `A = κ(r)·sin θ`, within `(-1, 1)`.
    #[must_use]
    pub fn amplitude(self) -> f64 {
        let (r, theta) = self.polar();
        kappa(r) * theta.sin()
    }

    /// `W(i,j)`; the same bits as the batch and the whole block give.
    #[must_use]
    pub fn element(self, i: usize, j: usize) -> f32 {
        f32::from_f64(self.amplitude() * PATTERN[hash(i, j)])
    }

    /// `∂W(i,j)/∂r` and `∂W(i,j)/∂θ`, θ in radians.
    #[must_use]
    pub fn derivative(self, i: usize, j: usize) -> (f64, f64) {
        let (r, theta) = self.polar();
        let (by_r, by_theta) = amplitude_slopes(r, theta);
        (by_r * PATTERN[hash(i, j)], by_theta * PATTERN[hash(i, j)])
    }

    /// `W` at the given positions (row, column).
    #[must_use]
    pub fn elements(self, positions: &[(usize, usize)]) -> Vec<f32> {
        let table = self.table();
        positions.iter().map(|&(i, j)| table[hash(i, j)]).collect()
    }

    /// The whole block into `out`, row-major; a row is a rotation of one row of 256, copied.
    ///
    /// # Panics
    /// If `out` is not of `rows × cols` values.
    pub fn decode_into(self, rows: usize, cols: usize, out: &mut [f32]) {
        assert_eq!(Some(out.len()), rows.checked_mul(cols), "a block of {rows} × {cols}");
        if out.is_empty() {
            return;
        }
        let table = self.table();
        let twice: [f32; 2 * PERIOD] = std::array::from_fn(|j| table[hash(0, j)]);
        for (i, row) in out.chunks_exact_mut(cols).enumerate() {
            let turned = &twice[ROW_TURN * (i % PERIOD) % PERIOD..][..PERIOD];
            row.chunks_mut(PERIOD).for_each(|part| part.copy_from_slice(&turned[..part.len()]));
        }
    }

    /// `A·m` for every hash.
    fn table(self) -> [f32; PERIOD] {
        let amplitude = self.amplitude();
        std::array::from_fn(|h| f32::from_f64(amplitude * PATTERN[h]))
    }
}

/// The values that a hashed block is fitted to, reduced to the three sums that its error depends on.
#[derive(Clone, Debug)]
pub struct HashedTarget<'a> {
    values: &'a [f32],
    shape: (usize, usize),
    /// Means of `m²`, `w·m` and `w²`.
    pattern: f64,
    product: f64,
    square: f64,
}

impl<'a> HashedTarget<'a> {
    /// A target of rows × cols values, row-major.
    ///
    /// # Errors
    /// If there are not rows × cols finite values, or none.
    pub fn new(values: &'a [f32], rows: usize, cols: usize) -> Result<Self, FitError> {
        check_values(values, rows, cols)?;
        let (mut pattern, mut product, mut square) = (0.0, 0.0, 0.0);
        for (i, row) in values.chunks_exact(cols).enumerate() {
            for (j, &w) in row.iter().enumerate() {
                let (w, m) = (f64::from(w), PATTERN[hash(i, j)]);
                pattern += m * m;
                product += w * m;
                square += w * w;
            }
        }
        let n = values.len() as f64;
        Ok(Self { values, shape: (rows, cols), pattern: pattern / n, product: product / n, square: square / n })
    }

    /// Mean squared error of `(r, θ)`: `A²·⟨m²⟩ − 2A·⟨wm⟩ + ⟨w²⟩`.
    #[must_use]
    pub fn loss(&self, r: f64, theta: f64) -> f64 {
        let amplitude = kappa(r) * theta.sin();
        amplitude * (amplitude * self.pattern - 2.0 * self.product) + self.square
    }

    /// `∂/∂r` and `∂/∂θ` of [`HashedTarget::loss`].
    #[must_use]
    pub fn gradient(&self, r: f64, theta: f64) -> [f64; 2] {
        let slope = 2.0 * (kappa(r) * theta.sin() * self.pattern - self.product);
        let (by_r, by_theta) = amplitude_slopes(r, theta);
        [slope * by_r, slope * by_theta]
    }

    /// The least-squares amplitude `⟨wm⟩/⟨m²⟩`, held to what `r ≤ 0.999` can reach, `±κ(0.999)`.
    #[must_use]
    pub fn best_amplitude(&self) -> f64 {
        let reach = kappa(HASHED_RADII.1);
        (self.product / self.pattern).clamp(-reach, reach)
    }

    /// The root mean square error of [`HashedTarget::best_amplitude`], the least that any `(r, θ)` has.
    #[must_use]
    pub fn best_rmse(&self) -> f64 {
        let amplitude = self.best_amplitude();
        (amplitude * (amplitude * self.pattern - 2.0 * self.product) + self.square).max(0.0).sqrt()
    }

    /// Trains `(r, θ)` from `start` ([`HASHED_START`]), `r` clamped to [`HASHED_RADII`] and θ taken modulo 2π.
    ///
    /// # Errors
    /// If the start is outside [`HASHED_RADII`], or its angle is not finite.
    pub fn encode(&self, start: (f64, f64), training: &Training) -> Result<Fit<Packed64>, FitError> {
        let r = check_start("r", start.0, HASHED_RADII)?;
        let theta = check_start("θ", start.1, (f64::MIN, f64::MAX))?;
        let hold = |p: &mut [f64; 2]| *p = [p[0].clamp(HASHED_RADII.0, HASHED_RADII.1), p[1].rem_euclid(TAU)];
        let ([r, theta], steps) = descend([r, theta], training, |p| self.gradient(p[0], p[1]), hold);
        let block = Packed64::new(r, theta);
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

    const TRAINING: Training = Training::constant(0.01, 5_000);

    fn decode(block: Packed64, rows: usize, cols: usize) -> Vec<f32> {
        let mut out = vec![f32::NAN; rows * cols];
        block.decode_into(rows, cols, &mut out);
        out
    }

    /// `amplitude·m` and noise of a deviation, row-major.
    fn noisy(amplitude: f64, deviation: f64, rows: usize, cols: usize) -> Vec<f32> {
        let mut stream = Seed::from_number(11).derive("hashed", &[rows as u64]).stream();
        let mut noise = || deviation * 12f64.sqrt() * (stream.unit() - 0.5);
        let at = |n: usize| amplitude * PATTERN[hash(n / cols, n % cols)];
        (0..rows * cols).map(|n| f32::from_f64(at(n) + noise())).collect()
    }

    #[test]
    fn fields_stand_where_the_diagram_says() {
        let block = Packed64::new(0.5, TAU / 4.0);
        assert_eq!(block.bits(), 1 << 63 | 1 << 30);
        assert!((block.amplitude() - 0.8).abs() < 1e-12, "κ(½) = 4/5");
        assert_eq!(Packed64::new(2.0, TAU).bits(), 0xffff_ffff_0000_0000, "held below 1, a whole turn is none");
        assert_eq!(Packed64::new(f64::NAN, f64::INFINITY).bits(), 0);
    }

    #[test]
    fn kappa_is_the_tanh_of_the_doubled_artanh() {
        for r in [0.0, 1e-6, 0.3, 0.7, 0.999] {
            assert!((kappa(r) - (2.0 * r.atanh()).tanh()).abs() < 1e-12);
        }
    }

    #[test]
    fn the_formula_is_the_issues() {
        let (i, j) = (1_000_003, 77);
        let h = f64::from(u32::try_from((31 * i + 17 * j) % 256).unwrap());
        let (r, theta) = Packed64::new(0.4, 5.0).polar();
        let want = (2.0 * r.atanh()).tanh() * theta.sin() * (1.0 + 0.1 * (TAU * h / 256.0).sin());
        assert!((f64::from(Packed64::new(0.4, 5.0).element(i, j)) - want).abs() < 1e-7);
    }

    #[test]
    fn the_trained_amplitude_is_the_least_squares_one() {
        for (amplitude, deviation, edge) in [(0.6, 0.0, 32), (-0.93, 0.05, 64), (0.0, 1.0, 64), (0.01, 0.3, 7)] {
            let values = noisy(amplitude, deviation, edge, edge + 1);
            let target = HashedTarget::new(&values, edge, edge + 1).unwrap();
            let fit = target.encode(HASHED_START, &TRAINING).unwrap();
            assert!((fit.block.amplitude() - target.best_amplitude()).abs() < 1e-8, "{amplitude}: {fit:?}");
            assert!(fit.rmse < target.best_rmse() + 1e-7);
            assert!(fit.rmse + 1e-7 > target.best_rmse(), "nothing is below the least squares");
            assert!(fit.steps < TRAINING.steps_max, "{amplitude} took every step");
        }
    }

    #[test]
    fn values_out_of_reach_get_the_largest_amplitude() {
        let values = noisy(-3.0, 0.1, 16, 16);
        let target = HashedTarget::new(&values, 16, 16).unwrap();
        let fit = target.encode(HASHED_START, &TRAINING).unwrap();
        assert!(fit.block.polar().0 < HASHED_RADII.1 + 1.0 / ONE, "0.999 to a step of Q0.32");
        assert!((fit.block.amplitude() - target.best_amplitude()).abs() < 1e-4, "{fit:?}");
    }

    #[test]
    fn a_start_outside_the_radii_is_refused() {
        let target = HashedTarget::new(&[0.1], 1, 1).unwrap();
        for start in [(0.0, 0.0), (1.0, 0.0), (f64::NAN, 0.0), (0.5, f64::INFINITY)] {
            assert!(matches!(target.encode(start, &TRAINING), Err(FitError::Start { .. })), "{start:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bits_return_and_repack(bits: u64) {
            let block = Packed64::from_bits(bits);
            let (r, theta) = block.polar();
            prop_assert_eq!(Packed64::new(r, theta), block);
            prop_assert_eq!(Packed64::from_bytes(block.to_bytes()).bits(), bits);
            prop_assert!(block.amplitude().abs() < 1.0);
            prop_assert!(block.element(usize::MAX, usize::MAX).is_finite());
        }

        #[test]
        fn one_many_and_all_decode_to_the_same_bits(bits: u64, rows in 0..70usize, cols in 0..600usize) {
            let block = Packed64::from_bits(bits);
            let positions: Vec<_> = (0..rows * cols).map(|n| (n / cols, n % cols)).collect();
            let whole = decode(block, rows, cols);
            prop_assert_eq!(&block.elements(&positions), &whole);
            let single: Vec<f32> = positions.iter().map(|&(i, j)| block.element(i, j)).collect();
            prop_assert_eq!(single, whole);
        }

        #[test]
        fn the_gradient_is_the_finite_difference(r in 0.01..0.99f64, theta in 0.0..TAU, amplitude in -1.0..1.0f64) {
            let (rows, cols) = (9, 21);
            let values = noisy(amplitude, 0.2, rows, cols);
            let target = HashedTarget::new(&values, rows, cols).unwrap();
            // The error summed over elements, not the three sums that the code under test reduces it to.
            let loss = |r: f64, theta: f64| {
                let at = |n: usize| kappa(r) * theta.sin() * PATTERN[hash(n / cols, n % cols)];
                values.iter().enumerate().map(|(n, &w)| (at(n) - f64::from(w)).powi(2)).sum::<f64>() / values.len() as f64
            };
            prop_assert!((loss(r, theta) - target.loss(r, theta)).abs() < 1e-12);
            let step = 1e-5;
            let by_r = (loss(r + step, theta) - loss(r - step, theta)) / (2.0 * step);
            let by_theta = (loss(r, theta + step) - loss(r, theta - step)) / (2.0 * step);
            let [got_r, got_theta] = target.gradient(r, theta);
            prop_assert!((got_r - by_r).abs() < 1e-7, "{} and not {}", got_r, by_r);
            prop_assert!((got_theta - by_theta).abs() < 1e-7, "{} and not {}", got_theta, by_theta);
        }

        #[test]
        fn an_elements_derivative_is_the_finite_difference(r in 0.01..0.99f64, theta in 0.0..TAU, i in 0..300usize) {
            let block = Packed64::new(r, theta);
            let (r, theta) = block.polar();
            let at = |r: f64, theta: f64| kappa(r) * theta.sin() * PATTERN[hash(i, 3)];
            let (by_r, by_theta) = block.derivative(i, 3);
            prop_assert!((by_r - (at(r + 1e-5, theta) - at(r - 1e-5, theta)) / 2e-5).abs() < 1e-7);
            prop_assert!((by_theta - (at(r, theta + 1e-5) - at(r, theta - 1e-5)) / 2e-5).abs() < 1e-7);
        }
    }
}
