//! Bytes to values, fast: the coefficients and all smooth functions but `d` as one sparse inverse transform.
//!
//! `1`, `cos πy`, `cos 2πy` and `y²`, and the same of x, stand beside the basis vectors; `d` is a table to which
//! the products are added. All of them are even, so under the DCT a quarter of the block gives the rest. It
//! chooses nothing.

use super::HybridSpec;
use super::error::HybridError;
use super::format::HybridBlock;
use super::smooth::{centres, smooth_at};
use super::transform::Transform;
use crate::apply::sparse_inverse::{Expand, SparseInverse};
use crate::apply::vectors::{TILE_ROWS, Vectors};
use crate::scalar::Scalar;

/// Smooth vectors of an edge: `1, cos πt, cos 2πt, t²`, after its basis vectors.
const SMOOTH_VECTORS: usize = 4;

/// Decodes blocks of one shape, transform and format without allocating for each.
#[derive(Clone, Debug)]
pub struct HybridDecoder {
    tables: Tables,
    inverse: SparseInverse,
    /// Room for what is parsed.
    block: HybridBlock,
}

/// What depends on the shape and transform alone.
#[derive(Clone, Debug)]
struct Tables {
    spec: HybridSpec,
    rows: Vectors,
    cols: Vectors,
    /// `d` on what is kept of the rows, in whole tiles, and of the columns.
    radius: Vec<f32>,
}

impl HybridDecoder {
    /// A decoder; its tables take up to about three times the memory of a large block in `f32`.
    #[must_use]
    pub fn new(spec: HybridSpec) -> Self {
        Self { tables: Tables::new(spec), inverse: SparseInverse::default(), block: HybridBlock::empty(spec) }
    }

    /// Shape, transform and format.
    #[must_use]
    pub const fn spec(&self) -> &HybridSpec {
        &self.tables.spec
    }

    /// Decodes one whole block to rows×cols values.
    ///
    /// # Errors
    /// If `out` is not of this shape or the bytes are not one whole block; `out` is then as it was. Allocates only
    /// where a block needs more room than any before it, and for the words of the range-coded form.
    pub fn decode_into(&mut self, bytes: &[u8], out: &mut [f32]) -> Result<(), HybridError> {
        let end = self.parse(bytes, 0, out.len())?;
        if end < bytes.len() {
            return Err(HybridError::LeftOver { offset: end, bytes: bytes.len() });
        }
        self.expand(out);
        Ok(())
    }

    /// Decodes the block that begins at byte `offset`; the offset of its end.
    pub(super) fn decode_next(&mut self, bytes: &[u8], offset: usize, out: &mut [f32]) -> Result<usize, HybridError> {
        let end = self.parse(bytes, offset, out.len())?;
        self.expand(out);
        Ok(end)
    }

    /// Expands a block of the same shape and transform, in whatever format.
    ///
    /// # Errors
    /// If the block or `out` is of another shape or transform.
    pub fn decode_block(&mut self, block: &HybridBlock, out: &mut [f32]) -> Result<(), HybridError> {
        let HybridSpec { rows, cols, transform, .. } = self.tables.spec;
        let of = block.spec;
        if (of.rows, of.cols, of.transform) != (rows, cols, transform) || out.len() != rows * cols {
            return Err(HybridError::Length { values: out.len(), rows: of.rows, cols: of.cols });
        }
        expand(&self.tables, &mut self.inverse, block, out);
        Ok(())
    }

    fn parse(&mut self, bytes: &[u8], offset: usize, room: usize) -> Result<usize, HybridError> {
        let HybridSpec { rows, cols, .. } = self.tables.spec;
        if room != rows * cols {
            return Err(HybridError::Length { values: room, rows, cols });
        }
        self.block.read(bytes, offset)
    }

    fn expand(&mut self, out: &mut [f32]) {
        expand(&self.tables, &mut self.inverse, &self.block, out);
    }
}

impl Tables {
    fn new(spec: HybridSpec) -> Self {
        let HybridSpec { rows: height, cols: width, transform, .. } = spec;
        let (rows, cols) = (edge(transform, height), edge(transform, width));
        let mut radius = vec![0.0; rows.kept().next_multiple_of(TILE_ROWS) * cols.stride()];
        for (row, y) in radius.chunks_exact_mut(cols.stride()).zip(centres(height)) {
            for (radius, x) in row.iter_mut().zip(centres(width)) {
                let [_, d, ..] = smooth_at(x, y);
                *radius = f32::from_f64(d);
            }
        }
        Self { spec, rows, cols, radius }
    }
}

/// The basis vectors of an edge and the four smooth ones.
fn edge(transform: Transform, size: usize) -> Vectors {
    let smooth = centres(size).map(|t| {
        let [one, _, square, cos, _, cos_2, ..] = smooth_at(t, 0.0);
        [one, cos, cos_2, square]
    });
    let smooth: Vec<[f64; SMOOTH_VECTORS]> = smooth.collect();
    let mut vectors = transform.matrix(size);
    vectors.extend((0..SMOOTH_VECTORS).flat_map(|k| smooth.iter().map(move |smooth| smooth[k])));
    match transform {
        Transform::Dct => {
            let odd = (0..size).map(|u| u % 2 == 1).chain([false; SMOOTH_VECTORS]);
            Vectors::mirrored(size, &vectors, odd.collect())
        }
        Transform::Haar | Transform::Daubechies4 => Vectors::whole(size, &vectors),
    }
}

fn expand(tables: &Tables, inverse: &mut SparseInverse, block: &HybridBlock, out: &mut [f32]) {
    let Tables { spec: HybridSpec { cols: stride, .. }, rows, cols, radius } = tables;
    let [_, weight, ..] = block.weights;
    let format = block.spec.format;
    let coefficients = block.entries.iter().map(|entry| {
        let value = format.value(entry.code, block.scale);
        (usize::from(entry.row), usize::from(entry.col), value)
    });
    let coefficients = smooth_products(block).into_iter().chain(coefficients);
    let (ground, stride) = (Some((weight, radius.as_slice())), *stride);
    pulp::Arch::new().dispatch(Expand { inverse, rows, cols, coefficients, ground, out, stride });
}

/// The smooth functions but `d` as products of a row's and a column's vector; `d²` is `x² + y²`.
fn smooth_products(block: &HybridBlock) -> [(usize, usize, f32); 8] {
    let HybridSpec { rows, cols, .. } = block.spec;
    let [one, _, square, cos_x, cos_y, cos_2x, cos_2y, cos_xy] = block.weights;
    let products = [
        (0, 0, one),
        (0, 1, cos_x),
        (0, 2, cos_2x),
        (0, 3, square),
        (1, 0, cos_y),
        (1, 1, cos_xy),
        (2, 0, cos_2y),
        (3, 0, square),
    ];
    products.map(|(u, v, weight)| (rows + u, cols + v, weight))
}
