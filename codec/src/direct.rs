//! `Δ·x` and its gradients, without ever building Δ.
//!
//! In the stacked cosine and sine bases of its two edges a block is sparse: K cosine×cosine products
//! for the residual and four for the wave, since with `σ = sign v`
//!
//! ```text
//!  wave(i,j) = w·[ x·(D_u(i)·D_|v|(j) − σ·S_u(i)·S_|v|(j)) − y·(S_u(i)·D_|v|(j) + σ·D_u(i)·S_|v|(j)) ]
//! ```
//!
//! with `w = n_w/(α_u·α_v)`. So a forward pass projects every input segment on the basis vectors that
//! some block names, adds each product into the output's spectrum, and expands that; a backward pass
//! is the same with the roles exchanged, and the gradient of a coefficient is one dot product over
//! tokens. No dense weight gradient is formed. Cost per token of a square layer of edge n: about
//! `4·n·B` for the transforms and `n²(K+4)/B²` for the products, against `n²` for the dense layer.

use std::collections::{BTreeMap, BTreeSet};

use pulp::{Simd, WithSimd};

use crate::basis::{Basis, alpha};
use crate::layout::{Block, Layer, WAVE_LANES};
use crate::panel::{Panel, Sparse, dot, product};
use crate::scalar::Scalar;
use crate::window::Window;

/// Products that a wave is made of.
const WAVE_ENTRIES: usize = 4;

/// The sparse form of one layer's Δ: what is fixed by the layout.
#[derive(Clone, Debug)]
pub struct Direct<S> {
    outputs: Axis<S>,
    inputs: Axis<S>,
    blocks: Vec<Products<S>>,
    entries: Vec<Entry>,
    by_output: Sparse,
    by_input: Sparse,
}

/// One block's place in the entries, and what its wave's products are scaled by.
#[derive(Clone, Debug)]
struct Products<S> {
    block: Block,
    first: usize,
    weight: S,
    sign: S,
}

/// A product of one output and one input basis vector, by spectrum row.
#[derive(Clone, Copy, Debug)]
struct Entry {
    output: usize,
    input: usize,
}

/// One edge of the matrix, cut into block edges, with the basis vectors that are used there.
#[derive(Clone, Debug)]
struct Axis<S> {
    length: usize,
    segments: Vec<Segment<S>>,
    spectrum: usize,
}

#[derive(Clone, Debug)]
struct Segment<S> {
    start: usize,
    size: usize,
    first: usize,
    rows: BTreeMap<usize, usize>,
    project: Vec<S>,
    expand: Vec<S>,
}

/// An input's projections, kept from the forward pass for the backward.
#[derive(Clone, Debug)]
pub struct Spectrum<S> {
    panel: Panel<S>,
    tokens: usize,
}

/// What a backward pass yields.
#[derive(Clone, Debug)]
pub struct Gradients<S> {
    /// Gradient of the window's lanes by slot: `blocks × window.width()`, unused slots zero.
    pub lanes: Vec<S>,
    /// Gradient of the input, `tokens × inputs`, where it was asked for.
    pub input: Option<Vec<S>>,
}

impl<S: Scalar> Direct<S> {
    /// The sparse form of a layer.
    #[must_use]
    pub fn new(layer: &Layer) -> Self {
        let spec = layer.spec();
        let mut outputs = Axis::new(spec.rows, spec.block);
        let mut inputs = Axis::new(spec.cols, spec.block);
        let pairs: Vec<Vec<(usize, usize)>> = layer.blocks().iter().map(|block| basis_pairs(layer, block)).collect();
        for (block, pairs) in layer.blocks().iter().zip(&pairs) {
            for &(output, input) in pairs {
                outputs.name(block.row / spec.block, output);
                inputs.name(block.col / spec.block, input);
            }
        }
        outputs.build();
        inputs.build();
        let (blocks, entries) = (Vec::new(), Vec::new());
        let (by_output, by_input) = (Sparse::default(), Sparse::default());
        let mut direct = Self { outputs, inputs, blocks, entries, by_output, by_input };
        for (block, pairs) in layer.blocks().iter().zip(pairs) {
            let (weight, sign) = wave_factors(block);
            let first = direct.entries.len();
            direct.entries.extend(pairs.into_iter().map(|(output, input)| Entry {
                output: direct.outputs.row(block.row / spec.block, output),
                input: direct.inputs.row(block.col / spec.block, input),
            }));
            let (weight, sign) = (S::from_f64(weight), S::from_f64(sign));
            direct.blocks.push(Products { block: block.clone(), first, weight, sign });
        }
        let entries = direct.entries.iter();
        direct.by_output = Sparse::new(direct.outputs.spectrum, entries.clone().map(|e| (e.output, e.input)));
        direct.by_input = Sparse::new(direct.inputs.spectrum, entries.map(|e| (e.input, e.output)));
        direct
    }

    /// Lanes of the layer, in the order of the state, to the coefficient of every product.
    ///
    /// # Panics
    /// If `lanes` is not the layer's.
    #[must_use]
    pub fn coefficients(&self, lanes: &[S]) -> Vec<S> {
        let mut coefficients = Vec::with_capacity(self.entries.len());
        for Products { block, weight, sign, .. } in &self.blocks {
            let lanes = &lanes[block.lanes()];
            let (x, y) = (*weight * lanes[0], *weight * lanes[1]);
            coefficients.extend_from_slice(&[x, -(*sign * x), -y, -(*sign * y)]);
            coefficients.extend_from_slice(&lanes[WAVE_LANES..]);
        }
        coefficients
    }

    /// Adds `Δ·x` to `y`: `x` is tokens×inputs, `y` tokens×outputs. Returns what the backward pass needs.
    ///
    /// # Panics
    /// If the lengths do not fit the layer.
    pub fn forward(&self, coefficients: &[S], x: &[S], y: &mut [S]) -> Spectrum<S> {
        let tokens = x.len() / self.inputs.length;
        assert_eq!(x.len(), tokens * self.inputs.length, "x is tokens × inputs");
        assert_eq!(y.len(), tokens * self.outputs.length, "y is tokens × outputs");
        assert_eq!(coefficients.len(), self.entries.len(), "one coefficient a product");
        pulp::Arch::new().dispatch(Forward { direct: self, coefficients, x, y, tokens })
    }

    /// Gradients of the window's lanes, and of the input if `with_input`, from the output's gradient.
    ///
    /// # Panics
    /// If the lengths do not fit the layer.
    #[must_use]
    pub fn backward(
        &self,
        coefficients: &[S],
        spectrum: &Spectrum<S>,
        grad_y: &[S],
        window: &Window,
        with_input: bool,
    ) -> Gradients<S> {
        let tokens = spectrum.tokens;
        assert_eq!(grad_y.len(), tokens * self.outputs.length, "the gradient is tokens × outputs");
        assert_eq!(coefficients.len(), self.entries.len(), "one coefficient a product");
        pulp::Arch::new().dispatch(Backward { direct: self, coefficients, spectrum, grad_y, window, with_input })
    }

    #[inline(always)]
    fn lane_gradients(&self, grad: &Panel<S>, input: &Panel<S>, window: &Window) -> Vec<S> {
        let mut lanes = vec![S::ZERO; self.blocks.len() * window.width()];
        let mut wave = [S::ZERO; WAVE_ENTRIES];
        for (slots, sparse) in lanes.chunks_exact_mut(window.width()).zip(&self.blocks) {
            let entries = &self.entries[sparse.first..];
            for (product, entry) in wave.iter_mut().zip(entries) {
                *product = dot(grad.row(entry.output), input.row(entry.input));
            }
            let [even, both_sine, sine, cosine] = wave;
            slots[0] = sparse.weight * (even + -(sparse.sign * both_sine));
            slots[1] = -(sparse.weight * (sine + sparse.sign * cosine));
            for (slot, k) in slots[WAVE_LANES..].iter_mut().zip(window.residual(&sparse.block)) {
                let entry = entries[WAVE_ENTRIES + k];
                *slot = dot(grad.row(entry.output), input.row(entry.input));
            }
        }
        lanes
    }

    #[inline(always)]
    fn input_gradient(&self, coefficients: &[S], grad: &Panel<S>, tokens: usize) -> Vec<S> {
        let mut spectrum = Panel::zeros(self.inputs.spectrum, tokens);
        self.by_input.product(coefficients, grad, &mut spectrum);
        let mut input = vec![S::ZERO; tokens * self.inputs.length];
        self.inputs.expand(&spectrum, tokens).add_to_tokens(&mut input, self.inputs.length);
        input
    }
}

/// The forward pass, to be compiled once for every instruction set. (A closure would not be inlined
/// into the function that has the wider registers, so these are types.)
struct Forward<'a, S> {
    direct: &'a Direct<S>,
    coefficients: &'a [S],
    x: &'a [S],
    y: &'a mut [S],
    tokens: usize,
}

impl<S: Scalar> WithSimd for Forward<'_, S> {
    type Output = Spectrum<S>;

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) -> Spectrum<S> {
        let Self { direct, tokens, .. } = self;
        let panel = direct.inputs.project(&Panel::from_tokens(self.x, direct.inputs.length), tokens);
        let mut spectrum = Panel::zeros(direct.outputs.spectrum, tokens);
        direct.by_output.product(self.coefficients, &panel, &mut spectrum);
        direct.outputs.expand(&spectrum, tokens).add_to_tokens(self.y, direct.outputs.length);
        Spectrum { panel, tokens }
    }
}

/// The backward pass, likewise.
struct Backward<'a, S> {
    direct: &'a Direct<S>,
    coefficients: &'a [S],
    spectrum: &'a Spectrum<S>,
    grad_y: &'a [S],
    window: &'a Window,
    with_input: bool,
}

impl<S: Scalar> WithSimd for Backward<'_, S> {
    type Output = Gradients<S>;

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) -> Gradients<S> {
        let Self { direct, spectrum, .. } = self;
        let grad = Panel::from_tokens(self.grad_y, direct.outputs.length);
        let grad = direct.outputs.project(&grad, spectrum.tokens);
        let lanes = direct.lane_gradients(&grad, &spectrum.panel, self.window);
        let input =
            if self.with_input { Some(direct.input_gradient(self.coefficients, &grad, spectrum.tokens)) } else { None };
        Gradients { lanes, input }
    }
}

/// The extended basis indices of a block's products: the wave's four, then the residual's.
/// Index `n` below the edge is a cosine, `edge + n` a sine.
fn basis_pairs(layer: &Layer, block: &Block) -> Vec<(usize, usize)> {
    let u = usize::from(block.frequency.u.unsigned_abs());
    let v = usize::from(block.frequency.v.unsigned_abs());
    let (sine_u, sine_v) = (block.rows + u, block.cols + v);
    let residual = layer.positions(block).iter().map(|p| (usize::from(p.u), usize::from(p.v)));
    [(u, v), (sine_u, sine_v), (sine_u, v), (u, sine_v)].into_iter().chain(residual).collect()
}

/// `w = n_w/(α_u·α_v)` and `σ = sign v`.
fn wave_factors(block: &Block) -> (f64, f64) {
    let u = usize::from(block.frequency.u.unsigned_abs());
    let v = usize::from(block.frequency.v.unsigned_abs());
    let weight = block.wave_norm() / (alpha(block.rows, u) * alpha(block.cols, v));
    (weight, if block.frequency.v < 0 { -1.0 } else { 1.0 })
}

impl<S: Scalar> Axis<S> {
    fn new(length: usize, block: usize) -> Self {
        let segment = |start: usize| Segment {
            start,
            size: block.min(length - start),
            first: 0,
            rows: BTreeMap::new(),
            project: Vec::new(),
            expand: Vec::new(),
        };
        Self { length, segments: (0..length).step_by(block).map(segment).collect(), spectrum: 0 }
    }

    /// Notes that a basis vector is used in a segment.
    fn name(&mut self, segment: usize, index: usize) {
        self.segments[segment].rows.insert(index, 0);
    }

    /// Numbers the spectrum's rows and lays the used basis vectors out as matrices.
    fn build(&mut self) {
        let sizes: BTreeSet<usize> = self.segments.iter().map(|segment| segment.size).collect();
        let bases: BTreeMap<usize, Basis<S>> = sizes.into_iter().map(|size| (size, Basis::new(size))).collect();
        for segment in &mut self.segments {
            let basis = &bases[&segment.size];
            segment.first = self.spectrum;
            for (&index, row) in &mut segment.rows {
                *row = self.spectrum;
                self.spectrum += 1;
                segment.project.extend_from_slice(basis.row(index));
            }
            let used = segment.rows.len();
            let transposed = |i: usize| segment.project[(i % used) * segment.size + i / used];
            segment.expand = (0..used * segment.size).map(transposed).collect();
        }
    }

    fn row(&self, segment: usize, index: usize) -> usize {
        self.segments[segment].rows[&index]
    }

    #[inline(always)]
    fn project(&self, values: &Panel<S>, tokens: usize) -> Panel<S> {
        let mut spectrum = Panel::zeros(self.spectrum, tokens);
        for segment in &self.segments {
            product(&segment.project, segment.size, (values, segment.start), (&mut spectrum, segment.first));
        }
        spectrum
    }

    #[inline(always)]
    fn expand(&self, spectrum: &Panel<S>, tokens: usize) -> Panel<S> {
        let mut values = Panel::zeros(self.length, tokens);
        debug_assert_eq!(values.stride(), spectrum.stride(), "one number of tokens");
        for segment in &self.segments {
            product(&segment.expand, segment.rows.len(), (spectrum, segment.first), (&mut values, segment.start));
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{LayerSpec, Layout};
    use crate::seed::{Seed, Stream};
    use crate::word::Profile;

    fn layout(rows: usize, cols: usize, block: usize, residual: usize) -> Layout {
        let spec = LayerSpec { name: "w".into(), rows, cols, block, residual, gain_exponent: 4 };
        Layout::new(&Seed::from_number(1), vec![spec]).unwrap()
    }

    fn noise(stream: &mut Stream, n: usize) -> Vec<f64> {
        (0..n).map(|_| 2.0 * stream.unit() - 1.0).collect()
    }

    /// Δ entry by entry, from the definition of the block.
    fn dense(layer: &Layer, lanes: &[f64]) -> Vec<f64> {
        let cols = layer.spec().cols;
        let mut delta = vec![0.0; layer.spec().rows * cols];
        for block in layer.blocks() {
            let lanes = &lanes[block.lanes()];
            let phase = |n: usize, size: usize, f: i16| {
                std::f64::consts::PI / (2 * size) as f64 * f64::from(f) * (2 * n + 1) as f64
            };
            for (i, j) in (0..block.rows).flat_map(|i| (0..block.cols).map(move |j| (i, j))) {
                let phi = phase(i, block.rows, block.frequency.u) + phase(j, block.cols, block.frequency.v);
                let wave = block.wave_norm() * (lanes[0] * phi.cos() - lanes[1] * phi.sin());
                let basis = |n: usize, size: usize, f: u16| {
                    alpha(size, f.into()) * phase(n, size, i16::try_from(f).unwrap()).cos()
                };
                let residual = layer.positions(block).iter().zip(&lanes[2..]);
                let residual: f64 =
                    residual.map(|(p, c)| c * basis(i, block.rows, p.u) * basis(j, block.cols, p.v)).sum();
                delta[(block.row + i) * cols + block.col + j] = wave + residual;
            }
        }
        delta
    }

    const SHAPES: [(usize, usize, usize, usize); 5] =
        [(12, 20, 4, 6), (10, 9, 4, 16), (7, 1, 3, 5), (28, 56, 28, 24), (5, 5, 1, 4)];

    #[test]
    fn forward_is_the_product_with_the_dense_delta() {
        for (rows, cols, block, residual) in SHAPES {
            for tokens in [1, 3, 33] {
                let layout = layout(rows, cols, block, residual);
                let layer = &layout.layers()[0];
                let mut stream = Seed::from_number(2).stream();
                let lanes = noise(&mut stream, layer.lanes().len());
                let x = noise(&mut stream, tokens * cols);
                let mut y = vec![1.0; tokens * rows];
                let direct = Direct::new(layer);
                direct.forward(&direct.coefficients(&lanes), &x, &mut y);
                let delta = dense(layer, &lanes);
                for (t, i) in (0..tokens).flat_map(|t| (0..rows).map(move |i| (t, i))) {
                    let expected: f64 = (0..cols).map(|j| delta[i * cols + j] * x[t * cols + j]).sum();
                    assert!((y[t * rows + i] - 1.0 - expected).abs() < 1e-12, "{rows}×{cols}, B={block}");
                }
            }
        }
    }

    #[test]
    fn the_wave_has_unit_norm_on_average_over_its_phase() {
        for (rows, cols, block, residual) in SHAPES {
            let layout = layout(rows, cols, block, residual);
            let layer = &layout.layers()[0];
            for block in layer.blocks().iter().filter(|b| b.frequency.u != 0 || b.frequency.v != 0) {
                let norm = |z: [f64; 2]| -> f64 {
                    let mut lanes = vec![0.0; layer.lanes().len()];
                    lanes[block.lanes()][..2].copy_from_slice(&z);
                    dense(layer, &lanes).iter().map(|w| w * w).sum()
                };
                assert!((norm([1.0, 0.0]) + norm([0.0, 1.0]) - 2.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for (rows, cols, block, residual) in SHAPES {
            let layout = layout(rows, cols, block, residual);
            let layer = &layout.layers()[0];
            let (tokens, window) = (5, Window::new(Profile::Plain, 1));
            let mut stream = Seed::from_number(3).stream();
            let lanes = noise(&mut stream, layer.lanes().len());
            let x = noise(&mut stream, tokens * cols);
            let grad_y = noise(&mut stream, tokens * rows);
            let direct = Direct::new(layer);
            let loss = |lanes: &[f64], x: &[f64]| -> f64 {
                let mut y = vec![0.0; tokens * rows];
                direct.forward(&direct.coefficients(lanes), x, &mut y);
                y.iter().zip(&grad_y).map(|(y, g)| y * g).sum()
            };
            let nudged = |values: &[f64], at: usize, by: f64| {
                let mut values = values.to_vec();
                values[at] += by;
                values
            };
            let coefficients = direct.coefficients(&lanes);
            let spectrum = direct.forward(&coefficients, &x, &mut vec![0.0; tokens * rows]);
            let gradients = direct.backward(&coefficients, &spectrum, &grad_y, &window, true);
            let step = 1e-4;
            for (index, block) in layer.blocks().iter().enumerate() {
                for (slot, lane) in window.lanes(block).enumerate() {
                    let at = block.lane + lane;
                    let difference = loss(&nudged(&lanes, at, step), &x) - loss(&nudged(&lanes, at, -step), &x);
                    let found = gradients.lanes[index * window.width() + slot];
                    assert!((found - difference / (2.0 * step)).abs() < 1e-8, "block {index}, lane {lane}");
                }
            }
            for (at, found) in gradients.input.unwrap().into_iter().enumerate() {
                let difference = loss(&lanes, &nudged(&x, at, step)) - loss(&lanes, &nudged(&x, at, -step));
                assert!((found - difference / (2.0 * step)).abs() < 1e-8);
            }
        }
    }
}
