//! Every way to apply Δ gives the same product: `direct`, `merged`, `cached`, `progressive` with all its planes,
//! and the sparse-mask product, forward and backward, for a batch and for a single vector.
//!
//! Inference reads waves from Seed0, which is within `2⁻¹⁸·g` of the lanes: more than 1e-5 of a small wave.
//! So the lanes of every mode are those that Seed0 holds (`inference_lanes`), and what is compared is the
//! arithmetic, against `direct` in `f64`.

use packfed_codec::apply::{CachedDelta, MASK_EDGE_MAX, MaskedBlock, Progressive, encode_planes, inference_lanes};
use packfed_codec::wave::{IntegerWave, Steps, Wave};
use packfed_codec::{
    Basis, Block, Direct, Layer, LayerSpec, Layout, Merger, Packed128, PackedLayer, Profile, Scalar, Seed, Spectrum,
    Stream, Window,
};
use proptest::prelude::*;

const RELATIVE: f64 = 1e-5;
/// Planes with which the code is finer than an `f32`.
const ALL_PLANES: u8 = 26;

/// A packed layer with a batch and a gradient for it.
struct Case {
    layout: Layout,
    packed: PackedLayer,
    tokens: usize,
    x: Vec<f32>,
    grad_y: Vec<f32>,
}

/// A product and its gradients: `y`, the input's, and the window's lanes'.
struct Applied {
    mode: &'static str,
    y: Vec<f64>,
    grad_x: Vec<f64>,
    lanes: Option<Vec<f64>>,
}

impl Case {
    fn new(spec: LayerSpec, tokens: usize, seed: u64) -> Self {
        let (rows, cols) = (spec.rows, spec.cols);
        let layout = Layout::new(&Seed::from_number(seed), vec![spec]).expect("the sizes are in bounds");
        let mut stream = Seed::from_number(seed).derive("modes", &[]).stream();
        let packed = packed(&layout.layers()[0], &mut stream);
        let (x, grad_y) = (noise(&mut stream, tokens * cols), noise(&mut stream, tokens * rows));
        Self { layout, packed, tokens, x, grad_y }
    }

    fn layer(&self) -> &Layer {
        &self.layout.layers()[0]
    }

    fn edges(&self) -> (usize, usize) {
        (self.layer().spec().rows, self.layer().spec().cols)
    }

    fn window() -> Window {
        Window::new(Profile::Plain, 1)
    }

    /// The kernels of `direct` in a float type, with lanes from wherever a mode has them.
    fn direct<S: Scalar>(&self, mode: &'static str, lanes: &[S]) -> Applied {
        let direct = Direct::<S>::new(self.layer());
        let coefficients = direct.coefficients(lanes);
        let narrow = |values: &[f32]| values.iter().map(|&v| S::from_f64(v.into())).collect::<Vec<S>>();
        let mut y = vec![S::ZERO; self.tokens * self.edges().0];
        let (mut spectrum, mut grad_x) = (Spectrum::default(), vec![S::ZERO; self.x.len()]);
        direct.forward(&coefficients, &narrow(&self.x), &mut y, &mut spectrum);
        let trained = direct.trained(&Self::window());
        let lanes = direct.backward(&coefficients, &spectrum, &narrow(&self.grad_y), &trained, Some(&mut grad_x));
        Applied { mode, y: wide(&y), grad_x: wide(&grad_x), lanes: Some(wide(&lanes)) }
    }

    /// A dense Δ and plain sums.
    fn dense(&self, mode: &'static str, delta: &[f32]) -> Applied {
        let (rows, cols) = self.edges();
        let (mut y, mut grad_x) = (vec![0.0; self.tokens * rows], vec![0.0; self.tokens * cols]);
        for t in 0..self.tokens {
            for (at, &d) in delta.iter().enumerate() {
                let (i, j, d) = (at / cols, at % cols, f64::from(d));
                y[t * rows + i] += d * f64::from(self.x[t * cols + j]);
                grad_x[t * cols + j] += d * f64::from(self.grad_y[t * rows + i]);
            }
        }
        Applied { mode, y, grad_x, lanes: None }
    }

    fn cached(&self, bytes_max: usize) -> Applied {
        let mut delta = CachedDelta::new(self.layer(), self.packed.clone(), bytes_max);
        let (rows, cols) = self.edges();
        let (mut y, mut grad_x) = (vec![0.0; self.tokens * rows], vec![0.0; self.tokens * cols]);
        delta.forward(&self.x, &mut y);
        delta.backward(&self.grad_y, &mut grad_x);
        let lanes = delta.lane_gradients(&self.x, &self.grad_y, &Self::window());
        Applied { mode: "cached", y: wide(&y), grad_x: wide(&grad_x), lanes: Some(wide(&lanes)) }
    }

    fn progressive(&self) -> Applied {
        let lanes: Vec<f32> = inference_lanes(self.layer(), &self.packed);
        let bytes = encode_planes(self.layer(), &lanes, ALL_PLANES).expect("the lanes are small");
        let read = Progressive::decode(self.layer(), &bytes).expect("these are all the bytes");
        self.direct::<f32>("progressive", &read.lanes())
    }

    /// Block by block: DCT, masked product, inverse DCT; the wave as a dense block.
    fn masked(&self) -> Applied {
        let (rows, cols) = self.edges();
        let (mut y, mut grad_x) = (vec![0.0; self.tokens * rows], vec![0.0; self.tokens * cols]);
        let mut residual = self.packed.residual.as_slice();
        for (block, wave) in self.layer().blocks().iter().zip(&self.packed.waves) {
            let (coefficients, rest) = residual.split_at(block.residual);
            residual = rest;
            let positions = self.layer().positions(block);
            let mask = MaskedBlock::from_positions(block.rows, block.cols, positions, coefficients)
                .expect("a layout's positions are distinct and inside");
            self.add_masked(block, &mask, &mut y, &mut grad_x);
            let (zx, zy) = wave.quantized_z(self.layer().gain());
            let mut dense = vec![0.0; block.rows * block.cols];
            Wave::new(block).add_to((f32::from_f64(zx), f32::from_f64(zy)), &mut dense, block.cols);
            self.add_dense(block, &dense, &mut y, &mut grad_x);
        }
        Applied { mode: "masked", y: wide(&y), grad_x: wide(&grad_x), lanes: None }
    }

    fn add_masked(&self, block: &Block, mask: &MaskedBlock, y: &mut [f32], grad_x: &mut [f32]) {
        let ((rows, cols), tokens) = (self.edges(), self.tokens);
        let (of_rows, of_cols) = (Basis::<f32>::new(block.rows), Basis::<f32>::new(block.cols));
        let x_hat = project(&of_cols, &self.x, cols, block.col);
        let grad_hat = project(&of_rows, &self.grad_y, rows, block.row);
        let (mut y_hat, mut grad_x_hat) = (vec![0.0; block.rows * tokens], vec![0.0; block.cols * tokens]);
        if tokens == 1 {
            mask.forward(&x_hat, &mut y_hat);
            mask.backward(&grad_hat, &mut grad_x_hat);
        } else {
            mask.forward_batch(tokens, &x_hat, &mut y_hat);
            mask.backward_batch(tokens, &grad_hat, &mut grad_x_hat);
        }
        expand(&of_rows, &y_hat, y, rows, block.row);
        expand(&of_cols, &grad_x_hat, grad_x, cols, block.col);
    }

    fn add_dense(&self, block: &Block, dense: &[f32], y: &mut [f32], grad_x: &mut [f32]) {
        let (rows, cols) = self.edges();
        for t in 0..self.tokens {
            for (at, &d) in dense.iter().enumerate() {
                let (i, j) = (t * rows + block.row + at / block.cols, t * cols + block.col + at % block.cols);
                y[i] += d * self.x[j];
                grad_x[j] += d * self.grad_y[i];
            }
        }
    }
}

fn noise(stream: &mut Stream, n: usize) -> Vec<f32> {
    (0..n).map(|_| f32::from_f64(2.0 * stream.unit() - 1.0)).collect()
}

fn packed(layer: &Layer, stream: &mut Stream) -> PackedLayer {
    let z = noise(stream, 2 * layer.blocks().len());
    let waves = layer.blocks().iter().zip(z.as_chunks().0);
    let waves = waves.map(|(block, &[x, y])| Packed128::from_z(x.into(), y.into(), layer.gain(), block.frequency));
    let residual = layer.blocks().iter().map(|block| block.residual).sum();
    PackedLayer { waves: waves.collect(), residual: noise(stream, residual) }
}

fn wide<S: Scalar>(values: &[S]) -> Vec<f64> {
    values.iter().map(|value| value.to_f64()).collect()
}

/// One segment of every token on its cosine basis, feature-major.
fn project(basis: &Basis<f32>, values: &[f32], width: usize, first: usize) -> Vec<f32> {
    let of = |v: usize, token: &[f32]| -> f32 { basis.row(v).iter().zip(&token[first..]).map(|(d, x)| d * x).sum() };
    (0..basis.size()).flat_map(|v| values.chunks_exact(width).map(move |token| of(v, token))).collect()
}

/// The inverse of [`project`], added.
fn expand(basis: &Basis<f32>, spectrum: &[f32], values: &mut [f32], width: usize, first: usize) {
    let tokens = values.len() / width;
    for (t, token) in values.chunks_exact_mut(width).enumerate() {
        for v in 0..basis.size() {
            for (value, d) in token[first..].iter_mut().zip(basis.row(v)) {
                *value += d * spectrum[v * tokens + t];
            }
        }
    }
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// The Frobenius norm of the difference, relative to the exact result or to what random vectors give, if that is
/// more: a sum of few elements may cancel, and then has no relative precision.
fn apart(found: &[f64], exact: &[f64], typical: f64) -> f64 {
    assert_eq!(found.len(), exact.len());
    let difference: Vec<f64> = found.iter().zip(exact).map(|(a, b)| a - b).collect();
    norm(&difference) / norm(exact).max(typical)
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    let exact = case.direct::<f64>("exact", &inference_lanes(case.layer(), &case.packed));
    let merged = Merger::new().delta(case.layer(), &case.packed);
    let (rows, cols) = case.edges();
    let mut modes = vec![
        case.direct::<f32>("direct", &inference_lanes(case.layer(), &case.packed)),
        case.dense("merged", &merged),
        case.cached(usize::MAX),
        case.cached(2 * rows * cols),
        case.progressive(),
    ];
    if case.layer().spec().block <= MASK_EDGE_MAX {
        modes.push(case.masked());
    }
    let (delta, x, grad_y) = (norm(&wide(&merged)), norm(&wide(&case.x)), norm(&wide(&case.grad_y)));
    let root = |n: usize| (n as f64).sqrt();
    for found in modes {
        let y = apart(&found.y, &exact.y, delta * x / root(cols));
        let grad_x = apart(&found.grad_x, &exact.grad_x, delta * grad_y / root(rows));
        let lanes = found.lanes.iter().zip(&exact.lanes).map(|(found, exact)| {
            apart(found, exact, x * grad_y * root(exact.len()) / root(case.tokens * rows * cols))
        });
        let worst = lanes.fold(y.max(grad_x), f64::max);
        prop_assert!(worst <= RELATIVE, "{}: {worst:e}", found.mode);
    }
    Ok(())
}

fn spec(rows: usize, cols: usize, block: usize, residual: usize) -> LayerSpec {
    LayerSpec { name: "w".into(), rows, cols, block, residual, gain_exponent: 2 }
}

#[test]
fn the_usual_layers_agree_in_every_mode() {
    for (rows, cols, block, residual) in [(128, 192, 64, 96), (252, 84, 28, 96), (10, 252, 4, 6), (100, 1, 8, 5)] {
        for tokens in [1, 33] {
            check(&Case::new(spec(rows, cols, block, residual), tokens, 7)).expect("the modes agree");
        }
    }
}

#[test]
fn a_block_too_large_for_a_mask_agrees_in_the_other_modes() {
    check(&Case::new(spec(150, 100, 100, 40), 3, 1)).expect("the modes agree");
}

#[test]
fn an_empty_batch_is_a_batch() {
    let case = Case::new(spec(9, 7, 4, 3), 0, 1);
    assert!(case.cached(usize::MAX).y.is_empty());
    assert!(case.masked().grad_x.is_empty());
}

/// The integers of Seed0, put together as `integer_wave.rs` says: gain as a shift, `n_w` once.
#[test]
fn the_integer_wave_is_the_merged_one() {
    let case = Case::new(spec(60, 52, 28, 0), 1, 3);
    let merged = Merger::new().delta(case.layer(), &case.packed);
    let mut integer = vec![0.0; merged.len()];
    for (block, &wave) in case.layer().blocks().iter().zip(&case.packed.waves) {
        let wave = IntegerWave::new(wave, block.rows, block.cols, Steps::TwentyFour);
        let (mut cosine, mut sine) = (vec![0; block.rows * block.cols], vec![0; block.rows * block.cols]);
        wave.values(&mut cosine, &mut sine);
        let scale = f64::from(wave.norm()) * 2f64.powi(2 - 31 - 30);
        for (at, &n) in cosine.iter().enumerate() {
            integer[(block.row + at / block.cols) * 52 + block.col + at % block.cols] = f64::from(n) * scale;
        }
    }
    assert!(apart(&integer, &wide(&merged), 0.0) <= RELATIVE);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_layer_agrees_in_every_mode(
        rows in 1..70usize, cols in 1..70usize, block in 1..40usize, residual in 0..50usize,
        tokens in prop_oneof![Just(1), 2..40usize], seed: u64,
    ) {
        check(&Case::new(spec(rows, cols, block, residual), tokens, seed))?;
    }
}
