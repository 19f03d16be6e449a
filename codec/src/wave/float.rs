//! The wave in floats, vectorised: a whole block from 2·(rows + cols) cosines and sines, and its gradients.
//!
//! `φ(i,j) = a_i + b_j` makes the wave separable: with `even_i = n_w·(x·cos a_i − y·sin a_i)` and
//! `odd_i = n_w·(x·sin a_i + y·cos a_i)` an element is `even_i·cos b_j − odd_i·sin b_j`, one pair of products.
//!
//! Cosine and sine are polynomials on an eighth of a turn either way (Cephes `sinf` and `cosf`, S. L. Moshier,
//! 1989, rescaled to quarter turns): no call into a maths library, so the loop vectorises and gives the
//! same bits on every machine. Phases are integers that wrap, so no argument is ever reduced. It does not know
//! residuals, and of a block only its size and frequency.

use std::f32::consts::FRAC_PI_2;

use pulp::{Simd, WithSimd};

use crate::layout::Block;
use crate::scalar::Scalar;
use crate::wave::cordic::TURN_BITS;
use crate::wave::integer::turn_fraction;

/// Phases that are evaluated side by side, and partial sums of a product: one AVX-512 register.
const LANES: usize = 16;
/// `sin(π/2·t) ≈ t·(S₀ + S₁t² + S₂t⁴ + S₃t⁶)` for `|t| ≤ ½`.
const SINE: [f32; 4] = [FRAC_PI_2, -0.645_963_6, 0.079_681_41, -0.004_604_837];
/// `cos(π/2·t) ≈ 1 + t²·(C₀ + C₁t² + C₂t⁴ + C₃t⁶)` for `|t| ≤ ½`.
const COSINE: [f32; 4] = [-1.233_700_6, 0.253_669_38, -0.020_861_118, 0.000_905_604_57];

/// `(sin, cos)` of every phase in 2⁻²⁴ turns (bits above are ignored), within 2⁻²³.
///
/// # Panics
/// If the slices are not of one length.
pub fn sin_cos_turns(phases: &[u32], sine: &mut [f32], cosine: &mut [f32]) {
    assert_eq!((phases.len(), phases.len()), (sine.len(), cosine.len()), "one sine and cosine a phase");
    pulp::Arch::new().dispatch(SinCos { phases, shift: u32::BITS - TURN_BITS, sine, cosine });
}

struct SinCos<'a> {
    phases: &'a [u32],
    /// What makes a phase a count of 2⁻³² turns.
    shift: u32,
    sine: &'a mut [f32],
    cosine: &'a mut [f32],
}

impl WithSimd for SinCos<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) {
        let (phases, rest) = self.phases.as_chunks::<LANES>();
        let (sine, sine_rest) = self.sine.as_chunks_mut::<LANES>();
        let (cosine, cosine_rest) = self.cosine.as_chunks_mut::<LANES>();
        for ((phases, sine), cosine) in phases.iter().zip(sine).zip(cosine) {
            for lane in 0..LANES {
                (sine[lane], cosine[lane]) = sin_cos(phases[lane] << self.shift);
            }
        }
        for ((&phase, sine), cosine) in rest.iter().zip(sine_rest).zip(cosine_rest) {
            (*sine, *cosine) = sin_cos(phase << self.shift);
        }
    }
}

/// `(sin, cos)` of a phase in 2⁻³² turns.
#[inline(always)]
fn sin_cos(phase: u32) -> (f32, f32) {
    let shifted = phase.wrapping_add(1 << 29);
    let t = ((shifted % (1 << 30)).cast_signed() - (1 << 29)) as f32 * (1.0 / (1u32 << 30) as f32);
    sin_cos_quarters(shifted >> 30, t)
}

/// `(sin, cos)` of `quarters + t` quarter turns, `|t| ≤ ½`; of the whole ones only the last two bits count.
#[inline(always)]
pub(crate) fn sin_cos_quarters(quarters: u32, t: f32) -> (f32, f32) {
    let square = t * t;
    let sine = t * (SINE[0] + square * (SINE[1] + square * (SINE[2] + square * SINE[3])));
    let cosine = 1.0 + square * (COSINE[0] + square * (COSINE[1] + square * (COSINE[2] + square * COSINE[3])));
    let swapped = (sine.to_bits() ^ cosine.to_bits()) & 0u32.wrapping_sub(quarters & 1);
    let (sine_sign, cosine_sign) = (quarters >> 1 << 31, (quarters.wrapping_add(1) >> 1) << 31);
    (f32::from_bits(sine.to_bits() ^ swapped ^ sine_sign), f32::from_bits(cosine.to_bits() ^ swapped ^ cosine_sign))
}

/// The separable form of one block's wave.
#[derive(Clone, Debug, PartialEq)]
pub struct Wave {
    norm: f32,
    rows: Edge,
    cols: Edge,
}

/// Cosine and sine along one edge of a block.
#[derive(Clone, Debug, PartialEq)]
struct Edge {
    cosine: Vec<f32>,
    sine: Vec<f32>,
}

impl Edge {
    fn new(size: usize, frequency: i16) -> Self {
        let fraction = turn_fraction(frequency, size);
        let phases: Vec<u32> = (0..size as u64).map(|n| round_32(fraction.wrapping_mul(2 * n + 1))).collect();
        let (mut cosine, mut sine) = (vec![0.0; size], vec![0.0; size]);
        pulp::Arch::new().dispatch(SinCos { phases: &phases, shift: 0, sine: &mut sine, cosine: &mut cosine });
        Self { cosine, sine }
    }

    fn iter(&self) -> impl Iterator<Item = (f32, f32)> {
        self.cosine.iter().copied().zip(self.sine.iter().copied())
    }
}

/// 2⁻⁶⁴ turns, rounded to 2⁻³² turns.
fn round_32(phase: u64) -> u32 {
    u32::try_from(phase.wrapping_add(1 << 31) >> 32).expect("32 bits are left")
}

impl Wave {
    /// The wave of a block, from its size and frequency.
    #[must_use]
    pub fn new(block: &Block) -> Self {
        Self {
            norm: f32::from_f64(block.wave_norm()),
            rows: Edge::new(block.rows, block.frequency.u),
            cols: Edge::new(block.cols, block.frequency.v),
        }
    }

    /// The wave of the transposed block, `cols`×`rows`.
    #[must_use]
    pub fn transposed(block: &Block) -> Self {
        let Self { norm, rows, cols } = Self::new(block);
        Self { norm, rows: cols, cols: rows }
    }

    /// Adds the wave of `z = (x, y)` to a matrix of which the block is a part: `values` begins with the
    /// block's first element, and `stride` elements further begins its next row.
    ///
    /// # Panics
    /// If a row of the block does not fit.
    pub fn add_to(&self, z: (f32, f32), values: &mut [f32], stride: usize) {
        assert!(stride >= self.cols.cosine.len(), "stride {stride} is less than a row");
        pulp::Arch::new().dispatch(AddWave { wave: self, z, values, stride });
    }

    /// Gradient in `z = (x, y)` from the gradient of the block's elements, rows × cols.
    ///
    /// # Panics
    /// If `grad` is not rows × cols.
    #[must_use]
    pub fn gradient(&self, grad: &[f32]) -> (f32, f32) {
        assert_eq!(grad.len(), self.rows.cosine.len() * self.cols.cosine.len(), "the gradient is rows × cols");
        pulp::Arch::new().dispatch(Gradient { wave: self, grad })
    }
}

/// The chain rule from `z = g·κ(r)·(cos θ, sin θ)` to `(r, θ)`, θ in radians.
///
/// `∂/∂r = g·κ′(r)·(gx·cos θ + gy·sin θ)` and `∂/∂θ = g·κ(r)·(gy·cos θ − gx·sin θ)`. At the disk's rim κ′ is
/// 0 and at its centre the angle has no gradient: train z, and use this where only (r, θ) is to be had.
#[must_use]
pub fn polar_gradient((gx, gy): (f64, f64), (r, theta): (f64, f64), gain: f64) -> (f64, f64) {
    let (sin, cos) = theta.sin_cos();
    let one = 1.0 + r * r;
    let (kappa, slope) = (2.0 * r / one, 2.0 * (1.0 - r * r) / (one * one));
    (gain * slope * (gx * cos + gy * sin), gain * kappa * (gy * cos - gx * sin))
}

/// One block, to be compiled once for every instruction set.
struct AddWave<'a> {
    wave: &'a Wave,
    z: (f32, f32),
    values: &'a mut [f32],
    stride: usize,
}

impl WithSimd for AddWave<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) {
        let Wave { norm, rows, cols } = self.wave;
        let (x, y) = (norm * self.z.0, norm * self.z.1);
        for (i, (cos, sin)) in rows.iter().enumerate() {
            let (even, odd) = (x * cos - y * sin, x * sin + y * cos);
            let row = &mut self.values[i * self.stride..][..cols.cosine.len()];
            for ((value, cos), sin) in row.iter_mut().zip(&cols.cosine).zip(&cols.sine) {
                *value += even * cos - odd * sin;
            }
        }
    }
}

/// The sums of a block's gradient with its cosines and sines, likewise.
struct Gradient<'a> {
    wave: &'a Wave,
    grad: &'a [f32],
}

impl WithSimd for Gradient<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) -> (f32, f32) {
        let Wave { norm, rows, cols } = self.wave;
        let (mut x, mut y) = (0.0, 0.0);
        for (grad, (cos, sin)) in self.grad.chunks_exact(cols.cosine.len()).zip(rows.iter()) {
            let (even, odd) = (dot(grad, &cols.cosine), dot(grad, &cols.sine));
            x += cos * even - sin * odd;
            y -= sin * even + cos * odd;
        }
        (norm * x, norm * y)
    }
}

/// `Σ a·b` in partial sums, whose order the width of a register does not change.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let ((a, a_rest), (b, b_rest)) = (a_rest.as_chunks::<4>(), b_rest.as_chunks::<4>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..4 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    for ((sum, a), b) in sums.iter_mut().zip(a_rest).zip(b_rest) {
        *sum += a * b;
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use std::f64::consts::{PI, TAU};

    use proptest::prelude::*;

    use super::*;
    use crate::layout::{LayerSpec, Layout};
    use crate::seed::Seed;

    fn block(rows: usize, cols: usize, seed: u64) -> Block {
        let block = rows.max(cols);
        let spec = LayerSpec { name: "w".into(), rows, cols, block, residual: 0, gain_exponent: 4 };
        Layout::new(&Seed::from_number(seed), vec![spec]).unwrap().layers()[0].blocks()[0].clone()
    }

    /// The wave from its definition.
    fn exact(block: &Block, (x, y): (f64, f64)) -> Vec<f64> {
        let phase = |n: usize, size: usize, f: i16| PI / (2 * size) as f64 * f64::from(f) * (2 * n + 1) as f64;
        let element = |at: usize| {
            let (i, j) = (at / block.cols, at % block.cols);
            let phi = phase(i, block.rows, block.frequency.u) + phase(j, block.cols, block.frequency.v);
            block.wave_norm() * (x * phi.cos() - y * phi.sin())
        };
        (0..block.rows * block.cols).map(element).collect()
    }

    fn decode(block: &Block, z: (f32, f32)) -> Vec<f32> {
        let mut values = vec![0.0; block.rows * block.cols];
        Wave::new(block).add_to(z, &mut values, block.cols);
        values
    }

    #[test]
    fn every_phase_is_within_the_bound() {
        let (mut worst, n) = (0f64, 1 << 12);
        let (mut sine, mut cosine) = (vec![0.0; n], vec![0.0; n]);
        for first in (0..1u32 << TURN_BITS).step_by(n) {
            let phases: Vec<u32> = (first..).take(n).collect();
            sin_cos_turns(&phases, &mut sine, &mut cosine);
            for ((&phase, &sine), &cosine) in phases.iter().zip(&sine).zip(&cosine) {
                let (s, c) = (f64::from(phase) / f64::from(1 << TURN_BITS) * TAU).sin_cos();
                worst = worst.max((f64::from(sine) - s).abs()).max((f64::from(cosine) - c).abs());
            }
        }
        println!("2^{:.2}", worst.log2());
        assert!(worst <= 0.5f64.powi(23), "{worst:e}");
    }

    #[test]
    fn a_decode_is_pinned_for_ever() {
        let values = decode(&block(28, 17, 1), (0.25, -1.5));
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(
            blake3::hash(&bytes).to_hex().as_str(),
            "f2875e569ab68b1b5a0db05976d0e78ada60a71564fb42b8310f675ab035cd44"
        );
    }

    #[test]
    fn a_drawn_wave_has_unit_norm_at_every_phase() {
        for (seed, (rows, cols)) in [(64, 64), (28, 28), (7, 5), (1, 9), (12, 1), (1, 1)].into_iter().enumerate() {
            let block = block(rows, cols, seed as u64);
            for step in 0..8 {
                let (y, x) = (f64::from(step) * TAU / 8.0).sin_cos();
                let y = if rows * cols == 1 { 0.0 } else { y };
                let norm: f64 = exact(&block, (x, y)).iter().map(|w| w * w).sum();
                assert!((norm - (x * x + y * y)).abs() < 1e-12, "{rows}×{cols}: {norm}");
            }
        }
    }

    #[test]
    fn a_wave_in_a_wider_matrix_touches_its_block_only() {
        let block = block(3, 5, 1);
        let mut values = vec![1.0; 2 * 8 + 5];
        Wave::new(&block).add_to((1.0, 1.0), &mut values, 8);
        assert!([5, 6, 7, 13, 14, 15].iter().all(|&at: &usize| values[at] == 1.0));
        assert!((values[16] - 1.0 - decode(&block, (1.0, 1.0))[10]).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn any_block_agrees_with_the_definition(
            rows in 1..70usize, cols in 1..70usize, seed in 0..99u64, x in -9f32..9.0, y in -9f32..9.0,
        ) {
            let block = block(rows, cols, seed);
            let bound = f64::from(x.hypot(y)) * block.wave_norm() * 0.5f64.powi(20);
            for (found, exact) in decode(&block, (x, y)).into_iter().zip(exact(&block, (x.into(), y.into()))) {
                prop_assert!((f64::from(found) - exact).abs() <= bound);
            }
        }

        #[test]
        fn gradients_agree_with_finite_differences(
            rows in 1..20usize, cols in 1..40usize, seed in 0..99u64, r in 0.01..0.99f64, theta in 0.0..TAU,
        ) {
            let (block, gain, step) = (block(rows, cols, seed), 4.0, 1e-5);
            let mut stream = Seed::from_number(seed).stream();
            let grad: Vec<f32> = (0..rows * cols).map(|_| f32::from_f64(2.0 * stream.unit() - 1.0)).collect();
            let loss = |z: (f64, f64)| -> f64 {
                exact(&block, z).iter().zip(&grad).map(|(w, &g)| w * f64::from(g)).sum()
            };
            let of_polar = |r: f64, theta: f64| {
                let radius = gain * 2.0 * r / (1.0 + r * r);
                loss((radius * theta.cos(), radius * theta.sin()))
            };
            let slope = |up: f64, down: f64| (up - down) / (2.0 * step);
            let (gx, gy) = Wave::new(&block).gradient(&grad);
            let (gx, gy) = (f64::from(gx), f64::from(gy));
            prop_assert!((gx - slope(loss((step, 0.0)), loss((-step, 0.0)))).abs() < 1e-4);
            prop_assert!((gy - slope(loss((0.0, step)), loss((0.0, -step)))).abs() < 1e-4);
            let (of_r, of_theta) = polar_gradient((gx, gy), (r, theta), gain);
            prop_assert!((of_r - slope(of_polar(r + step, theta), of_polar(r - step, theta))).abs() < 1e-3);
            prop_assert!((of_theta - slope(of_polar(r, theta + step), of_polar(r, theta - step))).abs() < 1e-3);
        }
    }
}
