//! From values to a block: least squares, the K largest of the rest, and which K, which transform.
//!
//! The plain fit comes first; then, as long as it helps, the weights are fitted again without the positions that were
//! chosen and the choice is made anew, because the smooth functions overlap the coefficients. Of these candidates the
//! one that is nearest *after quantization* is kept. It knows no bytes.

use std::cmp::Ordering;

use super::HybridSpec;
use super::basis::HybridBasis;
use super::decoder::HybridDecoder;
use super::error::HybridError;
use super::format::{Entry, HybridBlock, REACH_MAX};
use super::smooth::SMOOTH;
use crate::scalar::Scalar;

/// How many coefficients a block gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Selection {
    /// The K largest, fewer where the block has fewer positions or values round to zero.
    Count(usize),
    /// As many of the largest as an RMSE takes, measured on the block as decoded.
    Rmse(f64),
}

/// A block and how far it is from the values.
#[derive(Clone, Debug, PartialEq)]
pub struct HybridEncoded {
    /// The block, quantized.
    pub block: HybridBlock,
    /// Root of the mean squared difference between the values and what a decoder gives.
    pub rmse: f64,
}

/// Fits after the first.
const REFITS: usize = 2;

/// Encodes blocks of one shape, transform and format.
#[derive(Clone, Debug)]
pub struct HybridEncoder {
    basis: HybridBasis,
    decoder: HybridDecoder,
    decoded: Vec<f32>,
}

/// A quantized block, the spectrum's positions that it took, and the energy that it misses.
struct Candidate {
    block: HybridBlock,
    positions: Vec<usize>,
    missed: f64,
}

impl HybridEncoder {
    /// An encoder; its tables take about ten times the memory of a block in `f64`.
    #[must_use]
    pub fn new(spec: HybridSpec) -> Self {
        let decoded = vec![0.0; spec.rows * spec.cols];
        Self { basis: HybridBasis::new(spec), decoder: HybridDecoder::new(spec), decoded }
    }

    /// The linear map behind the blocks.
    #[must_use]
    pub const fn basis(&self) -> &HybridBasis {
        &self.basis
    }

    /// Encodes rows×cols values.
    ///
    /// # Errors
    /// If the values are not of this shape or not finite, if one is beyond the format, or if the RMSE is out of reach.
    pub fn encode(&mut self, values: &[f32], selection: Selection) -> Result<HybridEncoded, HybridError> {
        let spectrum = self.basis.spectrum(values)?;
        match selection {
            Selection::Count(count) => self.with_count(values, &spectrum, count),
            Selection::Rmse(target) => self.with_rmse(values, &spectrum, target),
        }
    }

    /// What a selection would cost after the plain fit, to compare transforms: the energy that K coefficients miss, or
    /// how many coefficients an RMSE takes.
    ///
    /// # Errors
    /// If the values are not of this shape or not finite, or the RMSE is not one.
    pub fn cost(&self, values: &[f32], selection: Selection) -> Result<f64, HybridError> {
        let energies = self.missed_energies(&self.basis.spectrum(values)?);
        match selection {
            Selection::Count(count) => Ok(energies[count.min(energies.len() - 1)]),
            Selection::Rmse(target) => Ok(count_for(&energies, checked(target)?) as f64),
        }
    }

    /// The energy that the `K` largest coefficients miss, for every `K` from 0 to all of them.
    fn missed_energies(&self, spectrum: &[f64]) -> Vec<f64> {
        let mut energies = self.basis.residual(spectrum, &self.basis.fit(spectrum, &[]));
        energies.iter_mut().for_each(|c| *c *= *c);
        energies.sort_unstable_by(f64::total_cmp);
        let sums = energies.iter().scan(0.0, |sum, &energy| {
            *sum += energy;
            Some(*sum)
        });
        let mut missed: Vec<f64> = std::iter::once(0.0).chain(sums).collect();
        missed.reverse();
        missed
    }

    fn with_count(&mut self, values: &[f32], spectrum: &[f64], count: usize) -> Result<HybridEncoded, HybridError> {
        let count = count.min(self.basis.spec().count_max());
        let mut best = self.candidate(spectrum, &self.basis.fit(spectrum, &[]), count)?;
        let mut positions = best.positions.clone();
        for _ in 0..REFITS {
            // A refit can leave the format's range; what was found before still stands.
            let weights = self.basis.fit(spectrum, &positions);
            let Ok(next) = self.candidate(spectrum, &weights, count) else { break };
            positions.clone_from(&next.positions);
            if next.missed < best.missed {
                best = next;
            }
        }
        let rmse = self.rmse(values, &best.block)?;
        Ok(HybridEncoded { block: best.block, rmse })
    }

    /// Parseval gives K for exact coefficients; from there K rises until the decoded block is near enough.
    fn with_rmse(&mut self, values: &[f32], spectrum: &[f64], target: f64) -> Result<HybridEncoded, HybridError> {
        let mut count = count_for(&self.missed_energies(spectrum), checked(target)?).min(self.basis.spec().count_max());
        let mut failed = None;
        let mut best = f64::INFINITY;
        let mut found = loop {
            let encoded = self.with_count(values, spectrum, count)?;
            best = best.min(encoded.rmse);
            if encoded.rmse <= target {
                break encoded;
            }
            if count == self.basis.spec().count_max() {
                return Err(HybridError::Unreachable { target, best });
            }
            failed = Some(count);
            count = (count + 1 + count / 4).min(self.basis.spec().count_max());
        };
        let Some(mut failed) = failed else { return Ok(found) };
        while count - failed > 1 {
            let middle = failed.midpoint(count);
            let encoded = self.with_count(values, spectrum, middle)?;
            if encoded.rmse <= target {
                (count, found) = (middle, encoded);
            } else {
                failed = middle;
            }
        }
        Ok(found)
    }

    /// Weights rounded, the `count` largest of what they leave, quantized.
    fn candidate(&self, spectrum: &[f64], weights: &[f64; SMOOTH], count: usize) -> Result<Candidate, HybridError> {
        let spec = *self.basis.spec();
        let weights = weights.map(f32::from_f64);
        if let Some(weight) = weights.iter().find(|w| !w.is_finite()) {
            return Err(HybridError::Magnitude { magnitude: weight.abs().into(), max: f32::MAX.into() });
        }
        let mut residual = self.basis.residual(spectrum, &weights.map(f64::from));
        let positions = largest(&residual, count);
        let magnitudes = || positions.iter().map(|&p| residual[p].abs());
        let most = magnitudes().fold(0.0, f64::max);
        let scale = spec.format.scale_for((magnitudes().fold(most, f64::min), most));
        if !scale.is_finite() {
            return Err(HybridError::Magnitude { magnitude: scale.into(), max: f32::MAX.into() });
        }
        let mut block = HybridBlock { weights, scale, ..HybridBlock::empty(spec) };
        for &position in &positions {
            if let Some(code) = spec.format.code(residual[position], scale)? {
                residual[position] -= f64::from(spec.format.value(code, scale));
                let narrow = |v: usize| u8::try_from(v).expect("edges are at most 256");
                let (row, col) = (narrow(position / spec.cols), narrow(position % spec.cols));
                block.entries.push(Entry { row, col, code });
            }
        }
        let magnitude = block.reach();
        if magnitude > REACH_MAX {
            return Err(HybridError::Magnitude { magnitude, max: REACH_MAX });
        }
        let missed = residual.iter().map(|c| c * c).sum();
        Ok(Candidate { block, positions, missed })
    }

    fn rmse(&mut self, values: &[f32], block: &HybridBlock) -> Result<f64, HybridError> {
        self.decoder.decode_block(block, &mut self.decoded)?;
        let squares = values.iter().zip(&self.decoded).map(|(&v, &d)| (f64::from(v) - f64::from(d)).powi(2));
        Ok((squares.sum::<f64>() / values.len() as f64).sqrt())
    }
}

fn checked(target: f64) -> Result<f64, HybridError> {
    if target >= 0.0 { Ok(target) } else { Err(HybridError::Target(target)) }
}

/// Fewest coefficients that miss at most `target²` a value; `missed` falls.
fn count_for(missed: &[f64], target: f64) -> usize {
    let bound = target * target * (missed.len() - 1) as f64;
    missed.partition_point(|&energy| energy > bound)
}

/// Positions of the `count` largest magnitudes, the earlier position first among equals, in ascending order.
fn largest(values: &[f64], count: usize) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..values.len()).collect();
    if (1..positions.len()).contains(&count) {
        let order = |a: &usize, b: &usize| -> Ordering { values[*b].abs().total_cmp(&values[*a].abs()).then(a.cmp(b)) };
        positions.select_nth_unstable_by(count - 1, order);
    }
    positions.truncate(count);
    positions.sort_unstable();
    positions
}
