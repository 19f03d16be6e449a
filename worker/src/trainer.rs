//! The Candle trainer: a perceptron whose tensors the plan adapts, trained on this worker's examples.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Result as TensorResult, Tensor, Var};
use packfed_codec::{Direct, Layout, State, Window};

use crate::adapted::AdaptedLinear;
use crate::evaluation::{Found, Side, Watch, measure, side_by_side};
use crate::examples::{BatchOrder, Examples};
use crate::local::budget::MemoryNeed;
use crate::local::host::Host;
use crate::local::{MeanLoss, Place, flat_values};
use crate::loss::{cross_entropy, score};
use crate::mlp::{Dense, Mlp, ModelError, Target};
use crate::nn::frozen::FrozenLinear;
use crate::task::{Job, LocalTask, TaskError, Trained};
use crate::weight::{Stored, Weight};

/// A base model made ready for one layout.
#[derive(Debug)]
struct Adapter {
    base: Arc<Mlp>,
    layout: Arc<Layout>,
    targets: Vec<Target>,
    directs: Vec<Arc<Direct<f32>>>,
}

impl Adapter {
    /// Finds each adapted tensor in the base and prepares its kernels.
    fn new(base: Arc<Mlp>, layout: Arc<Layout>) -> Result<Self, ModelError> {
        let targets = base.targets(&layout)?;
        let directs = layout.layers().iter().map(|layer| Arc::new(Direct::new(layer))).collect();
        Ok(Self { base, layout, targets, directs })
    }

    fn adapted(&self, state: &State, window: Window) -> TensorResult<Vec<AdaptedLinear<f32>>> {
        let layer = |((layer, target), direct): ((&packfed_codec::Layer, &Target), &Arc<Direct<f32>>)| {
            let dense = &self.base.layers[target.layer];
            let stored = if target.bias { &dense.bias } else { &dense.weight };
            let spec = layer.spec();
            let (name, shape) = (spec.name.clone(), vec![spec.rows, spec.cols]);
            let base = FrozenLinear::new(Weight { name, shape, stored: Stored::F32(stored.clone()) }, None)?;
            Ok(AdaptedLinear::new(layer, base, direct.clone(), state.values(layer), window))
        };
        self.layout.layers().iter().zip(&self.targets).zip(&self.directs).map(layer).collect()
    }

    /// Logits of a batch under the adapted layers and this round's deltas.
    fn forward(&self, adapted: &[AdaptedLinear<f32>], deltas: &[Var], x: &Tensor) -> TensorResult<Tensor> {
        let find = |layer, bias| self.targets.iter().position(|&t| t == Target { layer, bias });
        let mut x = x.clone();
        for (n, dense) in self.base.layers.iter().enumerate() {
            let y = match find(n, false) {
                Some(i) => adapted[i].forward(&x, &deltas[i])?,
                None => {
                    let weight = Tensor::from_slice(&dense.weight, (dense.outputs(), dense.inputs), &Device::Cpu)?;
                    x.matmul(&weight.t()?)?
                }
            };
            let bias = match find(n, true) {
                Some(i) => adapted[i].forward(&Tensor::ones((1, 1), y.dtype(), &Device::Cpu)?, &deltas[i])?,
                None => Tensor::from_slice(&dense.bias, (1, dense.outputs()), &Device::Cpu)?,
            };
            let y = y.broadcast_add(&bias)?;
            x = if n + 1 < self.base.layers.len() { y.relu()? } else { y };
        }
        Ok(x)
    }
}

/// A base model and the adapter of the layout that it was last trained in; shared by the workers of a
/// simulation, so that kernels are prepared once.
#[derive(Debug)]
pub struct Base {
    model: Arc<Mlp>,
    adapter: Mutex<Option<Arc<Adapter>>>,
}

impl Base {
    /// A base that has met no layout yet.
    #[must_use]
    pub const fn new(model: Arc<Mlp>) -> Self {
        Self { model, adapter: Mutex::new(None) }
    }

    /// The frozen model.
    #[must_use]
    pub const fn model(&self) -> &Arc<Mlp> {
        &self.model
    }

    fn adapter(&self, layout: &Arc<Layout>) -> Result<Arc<Adapter>, ModelError> {
        let mut kept = self.adapter.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some(adapter) if adapter.layout.digest() == layout.digest() => Ok(adapter.clone()),
            _ => {
                let adapter = Arc::new(Adapter::new(self.model.clone(), layout.clone())?);
                *kept = Some(adapter.clone());
                Ok(adapter)
            }
        }
    }
}

/// A model under a state: its kernels, its layers, and a delta for each.
type Under = (Arc<Adapter>, Vec<AdaptedLinear<f32>>, Vec<Var>);

/// A delta of zero for every layer.
fn zeros(adapted: &[AdaptedLinear<f32>]) -> TensorResult<Vec<Var>> {
    adapted.iter().map(|linear| Var::zeros(linear.delta_shape(), DType::F32, &Device::Cpu)).collect()
}

/// One worker's examples, to be trained on over a [`Base`].
#[derive(Clone, Debug)]
pub struct Trainer {
    base: Arc<Base>,
    examples: Arc<Examples>,
    held_out: Option<Arc<Examples>>,
}

impl Trainer {
    /// A trainer on these examples.
    #[must_use]
    pub const fn new(base: Arc<Base>, examples: Arc<Examples>) -> Self {
        Self { base, examples, held_out: None }
    }

    /// The same, measured on examples that it is not trained on.
    #[must_use]
    pub fn holding_out(self, held_out: Option<Arc<Examples>>) -> Self {
        Self { held_out, ..self }
    }

    /// The model under a state, with deltas of zero.
    fn under(&self, state: &State) -> Result<Under, TaskError> {
        let adapter = self.base.adapter(state.layout())?;
        let adapted = adapter.adapted(state, Window::first(0))?;
        let deltas = zeros(&adapted)?;
        Ok((adapter, adapted, deltas))
    }

    /// Weights, examples and five values for each that is trained (itself, its gradient, a sum of such, two of state);
    /// and for one example in the model some six values an output of every layer, forward and backward.
    fn memory_need(&self, deltas: &[Var]) -> MemoryNeed {
        let layers = &self.base.model().layers;
        let weights: usize = layers.iter().map(|layer| layer.weight.len() + layer.bias.len()).sum();
        let trained: usize = deltas.iter().map(|delta| delta.elem_count()).sum();
        let outputs: usize = layers.iter().map(Dense::outputs).sum();
        let bytes = |values: usize| 4 * values as u64;
        let kept = bytes(2 * self.examples.features() + 6 * outputs);
        MemoryNeed { fixed: bytes(weights + self.examples.values().len() + 5 * trained), kept, recomputed: None }
    }
}

impl LocalTask for Trainer {
    fn examples(&self) -> u32 {
        u32::try_from(self.examples.len()).unwrap_or(u32::MAX)
    }

    fn train(&mut self, job: &Job, host: &mut dyn Host) -> Result<Trained, TaskError> {
        let adapter = self.base.adapter(job.state.layout())?;
        let adapted = adapter.adapted(&job.state, job.window)?;
        let deltas = zeros(&adapted)?;
        let fit = self.memory_need(&deltas).fit(job.local.batch, host.memory_budget())?;
        let place = Place {
            job: job.digest(self.examples()),
            micro_batch: fit.micro_batch as usize,
            factors: &job.factors,
            host,
        };
        let mut order = BatchOrder::new(&job.seed, self.examples.len());
        let loss = |indices: &[usize]| {
            let (x, labels) = self.examples.tensors(indices)?;
            let mean = cross_entropy::<f32>(&adapter.forward(&adapted, &deltas, &x)?, &labels)?;
            Ok(MeanLoss { mean, terms: indices.len() })
        };
        let outcome = job.local.run_at(place, &deltas, |size| order.batch(size), loss)?;
        Ok(Trained { delta: flat_values(&deltas)?, loss: outcome.loss })
    }

    fn fits(&self, layout: &Arc<Layout>) -> Result<(), TaskError> {
        Ok(self.base.model().targets(layout).map(|_| ())?)
    }

    fn evaluate(&mut self, states: [&State; 2], examples_max: u32, watch: &mut dyn Watch) -> Result<Found, TaskError> {
        let [before, after] = states.map(|state| self.under(state));
        let (before, after) = (before?, after?);
        let examples = self.held_out.as_ref().unwrap_or(&self.examples);
        let mut score = |side, n: usize| {
            let (adapter, adapted, deltas) = match side {
                Side::Before => &before,
                Side::After => &after,
            };
            let (x, _) = examples.tensors(&[n])?;
            let logits = adapter.forward(adapted, deltas, &x)?.flatten_all()?.to_vec1::<f32>()?;
            let label = examples.labels()[n] as usize;
            let Some((loss, right)) = score(&logits, label) else {
                return Err(TaskError::Tensor(candle_core::Error::Msg(format!(
                    "label {label} of {} classes",
                    logits.len()
                ))));
            };
            Ok((loss, f64::from(u8::from(right))))
        };
        if self.held_out.is_none() {
            return Ok(Found::Healthy(measure(watch, &mut score, Side::After, 0)?));
        }
        let count = examples.len().min(usize::try_from(examples_max).unwrap_or(usize::MAX));
        Ok(Found::HeldOut(side_by_side(count, watch, &mut score)?))
    }
}
