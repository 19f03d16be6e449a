//! One packed block to its values: the wave's four products and the residual's in one sparse inverse transform.
//!
//! The wave is read from Seed0, the quantized inference seed. What an edge needs is made when it is first met. It
//! knows neither what the values are for nor how long they are kept.

use std::collections::BTreeMap;

use crate::apply::direct::{basis_pairs, wave_products};
use crate::apply::sparse_inverse::{Expand, SparseInverse};
use crate::apply::vectors::Vectors;
use crate::layout::{Block, Layer};
use crate::packed::Packed128;
use crate::scalar::Scalar;

/// Decodes blocks without allocating for each.
#[derive(Clone, Debug, Default)]
pub(crate) struct BlockDecoder {
    edges: BTreeMap<usize, Vectors>,
    inverse: SparseInverse,
}

impl BlockDecoder {
    /// Writes a block row by row: `out` begins with its first value, the next row begins `stride` values further.
    ///
    /// # Panics
    /// If `coefficients` is not of this block, or `out` is too short.
    pub(crate) fn by_rows(
        &mut self,
        (layer, block): (&Layer, &Block),
        wave: Packed128,
        coefficients: &[f32],
        out: &mut [f32],
        stride: usize,
    ) {
        let products = products(layer, block, wave, coefficients);
        self.expand((block.rows, block.cols), products, out, stride);
    }

    /// Writes a block of rows × cols column by column.
    ///
    /// # Panics
    /// As [`BlockDecoder::by_rows`].
    pub(crate) fn by_columns(
        &mut self,
        (layer, block): (&Layer, &Block),
        wave: Packed128,
        coefficients: &[f32],
        out: &mut [f32],
    ) {
        let products = products(layer, block, wave, coefficients).map(|(u, v, value)| (v, u, value));
        self.expand((block.cols, block.rows), products, out, block.rows);
    }

    fn expand(
        &mut self,
        (rows, cols): (usize, usize),
        coefficients: impl Iterator<Item = (usize, usize, f32)>,
        out: &mut [f32],
        stride: usize,
    ) {
        let Self { edges, inverse } = self;
        for edge in [rows, cols] {
            edges.entry(edge).or_insert_with(|| Vectors::cosines_and_sines(edge));
        }
        let (rows, cols) = (&edges[&rows], &edges[&cols]);
        pulp::Arch::new().dispatch(Expand { inverse, rows, cols, coefficients, ground: None, out, stride });
    }
}

/// Row vector, column vector and coefficient of every product of a block.
fn products(
    layer: &Layer,
    block: &Block,
    wave: Packed128,
    coefficients: &[f32],
) -> impl Iterator<Item = (usize, usize, f32)> {
    assert_eq!(coefficients.len(), block.residual, "one coefficient a position");
    let (x, y) = wave.quantized_z(layer.gain());
    let wave = wave_products(block, x, y).map(f32::from_f64);
    basis_pairs(layer, block).zip(wave.into_iter().chain(coefficients.iter().copied())).map(|((u, v), c)| (u, v, c))
}
