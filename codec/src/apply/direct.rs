//! `Δ·x` and its gradients, without ever building Δ.
//!
//! In the stacked cosine and sine bases of its two edges a block is sparse: K cosine×cosine products
//! for the residual and four for the wave, since with `σ = sign v`
//!
//! ```text
//!  wave(i,j) = w·[ x·(D_u(i)·D_|v|(j) − σ·S_u(i)·S_|v|(j)) − y·(S_u(i)·D_|v|(j) + σ·D_u(i)·S_|v|(j)) ]
//! ```
//!
//! with `w = n_w/(α_u·α_v)`. So a forward pass transforms every input segment, adds each product into the
//! output's spectrum, and transforms that back; a backward pass is the same with the roles exchanged, and
//! the gradient of a coefficient is one dot product over tokens. No dense weight gradient is formed. Cost
//! per token of a square layer of edge n: about `n·log B` for the transforms and `n²(K+4)/B²` for the
//! products, against `n²` for the dense layer. A batch goes tile by tile, vectorised over tokens (`batch.rs`); a
//! single vector is vectorised over its segments instead (`single.rs`), in a form that is made when the first one comes.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use crate::apply::aligned::Aligned;
use crate::apply::axis::{Axis, Segment};
use crate::apply::single::Single;
use crate::apply::sliced::Samples;
use crate::apply::tile::Sparse;
use crate::apply::{batch, single};
use crate::basis::alpha;
use crate::layout::{Block, Layer, WAVE_LANES};
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
    entries: Vec<Entry<S>>,
    by_output: Sparse,
    by_input: Sparse,
    /// The form for a single vector, if the layer has one.
    single: OnceLock<Option<Box<Single<S>>>>,
}

/// One block's place in the entries, and what its wave's products are scaled by.
#[derive(Clone, Debug)]
struct Products<S> {
    block: Block,
    first: usize,
    weight: S,
    sign: S,
}

/// A product of one output and one input basis vector, by spectrum row, and what the rows' factors come to.
#[derive(Clone, Copy, Debug)]
struct Entry<S> {
    output: usize,
    input: usize,
    factor: S,
}

/// The coefficient of every product, ordered for both passes.
#[derive(Clone, Debug)]
pub struct Coefficients<S> {
    by_output: Vec<S>,
    by_input: Vec<S>,
    /// In the order of the products, for what is made of them later.
    all: Vec<S>,
    single: OnceLock<single::Ordered<S>>,
}

impl<S: PartialEq> PartialEq for Coefficients<S> {
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

/// The products whose gradients a window asks for.
#[derive(Clone, Debug)]
pub struct Trained<S> {
    /// Output row and input row of each.
    rows: Vec<(u32, u32)>,
    /// The slot that its gradient counts towards, and by which factor.
    slots: Vec<(u32, S)>,
    /// Slots of the layer.
    lanes: usize,
    single: OnceLock<Samples<S>>,
}

/// An input's spectrum, kept from the forward pass for the backward; one that is used again keeps its memory.
#[derive(Clone, Debug)]
pub struct Spectrum<S> {
    values: Aligned<S>,
    tokens: usize,
}

impl<S> Default for Spectrum<S> {
    fn default() -> Self {
        Self { values: Aligned::default(), tokens: 0 }
    }
}

impl<S: Scalar> Direct<S> {
    /// The sparse form of a layer.
    #[must_use]
    pub fn new(layer: &Layer) -> Self {
        let spec = layer.spec();
        let edge = spec.block;
        let mut sines = [spec.rows, spec.cols].map(|length| vec![BTreeSet::new(); length.div_ceil(edge)]);
        for block in layer.blocks() {
            sines[0][block.row / edge].insert(usize::from(block.frequency.u.unsigned_abs()));
            sines[1][block.col / edge].insert(usize::from(block.frequency.v.unsigned_abs()));
        }
        let outputs = Axis::new(spec.rows, edge, &sines[0]);
        let inputs = Axis::new(spec.cols, edge, &sines[1]);
        let (mut blocks, mut entries) = (Vec::with_capacity(layer.blocks().len()), Vec::new());
        for block in layer.blocks() {
            let (weight, sign) = wave_factors(block);
            let (weight, sign) = (S::from_f64(weight), S::from_f64(sign));
            blocks.push(Products { block: block.clone(), first: entries.len(), weight, sign });
            entries.extend(basis_pairs(layer, block).map(|(output, input)| {
                let (output, input) = (outputs.place(block.row / edge, output), inputs.place(block.col / edge, input));
                Entry { output: output.row, input: input.row, factor: S::from_f64(output.factor * input.factor) }
            }));
        }
        let parts = |axis: &Axis<S>| axis.segments().iter().map(Segment::range).collect::<Vec<_>>().into_iter();
        let by_output = Sparse::new(parts(&outputs), entries.iter().map(|e| (e.output, e.input)));
        let by_input = Sparse::new(parts(&inputs), entries.iter().map(|e| (e.input, e.output)));
        Self { outputs, inputs, blocks, entries, by_output, by_input, single: OnceLock::new() }
    }

    /// The form for a single vector, made when it is first asked for.
    fn single(&self) -> Option<&Single<S>> {
        let make = || {
            let products: Vec<_> = self.entries.iter().map(|entry| (entry.output, entry.input)).collect();
            Single::new(&self.outputs, &self.inputs, &products).map(Box::new)
        };
        self.single.get_or_init(make).as_deref()
    }

    /// Lanes of the layer, in the order of the state, to the coefficient of every product.
    ///
    /// # Panics
    /// If `lanes` is not the layer's.
    #[must_use]
    pub fn coefficients(&self, lanes: &[S]) -> Coefficients<S> {
        let mut all = Vec::with_capacity(self.entries.len());
        for Products { block, weight, sign, .. } in &self.blocks {
            let lanes = &lanes[block.lanes()];
            let (x, y) = (*weight * lanes[0], *weight * lanes[1]);
            all.extend_from_slice(&[x, -(*sign * x), -y, -(*sign * y)]);
            all.extend_from_slice(&lanes[WAVE_LANES..]);
        }
        for (value, entry) in all.iter_mut().zip(&self.entries) {
            *value = *value * entry.factor;
        }
        let (by_output, by_input) = (self.by_output.in_order(&all), self.by_input.in_order(&all));
        Coefficients { by_output, by_input, all, single: OnceLock::new() }
    }

    /// Adds `Δ·x` to `y`: `x` is tokens×inputs, `y` tokens×outputs. Leaves what the backward pass needs in `spectrum`.
    ///
    /// # Panics
    /// If the lengths do not fit the layer.
    pub fn forward(&self, coefficients: &Coefficients<S>, x: &[S], y: &mut [S], spectrum: &mut Spectrum<S>) {
        let tokens = x.len() / self.inputs.length();
        assert_eq!(x.len(), tokens * self.inputs.length(), "x is tokens × inputs");
        assert_eq!(y.len(), tokens * self.outputs.length(), "y is tokens × outputs");
        assert_eq!(coefficients.by_output.len(), self.entries.len(), "one coefficient a product");
        let axes = [&self.outputs, &self.inputs];
        spectrum.tokens = tokens;
        let spectrum = &mut spectrum.values;
        if let (1, Some(single)) = (tokens, self.single()) {
            let ordered = coefficients.single(single);
            return single::Forward { single, axes, ordered, x, y, spectrum }.run();
        }
        let (sparse, coefficients) = (&self.by_output, &coefficients.by_output);
        pulp::Arch::new().dispatch(batch::Forward { axes, sparse, coefficients, x, y, spectrum });
    }

    /// What a backward pass for one window needs, worked out once for as many passes as there are.
    #[must_use]
    pub fn trained(&self, window: &Window) -> Trained<S> {
        let mut products = Vec::new();
        for (number, Products { block, first, weight, sign }) in self.blocks.iter().enumerate() {
            let slot = number * window.width();
            let wave =
                [(slot, *weight), (slot, -(*weight * *sign)), (slot + 1, -*weight), (slot + 1, -(*weight * *sign))];
            let residual = window.residual(block).enumerate();
            let residual = residual.map(|(n, k)| (WAVE_ENTRIES + k, (slot + WAVE_LANES + n, S::from_f64(1.0))));
            for (entry, (slot, factor)) in wave.into_iter().enumerate().chain(residual) {
                let entry = &self.entries[first + entry];
                products.push((entry.input, entry.output, slot, factor * entry.factor));
            }
        }
        // In the order of the input's rows, the larger side, so that it is read front to back.
        products.sort_by_key(|&(input, output, ..)| (input, output));
        let narrow = |row: usize| u32::try_from(row).expect("a layout has at most 2^30 lanes");
        Trained {
            rows: products.iter().map(|&(input, output, ..)| (narrow(output), narrow(input))).collect(),
            slots: products.iter().map(|&(_, _, slot, factor)| (narrow(slot), factor)).collect(),
            lanes: self.blocks.len() * window.width(),
            single: OnceLock::new(),
        }
    }

    /// Adds the input's gradient to `grad_x`, tokens×inputs, where one is given, and returns the gradient of the
    /// window's lanes by slot: `blocks × window.width()`, unused slots zero. `grad_y` is tokens×outputs.
    ///
    /// # Panics
    /// If the lengths do not fit the layer.
    #[must_use]
    pub fn backward(
        &self,
        coefficients: &Coefficients<S>,
        spectrum: &Spectrum<S>,
        grad_y: &[S],
        trained: &Trained<S>,
        grad_x: Option<&mut [S]>,
    ) -> Vec<S> {
        let tokens = spectrum.tokens;
        assert_eq!(grad_y.len(), tokens * self.outputs.length(), "the gradient is tokens × outputs");
        assert_eq!(coefficients.by_input.len(), self.entries.len(), "one coefficient a product");
        if let Some(grad_x) = &grad_x {
            assert_eq!(grad_x.len(), tokens * self.inputs.length(), "the input's gradient is tokens × inputs");
        }
        let axes = [&self.outputs, &self.inputs];
        let spectrum = &spectrum.values;
        if let (1, Some(single)) = (tokens, self.single()) {
            let (ordered, samples) = (coefficients.single(single), trained.single(single));
            return single::Backward { single, axes, ordered, spectrum, grad_y, samples, grad_x }.run();
        }
        let (sparse, coefficients, rows) = (&self.by_input, &coefficients.by_input, &trained.rows);
        let backward = batch::Backward { axes, sparse, coefficients, spectrum, grad_y, rows, grad_x };
        trained.lanes(&pulp::Arch::new().dispatch(backward))
    }
}

impl<S> Default for Trained<S> {
    /// No lane at all.
    fn default() -> Self {
        Self { rows: Vec::new(), slots: Vec::new(), lanes: 0, single: OnceLock::new() }
    }
}

impl<S: Scalar> Coefficients<S> {
    /// In the order that a single vector takes them.
    fn single(&self, single: &Single<S>) -> &single::Ordered<S> {
        self.single.get_or_init(|| single.ordered(&self.all))
    }
}

impl<S: Scalar> Trained<S> {
    /// The products by slot, as a single vector takes them.
    fn single(&self, single: &Single<S>) -> &Samples<S> {
        let products = self.rows.iter().zip(&self.slots);
        let products = products.map(|(&(output, input), &(slot, factor))| (slot, output, input, factor));
        self.single.get_or_init(|| single.samples(self.lanes, products))
    }

    /// Gradients of the lanes, by slot, from those of the products.
    fn lanes(&self, products: &[S]) -> Vec<S> {
        let mut lanes = vec![S::ZERO; self.lanes];
        for (&(slot, factor), &product) in self.slots.iter().zip(products) {
            lanes[slot as usize] += factor * product;
        }
        lanes
    }
}

/// The extended basis indices of a block's products: the wave's four, then the residual's.
/// Index `n` below the edge is a cosine, `edge + n` a sine.
pub(crate) fn basis_pairs<'a>(layer: &'a Layer, block: &Block) -> impl Iterator<Item = (usize, usize)> + use<'a> {
    let u = usize::from(block.frequency.u.unsigned_abs());
    let v = usize::from(block.frequency.v.unsigned_abs());
    let (sine_u, sine_v) = (block.rows + u, block.cols + v);
    let residual = layer.positions(block).iter().map(|p| (usize::from(p.u), usize::from(p.v)));
    [(u, v), (sine_u, sine_v), (sine_u, v), (u, sine_v)].into_iter().chain(residual)
}

/// The coefficients of a wave's four products, in the order of [`basis_pairs`].
pub(crate) fn wave_products(block: &Block, x: f64, y: f64) -> [f64; WAVE_ENTRIES] {
    let (weight, sign) = wave_factors(block);
    let (x, y) = (weight * x, weight * y);
    [x, -(sign * x), -y, -(sign * y)]
}

/// `w = n_w/(α_u·α_v)` and `σ = sign v`.
fn wave_factors(block: &Block) -> (f64, f64) {
    let u = usize::from(block.frequency.u.unsigned_abs());
    let v = usize::from(block.frequency.v.unsigned_abs());
    let weight = block.wave_norm() / (alpha(block.rows, u) * alpha(block.cols, v));
    (weight, if block.frequency.v < 0 { -1.0 } else { 1.0 })
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
            for tokens in [1, 3, 16, 37] {
                let layout = layout(rows, cols, block, residual);
                let layer = &layout.layers()[0];
                let mut stream = Seed::from_number(2).stream();
                let lanes = noise(&mut stream, layer.lanes().len());
                let x = noise(&mut stream, tokens * cols);
                let mut y = vec![1.0; tokens * rows];
                let direct = Direct::new(layer);
                direct.forward(&direct.coefficients(&lanes), &x, &mut y, &mut Spectrum::default());
                let delta = dense(layer, &lanes);
                for (t, i) in (0..tokens).flat_map(|t| (0..rows).map(move |i| (t, i))) {
                    let expected: f64 = (0..cols).map(|j| delta[i * cols + j] * x[t * cols + j]).sum();
                    assert!((y[t * rows + i] - 1.0 - expected).abs() < 1e-12, "{rows}×{cols}, B={block}");
                }
            }
        }
    }

    /// The last of the edges has no form for a single vector.
    #[test]
    fn a_vector_alone_comes_to_what_it_comes_to_in_a_batch() {
        for cols in [24, 10_001, 40_000] {
            let layout = layout(6, cols, 4, 5);
            let layer = &layout.layers()[0];
            let direct = Direct::new(layer);
            assert_eq!(direct.single().is_some(), cols < 32_768);
            let mut stream = Seed::from_number(4).stream();
            let coefficients = direct.coefficients(&noise(&mut stream, layer.lanes().len()));
            let (x, grad_y) = (noise(&mut stream, 2 * cols), noise(&mut stream, 2 * 6));
            let trained = direct.trained(&Window::new(Profile::Plain, 0));
            let pass = |x: &[f64], grad_y: &[f64]| {
                let (mut y, mut grad_x, mut spectrum) =
                    (vec![0.5; grad_y.len()], vec![0.5; x.len()], Spectrum::default());
                direct.forward(&coefficients, x, &mut y, &mut spectrum);
                let lanes = direct.backward(&coefficients, &spectrum, grad_y, &trained, Some(&mut grad_x));
                (y, grad_x, lanes)
            };
            let (y, grad_x, lanes) = pass(&x, &grad_y);
            let ((y_0, grad_x_0, lanes_0), (y_1, grad_x_1, lanes_1)) =
                (pass(&x[..cols], &grad_y[..6]), pass(&x[cols..], &grad_y[6..]));
            let sums = lanes_0.iter().zip(&lanes_1).map(|(a, b)| a + b).collect();
            for (both, alone) in [(y, [y_0, y_1].concat()), (grad_x, [grad_x_0, grad_x_1].concat()), (lanes, sums)] {
                assert!(both.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-11), "{cols}");
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
        for ((rows, cols, block, residual), tokens) in SHAPES.into_iter().flat_map(|shape| [(shape, 1), (shape, 21)]) {
            let layout = layout(rows, cols, block, residual);
            let layer = &layout.layers()[0];
            let window = Window::new(Profile::Plain, 1);
            let mut stream = Seed::from_number(3).stream();
            let lanes = noise(&mut stream, layer.lanes().len());
            let x = noise(&mut stream, tokens * cols);
            let grad_y = noise(&mut stream, tokens * rows);
            let direct = Direct::new(layer);
            let loss = |lanes: &[f64], x: &[f64]| -> f64 {
                let mut y = vec![0.0; tokens * rows];
                direct.forward(&direct.coefficients(lanes), x, &mut y, &mut Spectrum::default());
                y.iter().zip(&grad_y).map(|(y, g)| y * g).sum()
            };
            let nudged = |values: &[f64], at: usize, by: f64| {
                let mut values = values.to_vec();
                values[at] += by;
                values
            };
            let coefficients = direct.coefficients(&lanes);
            // A spectrum that was used before, by more tokens.
            let mut spectrum = Spectrum::default();
            direct.forward(&coefficients, &noise(&mut stream, 40 * cols), &mut vec![0.0; 40 * rows], &mut spectrum);
            direct.forward(&coefficients, &x, &mut vec![0.0; tokens * rows], &mut spectrum);
            let mut grad_x = vec![1.0; tokens * cols];
            let lanes_found =
                direct.backward(&coefficients, &spectrum, &grad_y, &direct.trained(&window), Some(&mut grad_x));
            let step = 1e-4;
            for (index, block) in layer.blocks().iter().enumerate() {
                for (slot, lane) in window.lanes(block).enumerate() {
                    let at = block.lane + lane;
                    let difference = loss(&nudged(&lanes, at, step), &x) - loss(&nudged(&lanes, at, -step), &x);
                    let found = lanes_found[index * window.width() + slot];
                    assert!((found - difference / (2.0 * step)).abs() < 1e-8, "block {index}, lane {lane}");
                }
            }
            for (at, found) in grad_x.into_iter().enumerate() {
                let difference = loss(&lanes, &nudged(&x, at, step)) - loss(&lanes, &nudged(&x, at, -step));
                assert!((found - 1.0 - difference / (2.0 * step)).abs() < 1e-8);
            }
        }
    }
}
