//! A pre-trained transformer in memory: its body, its frozen matrices, and the adapter of the layout that it was last
//! used with.
//!
//! ```text
//!   files ──► Pretrained ── layout ──► Adapter ── state, window ──► Packed: how each matrix is applied
//! ```
//!
//! It knows tokens, not texts; rounds and data are its callers'. Simulated workers share one.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Result as TensorResult, Tensor, Var, bail};
use packfed_codec::{Direct, Layout, State, Window};
use thiserror::Error;

use crate::adapted::AdaptedLinear;
use crate::data::TokenExample;
use crate::files::{Family, ModelFileError, ModelFiles};
use crate::local::MeanLoss;
use crate::local::budget::MemoryNeed;
use crate::loss::{cross_entropy, score};
use crate::model::bert::{Bert, Classifier};
use crate::model::linears::{Linear, Linears, Packed, load};
use crate::model::llama::Llama;
use crate::model::tokens::Tokens;
use crate::model::{Activations, LoadError, MatrixSpec};
use crate::nn::frozen::FrozenLinear;
use crate::nn::pool::Pooling;
use crate::weight::{Stored, Weight};

/// What a model computes around its matrices.
#[derive(Debug)]
pub enum Body {
    /// An encoder with a classifier.
    Bert(Box<Bert<f32>>, Classifier),
    /// A decoder.
    Llama(Box<Llama<f32>>),
}

/// A model, its matrices frozen.
#[derive(Debug)]
pub struct Pretrained {
    body: Body,
    matrices: Vec<MatrixSpec>,
    frozen: Vec<FrozenLinear<f32>>,
    /// Of everything that was read, as it is stored.
    bytes: u64,
    adapter: Mutex<Option<Arc<Adapter>>>,
}

/// Why a model cannot be used.
#[derive(Debug, Error)]
pub enum PretrainedError {
    /// Its files do not hold it.
    #[error(transparent)]
    Load(#[from] LoadError<ModelFileError>),
    /// An encoder without classes.
    #[error("{path}: an encoder needs a classifier; name the labels of the data")]
    NoLabels {
        /// The model.
        path: String,
    },
    /// Classes for a model that has none.
    #[error("{path}: a {family} has no classifier, {labels} labels were given")]
    Labels {
        /// The model.
        path: String,
        /// Its family.
        family: &'static str,
        /// How many.
        labels: usize,
    },
    /// A perceptron, which is no transformer.
    #[error("{path}: a perceptron where a transformer is needed")]
    Perceptron {
        /// The model.
        path: String,
    },
}

impl Pretrained {
    /// Loads a transformer. An encoder gets a classifier of `labels` classes over the mean of its tokens, from its files
    /// if they hold one and else of zeros.
    ///
    /// # Errors
    /// If the files do not hold the model, or labels are missing or out of place.
    pub fn open(files: &ModelFiles, labels: Option<usize>) -> Result<Self, PretrainedError> {
        let path = || files.path().display().to_string();
        let mut bytes = 0;
        let mut source = |name: &str, shape: &[usize]| {
            let weight = tensor(files, name, shape)?;
            bytes += weight.stored.bytes();
            Ok(weight)
        };
        let (body, matrices) = match (*files.family(), labels) {
            (Family::Bert(config), Some(labels)) if labels > 0 => {
                let classifier = Classifier { pooling: Pooling::Mean, labels };
                let bert = Bert::load(config, &mut source)?;
                (Body::Bert(Box::new(bert), classifier), config.matrices(classifier))
            }
            (Family::Bert(_), _) => return Err(PretrainedError::NoLabels { path: path() }),
            (Family::Llama(config), None) => {
                (Body::Llama(Box::new(Llama::load(config, &mut source)?)), config.matrices())
            }
            (Family::Llama(_), Some(labels)) => {
                return Err(PretrainedError::Labels { path: path(), family: "llama", labels });
            }
            (Family::Mlp, _) => return Err(PretrainedError::Perceptron { path: path() }),
        };
        let frozen = load(&matrices, &mut source)?;
        Ok(Self { body, matrices, frozen, bytes, adapter: Mutex::new(None) })
    }

    /// What training `trained` values on examples of at most `longest` tokens takes, reckoned from the dimensions.
    ///
    /// A layer keeps of every token some 14 vectors of its own width, 3 of the feed-forward width and, under Δ, twice
    /// each matrix's input; and for every head a row of attention weights. Of what is trained there are five: itself,
    /// its gradient, a sum of such, two of optimizer state.
    #[must_use]
    pub fn memory_need(&self, trained: usize, longest: usize) -> MemoryNeed {
        let (hidden, intermediate, layers, heads) = match &self.body {
            Body::Bert(bert, _) => bert.config().sizes(),
            Body::Llama(llama) => llama.config().sizes(),
        };
        let layer = longest * (24 * hidden + 5 * intermediate + heads * longest);
        let floats = |values: usize| 4 * values as u64;
        MemoryNeed {
            fixed: self.bytes + floats(5 * trained) + TRANSIENT,
            kept: floats(layers * layer),
            recomputed: Some(floats(layers * longest * hidden + 2 * layer)),
        }
    }

    /// What it computes around its matrices.
    #[must_use]
    pub const fn body(&self) -> &Body {
        &self.body
    }

    /// Its matrices.
    #[must_use]
    pub fn matrices(&self) -> &[MatrixSpec] {
        &self.matrices
    }

    /// The frozen matrices, in the same order.
    #[must_use]
    pub fn frozen(&self) -> &[FrozenLinear<f32>] {
        &self.frozen
    }

    /// Every matrix as its file has it.
    #[must_use]
    pub fn base(&self) -> Arc<dyn Linears> {
        Arc::new(Packed::new(self.frozen.iter().cloned().map(Linear::Frozen).collect()))
    }

    /// Mean loss of some examples: cross-entropy of their labels, or of every next token.
    ///
    /// # Errors
    /// If an example does not fit the model.
    pub fn loss(
        &self,
        linears: &Arc<dyn Linears>,
        examples: &[&TokenExample],
        activations: Activations,
    ) -> TensorResult<MeanLoss> {
        let tokens = tokens(examples);
        match &self.body {
            Body::Bert(bert, classifier) => {
                let labels: Vec<u32> = examples.iter().filter_map(|example| example.label).collect();
                let labels = Tensor::from_vec(labels, examples.len(), &Device::Cpu)?;
                let logits = bert.logits(linears, classifier.pooling, &tokens, activations)?;
                Ok(MeanLoss { mean: cross_entropy::<f32>(&logits, &labels)?, terms: examples.len() })
            }
            Body::Llama(llama) => {
                let next = tokens.next();
                let mean = llama.loss(linears, &tokens, &next, activations)?;
                Ok(MeanLoss { mean, terms: next.iter().flatten().count() })
            }
        }
    }

    /// Logits: examples × classes of an encoder, tokens × vocabulary of a decoder, which is for short texts.
    ///
    /// # Errors
    /// If an example does not fit the model.
    pub fn logits(&self, linears: &Arc<dyn Linears>, examples: &[&TokenExample]) -> TensorResult<Tensor> {
        let tokens = tokens(examples);
        match &self.body {
            Body::Bert(bert, classifier) => bert.logits(linears, classifier.pooling, &tokens, Activations::Kept),
            Body::Llama(llama) => llama.logits(linears, &tokens),
        }
    }

    /// How well the model does on some examples.
    ///
    /// # Errors
    /// If an example does not fit the model.
    pub fn evaluate(&self, linears: &Arc<dyn Linears>, examples: &[&TokenExample]) -> TensorResult<Evaluation> {
        if let Body::Llama(llama) = &self.body {
            let tokens = tokens(examples);
            let next = tokens.next();
            let (loss, correct) = llama.scores(linears, &tokens, &next)?;
            return Ok(Evaluation { targets: next.iter().flatten().count() as u64, loss, correct });
        }
        let logits = self.logits(linears, examples)?;
        let mut evaluation = Evaluation::default();
        for (row, example) in logits.to_vec2::<f32>()?.iter().zip(examples) {
            let Some(label) = example.label.map(|label| label as usize) else { continue };
            let Some((loss, right)) = score(row, label) else { bail!("label {label} of {} classes", row.len()) };
            evaluation.targets += 1;
            evaluation.loss += loss;
            evaluation.correct += u64::from(right);
        }
        Ok(evaluation)
    }

    /// [`Pretrained::evaluate`] of any number of examples, a few at a time.
    ///
    /// # Errors
    /// As [`Pretrained::evaluate`].
    pub fn evaluate_all(&self, linears: &Arc<dyn Linears>, examples: &[TokenExample]) -> TensorResult<Evaluation> {
        let part = |part: &[TokenExample]| self.evaluate(linears, &part.iter().collect::<Vec<_>>());
        examples.chunks(AT_A_TIME).map(part).sum()
    }

    /// The matrices under a global model, as inference wants them.
    ///
    /// # Errors
    /// If the state's layout is not of this model.
    pub fn global(&self, state: &State) -> Result<Arc<dyn Linears>, AdaptError> {
        Ok(self.adapter(state.layout())?.packed(state, Window::first(0))?.0)
    }

    /// The matrices under a global model with private lanes on top, and a zero delta of the private lanes in `window` for
    /// each that has some, in the order of their layout.
    ///
    /// # Errors
    /// If a layout is not of this model.
    pub fn personal(
        &self,
        global: &State,
        private: &State,
        window: Window,
    ) -> Result<(Arc<dyn Linears>, Vec<Var>), AdaptError> {
        let below = self.adapter(global.layout())?;
        let adapter = Adapter::new(&self.matrices, &self.frozen, private.layout().clone())?;
        Ok(adapter.packed_over(private, window, Some((&below, global)))?)
    }

    /// The adapter of a layout; the last one is kept.
    ///
    /// # Errors
    /// If the layout adapts a matrix that is not the model's.
    pub fn adapter(&self, layout: &Arc<Layout>) -> Result<Arc<Adapter>, AdaptError> {
        let mut kept = self.adapter.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some(adapter) if adapter.layout.digest() == layout.digest() => Ok(adapter.clone()),
            _ => {
                let adapter = Arc::new(Adapter::new(&self.matrices, &self.frozen, layout.clone())?);
                *kept = Some(adapter.clone());
                Ok(adapter)
            }
        }
    }
}

/// What a model made of some examples; parts add up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Labels or tokens that were predicted.
    pub targets: u64,
    /// Sum of their cross-entropies, in nats.
    pub loss: f64,
    /// How many of them were the likeliest.
    pub correct: u64,
}

impl Evaluation {
    /// Mean cross-entropy in nats.
    #[must_use]
    pub fn mean_loss(&self) -> f64 {
        self.loss / self.targets as f64
    }

    /// Share of labels or tokens that were the likeliest.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.targets as f64
    }
}

impl std::iter::Sum for Evaluation {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |a, b| Self {
            targets: a.targets + b.targets,
            loss: a.loss + b.loss,
            correct: a.correct + b.correct,
        })
    }
}

/// Examples of one forward pass where nobody trains.
const AT_A_TIME: usize = 16;
/// Logits of a large vocabulary and matrices being widened: both are done in parts of about this many bytes.
const TRANSIENT: u64 = 64 << 20;

/// The examples' ids, sequence after sequence.
fn tokens(examples: &[&TokenExample]) -> Tokens {
    Tokens::new(&examples.iter().map(|example| example.ids.as_slice()).collect::<Vec<_>>())
}

/// A tensor of the files, zeros for a classifier that they do not hold.
fn tensor(files: &ModelFiles, name: &str, shape: &[usize]) -> Result<Weight, ModelFileError> {
    let fresh = name.starts_with("classifier.") && files.tensors().all(|info| info.name != name);
    if !fresh {
        return files.weight(name, shape);
    }
    let zeros = Arc::new(vec![0.0; shape.iter().product()]);
    Ok(Weight { name: name.into(), shape: shape.to_vec(), stored: Stored::F32(zeros) })
}

/// A layer list that this model cannot take.
#[derive(Debug, Error)]
pub enum AdaptError {
    /// The model has no such matrix.
    #[error("the plan adapts {0}, which is no matrix of this model")]
    Unknown(String),
    /// The matrix has another shape.
    #[error("the plan adapts {name} of {expected:?}, the model's has {found:?} (outputs, inputs)")]
    Shape {
        /// Its name.
        name: String,
        /// Outputs and inputs in the plan.
        expected: (usize, usize),
        /// Outputs and inputs of the model.
        found: (usize, usize),
    },
    /// A tensor could not be made.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// A model made ready for one layout.
#[derive(Debug)]
pub struct Adapter {
    layout: Arc<Layout>,
    /// For every matrix of the model, its layer in the layout and its kernels.
    layers: Vec<Option<(usize, Arc<Direct<f32>>)>>,
    frozen: Vec<FrozenLinear<f32>>,
}

impl Adapter {
    fn new(matrices: &[MatrixSpec], frozen: &[FrozenLinear<f32>], layout: Arc<Layout>) -> Result<Self, AdaptError> {
        let mut layers = vec![None; matrices.len()];
        for (n, layer) in layout.layers().iter().enumerate() {
            let spec = layer.spec();
            let Some(at) = matrices.iter().position(|matrix| matrix.name == spec.name) else {
                return Err(AdaptError::Unknown(spec.name.clone()));
            };
            let (expected, found) = ((spec.rows, spec.cols), (matrices[at].outputs, matrices[at].inputs));
            if expected != found {
                return Err(AdaptError::Shape { name: spec.name.clone(), expected, found });
            }
            layers[at] = Some((n, Arc::new(Direct::new(layer))));
        }
        Ok(Self { layout, layers, frozen: frozen.to_vec() })
    }

    /// The matrices under a global model, and a zero delta of this window for each that is adapted, in the layout's
    /// order.
    ///
    /// # Errors
    /// If a tensor cannot be made.
    pub fn packed(&self, state: &State, window: Window) -> TensorResult<(Arc<dyn Linears>, Vec<Var>)> {
        self.packed_over(state, window, None)
    }

    /// The same with another adapter's state beneath, which is not trained.
    fn packed_over(
        &self,
        state: &State,
        window: Window,
        below: Option<(&Self, &State)>,
    ) -> TensorResult<(Arc<dyn Linears>, Vec<Var>)> {
        let mut deltas = vec![None; self.layout.layers().len()];
        let mut matrices = Vec::with_capacity(self.frozen.len());
        for (at, (base, adapted)) in self.frozen.iter().zip(&self.layers).enumerate() {
            // A matrix that only the lower adapter has is applied by that, with a delta that nobody trains.
            let fixed = below.and_then(|(adapter, state)| {
                let (n, direct) = adapter.layers[at].as_ref()?;
                Some((&adapter.layout.layers()[*n], direct, state))
            });
            let Some((n, direct)) = adapted else {
                matrices.push(match fixed {
                    None => Linear::Frozen(base.clone()),
                    Some((layer, direct, state)) => {
                        let (values, window) = (state.values(layer), Window::first(0));
                        let linear = AdaptedLinear::new(layer, base.clone(), direct.clone(), values, window);
                        let delta = Tensor::zeros(linear.delta_shape(), DType::F32, &Device::Cpu)?;
                        Linear::Adapted { linear, delta }
                    }
                });
                continue;
            };
            let layer = &self.layout.layers()[*n];
            let mut linear = AdaptedLinear::new(layer, base.clone(), direct.clone(), state.values(layer), window);
            if let Some((layer, direct, state)) = fixed {
                linear = linear.over(layer, direct.clone(), &state.values(layer));
            }
            let delta = Var::zeros(linear.delta_shape(), DType::F32, &Device::Cpu)?;
            matrices.push(Linear::Adapted { linear, delta: delta.as_tensor().clone() });
            deltas[*n] = Some(delta);
        }
        Ok((Arc::new(Packed::new(matrices)), deltas.into_iter().flatten().collect()))
    }
}
