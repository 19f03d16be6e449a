//! Dense FedAvg: every weight and bias is trained and travels as f32. Also what pre-trains the base.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use packfed_worker::examples::{BatchOrder, Examples};
use packfed_worker::local::{LocalSteps, flat_values, variables};
use packfed_worker::mlp::{Dense, Mlp};
use packfed_worker::task::TaskError;

use super::fedavg::FlatModel;
use super::linear::linear;

/// All parameters of a perceptron, layer after layer, weights then bias.
#[derive(Clone, Debug)]
pub struct DenseModel {
    shapes: Vec<(usize, usize)>,
}

impl DenseModel {
    /// The dense model of a perceptron, and its parameters.
    #[must_use]
    pub fn new(base: &Mlp) -> (Self, Vec<f32>) {
        let shapes = base.layers.iter().map(|layer| (layer.outputs(), layer.inputs)).collect();
        let parameters = base.layers.iter().flat_map(|layer| layer.weight.iter().chain(layer.bias.iter())).copied();
        (Self { shapes }, parameters.collect())
    }

    /// Shapes of the parameters, in order: weight and bias of every layer.
    fn tensors(&self) -> Vec<(usize, usize)> {
        self.shapes.iter().flat_map(|&(outputs, inputs)| [(outputs, inputs), (1, outputs)]).collect()
    }
}

/// A perceptron's forward pass on weight and bias tensors in pairs.
pub(super) fn forward(tensors: &[Tensor], x: &Tensor) -> Result<Tensor> {
    let layers = tensors.len() / 2;
    let mut x = x.clone();
    for (n, pair) in tensors.chunks_exact(2).enumerate() {
        let y = linear(&x, &pair[0])?.broadcast_add(&pair[1])?;
        x = if n + 1 < layers { y.relu()? } else { y };
    }
    Ok(x)
}

impl FlatModel for DenseModel {
    fn train(
        &self,
        parameters: &[f32],
        examples: &Examples,
        order: &mut BatchOrder,
        steps: LocalSteps,
    ) -> std::result::Result<Vec<f32>, TaskError> {
        let variables = variables(&self.tensors(), parameters)?;
        let tensors: Vec<Tensor> = variables.iter().map(|v| v.as_tensor().clone()).collect();
        steps.run(variables.clone(), examples, order, |x| forward(&tensors, x))?;
        Ok(flat_values(&variables)?)
    }

    fn merged(&self, mut parameters: &[f32]) -> Mlp {
        let layer = |&(outputs, inputs): &(usize, usize)| {
            let (weight, rest) = parameters.split_at(outputs * inputs);
            let (bias, rest) = rest.split_at(outputs);
            parameters = rest;
            Dense { weight: Arc::new(weight.to_vec()), bias: Arc::new(bias.to_vec()), inputs }
        };
        Mlp { layers: self.shapes.iter().map(layer).collect() }
    }
}
