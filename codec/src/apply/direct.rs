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
//! products, against `n²` for the dense layer. A batch goes tile by tile, vectorised over tokens; a single
//! vector is vectorised over its segments instead (`single.rs`).

use std::collections::BTreeSet;

use pulp::{Simd, WithSimd};

use crate::apply::axis::Axis;
use crate::apply::single;
use crate::apply::tile::{Sparse, add_products, total};
use crate::apply::transpose::Turn;
use crate::basis::alpha;
use crate::layout::{Block, Layer, WAVE_LANES};
use crate::scalar::Scalar;
use crate::window::Window;

/// Products that a wave is made of.
const WAVE_ENTRIES: usize = 4;
/// Tokens of a tile: one AVX-512 register of `f32`.
const TILE: usize = 16;

/// The sparse form of one layer's Δ: what is fixed by the layout.
#[derive(Clone, Debug)]
pub struct Direct<S> {
    outputs: Axis<S>,
    inputs: Axis<S>,
    blocks: Vec<Products<S>>,
    entries: Vec<Entry<S>>,
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

/// A product of one output and one input basis vector, by spectrum row, and what the rows' factors come to.
#[derive(Clone, Copy, Debug)]
struct Entry<S> {
    output: usize,
    input: usize,
    factor: S,
}

/// The coefficient of every product, ordered for both passes.
#[derive(Clone, Debug, PartialEq)]
pub struct Coefficients<S> {
    by_output: Vec<S>,
    by_input: Vec<S>,
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
}

/// An input's spectrum, kept from the forward pass for the backward; one that is used again keeps its memory.
#[derive(Clone, Debug)]
pub struct Spectrum<S> {
    tiles: Vec<S>,
    tokens: usize,
}

impl<S> Default for Spectrum<S> {
    fn default() -> Self {
        Self { tiles: Vec::new(), tokens: 0 }
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
        let by_output = Sparse::new(outputs.rows(), entries.iter().map(|e| (e.output, e.input)));
        let by_input = Sparse::new(inputs.rows(), entries.iter().map(|e| (e.input, e.output)));
        Self { outputs, inputs, blocks, entries, by_output, by_input }
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
        Coefficients { by_output: self.by_output.in_order(&all), by_input: self.by_input.in_order(&all) }
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
        pulp::Arch::new().dispatch(Forward { direct: self, coefficients, x, y, spectrum: &mut spectrum.tiles, tokens });
        spectrum.tokens = tokens;
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
        let rows = &trained.rows;
        let backward = Backward { direct: self, coefficients, spectrum, grad_y, rows, grad_x };
        trained.lanes(&pulp::Arch::new().dispatch(backward))
    }
}

impl<S> Default for Trained<S> {
    /// No lane at all.
    fn default() -> Self {
        Self { rows: Vec::new(), slots: Vec::new(), lanes: 0 }
    }
}

impl<S: Scalar> Trained<S> {
    /// Gradients of the lanes, by slot, from those of the products.
    fn lanes(&self, products: &[S]) -> Vec<S> {
        let mut lanes = vec![S::ZERO; self.lanes];
        for (&(slot, factor), &product) in self.slots.iter().zip(products) {
            lanes[slot as usize] += factor * product;
        }
        lanes
    }
}

/// The forward pass, to be compiled once for every instruction set. (A closure would not be inlined
/// into the function that has the wider registers, so these are types.)
struct Forward<'a, S> {
    direct: &'a Direct<S>,
    coefficients: &'a Coefficients<S>,
    x: &'a [S],
    y: &'a mut [S],
    spectrum: &'a mut Vec<S>,
    tokens: usize,
}

impl<S: Scalar> WithSimd for Forward<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) {
        let Self { direct: Direct { inputs, outputs, by_output, .. }, coefficients, x, y, spectrum, tokens } = self;
        let turn = Turn::new();
        if tokens == 1 {
            // A sine of frequency 0 is not written.
            spectrum.clear();
            spectrum.resize(inputs.rows(), S::ZERO);
            single::project(inputs, turn, x, spectrum);
            let mut products = vec![S::ZERO; outputs.rows()];
            by_output.product_of_one(&coefficients.by_output, spectrum, &mut products);
            single::expand(outputs, turn, &products, y);
            return;
        }
        spectrum.resize(inputs.rows() * tokens.next_multiple_of(TILE), S::ZERO);
        let mut products = vec![[S::ZERO; TILE]; outputs.rows()];
        for (n, tile) in spectrum.as_chunks_mut().0.chunks_exact_mut(inputs.rows()).enumerate() {
            inputs.project(turn, x, n * TILE, tile);
            by_output.product(&coefficients.by_output, tile, &mut products);
            outputs.expand(turn, &mut products, y, n * TILE);
        }
    }
}

/// The backward pass, likewise.
struct Backward<'a, S> {
    direct: &'a Direct<S>,
    coefficients: &'a Coefficients<S>,
    spectrum: &'a Spectrum<S>,
    grad_y: &'a [S],
    rows: &'a [(u32, u32)],
    grad_x: Option<&'a mut [S]>,
}

impl<S: Scalar> WithSimd for Backward<'_, S> {
    /// The gradients of the products, in the order of the rows.
    type Output = Vec<S>;

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) -> Self::Output {
        let Self { direct: Direct { inputs, outputs, by_input, .. }, coefficients, spectrum, grad_y, rows, mut grad_x } =
            self;
        let turn = Turn::new();
        if spectrum.tokens == 1 {
            let mut grad = vec![S::ZERO; outputs.rows()];
            single::project(outputs, turn, grad_y, &mut grad);
            let product = |&(output, input): &(u32, u32)| grad[output as usize] * spectrum.tiles[input as usize];
            let products = rows.iter().map(product).collect();
            if let Some(grad_x) = grad_x {
                let mut back = vec![S::ZERO; inputs.rows()];
                by_input.product_of_one(&coefficients.by_input, &grad, &mut back);
                single::expand(inputs, turn, &back, grad_x);
            }
            return products;
        }
        let mut grad = vec![[S::ZERO; TILE]; outputs.rows()];
        let mut back = vec![[S::ZERO; TILE]; inputs.rows()];
        let mut sums = vec![[S::ZERO; TILE]; rows.len()];
        for (n, spectrum) in spectrum.tiles.as_chunks::<TILE>().0.chunks_exact(inputs.rows()).enumerate() {
            outputs.project(turn, grad_y, n * TILE, &mut grad);
            for (sums, &(output, input)) in sums.iter_mut().zip(rows) {
                add_products(sums, &grad[output as usize], &spectrum[input as usize]);
            }
            if let Some(grad_x) = &mut grad_x {
                by_input.product(&coefficients.by_input, &grad, &mut back);
                inputs.expand(turn, &mut back, grad_x, n * TILE);
            }
        }
        sums.into_iter().map(total).collect()
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
