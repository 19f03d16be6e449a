//! Steps of whole stacks: MiniLM's layers on 16 × 64 tokens, SmolLM2's on 1 × 256.

use std::convert::Infallible;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor, Var};
use packfed_codec::{Direct, LayerSpec, Layout, Profile, Scalar, Seed, Window};
use packfed_worker::adapted::AdaptedLinear;
use packfed_worker::model::bert::{Bert, BertConfig, Classifier};
use packfed_worker::model::linears::{Linear, Linears, Packed, load};
use packfed_worker::model::llama::{Llama, LlamaConfig};
use packfed_worker::model::tokens::Tokens;
use packfed_worker::model::{Activations, Kind, MatrixSpec};
use packfed_worker::nn::activation::Activation;
use packfed_worker::nn::pool::Pooling;
use packfed_worker::product::{Matrix, add_product};
use packfed_worker::weight::{Stored, Weight};

use crate::Row;

/// Layers of a stack: enough that the first, whose input needs no gradient, weighs little.
const LAYERS: usize = 4;
/// Window and residual of every matrix.
const PROFILE: Profile = Profile::Nibble;
const RESIDUAL: usize = 28;

const MINILM: BertConfig = BertConfig {
    hidden: 384,
    layers: LAYERS,
    heads: 12,
    intermediate: 1536,
    vocabulary: 1000,
    positions_max: 512,
    token_types: 2,
    norm_eps: 1e-12,
    activation: Activation::Gelu,
};

const CLASSIFIER: Classifier = Classifier { pooling: Pooling::Mean, labels: 77 };

const SMOLLM2: LlamaConfig = LlamaConfig {
    hidden: 576,
    layers: LAYERS,
    heads: 9,
    kv_heads: 3,
    head_size: 64,
    intermediate: 1536,
    vocabulary: 1000,
    positions_max: 8192,
    norm_eps: 1e-5,
    rope_theta: 1e5,
    tied_embeddings: true,
    activation: Activation::Silu,
};

pub(crate) fn noise(seed: u64, n: usize, scale: f64) -> Vec<f32> {
    let mut stream = Seed::from_number(seed).stream();
    (0..n).map(|_| <f32 as Scalar>::from_f64(scale * (2.0 * stream.unit() - 1.0))).collect()
}

fn source(kind: Option<GgmlDType>) -> impl FnMut(&str, &[usize]) -> Result<Weight, Infallible> {
    let mut seed = 0;
    move |name, shape| {
        seed += 1;
        let floats = noise(seed, shape.iter().product(), 0.05);
        let stored = match kind {
            Some(kind) if shape.len() == 2 => {
                let chunk = |rows: &[f32]| {
                    let rows = Tensor::from_slice(rows, (rows.len() / shape[1], shape[1]), &Device::Cpu).unwrap();
                    QTensor::quantize(&rows, kind).unwrap()
                };
                Stored::Quantized(Arc::new(floats.chunks(128 * shape[1]).map(chunk).collect()))
            }
            _ => Stored::F32(Arc::new(floats)),
        };
        Ok(Weight { name: name.into(), shape: shape.to_vec(), stored })
    }
}

/// The matrices with Δ on each, if `packed`.
fn linears(matrices: &[MatrixSpec], kind: Option<GgmlDType>, packed: bool) -> (Arc<dyn Linears>, Vec<Var>) {
    let spec = |m: &MatrixSpec| {
        let block = if m.kind == Kind::Head { 4 } else { 64 };
        LayerSpec { name: m.name.clone(), rows: m.outputs, cols: m.inputs, block, residual: RESIDUAL, gain_exponent: 4 }
    };
    let layout = Layout::new(&Seed::from_number(7), matrices.iter().map(spec).collect()).unwrap();
    let mut deltas = Vec::new();
    let bases = load(matrices, &mut source(kind)).unwrap();
    let linear = |(layer, base): (&packfed_codec::Layer, _)| {
        if !packed {
            return Linear::Frozen(base);
        }
        let lanes = vec![0.0; layer.lanes().len()];
        let direct = Arc::new(Direct::new(layer));
        let linear = AdaptedLinear::<f32>::new(layer, base, direct, lanes, Window::new(PROFILE, 0));
        let delta = Var::zeros(linear.delta_shape(), DType::F32, &Device::Cpu).unwrap();
        deltas.push(delta.clone());
        Linear::Adapted { linear, delta: delta.into_inner() }
    };
    let matrices = layout.layers().iter().zip(bases).map(linear).collect();
    (Arc::new(Packed::new(matrices)), deltas)
}

fn tokens(sequences: usize, length: usize) -> Tokens {
    let ids: Vec<Vec<u32>> = (0..sequences).map(|_| (0..1000).cycle().take(length).collect()).collect();
    Tokens::new(&ids)
}

fn step(loss: &Tensor, deltas: &[Var]) {
    let grads = loss.backward().unwrap();
    assert!(deltas.iter().all(|delta| grads.get(delta).is_some()));
}

fn minilm(name: &str, packed: bool, backward: bool, activations: Activations) -> Row {
    let (linears, deltas) = linears(&MINILM.matrices(CLASSIFIER), None, packed);
    let bert = Bert::<f32>::load(MINILM, &mut source(None)).unwrap();
    let tokens = tokens(16, 64);
    let run = move || {
        let logits = bert.logits(&linears, CLASSIFIER.pooling, &tokens, activations).unwrap();
        if backward {
            step(&logits.sum_all().unwrap(), &deltas);
        }
    };
    Row { name: format!("minilm 16×64, {name}"), layers: u32::try_from(LAYERS).unwrap(), run: Box::new(run) }
}

fn smollm2(name: &str, kind: Option<GgmlDType>, activations: Activations) -> Row {
    let (linears, deltas) = linears(&SMOLLM2.matrices(), kind, true);
    let llama = Llama::<f32>::load(SMOLLM2, &mut source(None)).unwrap();
    let tokens = tokens(1, 256);
    let run = move || {
        step(&llama.loss(&linears, &tokens, &tokens.next(), activations).unwrap(), &deltas);
    };
    Row { name: format!("smollm2 1×256, {name}"), layers: u32::try_from(LAYERS).unwrap(), run: Box::new(run) }
}

/// The dense products of one layer's step, forward and to the input, into buffers that are there.
fn products(name: &str, matrices: &[MatrixSpec], tokens: usize) -> Row {
    let parts: Vec<(usize, usize, Vec<f32>)> = matrices
        .iter()
        .filter(|m| m.kind != Kind::Head)
        .map(|m| (m.outputs, m.inputs, noise(1, m.outputs * m.inputs, 0.05)))
        .collect();
    let widest = parts.iter().map(|(outputs, inputs, _)| *outputs.max(inputs)).max().unwrap();
    let x = noise(2, tokens * widest, 1.0);
    let buffer = std::sync::Mutex::new(vec![0.0f32; tokens * widest]);
    let run = move || {
        let mut y = buffer.lock().unwrap();
        for (outputs, inputs, weight) in &parts {
            let weight = Matrix::new(weight, *outputs, *inputs);
            let x = |width: usize| Matrix::new(&x[..tokens * width], tokens, width);
            add_product(&mut y[..tokens * outputs], x(*inputs), weight.t());
            add_product(&mut y[..tokens * inputs], x(*outputs), weight);
        }
    };
    Row { name: format!("{name}, dense products"), layers: u32::try_from(LAYERS).unwrap(), run: Box::new(run) }
}

pub(crate) fn rows() -> Vec<Row> {
    use Activations::{Kept, Recomputed};
    vec![
        products("minilm 16×64", &MINILM.matrices(CLASSIFIER), 16 * 64),
        minilm("forward, frozen", false, false, Kept),
        minilm("forward, packed", true, false, Kept),
        minilm("step, packed", true, true, Kept),
        minilm("step, packed, recomputed", true, true, Recomputed),
        products("smollm2 1×256", &SMOLLM2.matrices(), 256),
        smollm2("step, packed", None, Kept),
        smollm2("step, packed, recomputed", None, Recomputed),
        smollm2("step, packed over Q8_0", Some(GgmlDType::Q8_0), Kept),
        smollm2("step, packed over Q4_1", Some(GgmlDType::Q4_1), Kept),
    ]
}
