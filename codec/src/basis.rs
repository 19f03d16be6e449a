//! Orthonormal DCT-II bases and their sine companions, as matrices.
//!
//! `D(v, j) = α_v·cos(π/2B·v(2j+1))` with `α_0 = 1/√B` and `α_v = √(2/B)`: Rao & Yip, *Discrete
//! Cosine Transform*, 1990, the DCT-II scaled to be orthonormal. The sine rows
//! `S(v, j) = α_v·sin(π/2B·v(2j+1))` let a wave of any phase be written with four products, because
//! `cos(a+b) = cos a cos b − sin a sin b`. A matrix, not a fast transform: a block edge is at most a few
//! dozen, the product vectorises over tokens, and its rounding does not depend on the CPU.

use std::f64::consts::PI;

use crate::scalar::Scalar;

/// `α_v` of a basis of the given size.
#[must_use]
pub(crate) fn alpha(size: usize, v: usize) -> f64 {
    if v == 0 { (1.0 / size as f64).sqrt() } else { (2.0 / size as f64).sqrt() }
}

fn matrix(size: usize, wave: fn(f64) -> f64) -> Vec<f64> {
    let entry = |v: usize, j: usize| {
        // Reduced modulo a full turn in integers, so that the argument stays small and exact.
        let step = v * (2 * j + 1) % (4 * size);
        alpha(size, v) * wave(PI / (2 * size) as f64 * step as f64)
    };
    (0..size * size).map(|i| entry(i / size, i % size)).collect()
}

/// The orthonormal DCT-II of a size, `size`×`size`, row `v` a basis vector.
#[must_use]
pub fn dct_matrix(size: usize) -> Vec<f64> {
    matrix(size, f64::cos)
}

/// The sine companions of [`dct_matrix`]; row 0 is zero.
#[must_use]
pub fn dst_matrix(size: usize) -> Vec<f64> {
    matrix(size, f64::sin)
}

/// Cosine rows `0..size`, then sine rows `size..2·size`, in the kernels' float type.
#[derive(Clone, Debug)]
pub struct Basis<S> {
    size: usize,
    rows: Vec<S>,
}

impl<S: Scalar> Basis<S> {
    /// The stacked basis of a block edge.
    #[must_use]
    pub fn new(size: usize) -> Self {
        let rows = dct_matrix(size).into_iter().chain(dst_matrix(size)).map(S::from_f64).collect();
        Self { size, rows }
    }

    /// Block edge.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// One basis vector: cosine `index` for `index < size`, sine `index − size` otherwise.
    #[must_use]
    pub fn row(&self, index: usize) -> &[S] {
        &self.rows[index * self.size..(index + 1) * self.size]
    }
}

#[cfg(test)]
mod tests {
    use rustdct::DctPlanner;

    use super::*;

    #[test]
    fn the_cosine_rows_are_orthonormal() {
        for size in [1, 2, 4, 7, 28, 64] {
            let d = dct_matrix(size);
            for (u, v) in (0..size).flat_map(|u| (0..size).map(move |v| (u, v))) {
                let dot: f64 = (0..size).map(|j| d[u * size + j] * d[v * size + j]).sum();
                assert!((dot - f64::from(u8::from(u == v))).abs() < 1e-12, "{size}: {u}·{v} = {dot}");
            }
        }
    }

    #[test]
    fn the_matrix_agrees_with_rustdct() {
        for size in [4, 28, 64] {
            let x: Vec<f64> = (0..size).map(|i| ((i * i) as f64).sin()).collect();
            let mut fast = x.clone();
            DctPlanner::new().plan_dct2(size).process_dct2(&mut fast);
            let d = dct_matrix(size);
            for (v, &f) in fast.iter().enumerate() {
                let slow: f64 = (0..size).map(|j| d[v * size + j] * x[j]).sum();
                assert!((slow - alpha(size, v) * f).abs() < 1e-10);
            }
        }
    }
}
