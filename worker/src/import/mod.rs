//! Models in: a delta that was trained elsewhere, as a LoRA adapter or as whole weights, becomes packed lanes.
//!
//! ```text
//!  LoraAdapter ─┐                 layer by layer
//!               ├─► Deltas ─► Δ ──► Fit: K and lanes ──► State ──► report, measured on the decoded Δ
//!  DenseDelta ──┘
//! ```
//!
//! | noun | file |
//! |---|---|
//! | a PEFT adapter's directory | `lora.rs` |
//! | a fine-tuned model beside its base, or a file of deltas | `dense.rs` |
//! | the lanes of one layer, and how many | `fit.rs` |
//!
//! A layout draws its positions from the seed, whatever the delta is. So K of a block's n positions hold about K/n of
//! the energy of a delta that has no preference among them, as trained ones hardly have: a target near 1 needs nearly
//! all, and then packed form is no smaller than the dense delta. The report says what each layer took and lost.

mod dense;
mod fit;
mod lora;

use std::path::PathBuf;
use std::sync::Arc;

use packfed_codec::quality::{MetricError, captured_energy, rmse};
use packfed_codec::{LayerSpec, Layout, LayoutError, Merger, PackedLayer, Seed, State};
use thiserror::Error;

pub use dense::DenseDelta;
pub use lora::LoraAdapter;

use crate::files::ModelFileError;
use crate::nn::widen::whole;
use crate::weight::Weight;

/// Why a delta cannot be imported.
#[derive(Debug, Error)]
pub enum ImportError {
    /// A file cannot be read.
    #[error(transparent)]
    Files(#[from] ModelFileError),
    /// An adapter that is not of this kind, or asks for what is not built here: the file, and the key or tensor.
    #[error("{}: {why}", path.display())]
    Adapter {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Two tensors that belong together do not fit.
    #[error("{}: tensor {tensor} has shape {found:?}, expected {expected:?}", path.display())]
    Shape {
        /// The file, or the directory of several.
        path: PathBuf,
        /// Its name.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that fits.
        expected: Vec<usize>,
    },
    /// A tensor cannot be widened.
    #[error("tensor {tensor}: {source}")]
    Tensor {
        /// Its name.
        tensor: String,
        /// What the tensor library said.
        source: candle_core::Error,
    },
    /// The layers make no layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The target is no share.
    #[error("a target of {0} of the energy, allowed is above 0 and at most 1")]
    Target(f64),
    /// A delta that is NaN or infinite, or a coefficient beyond a lane.
    #[error("the delta of {layer}: a coefficient of block {block} is {value}, allowed is ±2048")]
    Coefficient {
        /// The layer's name.
        layer: String,
        /// The block's number.
        block: usize,
        /// The coefficient.
        value: f64,
    },
    /// The delta cannot be compared with what was made of it.
    #[error("the delta of {layer}: {source}")]
    Metric {
        /// The layer's name.
        layer: String,
        /// What is wrong.
        source: MetricError,
    },
}

/// A tensor that has a delta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaTensor {
    /// Its name, as [`crate::files::ModelFiles`] has it.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// Where deltas come from.
pub trait Deltas {
    /// Every tensor that may differ from the base's.
    fn tensors(&self) -> Vec<DeltaTensor>;

    /// The delta of one of [`Deltas::tensors`], row by row.
    ///
    /// # Errors
    /// If a file cannot be read or is not as it was.
    fn delta(&self, name: &str) -> Result<Vec<f32>, ImportError>;
}

/// What became of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerReport {
    /// Its name.
    pub name: String,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// K, the residual positions of a block that were taken.
    pub residual: usize,
    /// Positions of a whole block: the most that K can be.
    pub positions: usize,
    /// The share of the delta's energy that the packed layer holds, measured on its decoded weights; nothing if the
    /// delta is zero.
    pub captured: Option<f64>,
    /// Root mean square error of a weight, likewise measured.
    pub rmse: f64,
    /// Energy of the delta, the sum of its squares.
    pub energy: f64,
    /// Bytes of its blocks in a packed adapter's file.
    pub packed_bytes: u64,
    /// Bytes of the delta in 32-bit floats.
    pub dense_bytes: u64,
}

impl LayerReport {
    /// Whether every position was taken, so that nothing was saved.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.residual >= self.positions
    }
}

/// A tensor whose delta no layer takes.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// Energy of its delta.
    pub energy: f64,
}

/// A delta in packed form, and what was lost.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The lanes.
    pub state: State,
    /// What became of every layer, in their order.
    pub layers: Vec<LayerReport>,
    /// Deltas that are not of these layers, such as those of norms and embeddings: lost whole.
    pub left_out: Vec<LeftOut>,
}

impl Imported {
    /// The share of all energy that the packed form holds, left-out tensors included; nothing if there is none.
    #[must_use]
    pub fn captured(&self) -> Option<f64> {
        let layers: f64 = self.layers.iter().map(|layer| layer.energy).sum();
        let all = layers + self.left_out.iter().map(|tensor| tensor.energy).sum::<f64>();
        let held: f64 = self.layers.iter().map(|layer| layer.energy * layer.captured.unwrap_or(0.0)).sum();
        (all > 0.0).then(|| held / all)
    }
}

/// Packs deltas into these layers. Each takes the fewest residual positions that hold `target` of its energy, but no
/// more than its specification's `residual` and, if its delta is zero, none. A delta that no layer takes is left out.
///
/// # Errors
/// If a delta cannot be read, has another shape than its layer, or leaves the range of a lane; if the layers are no
/// layout, or `target` is not within `(0, 1]`.
pub fn import(seed: &Seed, layers: Vec<LayerSpec>, deltas: &dyn Deltas, target: f64) -> Result<Imported, ImportError> {
    if !(target > 0.0 && target <= 1.0) {
        return Err(ImportError::Target(target));
    }
    let tensors = deltas.tensors();
    let widest = Layout::new(seed, layers)?;
    let (mut specs, mut lanes) = (Vec::new(), Vec::new());
    for layer in widest.layers() {
        let delta = layer_delta(layer.spec(), &tensors, deltas)?;
        let fit = fit::fit(layer, delta.as_deref(), target)?;
        specs.push(LayerSpec { residual: fit.residual, ..layer.spec().clone() });
        lanes.extend(fit.lanes.iter().flat_map(|lane| lane.to_le_bytes()));
    }
    let layout = Arc::new(Layout::new(seed, specs)?);
    let state = State::from_bytes(layout, &lanes).expect("a fit has the lanes of its layer with its K");
    let mut merger = Merger::new();
    let mut reports = Vec::new();
    for layer in state.layout().layers() {
        let delta = layer_delta(layer.spec(), &tensors, deltas)?;
        let decoded = merger.delta(layer, &PackedLayer::from_state(&state, layer));
        reports.push(report(layer, delta, &decoded)?);
    }
    let of_a_layer = |name: &str| reports.iter().any(|report| report.name == name);
    let mut left_out = Vec::new();
    for tensor in tensors.into_iter().filter(|tensor| !of_a_layer(&tensor.name)) {
        let energy = energy(&deltas.delta(&tensor.name)?);
        if energy > 0.0 {
            left_out.push(LeftOut { name: tensor.name, energy });
        }
    }
    Ok(Imported { state, layers: reports, left_out })
}

fn layer_delta(
    spec: &LayerSpec,
    tensors: &[DeltaTensor],
    deltas: &dyn Deltas,
) -> Result<Option<Vec<f32>>, ImportError> {
    let Some(tensor) = tensors.iter().find(|tensor| tensor.name == spec.name) else { return Ok(None) };
    let fits = match tensor.shape.as_slice() {
        &[rows] => (rows, 1) == (spec.rows, spec.cols),
        shape => shape == [spec.rows, spec.cols],
    };
    if fits {
        return deltas.delta(&spec.name).map(Some);
    }
    Err(ImportError::Shape {
        path: PathBuf::from("the delta"),
        tensor: spec.name.clone(),
        found: tensor.shape.clone(),
        expected: vec![spec.rows, spec.cols],
    })
}

fn report(layer: &packfed_codec::Layer, delta: Option<Vec<f32>>, decoded: &[f32]) -> Result<LayerReport, ImportError> {
    let spec = layer.spec();
    let values = spec.rows * spec.cols;
    let delta = delta.unwrap_or_else(|| vec![0.0; values]);
    let metric = |source| ImportError::Metric { layer: spec.name.clone(), source };
    let captured = match captured_energy(&delta, decoded) {
        Ok(captured) => Some(captured),
        Err(MetricError::NoEnergy) => None,
        Err(error) => return Err(metric(error)),
    };
    Ok(LayerReport {
        name: spec.name.clone(),
        shape: [spec.rows, spec.cols],
        residual: spec.residual,
        positions: spec.block.min(spec.rows) * spec.block.min(spec.cols),
        captured,
        rmse: rmse(&delta, decoded).map_err(metric)?,
        energy: energy(&delta),
        packed_bytes: (16 * layer.blocks().len() + 4 * layer.lanes().len()) as u64,
        dense_bytes: 4 * values as u64,
    })
}

fn energy(delta: &[f32]) -> f64 {
    delta.iter().map(|&value| f64::from(value).powi(2)).sum()
}

/// All values of a tensor.
fn widened(weight: &Weight) -> Result<Vec<f32>, ImportError> {
    whole(&weight.stored).map_err(|source| ImportError::Tensor { tensor: weight.name.clone(), source })
}

#[cfg(test)]
mod tests;
