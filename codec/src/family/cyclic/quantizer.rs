//! The learnable quantizer: an angle φ and a radius ρ a weight, and a scale a row, that train.
//!
//! `w = e^λ·R(ρ)·sin φ`. [`Quantizer::requantize`] rounds every such weight to the code whose weight is the nearest,
//! angle and radius together; a forward pass sees the codes' weights ([`Path::Codes`]) or, between
//! re-quantizations, the continuous ones. The gradient goes straight through the rounding (Bengio, Léonard &
//! Courville, arXiv:1308.3432, 2013), by the exact chain rule through sine and radius map at the continuous φ
//! and ρ: `∂w/∂φ = e^λ·R(ρ)·cos φ`, `∂w/∂ρ = e^λ·R′(ρ)·sin φ`, and `∂w/∂λ = w`, which is the weight that the
//! pass saw. The derivative is not the code's own, because the code of the nearest weight may stand on the
//! circle's other side, where a step of φ would lead away. The scale is learned with the rest (LSQ, Esser et al.,
//! ICLR 2020), as its logarithm: it stays positive, and one rate fits every row, which LSQ's factor is for.
//!
//! Zero is not a code. It could be, if the angles of the least radius stood on the axes (225 values of the 8 bits'
//! 256 would be left) or a radius were 0 (193). For rows of 784 normal weights the residual would be 1.0 to 1.5 times,
//! or 1.6 to 1.8 times, as large, and trained weights are dense. Sparse ones do not fit these codes: with nine weights
//! of ten 0, the residual is 3 to 19 times that of codes with a zero.
//!
//! Slices in, slices out: it knows nothing of tensors, optimizers or steps, and nothing of a code's bits.

use std::f64::consts::TAU;

use thiserror::Error;

use super::code::Code;
use super::layer::{CodedLayer, LayerError};
use super::radius::RadiusMap;
use crate::scalar::Scalar;
use crate::wave::dot;
use continuous::{Continuous, Gradients};
use ladder::Ladder;

mod continuous;
mod ladder;

/// What trains, or its gradients.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters<T> {
    /// φ, one a weight, in radians; any number of turns.
    pub angles: T,
    /// ρ, one a weight, in the radius map's unit; beyond the first and the last code it counts as that code's.
    pub radii: T,
    /// λ, one a row: the natural logarithm of the scale.
    pub log_scales: T,
}

/// Which weights a pass sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Those of the codes of the last re-quantization.
    Codes,
    /// Those of the continuous parameters.
    Continuous,
}

/// Why weights cannot be quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QuantizerError {
    /// The weights are not whole rows.
    #[error("{found} weights are not rows of {cols}")]
    Rows {
        /// Weights given.
        found: usize,
        /// Weights of a row.
        cols: usize,
    },
    /// A weight is infinite or not a number.
    #[error("weight {index} is not finite")]
    NotFinite {
        /// Its index.
        index: usize,
    },
}

/// The parameters of one matrix, and the codes that they were last rounded to.
#[derive(Clone, Debug)]
pub struct Quantizer<C> {
    cols: usize,
    continuous: Continuous,
    ladder: Ladder<C>,
    parameters: Parameters<Vec<f32>>,
    codes: Vec<C>,
    /// What the codes are worth at scale 1.
    values: Vec<f32>,
}

/// Least scale that a row starts with; a row of zeros has it, since no code but the scale can be that small.
const SCALE_MIN: f64 = 1.0 / (1 << 24) as f64;
/// Weights that are rounded at a time: what lies between evaluating and rounding stays in the first cache.
const STRETCH: usize = 256;

impl<C: Code> Quantizer<C> {
    /// The nearest code of every weight; a row's largest weight takes the largest code.
    ///
    /// The parameters start at their codes. Zero is not among the codes: a zero weight becomes at most
    /// 0.7 % (8 bit) or 0.005 % (16 bit) of its row's largest, below zero and above it by turns.
    ///
    /// # Errors
    /// If the weights are not rows of `cols`, or one is not finite.
    pub fn from_weights(map: RadiusMap, cols: usize, weights: &[f32]) -> Result<Self, QuantizerError> {
        if cols == 0 || !weights.len().is_multiple_of(cols) {
            return Err(QuantizerError::Rows { found: weights.len(), cols });
        }
        if let Some(index) = weights.iter().position(|weight| !weight.is_finite()) {
            return Err(QuantizerError::NotFinite { index });
        }
        let ladder = Ladder::<C>::new(map);
        let (mut rungs, mut log_scales) = (Vec::with_capacity(weights.len()), Vec::new());
        for row in weights.chunks_exact(cols) {
            let largest = row.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
            let log_scale = f32::from_f64((f64::from(largest) / f64::from(ladder.top())).max(SCALE_MIN).ln());
            let scale = f64::from(log_scale).exp();
            rungs.extend(row.iter().enumerate().map(|(col, &weight)| {
                // All zeros on one side would add up in a sum over the row.
                let zero = if col % 2 == 0 { 0.0 } else { f32::MIN_POSITIVE };
                let value = if weight == 0.0 { zero } else { f32::from_f64(f64::from(weight) / scale) };
                ladder.nearest(value)
            }));
            log_scales.push(log_scale);
        }
        let (codes, values): (Vec<C>, Vec<f32>) = rungs.into_iter().unzip();
        let angles = codes.iter().map(|&code| f32::from_f64(angle(code))).collect();
        let radii = codes.iter().map(|code| radius::<C>(map, code.radius())).collect();
        let (first, last) = (radius::<C>(map, 0), radius::<C>(map, C::RADII - 1));
        let parameters = Parameters { angles, radii, log_scales };
        Ok(Self { cols, continuous: Continuous { map, first, last }, ladder, parameters, codes, values })
    }

    /// What trains.
    #[must_use]
    pub fn parameters(&self) -> Parameters<&[f32]> {
        let Parameters { angles, radii, log_scales } = &self.parameters;
        Parameters { angles, radii, log_scales }
    }

    /// What trains, for an optimizer's step.
    #[must_use]
    pub fn parameters_mut(&mut self) -> Parameters<&mut [f32]> {
        let Parameters { angles, radii, log_scales } = &mut self.parameters;
        Parameters { angles, radii, log_scales }
    }

    /// The codes of the last re-quantization.
    #[must_use]
    pub fn codes(&self) -> &[C] {
        &self.codes
    }

    /// Rounds every weight of the continuous parameters to the nearest code, of two as near to the lower; the
    /// parameters stay as they are.
    pub fn requantize(&mut self) {
        let Parameters { angles, radii, .. } = &self.parameters;
        let inputs = angles.chunks(STRETCH).zip(radii.chunks(STRETCH));
        let outputs = self.codes.chunks_mut(STRETCH).zip(self.values.chunks_mut(STRETCH));
        for ((angles, radii), (codes, values)) in inputs.zip(outputs) {
            self.continuous.values(angles, radii, values);
            for (code, value) in codes.iter_mut().zip(values) {
                (*code, *value) = self.ladder.nearest(*value);
            }
        }
    }

    /// Writes the weights of a path, rows×cols. On [`Path::Codes`] they are, bit for bit, those of [`Quantizer::layer`].
    ///
    /// # Panics
    /// If `weights` is not one a parameter.
    pub fn weights(&self, path: Path, weights: &mut [f32]) {
        assert_eq!(weights.len(), self.codes.len(), "one weight a code");
        match path {
            Path::Codes => weights.copy_from_slice(&self.values),
            Path::Continuous => self.continuous.values(&self.parameters.angles, &self.parameters.radii, weights),
        }
        for (weights, scale) in weights.chunks_exact_mut(self.cols).zip(self.scales()) {
            weights.iter_mut().for_each(|weight| *weight *= scale);
        }
    }

    /// Gradients of the parameters from the gradient of the weights that [`Quantizer::weights`] wrote for the path.
    ///
    /// A radius beyond the first or the last code has no gradient that would drive it further.
    ///
    /// # Panics
    /// If `gradient` is not one a weight.
    #[must_use]
    pub fn backward(&self, path: Path, gradient: &[f32]) -> Parameters<Vec<f32>> {
        assert_eq!(gradient.len(), self.codes.len(), "one gradient a code");
        let Parameters { angles, radii, .. } = &self.parameters;
        let (mut by_angle, mut by_radius) = (vec![0.0; gradient.len()], vec![0.0; gradient.len()]);
        let mut log_scales = Vec::with_capacity(self.parameters.log_scales.len());
        let (mut scaled, mut values) = (vec![0.0; self.cols], vec![0.0; self.cols]);
        for (start, scale) in (0..).step_by(self.cols).zip(self.scales()) {
            let row = start..start + self.cols;
            scaled.iter_mut().zip(&gradient[row.clone()]).for_each(|(scaled, gradient)| *scaled = scale * gradient);
            let (angles, radii) = (&angles[row.clone()], &radii[row.clone()]);
            let outputs = (&mut by_angle[row.clone()], &mut by_radius[row.clone()]);
            self.continuous.gradients(Gradients { inputs: (angles, radii, &scaled), outputs });
            match path {
                Path::Codes => log_scales.push(dot(&scaled, &self.values[row])),
                Path::Continuous => {
                    self.continuous.values(angles, radii, &mut values);
                    log_scales.push(dot(&scaled, &values));
                }
            }
        }
        Parameters { angles: by_angle, radii: by_radius, log_scales }
    }

    /// The layer as it is stored: scales and the codes of the last re-quantization.
    ///
    /// # Errors
    /// If training has left a scale that is not a positive number.
    pub fn layer(&self) -> Result<CodedLayer<C>, LayerError> {
        CodedLayer::new(self.continuous.map, self.cols, self.scales().collect(), self.codes.clone())
    }

    fn scales(&self) -> impl Iterator<Item = f32> {
        self.parameters.log_scales.iter().map(|&log_scale| f32::from_f64(f64::from(log_scale).exp()))
    }
}

/// φ of a code.
fn angle<C: Code>(code: C) -> f64 {
    (f64::from(code.angle()) + QUARTER) * TAU / f64::from(C::ANGLES)
}

/// ρ of a code.
fn radius<C: Code>(map: RadiusMap, index: u32) -> f32 {
    f32::from_f64(map.grid(index, C::RADII))
}

/// By how much of a step the grid of angles is turned, see `code.rs`.
const QUARTER: f64 = 0.25;

#[cfg(test)]
mod tests;
