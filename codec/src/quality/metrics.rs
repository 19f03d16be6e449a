//! How close a decoded matrix is to its original: RMSE, PSNR, SSIM and captured energy.
//!
//! All sums are `f64`, row after row, so a figure does not depend on the machine. It does not know which code made
//! the decoded matrix, nor what it cost: that is for `shannon.rs`.

use thiserror::Error;

/// Why two matrices have no such figure.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum MetricError {
    /// The two are not of one length.
    #[error("the original has {original} values and the decoded {decoded}")]
    Lengths {
        /// Values of the original.
        original: usize,
        /// Values of the decoded.
        decoded: usize,
    },
    /// There is nothing to compare.
    #[error("there are no values to compare")]
    Empty,
    /// A value of either is NaN or infinite.
    #[error("value {value} at index {index} is not finite")]
    NotFinite {
        /// Its index.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The peak value, or the dynamic range, is no positive number.
    #[error("peak {0} is not a positive number")]
    Peak(f64),
    /// The values are no rows × cols.
    #[error("{values} values are not {rows} × {cols}")]
    Shape {
        /// Values given.
        values: usize,
        /// Rows given.
        rows: usize,
        /// Columns given.
        cols: usize,
    },
    /// The original is all zeros, so there is no energy to capture.
    #[error("the original has no energy")]
    NoEnergy,
}

/// Root mean square error, in the values' unit.
///
/// # Errors
/// If the two differ in length, are empty, or hold a value that is not finite.
pub fn rmse(original: &[f32], decoded: &[f32]) -> Result<f64, MetricError> {
    check(original, decoded)?;
    Ok(mean_square_difference(original, decoded).sqrt())
}

/// Peak signal-to-noise ratio in decibels, `10·log₁₀(peak²/MSE)`; infinite if the two are equal.
///
/// # Errors
/// As [`rmse`], and if `peak` is not a positive number.
pub fn psnr(original: &[f32], decoded: &[f32], peak: f64) -> Result<f64, MetricError> {
    check(original, decoded)?;
    check_peak(peak)?;
    Ok(10.0 * (peak * peak / mean_square_difference(original, decoded)).log10())
}

/// The share of the original's energy that the decoded holds, `1 − ‖w−ŵ‖²/‖w‖²`.
///
/// It is 1 for a perfect copy, 0 for a decoded matrix of zeros, and below 0 for one that is worse than zeros.
///
/// # Errors
/// As [`rmse`], and if the original is all zeros.
pub fn captured_energy(original: &[f32], decoded: &[f32]) -> Result<f64, MetricError> {
    check(original, decoded)?;
    let energy = original.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>() / original.len() as f64;
    if energy == 0.0 {
        return Err(MetricError::NoEnergy);
    }
    Ok(1.0 - mean_square_difference(original, decoded) / energy)
}

/// The mean structural similarity of two rows × cols matrices, at most 1, which equal ones reach.
///
/// Wang, Bovik, Sheikh & Simoncelli, *Image Quality Assessment: From Error Visibility to Structural Similarity*, 2004:
/// `((2μ₁μ₂ + C₁)(2σ₁₂ + C₂))/((μ₁² + μ₂² + C₁)(σ₁² + σ₂² + C₂))` under an 11×11 Gaussian window of deviation 1.5,
/// with `C₁ = (0.01·peak)²` and `C₂ = (0.03·peak)²`, `peak` being the values' dynamic range. As in the authors' own
/// program, only windows that lie wholly inside count: nothing is padded, so `rows − 10` × `cols − 10` places are
/// averaged. An edge under 11 gets a window of its own length, centred and scaled to a sum of 1, so that a matrix of
/// any size has one place at least.
///
/// # Errors
/// As [`psnr`], and if the values are not rows × cols.
pub fn ssim(original: &[f32], decoded: &[f32], rows: usize, cols: usize, peak: f64) -> Result<f64, MetricError> {
    check(original, decoded)?;
    check_peak(peak)?;
    if rows.checked_mul(cols) != Some(original.len()) {
        return Err(MetricError::Shape { values: original.len(), rows, cols });
    }
    let blur = |moment: fn(f64, f64) -> f64| {
        let of = |(&a, &b): (&f32, &f32)| moment(f64::from(a), f64::from(b));
        blurred(&original.iter().zip(decoded).map(of).collect::<Vec<_>>(), rows, cols)
    };
    let (first, second) = (blur(|a, _| a), blur(|_, b| b));
    let squares = blur(|a, b| a * a + b * b);
    let products = blur(|a, b| a * b);
    let (c1, c2) = ((0.01 * peak).powi(2), (0.03 * peak).powi(2));
    let place = |n: usize| {
        let (a, b) = (first[n], second[n]);
        let (means, product) = (a * a + b * b, a * b);
        let (variances, covariance) = ((squares[n] - means).max(0.0), products[n] - product);
        (2.0 * product + c1) * (2.0 * covariance + c2) / ((means + c1) * (variances + c2))
    };
    Ok((0..first.len()).map(place).sum::<f64>() / first.len() as f64)
}

const WINDOW: usize = 11;
const WINDOW_DEVIATION: f64 = 1.5;

/// The Gaussian window of an edge: its sum is 1, its length the edge's if that is shorter.
fn window(edge: usize) -> Vec<f64> {
    let length = edge.min(WINDOW);
    let centre = (length - 1) as f64 / 2.0;
    let weight = |n: usize| (-((n as f64 - centre) / WINDOW_DEVIATION).powi(2) / 2.0).exp();
    let sum: f64 = (0..length).map(weight).sum();
    (0..length).map(|n| weight(n) / sum).collect()
}

/// Windowed means at every place where both windows lie inside, along the columns and then along the rows.
fn blurred(values: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    let (across, down) = (window(cols), window(rows));
    let inside = cols + 1 - across.len();
    let mut narrow = Vec::with_capacity(rows * inside);
    for row in values.chunks_exact(cols) {
        narrow.extend(row.windows(across.len()).map(|part| part.iter().zip(&across).map(|(v, w)| v * w).sum::<f64>()));
    }
    let mut out = vec![0.0; (rows + 1 - down.len()) * inside];
    for (i, row) in out.chunks_exact_mut(inside).enumerate() {
        for (source, weight) in narrow[i * inside..].chunks_exact(inside).zip(&down) {
            row.iter_mut().zip(source).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    out
}

/// `⟨(w − ŵ)²⟩` of two slices that are known to match.
pub(crate) fn mean_square_difference(original: &[f32], decoded: &[f32]) -> f64 {
    let square = |(&w, &v): (&f32, &f32)| (f64::from(w) - f64::from(v)).powi(2);
    original.iter().zip(decoded).map(square).sum::<f64>() / original.len() as f64
}

fn check(original: &[f32], decoded: &[f32]) -> Result<(), MetricError> {
    if original.len() != decoded.len() {
        return Err(MetricError::Lengths { original: original.len(), decoded: decoded.len() });
    }
    if original.is_empty() {
        return Err(MetricError::Empty);
    }
    for (index, (&w, &v)) in original.iter().zip(decoded).enumerate() {
        if let Some(value) = [w, v].into_iter().find(|value| !value.is_finite()) {
            return Err(MetricError::NotFinite { index, value });
        }
    }
    Ok(())
}

fn check_peak(peak: f64) -> Result<(), MetricError> {
    if peak > 0.0 && peak.is_finite() { Ok(()) } else { Err(MetricError::Peak(peak)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scalar::Scalar;
    use crate::seed::Seed;

    fn uniform(count: usize) -> Vec<f32> {
        let mut stream = Seed::from_number(5).stream();
        (0..count).map(|_| f32::from_f64(stream.unit())).collect()
    }

    fn near(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-12 * want.abs().max(1.0), "{got} and not {want}");
    }

    #[test]
    fn an_error_of_one_in_two_values() {
        let (w, v) = ([3.0, 4.0], [3.0, 5.0]);
        near(rmse(&w, &v).unwrap(), 0.5f64.sqrt());
        near(psnr(&w, &v, 10.0).unwrap(), 10.0 * 200f64.log10());
        near(captured_energy(&w, &v).unwrap(), 0.96);
    }

    #[test]
    fn a_perfect_copy_and_nothing_at_all() {
        let w = uniform(200);
        assert_eq!(rmse(&w, &w), Ok(0.0));
        assert_eq!(psnr(&w, &w, 1.0), Ok(f64::INFINITY));
        assert_eq!(captured_energy(&w, &w), Ok(1.0));
        assert_eq!(captured_energy(&w, &[0.0; 200]), Ok(0.0));
        near(ssim(&w, &w, 10, 20, 1.0).unwrap(), 1.0);
        near(ssim(&w, &w, 20, 10, 1.0).unwrap(), 1.0);
    }

    #[test]
    fn what_cannot_be_compared_is_an_error() {
        assert_eq!(rmse(&[0.0; 2], &[0.0; 3]), Err(MetricError::Lengths { original: 2, decoded: 3 }));
        assert_eq!(rmse(&[], &[]), Err(MetricError::Empty));
        assert!(matches!(rmse(&[0.0, 1.0], &[0.0, f32::NAN]), Err(MetricError::NotFinite { index: 1, .. })));
        assert!(matches!(rmse(&[f32::INFINITY], &[0.0]), Err(MetricError::NotFinite { index: 0, .. })));
        assert_eq!(captured_energy(&[0.0; 2], &[1.0; 2]), Err(MetricError::NoEnergy));
        assert_eq!(psnr(&[1.0], &[1.0], 0.0), Err(MetricError::Peak(0.0)));
        assert_eq!(ssim(&[1.0; 4], &[1.0; 4], 3, 2, 1.0), Err(MetricError::Shape { values: 4, rows: 3, cols: 2 }));
        assert!(ssim(&[1.0], &[1.0], 1, 1, f64::NAN).is_err());
    }

    #[test]
    fn a_shift_of_a_flat_matrix_costs_only_luminance() {
        let (a, b) = ([0.5; 400], [0.75; 400]);
        near(ssim(&a, &b, 20, 20, 1.0).unwrap(), (2.0 * 0.375 + 1e-4) / (0.25 + 0.5625 + 1e-4));
    }

    #[test]
    fn the_window_is_wangs() {
        // MATLAB's fspecial('gaussian', 11, 1.5), whose entries are products of these.
        let weights = window(64);
        for (got, want) in
            weights.iter().zip([0.001_028_38, 0.007_598_76, 0.036_000_77, 0.109_360_69, 0.213_005_54, 0.266_011_72])
        {
            assert!((got - want).abs() < 1e-8, "{got} and not {want}");
        }
        assert_eq!(weights.len(), 11);
        assert_eq!((window(1), window(4).len()), (vec![1.0], 4));
    }

    #[test]
    fn separable_blurring_is_the_window_laid_on_every_place() {
        let (rows, cols) = (13, 15);
        let (w, v) = (uniform(rows * cols), uniform(2 * rows * cols)[rows * cols..].to_vec());
        let g = window(11);
        let mut sum = 0.0;
        for (i, j) in (0..3).flat_map(|i| (0..5).map(move |j| (i, j))) {
            let mean = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
                let at = |a: usize, b: usize| ((i + a) * cols + j + b, g[a] * g[b]);
                let places = (0..11).flat_map(|a| (0..11).map(move |b| (a, b)));
                places.map(|(a, b)| at(a, b)).map(|(n, weight)| weight * f(f64::from(w[n]), f64::from(v[n]))).sum()
            };
            let (a, b) = (mean(&|w, _| w), mean(&|_, v| v));
            let (aa, bb) = (mean(&|w, _| (w - a).powi(2)), mean(&|_, v| (v - b).powi(2)));
            let ab = mean(&|w, v| (w - a) * (v - b));
            sum += (2.0 * a * b + 1e-4) * (2.0 * ab + 9e-4) / ((a * a + b * b + 1e-4) * (aa + bb + 9e-4));
        }
        assert!((ssim(&w, &v, rows, cols, 1.0).unwrap() - sum / 15.0).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn similarity_is_symmetric_and_at_most_one(rows in 1..14usize, cols in 1..14usize, seed: u64) {
            let mut stream = Seed::from_number(seed).stream();
            let mut draw = || -> Vec<f32> { (0..rows * cols).map(|_| f32::from_f64(stream.unit())).collect() };
            let (w, v) = (draw(), draw());
            let s = ssim(&w, &v, rows, cols, 1.0).unwrap();
            prop_assert!(s <= 1.0 + 1e-12);
            prop_assert!((s - ssim(&v, &w, rows, cols, 1.0).unwrap()).abs() < 1e-12);
        }
    }
}
