//! A batch of vectors: Δ·x and its gradients tile by tile, vectorised over tokens.
//!
//! What one segment of an edge comes to is transformed back while it is in the nearest cache, and the gradients of
//! its products are summed over a few tiles at a time; so little beyond the spectra passes through the next cache,
//! which matters more than any operation. It knows no lanes.

use pulp::{Simd, WithSimd};

use crate::apply::aligned::Aligned;
use crate::apply::axis::Axis;
use crate::apply::tile::{Sparse, add_product_of_tiles, total};
use crate::apply::transpose::Turn;
use crate::scalar::Scalar;

/// Tokens of a tile: one AVX-512 register of `f32`.
const TILE: usize = 16;
/// Most tiles whose gradients are kept at once, and most bytes that they may take for it.
const TILES_MAX: usize = 4;
const TILES_BYTES_MAX: usize = 256 << 10;

/// A row of a tile.
type Row<S> = [S; TILE];

/// The forward pass, to be compiled once for every instruction set. (A closure would not be inlined
/// into the function that has the wider registers, so these are types.)
pub(crate) struct Forward<'a, S> {
    pub(crate) axes: [&'a Axis<S>; 2],
    pub(crate) sparse: &'a Sparse,
    pub(crate) coefficients: &'a [S],
    pub(crate) x: &'a [S],
    pub(crate) y: &'a mut [S],
    pub(crate) spectrum: &'a mut Aligned<S>,
}

impl<S: Scalar> WithSimd for Forward<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) {
        let Self { axes: [outputs, inputs], sparse, coefficients, x, y, spectrum } = self;
        let turn = Turn::new();
        let tokens = x.len() / inputs.length();
        let spectrum = spectrum.resized(inputs.rows() * tokens.next_multiple_of(TILE));
        let mut products = Aligned::zeroed(longest(outputs) * TILE);
        let products: &mut [Row<S>] = products.get_mut().as_chunks_mut().0;
        for (n, tile) in spectrum.as_chunks_mut().0.chunks_exact_mut(inputs.rows()).enumerate() {
            inputs.project(turn, x, n * TILE, tile);
            for (part, segment) in outputs.segments().iter().enumerate() {
                let products = &mut products[..segment.rows()];
                sparse.product(part, coefficients, tile, products);
                outputs.expand(turn, segment, products, y, n * TILE);
            }
        }
    }
}

/// The backward pass, likewise.
pub(crate) struct Backward<'a, S> {
    pub(crate) axes: [&'a Axis<S>; 2],
    pub(crate) sparse: &'a Sparse,
    pub(crate) coefficients: &'a [S],
    pub(crate) spectrum: &'a Aligned<S>,
    pub(crate) grad_y: &'a [S],
    /// Output row and input row of the products whose gradients are asked for, in the order of the input rows.
    pub(crate) rows: &'a [(u32, u32)],
    pub(crate) grad_x: Option<&'a mut [S]>,
}

impl<S: Scalar> WithSimd for Backward<'_, S> {
    /// The gradients of the products, in the order of the rows.
    type Output = Vec<S>;

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) -> Vec<S> {
        let Self { axes: [outputs, inputs], sparse, coefficients, spectrum, grad_y, rows, mut grad_x } = self;
        let turn = Turn::new();
        let tiles = (TILES_BYTES_MAX / (outputs.rows() * size_of::<Row<S>>()).max(1)).clamp(1, TILES_MAX);
        let (mut grads, mut sums) =
            (Aligned::zeroed(tiles * outputs.rows() * TILE), Aligned::zeroed(rows.len() * TILE));
        let mut back = Aligned::zeroed(longest(inputs) * TILE);
        let grads: &mut [Row<S>] = grads.get_mut().as_chunks_mut().0;
        let sums: &mut [Row<S>] = sums.get_mut().as_chunks_mut().0;
        let back: &mut [Row<S>] = back.get_mut().as_chunks_mut().0;
        let spectra: &[Row<S>] = spectrum.get().as_chunks().0;
        for (n, spectra) in spectra.chunks(tiles * inputs.rows()).enumerate() {
            let count = spectra.len() / inputs.rows();
            let grads = &mut grads[..count * outputs.rows()];
            let token = |tile: usize| (n * tiles + tile) * TILE;
            for (tile, grad) in grads.chunks_exact_mut(outputs.rows()).enumerate() {
                outputs.project(turn, grad_y, token(tile), grad);
            }
            let (mut sums, mut rows) = (&mut *sums, rows);
            for (part, segment) in inputs.segments().iter().enumerate() {
                let here = rows.partition_point(|&(_, input)| (input as usize) < segment.range().end);
                let (now, later) = rows.split_at(here);
                let (of_now, of_later) = sums.split_at_mut(here);
                (rows, sums) = (later, of_later);
                for (sums, &(output, input)) in of_now.iter_mut().zip(now) {
                    let (a, b) = (&grads[output as usize..], &spectra[input as usize..]);
                    add_product_of_tiles(sums, (a, outputs.rows()), (b, inputs.rows()), count);
                }
                if let Some(grad_x) = &mut grad_x {
                    let back = &mut back[..segment.rows()];
                    for (tile, grad) in grads.chunks_exact(outputs.rows()).enumerate() {
                        sparse.product(part, coefficients, grad, back);
                        inputs.expand(turn, segment, back, grad_x, token(tile));
                    }
                }
            }
        }
        sums.iter().copied().map(total).collect()
    }
}

/// Rows of the longest segment's spectrum.
#[inline(always)]
fn longest<S: Scalar>(axis: &Axis<S>) -> usize {
    axis.segments().iter().map(|segment| segment.rows()).max().unwrap_or(0)
}
