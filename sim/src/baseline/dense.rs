//! Dense FedAvg: every weight and bias is trained and travels as f32. Also what pre-trains the base.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use packfed_worker::mlp::{Dense, Mlp};

use super::linear::linear;
use super::perceptron::Perceptron;

/// All parameters of a perceptron, layer after layer, weights then bias.
#[derive(Clone, Debug)]
pub struct DenseModel {
    /// Outputs and inputs of every layer.
    layers: Vec<(usize, usize)>,
}

impl DenseModel {
    /// The dense model of a perceptron, and its parameters.
    #[must_use]
    pub fn new(base: &Mlp) -> (Self, Vec<f32>) {
        let layers = base.layers.iter().map(|layer| (layer.outputs(), layer.inputs)).collect();
        let parameters = base.layers.iter().flat_map(|layer| layer.weight.iter().chain(layer.bias.iter())).copied();
        (Self { layers }, parameters.collect())
    }
}

impl Perceptron for DenseModel {
    /// Weight and bias of every layer.
    fn shapes(&self) -> Vec<(usize, usize)> {
        self.layers.iter().flat_map(|&(outputs, inputs)| [(outputs, inputs), (1, outputs)]).collect()
    }

    fn forward(&self, tensors: &[Tensor], x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for (n, pair) in tensors.chunks_exact(2).enumerate() {
            let y = linear(&x, &pair[0])?.broadcast_add(&pair[1])?;
            x = if n + 1 < self.layers.len() { y.relu()? } else { y };
        }
        Ok(x)
    }

    fn merged(&self, mut parameters: &[f32]) -> Mlp {
        let layer = |&(outputs, inputs): &(usize, usize)| {
            let (weight, rest) = parameters.split_at(outputs * inputs);
            let (bias, rest) = rest.split_at(outputs);
            parameters = rest;
            Dense { weight: Arc::new(weight.to_vec()), bias: Arc::new(bias.to_vec()), inputs }
        };
        Mlp { layers: self.layers.iter().map(layer).collect() }
    }
}
