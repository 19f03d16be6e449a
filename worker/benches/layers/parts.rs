//! Single ops at MiniLM's shapes, forward and backward.

use candle_core::{Device, Tensor, Var};
use packfed_codec::{Direct, LayerSpec, Layout, Profile, Seed, Window};
use packfed_worker::adapted::AdaptedLinear;
use packfed_worker::nn::activation::Activation;
use packfed_worker::nn::attention::{Attention, Heads, Mask};
use packfed_worker::nn::frozen::FrozenLinear;
use packfed_worker::nn::norm::Norm;
use packfed_worker::nn::sequences::Sequences;
use packfed_worker::weight::{Stored, Weight};

use crate::Row;
use crate::shapes::noise;

const TOKENS: usize = 1024;

fn var(seed: u64, rows: usize, cols: usize) -> Var {
    let values = Tensor::from_vec(noise(seed, rows * cols, 1.0), (rows, cols), &Device::Cpu).unwrap();
    Var::from_tensor(&values).unwrap()
}

/// An op forward, and forward and backward.
fn both(name: &str, f: impl Fn() -> Tensor + Clone + Send + Sync + 'static) -> [Row; 2] {
    let forward = f.clone();
    let row = |part: &str, run| Row { name: format!("part {name}, {part}"), layers: 1, run };
    [
        row("forward", Box::new(move || drop(forward()))),
        row("step", Box::new(move || drop(f().sum_all().unwrap().backward().unwrap()))),
    ]
}

fn linear(outputs: usize, inputs: usize) -> FrozenLinear<f32> {
    let stored = Stored::F32(std::sync::Arc::new(noise(1, outputs * inputs, 0.05)));
    let weight = Weight { name: "w".into(), shape: vec![outputs, inputs], stored };
    FrozenLinear::new(weight, Some(vec![0.0; outputs])).unwrap()
}

fn attention(name: &str, shape: (usize, usize), heads: Heads, mask: Mask) -> [Row; 2] {
    let sequences = Sequences::new(&vec![shape.1; shape.0]);
    let attention = Attention::new(heads, mask, sequences.clone(), sequences).unwrap();
    let tokens = shape.0 * shape.1;
    let q = var(1, tokens, heads.queries * heads.features);
    let [k, v] = [2, 3].map(|seed| var(seed, tokens, heads.keys * heads.features));
    both(name, move || attention.forward::<f32>(&q, &k, &v).unwrap())
}

pub(crate) fn rows() -> Vec<Row> {
    let (narrow, wide) = (var(1, TOKENS, 384), var(2, TOKENS, 1536));
    let other = var(3, TOKENS, 384);
    let norm = Norm::<f32>::layer(vec![1.0; 384], vec![0.0; 384], 1e-12).unwrap();
    let frozen = linear(1536, 384);
    let spec = LayerSpec { name: "w".into(), rows: 1536, cols: 384, block: 64, residual: 28, gain_exponent: 4 };
    let layout = Layout::new(&Seed::from_number(7), vec![spec]).unwrap();
    let layer = &layout.layers()[0];
    let direct = std::sync::Arc::new(Direct::new(layer));
    let (lanes, window) = (vec![0.0; layer.lanes().len()], Window::new(Profile::Nibble, 0));
    let adapted = AdaptedLinear::<f32>::new(layer, frozen.clone(), direct, lanes, window);
    let (blocks, width) = adapted.delta_shape();
    let delta = var(4, blocks, width);
    let minilm = Heads { queries: 12, keys: 12, features: 32 };
    let smollm2 = Heads { queries: 9, keys: 3, features: 64 };
    let (x, y) = (narrow.clone(), narrow.clone());
    let input = narrow;
    [
        both("sum (Candle's)", move || wide.sum_all().unwrap()),
        both("norm of a sum, 1024×384", move || norm.forward_sum(&x, &other).unwrap()),
        both("GELU, 1024×1536", {
            let wide = var(2, TOKENS, 1536);
            move || Activation::Gelu.forward::<f32>(&wide).unwrap()
        }),
        attention("attention, 16×12×64×32", (16, 64), minilm, Mask::Whole),
        attention("attention, 1×9×256×64", (1, 256), smollm2, Mask::Causal),
        both("frozen linear, 384→1536", move || frozen.forward(&y).unwrap()),
        both("adapted linear, 384→1536", move || adapted.forward(&input, &delta).unwrap()),
    ]
    .into_iter()
    .flatten()
    .collect()
}
