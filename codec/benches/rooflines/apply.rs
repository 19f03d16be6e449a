//! Δ·x without Δ, beside the dense product of the same layer.

use std::hint::black_box;
use std::sync::Arc;

use gemm::Parallelism;
use packfed_codec::{Direct, LayerSpec, Layout, Profile, Seed, Spectrum, Window};

use crate::race::{Goal, Race, Work};

const ROWS: usize = 576;
const COLS: usize = 1536;
const BLOCK: usize = 64;

/// Layers of a model that a token passes through in turn: their dense matrices are 85 MB, more than the last cache holds.
const LAYERS: usize = 24;

/// What of a step is timed.
#[derive(Clone, Copy, PartialEq)]
enum Passes {
    Forward,
    Both,
}

/// One race: so many layers of the same shape, one after the other.
#[derive(Clone, Copy)]
struct Step {
    layers: usize,
    residual: usize,
    tokens: usize,
    passes: Passes,
    share: f64,
}

/// All races of this file.
pub(crate) fn races() -> Vec<Race> {
    let mut races = Vec::new();
    for residual in [12, 48] {
        let race =
            |what: &str, step: Step| direct(format!("direct {what}, {ROWS}×{COLS}, B = {BLOCK}, K = {residual}"), step);
        let (forward, both) = (Passes::Forward, Passes::Both);
        let batch = Step { layers: 1, residual, tokens: 512, passes: both, share: 0.25 };
        let one = Step { tokens: 1, share: 0.15, ..batch };
        races.push(race("forward + backward, 512 tokens", batch));
        races.push(race("forward, 512 tokens", Step { passes: forward, ..batch }));
        races.push(race("forward, 1 token", Step { passes: forward, ..one }));
        races.push(race("forward + backward, 1 token", one));
        let turn = Step { layers: LAYERS, ..one };
        races.push(race(&format!("forward, 1 token, {LAYERS} layers in turn"), Step { passes: forward, ..turn }));
        races.push(race(&format!("forward + backward, 1 token, {LAYERS} layers in turn"), turn));
    }
    races
}

fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut stream = Seed::from_number(seed).stream();
    #[expect(clippy::cast_possible_truncation, reason = "a random value is as good rounded")]
    let value = |_| (stream.unit() - 0.5) as f32;
    (0..n).map(value).collect()
}

fn direct(name: String, step: Step) -> Race {
    let Step { layers, residual, tokens, passes, share } = step;
    let spec =
        |n| LayerSpec { name: format!("w{n}"), rows: ROWS, cols: COLS, block: BLOCK, residual, gain_exponent: 4 };
    let layout = Layout::new(&Seed::from_number(1), (0..layers).map(spec).collect());
    let layout = Arc::new(layout.expect("the specification is within bounds"));
    let ours = move || -> Work {
        let window = Window::new(Profile::Plain, 0);
        let forms = layout.layers().iter().map(|layer| {
            let direct = Direct::<f32>::new(layer);
            let coefficients = direct.coefficients(&noise(layer.lanes().len(), 2));
            let trained = direct.trained(&window);
            (direct, coefficients, trained)
        });
        let forms: Vec<_> = forms.collect();
        let (x, grad) = (noise(tokens * COLS, 3), noise(tokens * ROWS, 4));
        let (mut y, mut grad_x) = (vec![0.0; tokens * ROWS], vec![0.0; tokens * COLS]);
        let mut spectra = vec![Spectrum::default(); layers];
        Box::new(move || {
            for ((direct, coefficients, _), spectrum) in forms.iter().zip(&mut spectra) {
                direct.forward(coefficients, &x, &mut y, spectrum);
            }
            if passes == Passes::Both {
                for ((direct, coefficients, trained), spectrum) in forms.iter().zip(&spectra).rev() {
                    black_box(direct.backward(coefficients, spectrum, &grad, trained, Some(&mut grad_x)));
                }
            }
            black_box((&mut y, &mut grad_x));
        })
    };
    let theirs = move || -> Work {
        let weights: Vec<_> = (0..layers).map(|_| noise(ROWS * COLS, 2)).collect();
        let (x, mut y) = (noise(tokens * COLS, 3), vec![0.0; tokens * ROWS]);
        Box::new(move || {
            for weight in &weights {
                dense(weight, black_box(&x), &mut y, tokens);
            }
        })
    };
    let beside = if tokens == 1 { "dense GEMV forward (gemm)" } else { "dense forward (gemm)" };
    Race { name, beside, bytes: None, goal: Goal::TimeShare(share), ours: Box::new(ours), theirs: Box::new(theirs) }
}

/// `y = x·Wᵀ` on one thread.
fn dense(weight: &[f32], x: &[f32], y: &mut [f32], tokens: usize) {
    assert_eq!((weight.len(), x.len(), y.len()), (ROWS * COLS, tokens * COLS, tokens * ROWS));
    let (rows, cols) = (ROWS.cast_signed(), COLS.cast_signed());
    #[expect(unsafe_code, reason = "gemm takes pointers")]
    // SAFETY: the lengths are checked above, and the strides are those of row-major matrices of these shapes.
    unsafe {
        gemm::gemm(
            tokens,
            ROWS,
            COLS,
            y.as_mut_ptr(),
            1,
            rows,
            false,
            x.as_ptr(),
            1,
            cols,
            weight.as_ptr(),
            cols,
            1,
            0.0f32,
            1.0f32,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
