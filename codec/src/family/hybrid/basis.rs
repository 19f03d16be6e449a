//! The smooth functions seen in the spectrum, where a block is `Σ w_k·ŝ_k` plus unit impulses.
//!
//! The transform is orthonormal, so fits, energies and derivatives are the same on either side (Parseval), and the
//! coefficients' part of each is a look-up. It knows no formats and does not choose.

use super::HybridSpec;
use super::error::HybridError;
use super::format::HybridBlock;
use super::smooth::{SMOOTH, dot, least_squares, smooth_functions};
use super::transform::Transform2;

/// The linear map of one block shape from weights and coefficients to values, and its adjoint.
#[derive(Clone, Debug)]
pub struct HybridBasis {
    spec: HybridSpec,
    transform: Transform2,
    smooth: [Vec<f64>; SMOOTH],
}

/// The derivative of a loss with respect to a block's parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct HybridGradient {
    /// With respect to the eight weights.
    pub weights: [f64; SMOOTH],
    /// With respect to the coefficients, in the block's order.
    pub coefficients: Vec<f64>,
}

impl HybridBasis {
    /// The basis of a shape and transform.
    #[must_use]
    pub fn new(spec: HybridSpec) -> Self {
        let transform = Transform2::new(spec.transform, spec.rows, spec.cols);
        let smooth = smooth_functions(spec.rows, spec.cols).map(|function| transform.forward(&function));
        Self { spec, transform, smooth }
    }

    /// Shape, transform and format.
    #[must_use]
    pub const fn spec(&self) -> &HybridSpec {
        &self.spec
    }

    /// The gradient of a loss, given its gradient `∂L/∂X` with respect to the block's values, rows×cols.
    ///
    /// The values are linear in the parameters, `∂X(i,j)/∂w_k = s_k(x_j, y_i)` and `∂X(i,j)/∂c = T_u(i)·T_v(j)`, so
    /// this is the adjoint: `∂L/∂w_k = ⟨s_k, ∂L/∂X⟩`, `∂L/∂c` the spectrum of `∂L/∂X` at the position.
    ///
    /// # Errors
    /// If `block` is not of this shape and transform, or the gradient not of this shape.
    pub fn gradient(&self, block: &HybridBlock, grad_block: &[f64]) -> Result<HybridGradient, HybridError> {
        let (HybridSpec { rows, cols, transform, .. }, of) = (self.spec, block.spec());
        let same = (rows, cols, transform) == (of.rows, of.cols, of.transform);
        if grad_block.len() != rows * cols || !same {
            return Err(HybridError::Length { values: grad_block.len(), rows: of.rows, cols: of.cols });
        }
        let spectrum = self.transform.forward(grad_block);
        let at = |row: u8, col: u8| spectrum[usize::from(row) * cols + usize::from(col)];
        Ok(HybridGradient {
            weights: std::array::from_fn(|k| dot(&self.smooth[k], &spectrum)),
            coefficients: block.entries.iter().map(|entry| at(entry.row, entry.col)).collect(),
        })
    }

    /// The spectrum of finite values, rows×cols.
    pub(super) fn spectrum(&self, values: &[f32]) -> Result<Vec<f64>, HybridError> {
        let HybridSpec { rows, cols, .. } = self.spec;
        if values.len() != rows * cols {
            return Err(HybridError::Length { values: values.len(), rows, cols });
        }
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            return Err(HybridError::Value { index });
        }
        let values: Vec<f64> = values.iter().map(|&v| v.into()).collect();
        Ok(self.transform.forward(&values))
    }

    /// Weights that fit a spectrum best outside the positions that have coefficients of their own.
    pub(super) fn fit(&self, spectrum: &[f64], without: &[usize]) -> [f64; SMOOTH] {
        least_squares(&self.smooth, spectrum, without)
    }

    /// What weights leave of a spectrum.
    pub(super) fn residual(&self, spectrum: &[f64], weights: &[f64; SMOOTH]) -> Vec<f64> {
        let mut residual = spectrum.to_vec();
        for (weight, function) in weights.iter().zip(&self.smooth) {
            for (residual, f) in residual.iter_mut().zip(function) {
                *residual -= weight * f;
            }
        }
        residual
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::hybrid::{HybridEncoder, HybridFormat, Selection, Transform};
    use crate::seed::Seed;

    /// The block's values from their definition, in f64.
    fn values(basis: &HybridBasis, block: &HybridBlock, weights: &[f64], coefficients: &[f64]) -> Vec<f64> {
        let HybridSpec { rows, cols, .. } = basis.spec;
        let mut spectrum = vec![0.0; rows * cols];
        for (entry, c) in block.entries.iter().zip(coefficients) {
            spectrum[usize::from(entry.row) * cols + usize::from(entry.col)] = *c;
        }
        let mut values = basis.transform.inverse(&spectrum);
        for (weight, function) in weights.iter().zip(smooth_functions(rows, cols)) {
            values.iter_mut().zip(function).for_each(|(value, f)| *value += weight * f);
        }
        values
    }

    #[test]
    fn the_gradient_agrees_with_finite_differences() {
        for (transform, (rows, cols)) in
            Transform::ALL.into_iter().flat_map(|t| [(8, 16), (1, 4), (16, 2)].map(|shape| (t, shape)))
        {
            let spec = HybridSpec::new(rows, cols, transform, HybridFormat::Plain).unwrap();
            let mut stream = Seed::from_number(5).stream();
            let noise: Vec<f32> = (0..rows * cols).map(|_| stream.bits_32() as f32 / 4e9 - 0.5).collect();
            let block = HybridEncoder::new(spec).encode(&noise, Selection::Count(9)).unwrap().block;
            let basis = HybridBasis::new(spec);
            let target: Vec<f64> = (0..rows * cols).map(|_| stream.unit()).collect();
            let weights: Vec<f64> = block.weights().iter().map(|&w| w.into()).collect();
            let coefficients: Vec<f64> = block.coefficients().map(|c| c.value.into()).collect();
            let loss = |w: &[f64], c: &[f64]| -> f64 {
                values(&basis, &block, w, c).iter().zip(&target).map(|(x, t)| 0.5 * (x - t).powi(2)).sum()
            };
            let x = values(&basis, &block, &weights, &coefficients);
            let grad: Vec<f64> = x.iter().zip(&target).map(|(x, t)| x - t).collect();
            let found = basis.gradient(&block, &grad).unwrap();
            let nudged = |v: &[f64], at: usize, by: f64| {
                let mut v = v.to_vec();
                v[at] += by;
                v
            };
            for (k, found) in found.weights.into_iter().enumerate() {
                let at = |by| loss(&nudged(&weights, k, by), &coefficients);
                assert!((found - (at(1e-4) - at(-1e-4)) / 2e-4).abs() < 1e-7, "{transform:?}, weight {k}");
            }
            for (k, found) in found.coefficients.into_iter().enumerate() {
                let at = |by| loss(&weights, &nudged(&coefficients, k, by));
                assert!((found - (at(1e-4) - at(-1e-4)) / 2e-4).abs() < 1e-7, "{transform:?}, coefficient {k}");
            }
        }
    }

    #[test]
    fn a_gradient_of_another_shape_is_refused() {
        let spec = HybridSpec::new(4, 4, Transform::Dct, HybridFormat::Plain).unwrap();
        let block = HybridBlock::empty(HybridSpec::new(4, 4, Transform::Haar, HybridFormat::Plain).unwrap());
        let basis = HybridBasis::new(spec);
        assert!(basis.gradient(&block, &[0.0; 16]).is_err(), "another transform");
        assert!(basis.gradient(&HybridBlock::empty(spec), &[0.0; 15]).is_err(), "another length");
    }
}
