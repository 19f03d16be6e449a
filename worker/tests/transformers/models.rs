//! Tiny random models of both families, packed.

use std::convert::Infallible;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor, Var};
use packfed_codec::{Direct, LayerSpec, Layout, Profile, Scalar, Seed, Window};
use packfed_worker::adapted::{AdaptedLinear, Element};
use packfed_worker::loss::cross_entropy;
use packfed_worker::model::bert::{Bert, BertConfig, Classifier};
use packfed_worker::model::linears::{Linear, Linears, Packed, load};
use packfed_worker::model::llama::{Llama, LlamaConfig};
use packfed_worker::model::tokens::Tokens;
use packfed_worker::model::{Activations, Kind, MatrixSpec};
use packfed_worker::nn::activation::Activation;
use packfed_worker::nn::pool::Pooling;
use packfed_worker::weight::{Stored, Weight};

/// A tiny encoder with its head.
#[derive(Clone)]
pub(crate) struct TinyBert<E> {
    pub(crate) config: BertConfig,
    pub(crate) bert: Bert<E>,
}

/// A tiny decoder.
#[derive(Clone)]
pub(crate) struct TinyLlama<E> {
    pub(crate) config: LlamaConfig,
    pub(crate) llama: Llama<E>,
}

const CLASSIFIER: Classifier = Classifier { pooling: Pooling::Mean, labels: 5 };

pub(crate) enum Model<E> {
    Bert(TinyBert<E>),
    Llama(TinyLlama<E>),
}

pub(crate) fn bert<E: Element>() -> TinyBert<E> {
    let config = BertConfig {
        hidden: 32,
        layers: 2,
        heads: 4,
        intermediate: 64,
        vocabulary: 30,
        positions_max: 8,
        token_types: 2,
        norm_eps: 1e-12,
        activation: Activation::Gelu,
    };
    TinyBert { config, bert: Bert::load(config, &mut source(1, None)).unwrap() }
}

pub(crate) fn llama<E: Element>() -> TinyLlama<E> {
    let config = LlamaConfig {
        hidden: 32,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_size: 8,
        intermediate: 64,
        vocabulary: 30,
        positions_max: 16,
        norm_eps: 1e-5,
        rope_theta: 100.0,
        tied_embeddings: true,
        activation: Activation::Silu,
    };
    TinyLlama { config, llama: Llama::load(config, &mut source(1, None)).unwrap() }
}

/// Uniform noise of −1..1.
fn noise(seed: u64, n: usize) -> Vec<f64> {
    let mut stream = Seed::from_number(seed).stream();
    (0..n).map(|_| 2.0 * stream.unit() - 1.0).collect()
}

/// Random weights, matrices quantized if `kind` says so; the same for the same order of names.
fn source(mut seed: u64, kind: Option<GgmlDType>) -> impl FnMut(&str, &[usize]) -> Result<Weight, Infallible> {
    move |name, shape| {
        seed += 1;
        let norm = shape.len() == 1 && name.contains("orm") && name.ends_with("weight");
        let value = |v: f64| <f32 as Scalar>::from_f64(if norm { 1.0 + 0.3 * v } else { 0.4 * v });
        let floats: Vec<f32> = noise(seed, shape.iter().product()).into_iter().map(value).collect();
        let stored = match kind {
            Some(kind) if shape.len() == 2 => {
                let chunk = |rows: &[f32]| {
                    let rows = Tensor::from_slice(rows, (rows.len() / shape[1], shape[1]), &Device::Cpu).unwrap();
                    QTensor::quantize(&rows, kind).unwrap()
                };
                Stored::Quantized(Arc::new(floats.chunks(24 * shape[1]).map(chunk).collect()))
            }
            _ => Stored::F32(Arc::new(floats)),
        };
        Ok(Weight { name: name.into(), shape: shape.to_vec(), stored })
    }
}

/// The matrices of a model with Δ on each.
#[derive(Clone)]
pub(crate) struct Packing<E> {
    adapted: Vec<AdaptedLinear<E>>,
    pub(crate) deltas: Vec<Var>,
    /// Of every delta, the slots that stand for a lane.
    pub(crate) used: Vec<Vec<bool>>,
}

impl<E: Element> Packing<E> {
    fn new(matrices: &[MatrixSpec], kind: Option<GgmlDType>) -> Self {
        let spec = |m: &MatrixSpec| {
            let block = if m.kind == Kind::Head { 4 } else { 32 };
            LayerSpec { name: m.name.clone(), rows: m.outputs, cols: m.inputs, block, residual: 20, gain_exponent: 4 }
        };
        let layout = Layout::new(&Seed::from_number(7), matrices.iter().map(spec).collect()).unwrap();
        let window = Window::new(Profile::Plain, 1);
        let (mut adapted, mut deltas, mut used) = (Vec::new(), Vec::new(), Vec::new());
        let cast = |values: Vec<f64>, scale: f64| -> Vec<E> {
            values.into_iter().map(|value| <E as Scalar>::from_f64(scale * value)).collect()
        };
        for (n, (layer, base)) in layout.layers().iter().zip(load(matrices, &mut source(90, kind)).unwrap()).enumerate()
        {
            let lanes = cast(noise(300 + n as u64, layer.lanes().len()), 0.2);
            let linear = AdaptedLinear::new(layer, base, Arc::new(Direct::new(layer)), lanes, window);
            let shape = linear.delta_shape();
            let values = cast(noise(600 + n as u64, shape.0 * shape.1), 0.2);
            deltas.push(Var::from_vec(values, shape, &Device::Cpu).unwrap());
            let slots = |block| {
                let lanes = window.lanes(block).count();
                (0..window.width()).map(move |slot| slot < lanes)
            };
            used.push(layer.blocks().iter().flat_map(slots).collect());
            adapted.push(linear);
        }
        Self { adapted, deltas, used }
    }

    pub(crate) fn packed(&self) -> Packed<E> {
        let matrices = self.adapted.iter().zip(&self.deltas);
        let linear = |(linear, delta): (&AdaptedLinear<E>, &Var)| Linear::Adapted {
            linear: linear.clone(),
            delta: delta.as_tensor().clone(),
        };
        Packed::new(matrices.map(linear).collect())
    }
}

impl<E: Element> Model<E> {
    pub(crate) fn packing(&self, kind: Option<GgmlDType>) -> Packing<E> {
        match self {
            Self::Bert(tiny) => Packing::new(&tiny.config.matrices(CLASSIFIER), kind),
            Self::Llama(tiny) => Packing::new(&tiny.config.matrices(), kind),
        }
    }

    /// The training loss of a batch of uneven sequences.
    pub(crate) fn loss(&self, linears: &Arc<dyn Linears>, activations: Activations) -> Tensor {
        let tokens = Tokens::new(&[vec![3, 29, 0, 7, 7], vec![11], vec![2, 5, 17]]);
        match self {
            Self::Bert(tiny) => {
                let logits = tiny.bert.logits(linears, CLASSIFIER.pooling, &tokens, activations).unwrap();
                assert_eq!((logits.dims(), logits.dtype()), (&[3, 5][..], E::DTYPE));
                cross_entropy::<E>(&logits, &Tensor::new(&[4u32, 0, 2], &Device::Cpu).unwrap()).unwrap()
            }
            Self::Llama(tiny) => {
                let loss = tiny.llama.loss(linears, &tokens, &tokens.next(), activations).unwrap();
                assert_ne!(loss.dtype(), DType::U32);
                loss
            }
        }
    }
}
