//! Matrices that train dense tensors: what the baselines put in the place of packed ones.

use candle_core::{Result, Tensor};
use packfed_worker::model::linears::Linears;
use packfed_worker::nn::frozen::FrozenLinear;

use crate::baseline::linear::linear;

/// How one matrix trains.
#[derive(Clone, Debug)]
pub(super) enum Trained {
    /// The whole matrix, and its bias if it has one.
    Whole(Vec<Tensor>),
    /// Factors A, rank × inputs, and B, outputs × rank, beside the frozen matrix.
    LowRank(FrozenLinear<f32>, Vec<Tensor>),
}

/// Every matrix of a model.
#[derive(Debug)]
pub(super) struct Matrices(pub(super) Vec<Trained>);

impl Linears for Matrices {
    fn apply(&self, index: usize, x: &Tensor, trained: &[Tensor]) -> Result<Tensor> {
        match (&self.0[index], trained) {
            (Trained::Whole(_), [weight]) => linear(x, weight),
            (Trained::Whole(_), [weight, bias]) => linear(x, weight)?.broadcast_add(bias),
            (Trained::LowRank(frozen, _), [a, b]) => frozen.forward(x)? + linear(&linear(x, a)?, b)?,
            (_, found) => candle_core::bail!("matrix {index} with {} trained tensors", found.len()),
        }
    }

    fn trained(&self, index: usize) -> &[Tensor] {
        match &self.0[index] {
            Trained::Whole(tensors) | Trained::LowRank(_, tensors) => tensors,
        }
    }
}
