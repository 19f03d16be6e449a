//! LoRA FedAvg: rank-r factors beside every frozen matrix but the head, which is trained whole, as is
//! usual for a new task (Hu et al., ICLR 2022; averaging A and B apart as FedIT does).

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use packfed_codec::Seed;
use packfed_worker::mlp::{Dense, Mlp};
use packfed_worker::product::{Matrix, add_product};

use super::linear::linear;
use super::perceptron::Perceptron;

/// A perceptron with low-rank factors.
#[derive(Clone, Debug)]
pub struct LoraModel {
    base: Arc<Mlp>,
    rank: usize,
    /// Weight and bias of every layer but the head.
    frozen: Vec<(Tensor, Tensor)>,
}

impl LoraModel {
    /// The model of a base and a rank, and its parameters: A uniform in ±1/√inputs, B zero, then the head.
    ///
    /// # Errors
    /// If a frozen layer cannot be made a tensor.
    ///
    /// # Panics
    /// If the base has no layer.
    pub fn new(base: Arc<Mlp>, rank: usize, seed: &Seed) -> Result<(Self, Vec<f32>)> {
        let mut stream = seed.derive("packfed/lora/1", &[rank as u64]).stream();
        let (head, frozen) = base.layers.split_last().expect("a perceptron has a layer");
        let mut parameters = Vec::new();
        for layer in frozen {
            let bound = 1.0 / (layer.inputs as f64).sqrt();
            #[expect(clippy::cast_possible_truncation, reason = "an initial value")]
            parameters.extend((0..rank * layer.inputs).map(|_| ((2.0 * stream.unit() - 1.0) * bound) as f32));
            parameters.extend(std::iter::repeat_n(0.0, rank * layer.outputs()));
        }
        parameters.extend(head.weight.iter().chain(head.bias.iter()));
        let tensors = |layer: &Dense| {
            let weight = Tensor::from_slice(&layer.weight, (layer.outputs(), layer.inputs), &Device::Cpu)?;
            Ok((weight, Tensor::from_slice(&layer.bias, (1, layer.outputs()), &Device::Cpu)?))
        };
        let frozen = frozen.iter().map(tensors).collect::<Result<_>>()?;
        Ok((Self { base, rank, frozen }, parameters))
    }
}

impl Perceptron for LoraModel {
    /// A and B of every frozen layer, weight and bias of the head.
    fn shapes(&self) -> Vec<(usize, usize)> {
        let last = self.base.layers.len() - 1;
        let of_layer = |(n, layer): (usize, &Dense)| {
            let (outputs, inputs) = (layer.outputs(), layer.inputs);
            if n < last { [(self.rank, inputs), (outputs, self.rank)] } else { [(outputs, inputs), (1, outputs)] }
        };
        self.base.layers.iter().enumerate().flat_map(of_layer).collect()
    }

    fn forward(&self, tensors: &[Tensor], x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        let (factors, head) = tensors.split_at(tensors.len() - 2);
        for ((weight, bias), pair) in self.frozen.iter().zip(factors.chunks_exact(2)) {
            let low = linear(&linear(&x, &pair[0])?, &pair[1])?;
            x = (linear(&x, weight)?.broadcast_add(bias)? + low)?.relu()?;
        }
        linear(&x, &head[0])?.broadcast_add(&head[1])
    }

    fn merged(&self, mut parameters: &[f32]) -> Mlp {
        let mut merged = (*self.base).clone();
        let mut take = |n: usize| {
            let (own, rest) = parameters.split_at(n);
            parameters = rest;
            own
        };
        let last = merged.layers.len() - 1;
        for layer in &mut merged.layers[..last] {
            let (inputs, outputs) = (layer.inputs, layer.outputs());
            let a = Matrix::new(take(self.rank * inputs), self.rank, inputs);
            let b = Matrix::new(take(outputs * self.rank), outputs, self.rank);
            let weight: &mut Vec<f32> = Arc::make_mut(&mut layer.weight);
            add_product(weight, b, a);
        }
        let head = &mut merged.layers[last];
        let (inputs, outputs) = (head.inputs, head.outputs());
        head.weight = Arc::new(take(outputs * inputs).to_vec());
        head.bias = Arc::new(take(outputs).to_vec());
        merged
    }
}
