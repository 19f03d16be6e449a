//! The base model: a multilayer perceptron with ReLU, read from safetensors.
//!
//! Tensors are named `layers.N.weight` (outputs×inputs) and `layers.N.bias` (outputs), N from 0. The
//! base is frozen: it has a digest, and nothing here can change it.

use std::sync::Arc;

use packfed_codec::{Layout, Merger, PackedLayer, State};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use thiserror::Error;

use crate::examples::Examples;
use crate::product::{Matrix, add_product};

/// One dense layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    /// Outputs×inputs, row-major.
    pub weight: Arc<Vec<f32>>,
    /// One value an output.
    pub bias: Arc<Vec<f32>>,
    /// Number of inputs.
    pub inputs: usize,
}

impl Dense {
    /// Number of outputs.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }
}

/// A whole perceptron.
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    /// The layers, input first; a ReLU stands between two.
    pub layers: Vec<Dense>,
}

/// Why a file is not a perceptron, or not the one that a plan adapts.
#[derive(Debug, Error)]
pub enum ModelError {
    /// Not a safetensors file.
    #[error("not a safetensors file: {0}")]
    Format(#[from] safetensors::SafeTensorError),
    /// A tensor is missing.
    #[error("tensor {0} is missing")]
    Missing(String),
    /// A tensor has another shape than its neighbours or the plan need.
    #[error("tensor {name} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that fits.
        expected: Vec<usize>,
    },
    /// A tensor is not of 32-bit floats.
    #[error("tensor {name} is {found:?}, expected F32")]
    Type {
        /// Its name.
        name: String,
        /// Its type.
        found: Dtype,
    },
}

/// How a model does on labelled examples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Share of examples whose largest output is their label.
    pub accuracy: f64,
    /// Mean cross-entropy in nats.
    pub loss: f64,
}

impl Mlp {
    /// Reads a perceptron from the bytes of a safetensors file.
    ///
    /// # Errors
    /// If a tensor is missing, of another type, or does not fit its neighbours.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self, ModelError> {
        let file = SafeTensors::deserialize(bytes)?;
        let mut layers: Vec<Dense> = Vec::new();
        loop {
            let (weight_name, bias_name) = names(layers.len());
            let Ok(weight) = file.tensor(&weight_name) else { break };
            let &[outputs, inputs] = weight.shape() else {
                return Err(ModelError::Shape {
                    name: weight_name,
                    found: weight.shape().to_vec(),
                    expected: vec![0, 0],
                });
            };
            let before = layers.last().map_or(inputs, Dense::outputs);
            expect_shape(&weight_name, &weight, &[outputs, before])?;
            let bias = file.tensor(&bias_name).map_err(|_| ModelError::Missing(bias_name.clone()))?;
            expect_shape(&bias_name, &bias, &[outputs])?;
            let weight = Arc::new(floats(&weight_name, &weight)?);
            layers.push(Dense { weight, bias: Arc::new(floats(&bias_name, &bias)?), inputs });
        }
        if layers.is_empty() {
            return Err(ModelError::Missing(names(0).0));
        }
        Ok(Self { layers })
    }

    /// The bytes of a safetensors file; the same model gives the same bytes.
    ///
    /// # Panics
    /// If the layers do not hold what their shapes say.
    #[must_use]
    pub fn to_safetensors(&self) -> Vec<u8> {
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let stored: Vec<_> = self.layers.iter().map(|layer| (bytes(&layer.weight), bytes(&layer.bias))).collect();
        let views = self.layers.iter().zip(&stored).enumerate().flat_map(|(n, (layer, (weight, bias)))| {
            let (weight_name, bias_name) = names(n);
            let view = |shape, bytes| TensorView::new(Dtype::F32, shape, bytes).expect("shape and length agree");
            let weight = view(vec![layer.outputs(), layer.inputs], weight);
            [(weight_name, weight), (bias_name, view(vec![layer.outputs()], bias))]
        });
        safetensors::serialize(views, None).expect("views of the right length serialize")
    }

    /// The perceptron with Δ merged in, as inference sees it: waves from their Seed0.
    ///
    /// # Errors
    /// If the layout adapts a tensor that the base lacks, or in another shape.
    pub fn merged(&self, state: &State) -> Result<Self, ModelError> {
        let mut merged = self.clone();
        let mut merger = Merger::new();
        for (target, layer) in self.targets(state.layout())?.into_iter().zip(state.layout().layers()) {
            let delta = merger.delta(layer, &PackedLayer::from_state(state, layer));
            let dense = &mut merged.layers[target.layer];
            let values = if target.bias { &mut dense.bias } else { &mut dense.weight };
            for (value, delta) in Arc::make_mut(values).iter_mut().zip(delta) {
                *value += delta;
            }
        }
        Ok(merged)
    }

    /// For every layer of a layout, the tensor that it adapts.
    ///
    /// # Errors
    /// As [`Mlp::merged`].
    pub fn targets(&self, layout: &Layout) -> Result<Vec<Target>, ModelError> {
        let target = |layer: &packfed_codec::Layer| {
            let spec = layer.spec();
            let named = |n: &usize| [names(*n).0, names(*n).1].contains(&spec.name);
            let index = (0..self.layers.len()).find(named).ok_or_else(|| ModelError::Missing(spec.name.clone()))?;
            let dense = &self.layers[index];
            let bias = spec.name == names(index).1;
            let found = if bias { vec![dense.outputs(), 1] } else { vec![dense.outputs(), dense.inputs] };
            let expected = vec![spec.rows, spec.cols];
            if found != expected {
                return Err(ModelError::Shape { name: spec.name.clone(), found, expected });
            }
            Ok(Target { layer: index, bias })
        };
        layout.layers().iter().map(target).collect()
    }

    /// Outputs for a batch: `x` is examples × inputs, the result examples × outputs.
    #[must_use]
    pub fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut x = x.to_vec();
        for (n, layer) in self.layers.iter().enumerate() {
            let rows = x.len() / layer.inputs;
            let mut y: Vec<f32> = layer.bias.repeat(rows);
            let weight = Matrix::new(&layer.weight, layer.outputs(), layer.inputs);
            add_product(&mut y, Matrix::new(&x, rows, layer.inputs), weight.t());
            if n + 1 < self.layers.len() {
                y.iter_mut().for_each(|y| *y = y.max(0.0));
            }
            x = y;
        }
        x
    }

    /// Accuracy and loss on examples.
    #[must_use]
    pub fn score(&self, examples: &Examples) -> Score {
        let outputs = self.layers.last().map_or(1, Dense::outputs);
        let logits = self.forward(examples.values());
        let (mut right, mut loss) = (0u32, 0.0);
        for (logits, &label) in logits.chunks_exact(outputs).zip(examples.labels()) {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = logits.iter().map(|&l| f64::from(l - max).exp()).sum();
            let own = label as usize;
            right += u32::from(logits.iter().position(|&l| l == max) == Some(own));
            loss += logits.get(own).map_or(f64::INFINITY, |&l| sum.ln() - f64::from(l - max));
        }
        let count = examples.len() as f64;
        Score { accuracy: f64::from(right) / count, loss: loss / count }
    }
}

/// The tensor that one layer of a layout adapts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Index of the dense layer.
    pub layer: usize,
    /// Its bias rather than its weight.
    pub bias: bool,
}

fn names(n: usize) -> (String, String) {
    (format!("layers.{n}.weight"), format!("layers.{n}.bias"))
}

fn expect_shape(name: &str, tensor: &TensorView<'_>, expected: &[usize]) -> Result<(), ModelError> {
    if tensor.shape() == expected {
        return Ok(());
    }
    Err(ModelError::Shape { name: name.into(), found: tensor.shape().to_vec(), expected: expected.to_vec() })
}

fn floats(name: &str, tensor: &TensorView<'_>) -> Result<Vec<f32>, ModelError> {
    if tensor.dtype() != Dtype::F32 {
        return Err(ModelError::Type { name: name.into(), found: tensor.dtype() });
    }
    Ok(tensor.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use packfed_codec::{LayerSpec, Seed};

    fn mlp() -> Mlp {
        let dense = |inputs: usize, outputs: usize| Dense {
            weight: Arc::new((0..inputs * outputs).map(|n| (n as f32).sin()).collect()),
            bias: Arc::new((0..outputs).map(|n| n as f32 / 8.0).collect()),
            inputs,
        };
        Mlp { layers: vec![dense(6, 5), dense(5, 3)] }
    }

    #[test]
    fn a_model_survives_its_file() {
        let bytes = mlp().to_safetensors();
        assert_eq!(bytes, mlp().to_safetensors());
        assert_eq!(Mlp::from_safetensors(&bytes).unwrap(), mlp());
        for length in [0, 7, bytes.len() / 2, bytes.len() - 1] {
            assert!(Mlp::from_safetensors(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_plan_that_does_not_fit_names_tensor_and_shapes() {
        let state = |name: &str, rows, cols| {
            let spec = LayerSpec { name: name.into(), rows, cols, block: 4, residual: 2, gain_exponent: 4 };
            State::zero(Arc::new(Layout::new(&Seed::from_number(1), vec![spec]).unwrap()))
        };
        let error = |state: &State| mlp().merged(state).unwrap_err().to_string();
        assert_eq!(error(&state("layers.7.weight", 1, 1)), "tensor layers.7.weight is missing");
        let message = error(&state("layers.1.weight", 3, 4));
        assert_eq!(message, "tensor layers.1.weight has shape [3, 5], expected [3, 4]");
        assert_eq!(mlp().merged(&state("layers.1.bias", 3, 1)).unwrap(), mlp(), "Δ is zero");
    }
}
