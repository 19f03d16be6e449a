//! One training run: the same initial weights, batches, steps and Adam for every kind of weights.
//!
//! It knows nothing of what weights are made of, and prints nothing.

use std::sync::Arc;

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor, Var};
use packfed_codec::Seed;
use packfed_codec::family::cyclic::RadiusMap;
use packfed_sim::baseline::linear::linear;
use packfed_sim::digits::{CLASSES, Digits, Labelled};
use packfed_sim::stopwatch::Stopwatch;
use packfed_worker::examples::{BatchOrder, Examples};
use packfed_worker::local::{LocalOptimizer, Optimizer};
use packfed_worker::loss::cross_entropy;
use packfed_worker::mlp::{Dense, Mlp};

use super::weights::{Method, Weights};

/// What all runs share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// Optimizer steps.
    pub(crate) steps: u32,
    /// Images of a step.
    pub(crate) batch: u32,
    /// Steps from one re-quantization to the next.
    pub(crate) every: u32,
    /// Radius map of cyclic codes.
    pub(crate) map: RadiusMap,
    /// Adam's rate for the weights; each method's own if none.
    pub(crate) rate: Option<f32>,
}

impl Setting {
    /// Adam's rate for the weights of a method and for its biases.
    pub(crate) fn rate(&self, method: Method) -> f32 {
        self.rate.unwrap_or(method.rate())
    }
}

/// Images to train on and images to be tested on.
pub(crate) struct Data {
    train: Examples,
    test: Examples,
}

/// What a run came to.
pub(crate) struct Outcome {
    /// Share of the test images that the decoded weights label rightly.
    pub(crate) accuracy: f64,
    /// Mean loss of the last tenth of the steps.
    pub(crate) loss: f64,
    /// Bytes of all layers' weights as they are stored; biases are floats and not counted.
    pub(crate) weight_bytes: usize,
    /// Time of training.
    pub(crate) seconds: f64,
}

/// Images of the training part that are trained on while tuning.
const TUNED_ON: usize = 3_000;
/// Widths of the perceptron's hidden layers, as `sim` pre-trains it.
const HIDDEN: [usize; 2] = [252, 252];

impl Data {
    /// The digits that the fleet trains on, and the test images; for tuning a part of the former instead of the test.
    pub(crate) fn load(validate: bool) -> Result<Self> {
        let digits = Digits::load();
        let examples = |part: &Labelled| Examples::from_images(&part.images, &part.labels);
        if !validate {
            return Ok(Self { train: examples(&digits.fleet)?, test: examples(&digits.test)? });
        }
        let part = |range: std::ops::Range<usize>| examples(&digits.fleet.pick(&range.collect::<Vec<_>>()));
        Ok(Self { train: part(0..TUNED_ON)?, test: part(TUNED_ON..digits.fleet.labels.len())? })
    }
}

/// A layer while it trains.
struct TrainedLayer {
    weights: Box<dyn Weights>,
    bias: Var,
    inputs: usize,
}

/// Trains one method on one seed, and tests what is stored; `watch` is told the loss of every step.
pub(crate) fn run(
    method: Method,
    seed: u64,
    setting: &Setting,
    data: &Data,
    watch: impl FnMut(u32, f32),
) -> Result<Outcome> {
    let seed = Seed::from_number(seed);
    let mut layers = Vec::new();
    for Dense { weight, bias, inputs } in untrained(data.train.features(), &seed) {
        let bias = Var::from_tensor(&Tensor::from_slice(&bias, (1, bias.len()), &Device::Cpu)?)?;
        layers.push(TrainedLayer { weights: method.start(&weight, inputs, setting)?, bias, inputs });
    }
    let stopwatch = Stopwatch::started();
    let batches = Batches {
        order: BatchOrder::new(&seed.derive("packfed/pretrain/1", &[]), data.train.len()),
        examples: &data.train,
        size: setting.batch as usize,
    };
    let loss = train(&mut layers, setting.rate(method), batches, setting.steps, watch)?;
    let seconds = stopwatch.seconds();
    let (mut weight_bytes, mut stored) = (0, Vec::new());
    for layer in &mut layers {
        let (bytes, weight) = layer.weights.stored()?;
        weight_bytes += bytes.len();
        let bias = Arc::new(layer.bias.flatten_all()?.to_vec1()?);
        stored.push(Dense { weight: Arc::new(weight), bias, inputs: layer.inputs });
    }
    let accuracy = Mlp { layers: stored }.score(&data.test).accuracy;
    Ok(Outcome { accuracy, loss, weight_bytes, seconds })
}

/// Where batches come from.
/// A variable that moves at its own rate.
struct Rated {
    variable: Var,
    rate: f32,
    adam: Optimizer,
}

impl Rated {
    fn new(variable: Var, rate: f32) -> Self {
        let adam = Optimizer::new(LocalOptimizer::ADAM, std::slice::from_ref(&variable));
        Self { variable, rate, adam }
    }
}

struct Batches<'a> {
    order: BatchOrder,
    examples: &'a Examples,
    size: usize,
}

impl Batches<'_> {
    fn next(&mut self) -> Result<(Tensor, Tensor)> {
        let (x, labels) = self.examples.batch(&self.order.batch(self.size));
        let rows = labels.len();
        let x = Tensor::from_vec(x, (rows, self.examples.features()), &Device::Cpu)?;
        Ok((x, Tensor::from_vec(labels, rows, &Device::Cpu)?))
    }
}

fn train(
    layers: &mut [TrainedLayer],
    bias_rate: f32,
    mut batches: Batches<'_>,
    steps: u32,
    mut watch: impl FnMut(u32, f32),
) -> Result<f64> {
    let rated = layers.iter().flat_map(|layer| {
        let bias = (layer.bias.clone(), bias_rate);
        layer.weights.variables().into_iter().chain([bias])
    });
    let mut rated: Vec<Rated> = rated.map(|(variable, rate)| Rated::new(variable, rate)).collect();
    let tail = steps.div_ceil(10);
    let mut total = 0.0;
    for step in 0..steps {
        let (x, labels) = batches.next()?;
        let loss = one_step(layers, &mut rated, step, &x, &labels)?;
        ensure!(loss.is_finite(), "the loss of step {step} is {loss}");
        watch(step, loss);
        if step >= steps - tail {
            total += f64::from(loss);
        }
    }
    Ok(total / f64::from(tail))
}

fn one_step(layers: &mut [TrainedLayer], rated: &mut [Rated], step: u32, x: &Tensor, labels: &Tensor) -> Result<f32> {
    let (mut x, mut matrices) = (x.clone(), Vec::with_capacity(layers.len()));
    let last = layers.len() - 1;
    for (n, layer) in layers.iter_mut().enumerate() {
        let shape = (layer.bias.elem_count(), layer.inputs);
        let weight = Var::from_vec(layer.weights.forward(step)?, shape, &Device::Cpu)?;
        let y = linear(&x, &weight)?.broadcast_add(&layer.bias)?;
        x = if n < last { y.relu()? } else { y };
        matrices.push(weight);
    }
    let loss = cross_entropy::<f32>(&x, labels)?;
    let mut gradients = loss.backward()?;
    for (layer, weight) in layers.iter().zip(&matrices) {
        let gradient = gradients.get(weight).map(Tensor::flatten_all).transpose()?;
        let Some(gradient) = gradient else { anyhow::bail!("a matrix got no gradient") };
        let of_variables = layer.weights.backward(&gradient.to_vec1()?);
        for ((variable, _), gradient) in layer.weights.variables().iter().zip(of_variables) {
            let length = gradient.len();
            gradients.insert(variable, Tensor::from_vec(gradient, length, &Device::Cpu)?);
        }
    }
    for Rated { variable, rate, adam } in rated {
        let Some(gradient) = gradients.get(variable) else { anyhow::bail!("a variable got no gradient") };
        adam.step(&[gradient.contiguous()?], 1.0, *rate)?;
    }
    Ok(loss.to_scalar()?)
}

/// Weights uniform in ±√(6/inputs), biases zero (He et al., ICCV 2015), as `sim` pre-trains its base from.
fn untrained(features: usize, seed: &Seed) -> Vec<Dense> {
    let mut stream = seed.derive("packfed/init/1", &[]).stream();
    let [first, second] = HIDDEN;
    let mut dense = |(inputs, outputs): (usize, usize)| {
        let bound = (6.0 / inputs as f64).sqrt();
        #[expect(clippy::cast_possible_truncation, reason = "an initial value")]
        let weight = (0..inputs * outputs).map(|_| ((2.0 * stream.unit() - 1.0) * bound) as f32).collect();
        Dense { weight: Arc::new(weight), bias: Arc::new(vec![0.0; outputs]), inputs }
    };
    [(features, first), (first, second), (second, CLASSES)].map(&mut dense).into()
}
