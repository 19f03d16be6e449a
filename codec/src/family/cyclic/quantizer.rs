//! The learnable quantizer: an angle φ and a radius ρ a weight, and a scale a row, that train.
//!
//! `w = e^λ·R(ρ)·sin φ`. [`Quantizer::requantize`] rounds every (φ, ρ) to its code; a forward pass sees the
//! codes' weights ([`Path::Codes`]) or, between re-quantizations, the continuous ones. The gradient goes
//! straight through the rounding (Bengio, Léonard & Courville, arXiv:1308.3432, 2013), by the exact chain rule
//! through sine and radius map: `∂w/∂φ = e^λ·R(ρ)·cos φ`, `∂w/∂ρ = e^λ·R′(ρ)·sin φ`, `∂w/∂λ = w`, on the
//! codes' path at the codes' own φ and ρ. The scale is learned with the rest (LSQ, Esser et al., ICLR
//! 2020), as its logarithm: it stays positive, and one rate fits every row, which LSQ's factor is for.
//!
//! Slices in, slices out: it knows nothing of tensors, optimizers or steps, and nothing of a code's bits.

use std::f64::consts::TAU;

use thiserror::Error;

use super::code::Code;
use super::engine::Engine;
use super::layer::{CodedLayer, LayerError, unit};
use super::radius::RadiusMap;
use crate::scalar::Scalar;

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
    map: RadiusMap,
    cols: usize,
    table: Vec<Point>,
    parameters: Parameters<Vec<f32>>,
    codes: Vec<C>,
}

/// A weight at scale 1, and its slopes.
#[derive(Clone, Copy, Debug)]
struct Point<S = f32> {
    value: S,
    by_angle: S,
    by_radius: S,
}

/// Least scale that a row starts with; a row of zeros has it, since no code but the scale can be that small.
const SCALE_MIN: f64 = 1.0 / (1 << 24) as f64;

impl<C: Code> Quantizer<C> {
    /// The nearest code of every weight; a row's largest weight takes the largest code.
    ///
    /// The parameters start at their codes. Zero is not among the codes: a zero weight becomes at most
    /// 0.7 % (8 bit) or 0.005 % (16 bit) of its row's largest.
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
        let table = table::<C>(map);
        let ladder = Ladder::new(&table);
        let (mut codes, mut log_scales) = (Vec::with_capacity(weights.len()), Vec::new());
        for row in weights.chunks_exact(cols) {
            let largest = row.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
            let log_scale = f32::from_f64((f64::from(largest) / ladder.top()).max(SCALE_MIN).ln());
            let scale = f64::from(log_scale).exp();
            codes.extend(row.iter().map(|&weight| C::from_bits(ladder.nearest(f64::from(weight) / scale))));
            log_scales.push(log_scale);
        }
        let angles = codes.iter().map(|&code| f32::from_f64(angle(code))).collect();
        let radii = codes.iter().map(|code| f32::from_f64(map.grid(code.radius(), C::RADII))).collect();
        Ok(Self { map, cols, table, parameters: Parameters { angles, radii, log_scales }, codes })
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

    /// Rounds φ and ρ to their nearest codes; the parameters stay as they are.
    pub fn requantize(&mut self) {
        let parameters = self.parameters.angles.iter().zip(&self.parameters.radii);
        for (code, (&angle, &radius)) in self.codes.iter_mut().zip(parameters) {
            *code = C::at(nearest_angle::<C>(angle.into()), self.map.nearest(radius.into(), C::RADII));
        }
    }

    /// Writes the weights of a path, rows×cols. On [`Path::Codes`] they are, bit for bit, those of [`Quantizer::layer`].
    ///
    /// # Panics
    /// If `weights` is not one a parameter.
    pub fn weights(&self, path: Path, weights: &mut [f32]) {
        assert_eq!(weights.len(), self.codes.len(), "one weight a code");
        for (row, (weights, scale)) in weights.chunks_exact_mut(self.cols).zip(self.scales()).enumerate() {
            for (col, weight) in weights.iter_mut().enumerate() {
                *weight = scale * self.point(path, row * self.cols + col).value;
            }
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
        let (mut angles, mut radii) = (Vec::with_capacity(gradient.len()), Vec::with_capacity(gradient.len()));
        let mut log_scales = Vec::with_capacity(self.parameters.log_scales.len());
        let hull = hull::<C>(self.map);
        for (row, (gradient, scale)) in gradient.chunks_exact(self.cols).zip(self.scales()).enumerate() {
            let mut by_scale = 0.0f64;
            for (col, &gradient) in gradient.iter().enumerate() {
                let index = row * self.cols + col;
                let (point, gradient) = (self.point(path, index), gradient * scale);
                angles.push(gradient * point.by_angle);
                radii.push(inward(gradient * point.by_radius, self.parameters.radii[index].into(), hull));
                by_scale += f64::from(gradient) * f64::from(point.value);
            }
            log_scales.push(f32::from_f64(by_scale));
        }
        Parameters { angles, radii, log_scales }
    }

    /// The layer as it is stored: scales and the codes of the last re-quantization.
    ///
    /// # Errors
    /// If training has left a scale that is not a positive number.
    pub fn layer(&self) -> Result<CodedLayer<C>, LayerError> {
        CodedLayer::new(self.map, self.cols, self.scales().collect(), self.codes.clone())
    }

    fn scales(&self) -> impl Iterator<Item = f32> {
        self.parameters.log_scales.iter().map(|&log_scale| f32::from_f64(f64::from(log_scale).exp()))
    }

    fn point(&self, path: Path, index: usize) -> Point {
        match path {
            Path::Codes => self.table[self.codes[index].bits() as usize],
            Path::Continuous => {
                let (angle, radius) = (self.parameters.angles[index], self.parameters.radii[index]);
                let point = continuous::<C>(self.map, angle.into(), radius.into());
                Point {
                    value: f32::from_f64(point.value),
                    by_angle: f32::from_f64(point.by_angle),
                    by_radius: f32::from_f64(point.by_radius),
                }
            }
        }
    }
}

/// The engine's answer for every code, as floats.
fn table<C: Code>(map: RadiusMap) -> Vec<Point> {
    let engine = Engine::<C>::new(map);
    let point = |code| Point {
        value: unit(engine.value(code)),
        by_angle: unit(engine.angle_derivative(code, 1)),
        by_radius: unit(engine.radius_derivative(code)),
    };
    (0..C::CODES).map(C::from_bits).map(point).collect()
}

/// A weight at scale 1 off the grid, and its slopes; ρ held between the first and the last code.
fn continuous<C: Code>(map: RadiusMap, angle: f64, radius: f64) -> Point<f64> {
    let (first, last) = hull::<C>(map);
    let radius = radius.clamp(first, last);
    let ((sine, cosine), value) = (angle.sin_cos(), map.value(radius));
    Point { value: value * sine, by_angle: value * cosine, by_radius: map.slope(radius) * sine }
}

/// The radii of the first and the last code.
fn hull<C: Code>(map: RadiusMap) -> (f64, f64) {
    (map.grid(0, C::RADII), map.grid(C::RADII - 1, C::RADII))
}

/// The gradient, or 0 where a step against it would leave the hull further behind.
fn inward(gradient: f32, radius: f64, (first, last): (f64, f64)) -> f32 {
    if (radius > last && gradient < 0.0) || (radius < first && gradient > 0.0) { 0.0 } else { gradient }
}

/// φ of a code.
fn angle<C: Code>(code: C) -> f64 {
    (f64::from(code.angle()) + QUARTER) * TAU / f64::from(C::ANGLES)
}

/// The number of the angle nearest to φ.
fn nearest_angle<C: Code>(angle: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "an angle of more than 2^63 steps has lost its phase before")]
    let step = (angle * (f64::from(C::ANGLES) / TAU) + (0.5 - QUARTER)).floor() as i64;
    u32::try_from(step.rem_euclid(i64::from(C::ANGLES))).expect("a remainder is below the number of angles")
}

/// By how much of a step the grid of angles is turned, see `code.rs`.
const QUARTER: f64 = 0.25;

/// All codes by value.
struct Ladder {
    rungs: Vec<(f32, u32)>,
}

impl Ladder {
    fn new(table: &[Point]) -> Self {
        let mut rungs: Vec<(f32, u32)> = (0..).zip(table).map(|(bits, point)| (point.value, bits)).collect();
        rungs.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self { rungs }
    }

    /// The largest value.
    fn top(&self) -> f64 {
        self.rungs.last().map_or(1.0, |&(value, _)| value.into())
    }

    /// The bits of the code nearest to a value.
    fn nearest(&self, value: f64) -> u32 {
        let above = self.rungs.partition_point(|&(rung, _)| f64::from(rung) < value).clamp(1, self.rungs.len() - 1);
        let (below, above) = (self.rungs[above - 1], self.rungs[above]);
        if value - f64::from(below.0) <= f64::from(above.0) - value { below.1 } else { above.1 }
    }
}

#[cfg(test)]
mod tests;
