//! The eight smooth functions of a block and their least-squares fit.
//!
//! `1, d, d², cos πx, cos πy, cos 2πx, cos 2πy, cos πx·cos πy` with `x = (2j+1)/cols − 1`, `y = (2i+1)/rows − 1` and
//! `d = √(x²+y²)`: the centres of the block's cells on `[-1,1]²`, where the cosines are DCT-II vectors and an edge
//! of 1 has the coordinate 0. On a thin or small block some of them coincide; the fit leaves those out. It knows
//! neither coefficients nor formats.

use std::f64::consts::PI;

/// Number of smooth functions.
pub const SMOOTH: usize = 8;

/// A function whose part outside the earlier ones is below this share of its norm is left out of a fit.
const RANK_TOLERANCE: f64 = 1e-6;

/// `(2n+1)/size − 1` for every `n`.
pub(super) fn centres(size: usize) -> impl Iterator<Item = f64> {
    (0..size).map(move |n| (2 * n + 1) as f64 / size as f64 - 1.0)
}

/// The eight functions at one point.
pub(super) fn smooth_at(x: f64, y: f64) -> [f64; SMOOTH] {
    let (square, cos_x, cos_y) = (x * x + y * y, (PI * x).cos(), (PI * y).cos());
    [1.0, square.sqrt(), square, cos_x, cos_y, (2.0 * PI * x).cos(), (2.0 * PI * y).cos(), cos_x * cos_y]
}

/// The eight functions on rows×cols, one vector each.
pub(super) fn smooth_functions(rows: usize, cols: usize) -> [Vec<f64>; SMOOTH] {
    let mut functions: [Vec<f64>; SMOOTH] = Default::default();
    for (y, x) in centres(rows).flat_map(|y| centres(cols).map(move |x| (y, x))) {
        for (function, value) in functions.iter_mut().zip(smooth_at(x, y)) {
            function.push(value);
        }
    }
    functions
}

/// The weights `w` that minimise `‖target − Σ w_k·columns_k‖` over the entries that `without` does not name.
///
/// Modified Gram–Schmidt, each column orthogonalised twice (Björck, *Numerical Methods for Least Squares Problems*,
/// 1996). A column that depends on its predecessors gets the weight 0.
pub(super) fn least_squares(columns: &[Vec<f64>; SMOOTH], target: &[f64], without: &[usize]) -> [f64; SMOOTH] {
    let mut rest = masked(target, without);
    let mut upper = [[0.0; SMOOTH]; SMOOTH];
    let mut projections = [0.0; SMOOTH];
    let mut basis: Vec<(usize, Vec<f64>)> = Vec::with_capacity(SMOOTH);
    for (k, column) in columns.iter().enumerate() {
        let mut column_left = masked(column, without);
        for (j, direction) in basis.iter().chain(&basis) {
            let along = dot(direction, &column_left);
            upper[*j][k] += along;
            subtract(&mut column_left, along, direction);
        }
        let norm = dot(&column_left, &column_left).sqrt();
        if norm <= RANK_TOLERANCE * dot(column, column).sqrt() {
            continue;
        }
        column_left.iter_mut().for_each(|v| *v /= norm);
        upper[k][k] = norm;
        projections[k] = dot(&column_left, &rest);
        subtract(&mut rest, projections[k], &column_left);
        basis.push((k, column_left));
    }
    back_substitute(&upper, &projections)
}

/// Solves `R·w = z`; a zero on the diagonal is a column left out.
fn back_substitute(upper: &[[f64; SMOOTH]; SMOOTH], projections: &[f64; SMOOTH]) -> [f64; SMOOTH] {
    let mut weights = [0.0; SMOOTH];
    for k in (0..SMOOTH).rev().filter(|&k| upper[k][k] > 0.0) {
        let known: f64 = (k + 1..SMOOTH).map(|j| upper[k][j] * weights[j]).sum();
        weights[k] = (projections[k] - known) / upper[k][k];
    }
    weights
}

fn masked(values: &[f64], without: &[usize]) -> Vec<f64> {
    let mut values = values.to_vec();
    for &index in without {
        values[index] = 0.0;
    }
    values
}

const LANES: usize = 8;

/// A dot product in eight running sums: one fixed order on every machine, and vectors for the compiler.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

fn subtract(from: &mut [f64], factor: f64, vector: &[f64]) {
    for (from, v) in from.iter_mut().zip(vector) {
        *from -= factor * v;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    fn combine(functions: &[Vec<f64>; SMOOTH], weights: &[f64; SMOOTH]) -> Vec<f64> {
        let at = |i: usize| functions.iter().zip(weights).map(|(f, w)| w * f[i]).sum();
        (0..functions[0].len()).map(at).collect()
    }

    #[test]
    fn the_functions_stand_in_their_order() {
        let functions = smooth_functions(3, 4);
        let (x, y): (f64, f64) = (0.75, -2.0 / 3.0);
        let d = x.hypot(y);
        let cosines = [(PI * x).cos(), (PI * y).cos(), (2.0 * PI * x).cos(), (2.0 * PI * y).cos()];
        let expected = [1.0, d, d * d, cosines[0], cosines[1], cosines[2], cosines[3], (PI * x).cos() * (PI * y).cos()];
        for (k, expected) in expected.into_iter().enumerate() {
            assert!((functions[k][3] - expected).abs() < 1e-14, "function {k} at the top right");
        }
    }

    #[test]
    fn a_fit_finds_the_weights_again() {
        let functions = smooth_functions(20, 33);
        let weights = [0.5, -1.0, 2.0, 0.25, -0.125, 3.0, 1.5, -0.75];
        let found = least_squares(&functions, &combine(&functions, &weights), &[]);
        for (found, weight) in found.iter().zip(weights) {
            assert!((found - weight).abs() < 1e-10);
        }
    }

    #[test]
    fn what_a_fit_leaves_is_orthogonal_to_every_function_on_every_shape() {
        for (rows, cols) in [(1, 1), (1, 7), (7, 1), (2, 2), (3, 5), (1, 256), (64, 64)] {
            let functions = smooth_functions(rows, cols);
            let mut stream = Seed::from_number(3).stream();
            let target: Vec<f64> = (0..rows * cols).map(|_| stream.unit() - 0.5).collect();
            let without: Vec<usize> = (0..rows * cols).step_by(5).filter(|_| rows * cols > 40).collect();
            let weights = least_squares(&functions, &target, &without);
            assert!(weights.iter().all(|w| w.is_finite()));
            let fitted = combine(&functions, &weights);
            let mut left: Vec<f64> = target.iter().zip(fitted).map(|(t, f)| t - f).collect();
            without.iter().for_each(|&i| left[i] = 0.0);
            for (k, function) in functions.iter().enumerate() {
                let along = dot(&left, function) / dot(function, function).sqrt().max(1e-12);
                assert!(along.abs() < 1e-5, "{rows}×{cols}: {along} along function {k}");
            }
        }
    }
}
