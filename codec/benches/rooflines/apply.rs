//! Δ·x without Δ, beside the dense product of the same layer.

use std::hint::black_box;
use std::sync::Arc;

use gemm::Parallelism;
use packfed_codec::{Direct, LayerSpec, Layout, Profile, Seed, Spectrum, Window};

use crate::race::{Goal, Race, Work};

const ROWS: usize = 576;
const COLS: usize = 1536;
const BLOCK: usize = 64;

/// What of a step is timed.
#[derive(Clone, Copy, PartialEq)]
enum Passes {
    Forward,
    Both,
}

/// All races of this file.
pub(crate) fn races() -> Vec<Race> {
    let mut races = Vec::new();
    for residual in [12, 48] {
        let name = |what: &str| format!("direct {what}, {ROWS}×{COLS}, B = {BLOCK}, K = {residual}");
        races.push(direct(name("forward + backward, 512 tokens"), residual, 512, Passes::Both, 0.25));
        races.push(direct(name("forward, 512 tokens"), residual, 512, Passes::Forward, 0.25));
        races.push(direct(name("forward, 1 token"), residual, 1, Passes::Forward, 0.15));
        races.push(direct(name("forward + backward, 1 token"), residual, 1, Passes::Both, 0.15));
    }
    races
}

fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut stream = Seed::from_number(seed).stream();
    #[expect(clippy::cast_possible_truncation, reason = "a random value is as good rounded")]
    let value = |_| (stream.unit() - 0.5) as f32;
    (0..n).map(value).collect()
}

fn direct(name: String, residual: usize, tokens: usize, passes: Passes, share: f64) -> Race {
    let spec = LayerSpec { name: "w".into(), rows: ROWS, cols: COLS, block: BLOCK, residual, gain_exponent: 4 };
    let layout = Arc::new(Layout::new(&Seed::from_number(1), vec![spec]).expect("the specification is within bounds"));
    let ours = move || -> Work {
        let layer = &layout.layers()[0];
        let direct = Direct::<f32>::new(layer);
        let coefficients = direct.coefficients(&noise(layer.lanes().len(), 2));
        let trained = direct.trained(&Window::new(Profile::Plain, 0));
        let (x, grad) = (noise(tokens * COLS, 3), noise(tokens * ROWS, 4));
        let (mut y, mut grad_x, mut spectrum) =
            (vec![0.0; tokens * ROWS], vec![0.0; tokens * COLS], Spectrum::default());
        Box::new(move || {
            direct.forward(&coefficients, &x, &mut y, &mut spectrum);
            if passes == Passes::Both {
                black_box(direct.backward(&coefficients, &spectrum, &grad, &trained, Some(&mut grad_x)));
            }
            black_box((&mut y, &mut grad_x));
        })
    };
    let theirs = move || -> Work {
        let (weight, x, mut y) = (noise(ROWS * COLS, 2), noise(tokens * COLS, 3), vec![0.0; tokens * ROWS]);
        Box::new(move || dense(&weight, black_box(&x), &mut y, tokens))
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
