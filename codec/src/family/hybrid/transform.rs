//! The three orthonormal transforms of a block, each a matrix per axis: DCT-II, Haar, Daubechies-4.
//!
//! A block `X` has the spectrum `C = T_r·X·T_cᵀ` and comes back as `X = T_rᵀ·C·T_c`, so that every coefficient
//! belongs to one product of a row vector and a column vector; for wavelets this is the *standard* (tensor)
//! decomposition of Beylkin, Coifman & Rokhlin, 1991, not the pyramid. The wavelet matrices are periodic and go
//! down to one average: A. Haar, *Zur Theorie der orthogonalen Funktionensysteme*, 1910; I. Daubechies,
//! *Orthonormal bases of compactly supported wavelets*, 1988, two vanishing moments. It knows no formats.

use crate::basis::dct_matrix;

use super::error::HybridError;

/// An orthonormal 2-D transform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transform {
    /// The cosine transform DCT-II, any edge.
    Dct,
    /// Haar's wavelet, edges that are powers of two.
    Haar,
    /// Daubechies' wavelet of four taps, periodic, edges that are powers of two.
    Daubechies4,
}

impl Transform {
    /// All of them, in the order in which a tie is decided.
    pub const ALL: [Self; 3] = [Self::Dct, Self::Haar, Self::Daubechies4];

    /// Whether the transform exists for an edge.
    ///
    /// # Errors
    /// If a wavelet's edge is not a power of two.
    pub const fn check(self, edge: usize) -> Result<(), HybridError> {
        match self {
            Self::Dct => Ok(()),
            Self::Haar | Self::Daubechies4 if edge.is_power_of_two() => Ok(()),
            Self::Haar | Self::Daubechies4 => Err(HybridError::PowerOfTwo { transform: self, edge }),
        }
    }

    /// The `size`×`size` matrix, row `u` a basis vector; wavelets from the coarsest to the finest.
    pub(super) fn matrix(self, size: usize) -> Vec<f64> {
        match self {
            Self::Dct => dct_matrix(size),
            Self::Haar => wavelet_matrix(size, &[0.5f64.sqrt(); 2]),
            Self::Daubechies4 => wavelet_matrix(size, &daubechies_taps()),
        }
    }
}

/// `(1 ± √3, 3 ± √3)/(4√2)` in the order of Daubechies' table.
fn daubechies_taps() -> [f64; 4] {
    let (root, norm) = (3f64.sqrt(), 4.0 * 2f64.sqrt());
    [(1.0 + root) / norm, (3.0 + root) / norm, (3.0 - root) / norm, (1.0 - root) / norm]
}

/// Column `j` is the transform of the unit impulse at `j`.
fn wavelet_matrix(size: usize, taps: &[f64]) -> Vec<f64> {
    let mut matrix = vec![0.0; size * size];
    for j in 0..size {
        let mut signal = vec![0.0; size];
        signal[j] = 1.0;
        let mut length = size;
        while length > 1 {
            analyse(&mut signal[..length], taps);
            length /= 2;
        }
        for (u, value) in signal.into_iter().enumerate() {
            matrix[u * size + j] = value;
        }
    }
    matrix
}

/// One level: averages to the first half, details to the second, periodic at the end.
fn analyse(signal: &mut [f64], taps: &[f64]) {
    let length = signal.len();
    let mut out = vec![0.0; length];
    for n in 0..length / 2 {
        for (k, &tap) in taps.iter().enumerate() {
            let value = signal[(2 * n + k) % length];
            let sign = if k % 2 == 0 { 1.0 } else { -1.0 };
            out[n] += tap * value;
            out[length / 2 + n] += sign * taps[taps.len() - 1 - k] * value;
        }
    }
    signal.copy_from_slice(&out);
}

/// A transform of one block shape.
#[derive(Clone, Debug)]
pub(super) struct Transform2 {
    rows: usize,
    cols: usize,
    by_row: Vec<f64>,
    by_col: Vec<f64>,
}

impl Transform2 {
    pub(super) fn new(transform: Transform, rows: usize, cols: usize) -> Self {
        Self { rows, cols, by_row: transform.matrix(rows), by_col: transform.matrix(cols) }
    }

    /// The spectrum of rows×cols values.
    pub(super) fn forward(&self, values: &[f64]) -> Vec<f64> {
        let half = product(&self.by_row, values, self.rows, self.cols);
        product_transposed(&half, &self.by_col, self.rows, self.cols)
    }

    /// The values of a rows×cols spectrum.
    #[cfg(test)]
    pub(super) fn inverse(&self, spectrum: &[f64]) -> Vec<f64> {
        let half = product(&transpose(&self.by_row, self.rows), spectrum, self.rows, self.cols);
        product_transposed(&half, &transpose(&self.by_col, self.cols), self.rows, self.cols)
    }
}

/// `A·X`, `A` rows×rows and `X` rows×cols.
fn product(a: &[f64], x: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    let mut out = vec![0.0; rows * cols];
    for (out, a) in out.chunks_exact_mut(cols).zip(a.chunks_exact(rows)) {
        for (&factor, x) in a.iter().zip(x.chunks_exact(cols)) {
            for (out, &x) in out.iter_mut().zip(x) {
                *out += factor * x;
            }
        }
    }
    out
}

/// `X·Aᵀ`, `X` rows×cols and `A` cols×cols.
fn product_transposed(x: &[f64], a: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    let a = transpose(a, cols);
    let mut out = vec![0.0; rows * cols];
    for (out, x) in out.chunks_exact_mut(cols).zip(x.chunks_exact(cols)) {
        for (&factor, a) in x.iter().zip(a.chunks_exact(cols)) {
            for (out, &a) in out.iter_mut().zip(a) {
                *out += factor * a;
            }
        }
    }
    out
}

fn transpose(matrix: &[f64], size: usize) -> Vec<f64> {
    (0..size * size).map(|i| matrix[i % size * size + i / size]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    const SIZES: [usize; 6] = [1, 2, 4, 8, 64, 256];

    #[test]
    fn every_matrix_is_orthonormal() {
        for (transform, size) in Transform::ALL.into_iter().flat_map(|t| SIZES.map(|size| (t, size))) {
            let m = transform.matrix(size);
            let gram = product_transposed(&m, &m, size, size);
            for (i, &g) in gram.iter().enumerate() {
                let unit = f64::from(u8::from(i % size == i / size));
                assert!((g - unit).abs() < 1e-12, "{transform:?} of {size}, entry {i}: {g}");
            }
        }
    }

    #[test]
    fn the_inverse_gives_the_values_back_and_energy_is_kept() {
        for (transform, (rows, cols)) in
            Transform::ALL.into_iter().flat_map(|t| [(1, 8), (16, 4), (128, 128), (2, 1)].map(|shape| (t, shape)))
        {
            let mut stream = Seed::from_number(1).stream();
            let values: Vec<f64> = (0..rows * cols).map(|_| stream.unit() - 0.5).collect();
            let transform2 = Transform2::new(transform, rows, cols);
            let spectrum = transform2.forward(&values);
            let energy = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>();
            assert!((energy(&values) - energy(&spectrum)).abs() < 1e-10 * energy(&values), "Parseval, {transform:?}");
            for (a, b) in values.iter().zip(transform2.inverse(&spectrum)) {
                assert!((a - b).abs() < 1e-12, "{transform:?} of {rows}×{cols}");
            }
        }
    }

    #[test]
    fn haar_of_four_is_the_textbook_matrix() {
        let r = 0.5f64.sqrt();
        let expected = [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, -0.5, -0.5, r, -r, 0.0, 0.0, 0.0, 0.0, r, -r];
        for (found, expected) in Transform::Haar.matrix(4).into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-15);
        }
    }

    #[test]
    fn daubechies_details_of_a_line_vanish_away_from_the_seam() {
        let (size, m) = (32, Transform::Daubechies4.matrix(32));
        for u in size / 2..size - 1 {
            let detail: f64 = (0..size).map(|j| m[u * size + j] * (3.0 + 0.5 * j as f64)).sum();
            assert!(detail.abs() < 1e-12, "detail {u} is {detail}");
        }
    }

    #[test]
    fn wavelets_refuse_an_edge_that_is_no_power_of_two() {
        assert_eq!(Transform::Dct.check(12), Ok(()));
        for transform in [Transform::Haar, Transform::Daubechies4] {
            assert_eq!(transform.check(16), Ok(()));
            assert_eq!(transform.check(12), Err(HybridError::PowerOfTwo { transform, edge: 12 }));
        }
    }
}
