//! Dense products on slices: the one place of the worker that calls `gemm`.
//!
//! Candle's own product always forms both gradients; a frozen layer wants one. Large products split over the current
//! rayon pool. Sums run over the shared dimension in an order that does not depend on the number of threads.

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

    /// Columns of a row-major matrix: rows begin `stride` values apart, the first at the slice's first.
    ///
    /// # Panics
    /// If the last row ends outside the slice, or rows overlap.
    #[must_use]
    pub fn strided(values: &'a [S], rows: usize, cols: usize, stride: usize) -> Self {
        assert_inside(values.len(), rows, cols, stride);
        Self { values, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// The transpose, without moving a value.
    #[must_use]
    pub fn t(self) -> Self {
        let Self { values, rows, cols, row_stride, col_stride } = self;
        Self { values, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }
}

/// Columns of a row-major matrix, to be written.
#[derive(Debug)]
pub struct MatrixMut<'a, S> {
    values: &'a mut [S],
    rows: usize,
    cols: usize,
    stride: usize,
}

impl<'a, S: Scalar> MatrixMut<'a, S> {
    /// As [`Matrix::strided`].
    ///
    /// # Panics
    /// As [`Matrix::strided`].
    #[must_use]
    pub fn strided(values: &'a mut [S], rows: usize, cols: usize, stride: usize) -> Self {
        assert_inside(values.len(), rows, cols, stride);
        Self { values, rows, cols, stride }
    }
}

fn assert_inside(length: usize, rows: usize, cols: usize, stride: usize) {
    assert!(cols <= stride, "{cols} columns in rows of {stride}");
    assert!(rows == 0 || (rows - 1) * stride + cols <= length, "{rows} rows of {stride} in {length} values");
}

/// What becomes of the values that a product is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// The product is added to them.
    Kept,
    /// The product replaces them.
    Overwritten,
}

/// `out += a·b`, `out` row-major, split over the current rayon pool where that pays.
///
/// # Panics
/// If the shapes do not fit.
pub fn add_product<S: Scalar>(out: &mut [S], a: Matrix<'_, S>, b: Matrix<'_, S>) {
    assert_eq!(out.len(), a.rows * b.cols, "{}×{} values", a.rows, b.cols);
    let out = MatrixMut::strided(out, a.rows, b.cols, b.cols);
    product(out, Before::Kept, a, b, rayon::current_num_threads());
}

/// `out = a·b` or `out += a·b` on at most so many threads of the current rayon pool.
///
/// # Panics
/// If the shapes do not fit.
pub fn product<S: Scalar>(out: MatrixMut<'_, S>, before: Before, a: Matrix<'_, S>, b: Matrix<'_, S>, threads: usize) {
    assert_eq!(a.cols, b.rows, "inner dimensions");
    let MatrixMut { values, rows, cols, stride: out_stride } = out;
    assert_eq!((rows, cols), (a.rows, b.cols), "outer dimensions");
    let stride = |n: usize| isize::try_from(n).expect("a slice is shorter than isize::MAX");
    let one = S::from_f64(1.0);
    #[expect(unsafe_code, reason = "gemm takes pointers")]
    // SAFETY: `Matrix` and `MatrixMut` checked when they were made that every row lies inside their slice, and strides
    // are those of that shape or its transpose, so every index lies inside; `out` is borrowed mutably, so it overlaps
    // neither input, and its rows do not overlap each other; S is f32 or f64, which gemm supports.
    unsafe {
        gemm(
            a.rows,
            b.cols,
            a.cols,
            values.as_mut_ptr(),
            1,
            stride(out_stride),
            before == Before::Kept,
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
            if threads == 1 { Parallelism::None } else { Parallelism::Rayon(threads) },
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

    #[test]
    fn columns_of_a_wider_matrix_are_read_and_written_in_place() {
        let wide: Vec<f64> = (0..15).map(f64::from).collect();
        let mut out = vec![7.0; 12];
        let a = Matrix::strided(&wide[1..], 3, 2, 5);
        product(
            MatrixMut::strided(&mut out[2..], 3, 2, 4),
            Before::Overwritten,
            a,
            Matrix::new(&[1.0, 0.0, 0.0, 2.0], 2, 2),
            1,
        );
        assert_eq!(out, [7.0, 7.0, 1.0, 4.0, 7.0, 7.0, 6.0, 14.0, 7.0, 7.0, 11.0, 24.0]);
    }

    #[test]
    fn the_number_of_threads_does_not_show() {
        let (rows, depth, cols) = (150, 700, 260);
        let value = |n: usize| ((n * 7919 % 1013) as f32 - 506.0) / 127.0;
        let a: Vec<f32> = (0..rows * depth).map(value).collect();
        let b: Vec<f32> = (0..depth * cols).map(|n| value(n + 5)).collect();
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut out = [vec![0.5f32; rows * cols], vec![0.5; rows * cols]];
            pool.install(|| {
                add_product(&mut out[0], Matrix::new(&a, rows, depth), Matrix::new(&b, depth, cols));
                add_product(&mut out[1], Matrix::new(&a, rows, depth), Matrix::new(&b, cols, depth).t());
            });
            out.map(|out| out.iter().map(|v| v.to_bits()).collect::<Vec<u32>>())
        };
        assert_eq!(on(1), on(2));
        assert_eq!(on(1), on(5));
    }

    #[test]
    #[should_panic(expected = "rows of 5 in 11 values")]
    fn a_row_outside_the_slice_is_caught() {
        let _ = Matrix::strided(&[0.0f32; 11], 3, 2, 5);
    }
}
