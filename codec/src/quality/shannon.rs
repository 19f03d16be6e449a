//! The Shannon guard: what no code can do with white noise, and so what a code that seems to do it must be hiding.
//!
//! Of `n` independent Gaussian values, a code that keeps `k` coefficients of a fixed orthonormal transform, or that spends
//! `b` bytes, captures only so much energy. A claim above that was not measured on noise, or not measured honestly.
//! It does not know any code. Two bounds:
//!
//! * **Coefficients.** An orthonormal transform of white noise is white noise. With `p = k/n` and `t` the normal
//!   quantile of `Q(t) = p/2`, the values beyond `±t` are the `k` largest, and integrating `x²φ` by parts gives their
//!   share of the energy, `s = 2(t·φ(t) + Q(t))`. As the mean of the `k` largest of a sample is
//!   `min_c {c + Σ(yᵢ−c)₊/k}` (Rockafellar & Uryasev 2000) and a minimum's expectation is at most the expectations'
//!   minimum, `s` bounds the expected share for *every* `n`; the direction of a Gaussian vector being independent of
//!   its length, this holds for the share as for the sum.
//! * **Rate.** A Gaussian source at `R` bits a value keeps a distortion of `2^(−2R)` at least (Shannon 1959), so no
//!   code captures more than `1 − 2^(−2R)`.
//!
//! Both are expectations. The limits that [`ShannonGuard::check`] applies hold for one finite draw but for a chance of
//! [`GUARD_CHANCE`]:
//!
//! * the root of the share is a 1-Lipschitz function on the sphere, so by Lévy's inequality it exceeds its mean, which
//!   is at most `√s`, by `√(2·ln(1/δ)/(n−2))` with a chance under `δ` (Ledoux, *The Concentration of Measure
//!   Phenomenon*, 2001);
//! * a code of `b` bytes has `2^(8b)` answers, and a random direction lies within the angle `arccos c` of a given one
//!   with a chance of at most `½(1−c²)^((n−1)/2)`; over all answers that is under `δ` once
//!   `c² > 1 − (2δ·2^(−8b))^(2/(n−1))`, and no answer captures more than `c²`.

use std::f64::consts::{PI, SQRT_2};

use thiserror::Error;

/// The chance with which a true measurement on white noise is refused: one in a million for either bound.
pub const GUARD_CHANCE: f64 = 1e-6;

/// The most energy of `n` Gaussian values that `k` coefficients of an orthonormal transform can hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WhiteNoiseBound {
    expected: f64,
    limit: f64,
}

/// What a code with so many coefficients and so many bytes may capture of white noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShannonGuard {
    /// By the coefficients that the code keeps.
    pub coefficients: WhiteNoiseBound,
    /// By the bytes that it spends.
    pub rate: WhiteNoiseBound,
}

/// A claim that no code can make, or that is none.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum GuardError {
    /// There is no noise to code.
    #[error("white noise of 0 values has no energy")]
    Empty,
    /// More coefficients are kept than there are.
    #[error("{coefficients} coefficients of {values} values")]
    Coefficients {
        /// Coefficients claimed.
        coefficients: usize,
        /// Values, and so coefficients at most.
        values: usize,
    },
    /// The share is not one: above 1, or not a number. (Below 0 it is: a decoded matrix may be worse than zeros.)
    #[error("captured share {0} is not at most 1")]
    Share(f64),
    /// More energy than the largest coefficients hold.
    #[error(
        "captured share {captured} is above {limit}, the most that {coefficients} coefficients of {values} values of white noise hold"
    )]
    TooFewCoefficients {
        /// Share claimed.
        captured: f64,
        /// Share possible.
        limit: f64,
        /// Coefficients kept.
        coefficients: usize,
        /// Values coded.
        values: usize,
    },
    /// More energy than the bits can carry.
    #[error(
        "captured share {captured} is above {limit}, the most that {bytes} bytes tell of {values} values of white noise"
    )]
    TooFewBytes {
        /// Share claimed.
        captured: f64,
        /// Share possible.
        limit: f64,
        /// Bytes spent.
        bytes: usize,
        /// Values coded.
        values: usize,
    },
}

impl WhiteNoiseBound {
    /// The bound for the `coefficients` largest of `values`. Directions that are fixed beforehand, such as a smooth
    /// part fitted by least squares, count as coefficients: they hold less than the largest ones do.
    ///
    /// # Errors
    /// If there are no values, or more coefficients than values.
    pub fn of_coefficients(values: usize, coefficients: usize) -> Result<Self, GuardError> {
        if values == 0 {
            return Err(GuardError::Empty);
        }
        if coefficients > values {
            return Err(GuardError::Coefficients { coefficients, values });
        }
        let expected = largest_share(coefficients as f64 / values as f64);
        let limit = match values {
            _ if coefficients == 0 => 0.0,
            ..3 => 1.0,
            _ => {
                let allowance = (-2.0 * GUARD_CHANCE.ln() / (values - 2) as f64).sqrt();
                (expected.sqrt() + allowance).powi(2).min(1.0)
            }
        };
        Ok(Self { expected, limit })
    }

    /// The bound for any code of `values` in `bytes`.
    ///
    /// # Errors
    /// If there are no values.
    pub fn of_bytes(values: usize, bytes: usize) -> Result<Self, GuardError> {
        if values == 0 {
            return Err(GuardError::Empty);
        }
        let bits = 8.0 * bytes as f64;
        let expected = -f64::exp_m1(-2.0 * bits / values as f64 * std::f64::consts::LN_2);
        let limit = if values == 1 {
            1.0
        } else {
            let chance = (2.0 * GUARD_CHANCE).ln() - bits * std::f64::consts::LN_2;
            -f64::exp_m1(2.0 * chance / (values - 1) as f64)
        };
        Ok(Self { expected, limit })
    }

    /// The bound on the expected share, in `[0, 1]`.
    #[must_use]
    pub const fn expected(&self) -> f64 {
        self.expected
    }

    /// The bound on the share of one draw, exceeded with a chance of [`GUARD_CHANCE`] at most.
    #[must_use]
    pub const fn limit(&self) -> f64 {
        self.limit
    }
}

impl ShannonGuard {
    /// Both bounds for a code of `values` in `bytes`, `coefficients` of them kept.
    ///
    /// # Errors
    /// As [`WhiteNoiseBound::of_coefficients`].
    pub fn new(values: usize, coefficients: usize, bytes: usize) -> Result<Self, GuardError> {
        Ok(Self {
            coefficients: WhiteNoiseBound::of_coefficients(values, coefficients)?,
            rate: WhiteNoiseBound::of_bytes(values, bytes)?,
        })
    }

    /// Checks a captured share of the energy of white noise.
    ///
    /// On other data it is no error to capture more: that is what structure is.
    ///
    /// # Errors
    /// If the share is impossible for so many coefficients or bytes, or is no share.
    pub fn check(values: usize, coefficients: usize, bytes: usize, captured: f64) -> Result<Self, GuardError> {
        let guard = Self::new(values, coefficients, bytes)?;
        if captured.is_nan() || captured > 1.0 {
            return Err(GuardError::Share(captured));
        }
        let limit = guard.coefficients.limit;
        if captured > limit {
            return Err(GuardError::TooFewCoefficients { captured, limit, coefficients, values });
        }
        let limit = guard.rate.limit;
        if captured > limit {
            return Err(GuardError::TooFewBytes { captured, limit, bytes, values });
        }
        Ok(guard)
    }
}

/// `2(t·φ(t) + Q(t))` with `Q(t) = p/2`: the share of energy in the largest `p` of white noise, `p` in `[0, 1]`.
fn largest_share(p: f64) -> f64 {
    if p <= 0.0 {
        return 0.0;
    }
    let t = upper_quantile(p / 2.0);
    (2.0 * t * density(t) + p).min(1.0)
}

/// `φ(t)`, the standard normal density.
fn density(t: f64) -> f64 {
    (-t * t / 2.0).exp() / (SQRT_2 * PI.sqrt())
}

/// `Q(t)`, the standard normal upper tail, for `t ≥ 0`: its Taylor series below 3 (Marsaglia, *Evaluating the Normal
/// Distribution*, 2004), Laplace's continued fraction from there.
fn upper_tail(t: f64) -> f64 {
    if t < 3.0 {
        let (mut term, mut sum, mut odd) = (t, t, 1.0);
        while term > sum * f64::EPSILON / 4.0 {
            odd += 2.0;
            term *= t * t / odd;
            sum += term;
        }
        0.5 - density(t) * sum
    } else {
        let fraction = (1..=FRACTION_TERMS).rev().fold(t, |rest, k| t + f64::from(k) / rest);
        density(t) / fraction
    }
}

/// Enough for full precision at 3, where the continued fraction is slowest.
const FRACTION_TERMS: u32 = 200;

/// The `t ≥ 0` of `Q(t) = tail`, `tail` in `(0, ½]`, by halving an interval until it is one float wide.
fn upper_quantile(tail: f64) -> f64 {
    let (mut low, mut high) = (0.0, 39.0);
    loop {
        let middle = (low + high) / 2.0;
        if middle <= low || middle >= high {
            return low;
        }
        if upper_tail(middle) > tail {
            low = middle;
        } else {
            high = middle;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_distr::{Distribution, StandardNormal};

    use super::*;
    use crate::basis::dct_matrix;
    use crate::quality::metrics::captured_energy;
    use crate::scalar::Scalar;
    use crate::seed::Seed;

    fn noise(count: usize, seed: u64) -> Vec<f32> {
        let mut stream = Seed::from_number(seed).stream();
        (0..count).map(|_| StandardNormal.sample(&mut stream)).collect()
    }

    /// `D·X·Dᵀ`, or `Dᵀ·X·D` back.
    fn dct(values: &[f64], edge: usize, back: bool) -> Vec<f64> {
        let d = dct_matrix(edge);
        let at = |u: usize, i: usize| if back { d[i * edge + u] } else { d[u * edge + i] };
        let rows: Vec<f64> =
            (0..edge * edge).map(|n| (0..edge).map(|j| values[n / edge * edge + j] * at(n % edge, j)).sum()).collect();
        (0..edge * edge).map(|n| (0..edge).map(|i| at(n / edge, i) * rows[i * edge + n % edge]).sum()).collect()
    }

    /// The share that the `k` largest DCT coefficients hold, measured on the decoded values.
    fn top_dct_share(values: &[f32], edge: usize, k: usize) -> f64 {
        let mut spectrum = dct(&values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>(), edge, false);
        let mut sizes: Vec<f64> = spectrum.iter().map(|c| c.abs()).collect();
        sizes.sort_by(|a, b| b.total_cmp(a));
        spectrum.iter_mut().filter(|c| c.abs() < sizes[k - 1]).for_each(|c| *c = 0.0);
        let decoded: Vec<f32> = dct(&spectrum, edge, true).into_iter().map(f32::from_f64).collect();
        captured_energy(values, &decoded).unwrap()
    }

    #[test]
    fn the_tail_and_its_quantile_are_the_normals() {
        // scipy.special.erfc(t/√2)/2, which Python's math.erfc gives as well.
        let known = [
            (0.5, 0.308_537_538_725_986_9),
            (2.0, 0.022_750_131_948_179_21),
            (2.999, 0.001_354_336_533_727_106_7),
            (3.0, 0.001_349_898_031_630_095_7),
            (6.0, 9.865_876_450_377_012e-10),
            (10.0, 7.619_853_024_160_593e-24),
        ];
        for (t, tail) in known {
            assert!((upper_tail(t) / tail - 1.0).abs() < 1e-11, "{t}: {}", upper_tail(t));
            assert!((upper_quantile(tail) - t).abs() < 1e-11, "{t}: {}", upper_quantile(tail));
        }
        assert!(upper_quantile(0.5) < 1e-15);
    }

    #[test]
    fn the_largest_share_is_the_integral_of_the_tails() {
        for (p, share) in
            [(1e-6, 2.585_808_448e-5), (1e-3, 0.012_695_784_687), (0.1, 0.439_286_064_278), (0.5, 0.928_674_082_256)]
        {
            assert!((largest_share(p) / share - 1.0).abs() < 1e-9, "{p}: {}", largest_share(p));
        }
        assert_eq!((largest_share(0.0), largest_share(1.0)), (0.0, 1.0));
    }

    #[test]
    fn a_real_code_of_noise_passes_close_to_the_bound() {
        let edge = 64;
        let values = noise(edge * edge, 1);
        for k in [16, 50, 400, 2_000] {
            let captured = top_dct_share(&values, edge, k);
            let guard = ShannonGuard::check(edge * edge, k, 8 * k, captured).unwrap();
            let near = captured / guard.coefficients.expected();
            assert!((0.9..1.1).contains(&near), "{k}: {captured} is {near} of what is expected");
        }
    }

    #[test]
    fn the_expected_share_is_one_for_small_samples_too() {
        for (n, k) in [(2, 1), (8, 1), (8, 3), (50, 5)] {
            let values = noise(4_000 * n, 2);
            let share = |draw: &[f32]| {
                let mut squares: Vec<f64> = draw.iter().map(|&v| f64::from(v).powi(2)).collect();
                squares.sort_by(|a, b| b.total_cmp(a));
                squares[..k].iter().sum::<f64>() / squares.iter().sum::<f64>()
            };
            let mean = values.chunks_exact(n).map(share).sum::<f64>() / 4_000.0;
            let expected = WhiteNoiseBound::of_coefficients(n, k).unwrap().expected();
            assert!(mean <= expected, "{k} of {n}: {mean} and {expected}");
            assert!(mean > 0.75 * expected, "{k} of {n}: {mean} and {expected}");
        }
    }

    #[test]
    fn a_code_fitted_to_its_own_sample_is_flagged() {
        // Its one basis vector is the sample that it is tested on: perfect, and impossible for noise it has not seen.
        let values = noise(4_096, 3);
        let own = captured_energy(&values, &values).unwrap();
        let error = ShannonGuard::check(4_096, 1, 4, own).unwrap_err();
        assert!(matches!(error, GuardError::TooFewCoefficients { coefficients: 1, values: 4_096, .. }), "{error}");
        // One that keeps 400 coefficients and owns up to 200 of them.
        let captured = top_dct_share(&values, 64, 400);
        assert!(matches!(ShannonGuard::check(4_096, 200, 1_600, captured), Err(GuardError::TooFewCoefficients { .. })));
    }

    #[test]
    fn a_quantizer_passes_with_its_bits_and_not_with_fewer() {
        let values = noise(65_536, 4);
        let step = 0.586f32; // Max 1960: the uniform quantizer of 8 levels, 3 bits, at its best.
        let decoded: Vec<f32> = values.iter().map(|v| ((v / step).floor().clamp(-4.0, 3.0) + 0.5) * step).collect();
        let captured = captured_energy(&values, &decoded).unwrap();
        let check = |bits: usize| ShannonGuard::check(65_536, 65_536, 65_536 * bits / 8, captured);
        assert!(check(3).is_ok(), "{captured}");
        assert!(matches!(check(2), Err(GuardError::TooFewBytes { bytes: 16_384, .. })));
    }

    #[test]
    fn more_coefficients_or_bytes_never_lower_a_bound() {
        for n in [1, 2, 3, 10, 1_000] {
            let by_k: Vec<_> = (0..=n).map(|k| WhiteNoiseBound::of_coefficients(n, k).unwrap()).collect();
            let by_b: Vec<_> = (0..=2 * n).map(|b| WhiteNoiseBound::of_bytes(n, b).unwrap()).collect();
            for pair in by_k.windows(2).chain(by_b.windows(2)) {
                assert!(
                    pair[0].expected() <= pair[1].expected() && pair[0].limit() <= pair[1].limit(),
                    "{n}: {pair:?}"
                );
            }
            assert!(by_k.iter().chain(&by_b).all(|b| b.expected() <= b.limit() && b.limit() <= 1.0), "{n}");
            assert_eq!((by_k[0].limit(), by_k[n].expected()), (0.0, 1.0));
        }
    }

    #[test]
    fn what_is_no_claim_is_an_error() {
        assert_eq!(ShannonGuard::check(0, 0, 0, 0.0), Err(GuardError::Empty));
        assert_eq!(ShannonGuard::new(3, 4, 0), Err(GuardError::Coefficients { coefficients: 4, values: 3 }));
        assert!(matches!(ShannonGuard::check(9, 9, 99, f64::NAN), Err(GuardError::Share(_))));
        assert_eq!(ShannonGuard::check(9, 9, 99, 1.5), Err(GuardError::Share(1.5)));
        assert!(ShannonGuard::check(9, 1, 99, -3.0).is_ok(), "worse than zeros is possible");
    }
}
