//! Dense products on slices: the one place of the worker that calls `gemm`, on one thread.
//!
//! Candle's own product splits small matrices over a thread pool and always forms both gradients;
//! a frozen layer wants neither. Sums run over the shared dimension in an order that does not depend
//! on the number of threads.

use gemm::{Parallelism, gemm};
use packfed_codec::Scalar;

/// A matrix in a slice, row-major or its transpose.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, S> {
    values: &'a [S],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, S: Scalar> Matrix<'a, S> {
    /// A row-major matrix.
    ///
    /// # Panics
    /// If the slice does not hold rows × cols values.
    #[must_use]
    pub fn new(values: &'a [S], rows: usize, cols: usize) -> Self {
        assert_eq!(values.len(), rows * cols, "{rows}×{cols} values");
        Self { values, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The transpose, without moving a value.
    #[must_use]
    pub fn t(self) -> Self {
        let Self { values, rows, cols, row_stride, col_stride } = self;
        Self { values, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }
}

/// `out += a·b`, `out` row-major.
///
/// # Panics
/// If the shapes do not fit.
pub fn add_product<S: Scalar>(out: &mut [S], a: Matrix<'_, S>, b: Matrix<'_, S>) {
    assert_eq!(a.cols, b.rows, "inner dimensions");
    assert_eq!(out.len(), a.rows * b.cols, "{}×{} values", a.rows, b.cols);
    let stride = |n: usize| isize::try_from(n).expect("a slice is shorter than isize::MAX");
    let one = S::from_f64(1.0);
    #[expect(unsafe_code, reason = "gemm takes pointers")]
    // SAFETY: `Matrix::new` checked that each slice holds rows × cols values, and strides are those of
    // that shape or its transpose, so every index lies inside; `out` is checked above and borrowed
    // mutably, so it overlaps neither; S is f32 or f64, which gemm supports.
    unsafe {
        gemm(
            a.rows,
            b.cols,
            a.cols,
            out.as_mut_ptr(),
            1,
            stride(b.cols),
            true,
            a.values.as_ptr(),
            stride(a.col_stride),
            stride(a.row_stride),
            b.values.as_ptr(),
            stride(b.col_stride),
            stride(b.row_stride),
            one,
            one,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_orientation_agrees_with_the_sum() {
        let a: Vec<f64> = (0..6).map(f64::from).collect();
        let b: Vec<f64> = (0..12).map(|n| f64::from(n * n)).collect();
        let mut out = vec![1.0; 8];
        add_product(&mut out, Matrix::new(&a, 2, 3), Matrix::new(&b, 3, 4));
        let expected = |i: usize, j: usize| 1.0 + (0..3).map(|k| a[i * 3 + k] * b[k * 4 + j]).sum::<f64>();
        assert!((0..8).all(|n| out[n] == expected(n / 4, n % 4)));

        let transposed: Vec<f64> = (0..6).map(|n| a[n % 2 * 3 + n / 2]).collect();
        let mut again = vec![1.0; 8];
        add_product(&mut again, Matrix::new(&transposed, 3, 2).t(), Matrix::new(&b, 3, 4));
        assert_eq!(out, again);
    }

    #[test]
    #[should_panic(expected = "inner dimensions")]
    fn shapes_that_do_not_fit_are_caught() {
        add_product(&mut [0.0f32; 4], Matrix::new(&[0.0; 4], 2, 2), Matrix::new(&[0.0; 6], 3, 2));
    }
}
