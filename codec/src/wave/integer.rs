//! A block's wave from Seed0 with integers alone, for devices without floats and for decoding to the same
//! bits everywhere.
//!
//! ```text
//!  wave(i,j)/(g·n_w) = κ(r)·cos(φ(i,j) + θ)          φ(i,j) = (u·(2i+1)/4R + v·(2j+1)/4C) turns
//!  ∂/∂θ              = −κ(r)·sin(φ(i,j) + θ)         the sine of the same rotation
//!  ∂/∂r              = κ′(r)·cos(φ(i,j) + θ)         κ′(r) = 2(1−r²)/(1+r²)²
//! ```
//!
//! **Phase.** A 64-bit accumulator holds 2⁻⁶⁴ turns and wraps by itself; one row or column further is one
//! addition. A step is rounded to 2⁻⁵² turns, so over the largest block the sum is within 2⁻⁴² of
//! the true phase, and exact where R and C are powers of two; it is then rounded to the 24 bits that
//! the rotation takes: at most 2⁻²⁵ turns, 2⁻²²·³ radians.
//!
//! **Amplitude.** One division a block gives κ(r)/K, which starts every rotation, within 2⁻³⁰; two give
//! ½κ′(r)/K, within 2⁻²⁸. Where the fixed point is coarser, half a unit of it comes on top.
//!
//! **What is left out.** Results are for unit gain and not normalised. The gain is a power of two, a shift
//! of the exponent. `n_w` is the same for every element: it belongs after a block's sum, one
//! multiplication by [`IntegerWave::norm`], so that no bits of the elements are spent on it.
//!
//! It does not know residuals or layers.

use pulp::{Simd, WithSimd};

use crate::packed::Packed128;
use crate::wave::cordic::{INVERSE_GAIN_Q44, LANES, Steps, TURN_BITS, rotate_lanes};

/// Fraction bits of Seed0's radius.
const RADIUS_BITS: u32 = 20;
/// Largest block edge, as of a layout.
const EDGE_MAX: usize = 512;
/// Bits that a frequency's share of a turn is computed with.
const FRACTION_BITS: u32 = 52;

/// One block's wave, ready to be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntegerWave {
    rows: usize,
    cols: usize,
    constant: bool,
    radius: u32,
    /// Phase of element (0, 0), in 2⁻⁶⁴ turns.
    origin: u64,
    row_step: u64,
    col_step: u64,
    steps: Steps,
}

impl IntegerWave {
    /// The wave of a block of `rows`×`cols`; only Seed0 is read.
    ///
    /// # Panics
    /// If an edge is not in `1..=512`.
    #[must_use]
    pub fn new(packed: Packed128, rows: usize, cols: usize, steps: Steps) -> Self {
        let (radius, turns) = packed.quantized_polar();
        let frequency = packed.frequency();
        let (row, col) = (turn_fraction(frequency.u, rows), turn_fraction(frequency.v, cols));
        Self {
            rows,
            cols,
            constant: frequency.u == 0 && frequency.v == 0,
            radius,
            origin: (u64::from(turns) << (u64::BITS - TURN_BITS)).wrapping_add(row).wrapping_add(col),
            row_step: row.wrapping_mul(2),
            col_step: col.wrapping_mul(2),
            steps,
        }
    }

    /// `κ·cos(φ+θ)` and `κ·sin(φ+θ)` of every element, row by row, on [`Steps::fraction_bits`].
    ///
    /// The first is the wave, the second minus its derivative in θ (radians). Error, amplitude and phase
    /// included: 2⁻¹⁹ with 20 steps, 3·2⁻²³ with 24.
    ///
    /// # Panics
    /// If a slice is not rows × cols long.
    pub fn values(&self, cosine: &mut [i32], sine: &mut [i32]) {
        self.decode(amplitude(self.radius), cosine, sine);
    }

    /// `½κ′·cos(φ+θ)` and `½κ′·sin(φ+θ)` of every element: half the derivative in r, and half its quadrature.
    ///
    /// Half, because `κ′` reaches 2 and the fixed point holds 1. Errors are as of [`IntegerWave::values`].
    ///
    /// # Panics
    /// As [`IntegerWave::values`].
    pub fn half_slopes(&self, cosine: &mut [i32], sine: &mut [i32]) {
        self.decode(half_slope(self.radius), cosine, sine);
    }

    /// `n_w` on 31 fraction bits, rounded down: what a sum over the block is multiplied with.
    #[must_use]
    pub fn norm(&self) -> u32 {
        let twice = if self.constant { 1 } else { 2 };
        let square = (twice << (2 * 31)) / (self.rows * self.cols) as u64;
        u32::try_from(square.isqrt()).expect("the root of 2^63 is below 2^32")
    }

    /// Phase of an element in 2⁻²⁴ turns, θ included.
    #[must_use]
    pub fn phase(&self, row: usize, col: usize) -> u32 {
        let (row, col) = (self.row_step.wrapping_mul(row as u64), self.col_step.wrapping_mul(col as u64));
        round_phase(self.origin.wrapping_add(row).wrapping_add(col))
    }

    fn decode(&self, start_q30: u64, cosine: &mut [i32], sine: &mut [i32]) {
        let area = self.rows * self.cols;
        assert_eq!((cosine.len(), sine.len()), (area, area), "rows × cols each");
        let shift = 30 - self.steps.fraction_bits();
        let start = (start_q30 + (1 << shift >> 1)) >> shift;
        let start = i32::try_from(start).expect("an amplitude of at most 1 on 30 bits").min(self.steps.unit());
        pulp::Arch::new().dispatch(Decode { wave: self, start, cosine, sine });
    }
}

/// The whole block, to be compiled once for every instruction set.
struct Decode<'a> {
    wave: &'a IntegerWave,
    start: i32,
    cosine: &'a mut [i32],
    sine: &'a mut [i32],
}

impl WithSimd for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) {
        let Self { wave, start, cosine, sine } = self;
        let mut row_phase = wave.origin;
        for (cosine, sine) in cosine.chunks_exact_mut(wave.cols).zip(sine.chunks_exact_mut(wave.cols)) {
            let mut phase = row_phase;
            for (cosine, sine) in cosine.chunks_mut(LANES).zip(sine.chunks_mut(LANES)) {
                let phases: [u32; LANES] = std::array::from_fn(|_| {
                    let rounded = round_phase(phase);
                    phase = phase.wrapping_add(wave.col_step);
                    rounded
                });
                let vectors = rotate_lanes(start, &phases, wave.steps);
                for ((cosine, sine), vector) in cosine.iter_mut().zip(sine).zip(vectors) {
                    (*cosine, *sine) = vector;
                }
            }
            row_phase = row_phase.wrapping_add(wave.row_step);
        }
    }
}

/// `frequency/(4·edge)` turns in 2⁻⁶⁴ turns, within 2⁻⁵³ turns; whole turns drop out.
///
/// # Panics
/// If the edge is not in `1..=512`.
pub(crate) fn turn_fraction(frequency: i16, edge: usize) -> u64 {
    assert!((1..=EDGE_MAX).contains(&edge), "block edge {edge} is not in 1..={EDGE_MAX}");
    let denominator = 4 * i64::try_from(edge).expect("an edge is at most EDGE_MAX");
    let numerator = i64::from(frequency).rem_euclid(denominator) << FRACTION_BITS;
    let rounded = (numerator + denominator / 2) / denominator;
    rounded.cast_unsigned() << (u64::BITS - FRACTION_BITS)
}

/// 2⁻⁶⁴ turns, rounded to 2⁻²⁴ turns; the carry out of a whole turn drops out.
#[inline(always)]
fn round_phase(phase: u64) -> u32 {
    (phase.wrapping_add(1 << (u64::BITS - TURN_BITS - 1)) >> (u64::BITS - TURN_BITS)) as u32
}

/// `2⁴⁰·(1 + r²)`.
const fn one_plus_square(radius: u32) -> u64 {
    (1 << (2 * RADIUS_BITS)) + (radius as u64).pow(2)
}

/// `2³⁰·κ(r)/K = 2⁵¹·R/K / (2⁴⁰ + R²)`, both sides short of 2⁷ so that they fit 64 bits.
fn amplitude(radius: u32) -> u64 {
    let divisor = (one_plus_square(radius) + (1 << 6)) >> 7;
    (u64::from(radius) * INVERSE_GAIN_Q44 + divisor / 2) / divisor
}

/// `2³⁰·½κ′(r)/K`, from `½κ′ = (1−r²)/(1+r²) · 1/(1+r²)`, each factor on 31 bits.
fn half_slope(radius: u32) -> u64 {
    let divisor = one_plus_square(radius) >> 8;
    let one_minus_square = (1u64 << (2 * RADIUS_BITS)) - u64::from(radius).pow(2);
    let (ratio, inverse) = ((one_minus_square << 23) / divisor, (1 << 63) / divisor);
    let slope = (ratio * inverse) >> 31;
    let inverse_gain_q32 = INVERSE_GAIN_Q44 >> 12;
    (slope * inverse_gain_q32 + (1 << 32)) >> 33
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use proptest::prelude::*;

    use super::*;
    use crate::layout::Frequency;
    use crate::seed::Seed;

    const BOTH: [Steps; 2] = [Steps::Twenty, Steps::TwentyFour];

    /// What `values` documents.
    fn bound(steps: Steps) -> f64 {
        match steps {
            Steps::Twenty => 0.5f64.powi(19),
            Steps::TwentyFour => 3.0 * 0.5f64.powi(23),
        }
    }

    fn decode(wave: &IntegerWave) -> (Vec<i32>, Vec<i32>) {
        let area = wave.rows * wave.cols;
        let (mut cosine, mut sine) = (vec![0; area], vec![0; area]);
        wave.values(&mut cosine, &mut sine);
        (cosine, sine)
    }

    #[test]
    fn a_decode_is_pinned_for_ever() {
        let mut stream = Seed::from_number(11).stream();
        let mut hasher = blake3::Hasher::new();
        for (rows, cols) in [(64, 64), (28, 28), (5, 17), (1, 1), (512, 3)] {
            let packed = Packed128::from_bits(stream.bits_64(), 0).unwrap();
            for steps in BOTH {
                let wave = IntegerWave::new(packed, rows, cols, steps);
                let (mut cosine, mut sine) = decode(&wave);
                cosine.iter().chain(&sine).for_each(|n| {
                    hasher.update(&n.to_le_bytes());
                });
                wave.half_slopes(&mut cosine, &mut sine);
                cosine.iter().chain(&sine).for_each(|n| {
                    hasher.update(&n.to_le_bytes());
                });
                hasher.update(&wave.norm().to_le_bytes());
            }
        }
        assert_eq!(hasher.finalize().to_hex().as_str(), PINNED);
    }

    const PINNED: &str = "166c7696b86449b089b3da702fe31d4a8d228005a78c06bbfc7677d587af05cc";

    #[test]
    fn a_power_of_two_block_has_exact_phases() {
        let packed = Packed128::new(0.7, 1.0, Frequency { u: -63, v: 41 }).unwrap();
        let wave = IntegerWave::new(packed, 64, 32, Steps::Twenty);
        let (_, turns) = packed.quantized_polar();
        for (i, j) in [(0, 0), (63, 31), (17, 9)] {
            let exact = ((-63 * (2 * i + 1)) << 16) + ((41 * (2 * j + 1)) << 17) + i64::from(turns);
            let (i, j) = (usize::try_from(i).unwrap(), usize::try_from(j).unwrap());
            assert_eq!(i64::from(wave.phase(i, j)), exact.rem_euclid(1 << 24));
        }
    }

    #[test]
    fn every_radius_has_its_amplitude_and_slope() {
        let gain = 2f64.powi(44) / INVERSE_GAIN_Q44 as f64;
        for radius in (0..1 << RADIUS_BITS).step_by(3).chain([(1 << RADIUS_BITS) - 1]) {
            let r = f64::from(radius) / f64::from(1 << RADIUS_BITS);
            let kappa = 2.0 * r / (1.0 + r * r);
            let half_slope_exact = (1.0 - r * r) / (1.0 + r * r).powi(2);
            let real = |start: u64| start as f64 * gain / f64::from(1 << 30);
            assert!((real(amplitude(radius)) - kappa).abs() < 0.5f64.powi(30), "radius {radius}");
            assert!((real(half_slope(radius)) - half_slope_exact).abs() < 0.5f64.powi(28), "radius {radius}");
        }
    }

    proptest! {
        #[test]
        fn any_seed_decodes_within_the_bound_of_the_floats(
            seed0: u64, rows in 1..80usize, cols in 1..80usize, far in any::<bool>(),
        ) {
            let packed = Packed128::from_bits(seed0, 0).unwrap();
            let (rows, cols) = if far { (rows + 432, cols) } else { (rows, cols) };
            let (x, y) = packed.quantized_z(1.0);
            let Frequency { u, v } = packed.frequency();
            let r = f64::from(packed.quantized_polar().0) / f64::from(1 << RADIUS_BITS);
            let theta = f64::from(packed.quantized_polar().1) / f64::from(1 << TURN_BITS) * TAU;
            let half_slope = (1.0 - r * r) / (1.0 + r * r).powi(2);
            for steps in BOTH {
                let wave = IntegerWave::new(packed, rows, cols, steps);
                let (cosine, sine) = decode(&wave);
                let (mut slope, mut slope_sine) = (cosine.clone(), sine.clone());
                wave.half_slopes(&mut slope, &mut slope_sine);
                let real = |n: i32| f64::from(n) / f64::from(1 << steps.fraction_bits());
                for at in 0..rows * cols {
                    let turn = |f: i16, n: usize, edge: usize| f64::from(f) * (2 * n + 1) as f64 / (4 * edge) as f64;
                    let (sin, cos) = (TAU * (turn(u, at / cols, rows) + turn(v, at % cols, cols))).sin_cos();
                    let (sin_at, cos_at) =
                        (sin * theta.cos() + cos * theta.sin(), cos * theta.cos() - sin * theta.sin());
                    prop_assert!((real(cosine[at]) - (x * cos - y * sin)).abs() <= bound(steps));
                    prop_assert!((real(sine[at]) - (x * sin + y * cos)).abs() <= bound(steps));
                    prop_assert!((real(slope[at]) - half_slope * cos_at).abs() <= bound(steps));
                    prop_assert!((real(slope_sine[at]) - half_slope * sin_at).abs() <= bound(steps));
                }
            }
        }

        #[test]
        fn the_norm_is_the_block_s(rows in 1..512usize, cols in 1..512usize, u in 0..3i16) {
            let packed = Packed128::new(0.5, 0.0, Frequency { u, v: 0 }).unwrap();
            let square = if u == 0 { 1.0 } else { 2.0 };
            let exact = (square / (rows * cols) as f64).sqrt();
            let norm = f64::from(IntegerWave::new(packed, rows, cols, Steps::Twenty).norm()) / 2f64.powi(31);
            prop_assert!((norm - exact).abs() < 0.5f64.powi(29), "{norm} {exact}");
        }
    }
}
