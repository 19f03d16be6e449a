//! Perceptrons whose trainable part is a flat vector: how the baselines of `digits` are trained and tested.

use candle_core::{Result as TensorResult, Tensor};
use packfed_codec::Seed;
use packfed_worker::examples::{BatchOrder, Examples};
use packfed_worker::local::{LocalSteps, MeanLoss, flat_values, variables};
use packfed_worker::loss::cross_entropy;
use packfed_worker::mlp::Mlp;
use packfed_worker::task::TaskError;

use super::fedavg::FlatModel;
use crate::results::Score;
use crate::task::Task;

/// A perceptron whose trainable part is a flat vector.
pub trait Perceptron: Sync {
    /// Shapes of the trainable tensors, in the order of the vector.
    fn shapes(&self) -> Vec<(usize, usize)>;

    /// Logits of a batch under the trainable tensors.
    ///
    /// # Errors
    /// If a tensor operation fails.
    fn forward(&self, tensors: &[Tensor], x: &Tensor) -> TensorResult<Tensor>;

    /// The perceptron that these parameters make.
    fn merged(&self, parameters: &[f32]) -> Mlp;
}

impl<P: Perceptron> FlatModel for P {
    type Task = Task;

    fn train(
        &self,
        parameters: &[f32],
        data: &Examples,
        seed: &Seed,
        steps: LocalSteps,
    ) -> Result<Vec<f32>, TaskError> {
        train(self, parameters, data, &mut BatchOrder::new(seed, data.len()), steps)
    }

    fn score(&self, task: &Task, parameters: &[f32]) -> Result<Score, TaskError> {
        Ok(task.test.score(&self.merged(parameters)))
    }
}

/// Trains a perceptron from `parameters`.
///
/// # Errors
/// If a tensor operation fails or the loss is not finite.
pub fn train(
    model: &impl Perceptron,
    parameters: &[f32],
    examples: &Examples,
    order: &mut BatchOrder,
    steps: LocalSteps,
) -> Result<Vec<f32>, TaskError> {
    let variables = variables(&model.shapes(), parameters)?;
    let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
    let loss = |indices: &[usize]| {
        let (x, labels) = examples.tensors(indices)?;
        let mean = cross_entropy::<f32>(&model.forward(&tensors, &x)?, &labels)?;
        Ok(MeanLoss { mean, terms: indices.len() })
    };
    steps.run(&variables, |size| order.batch(size), loss)?;
    Ok(flat_values(&variables)?)
}
