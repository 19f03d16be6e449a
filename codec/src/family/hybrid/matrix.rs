//! A matrix as hybrid blocks, row by row of blocks, those at the bottom and right edge smaller.
//!
//! The bytes are the blocks' bytes end to end; size, block edge, transform and format are the caller's. It knows
//! neither how a block is made nor how it is written.

use std::collections::BTreeMap;

use super::HybridSpec;
use super::decoder::HybridDecoder;
use super::encoder::{HybridEncoder, Selection};
use super::error::HybridError;
use super::format::HybridFormat;
use super::smooth::SMOOTH;
use super::transform::Transform;

/// How a matrix is cut and encoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HybridPlan {
    /// Edge of a block.
    pub block: usize,
    /// The transform of all blocks, or none to take the one that measures best over the matrix.
    pub transform: Option<Transform>,
    /// How blocks are written.
    pub format: HybridFormat,
    /// Coefficients of each block.
    pub selection: Selection,
}

/// A matrix, encoded.
#[derive(Clone, Debug, PartialEq)]
pub struct HybridMatrix {
    /// Rows of the matrix.
    pub rows: usize,
    /// Columns of the matrix.
    pub cols: usize,
    /// Edge of a block.
    pub block: usize,
    /// The transform of all blocks.
    pub transform: Transform,
    /// How blocks are written.
    pub format: HybridFormat,
    /// The blocks.
    pub bytes: Vec<u8>,
    /// Coefficients of all blocks.
    pub coefficients: usize,
    /// Root of the mean squared difference between the matrix and what a decoder gives.
    pub rmse: f64,
}

impl HybridMatrix {
    /// Bytes of the matrix in `f32` to bytes of the blocks.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        (4 * self.rows * self.cols) as f64 / self.bytes.len() as f64
    }

    /// The matrix that the bytes stand for.
    ///
    /// # Errors
    /// As [`decode_matrix`].
    pub fn decode(&self) -> Result<Vec<f32>, HybridError> {
        decode_matrix(&self.bytes, (self.rows, self.cols), self.block, self.transform, self.format)
    }
}

/// Where a block lies, and its shape.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    col: usize,
    rows: usize,
    cols: usize,
}

fn places(rows: usize, cols: usize, block: usize) -> impl Iterator<Item = Place> {
    let place =
        move |row: usize, col: usize| Place { row, col, rows: block.min(rows - row), cols: block.min(cols - col) };
    (0..rows).step_by(block).flat_map(move |row| (0..cols).step_by(block).map(move |col| place(row, col)))
}

/// Encodes `rows`×`cols` values.
///
/// # Errors
/// If the values are not of this size, the block edge is outside the format's, a wavelet meets an edge (of a smaller
/// block as well) that is no power of two, or a block cannot be encoded.
pub fn encode_matrix(
    values: &[f32],
    (rows, cols): (usize, usize),
    plan: &HybridPlan,
) -> Result<HybridMatrix, HybridError> {
    check_size(rows, cols, plan.block, plan.format)?;
    if values.len() != rows * cols {
        return Err(HybridError::Length { values: values.len(), rows, cols });
    }
    let transform = match plan.transform {
        Some(transform) => transform,
        None => best_transform(values, (rows, cols), plan)?,
    };
    let mut encoders = Encoders { transform, format: plan.format, by_shape: BTreeMap::new() };
    let (mut bytes, mut coefficients, mut squares) = (Vec::new(), 0, 0.0);
    for place in places(rows, cols, plan.block) {
        let encoded = encoders.get(place)?.encode(&cut(values, cols, place), plan.selection)?;
        bytes.extend(encoded.block.to_bytes());
        coefficients += encoded.block.coefficients().len();
        squares += encoded.rmse * encoded.rmse * (place.rows * place.cols) as f64;
    }
    let rmse = (squares / (rows * cols) as f64).sqrt();
    Ok(HybridMatrix { rows, cols, block: plan.block, transform, format: plan.format, bytes, coefficients, rmse })
}

/// Decodes blocks laid end to end to `rows`×`cols` values.
///
/// # Errors
/// If the sizes do not go together or the bytes are not exactly these blocks. Nothing is allocated for a matrix whose
/// blocks could not fit into the bytes; beyond that the caller's size is the bound.
pub fn decode_matrix(
    bytes: &[u8],
    (rows, cols): (usize, usize),
    block: usize,
    transform: Transform,
    format: HybridFormat,
) -> Result<Vec<f32>, HybridError> {
    check_size(rows, cols, block, format)?;
    let needed = rows.div_ceil(block).saturating_mul(cols.div_ceil(block)).saturating_mul(BLOCK_BYTES_MIN);
    if bytes.len() < needed {
        return Err(HybridError::Truncated { offset: 0, needed, bytes: bytes.len() });
    }
    let mut decoders = BTreeMap::new();
    let mut values = vec![0.0; rows * cols];
    let mut room = vec![0.0; block.min(rows) * block.min(cols)];
    let mut offset = 0;
    for place in places(rows, cols, block) {
        let shape = (place.rows, place.cols);
        if let std::collections::btree_map::Entry::Vacant(vacant) = decoders.entry(shape) {
            vacant.insert(HybridDecoder::new(HybridSpec::new(place.rows, place.cols, transform, format)?));
        }
        let decoder = decoders.get_mut(&shape).expect("inserted above");
        let room = &mut room[..place.rows * place.cols];
        offset = decoder.decode_next(bytes, offset, room)?;
        for (i, row) in room.chunks_exact(place.cols).enumerate() {
            values[(place.row + i) * cols + place.col..][..place.cols].copy_from_slice(row);
        }
    }
    if offset < bytes.len() { Err(HybridError::LeftOver { offset, bytes: bytes.len() }) } else { Ok(values) }
}

/// Weights and a count.
const BLOCK_BYTES_MIN: usize = 4 * SMOOTH + 1;

fn check_size(rows: usize, cols: usize, block: usize, format: HybridFormat) -> Result<(), HybridError> {
    if block == 0 || block > format.edge_max() {
        return Err(HybridError::Edge { edge: block, max: format.edge_max() });
    }
    let max = isize::MAX.unsigned_abs() / rows.max(cols).max(1) / size_of::<f32>();
    match rows.min(cols) {
        0 => Err(HybridError::Edge { edge: 0, max }),
        least if least > max => Err(HybridError::Edge { edge: least, max }),
        _ => Ok(()),
    }
}

/// The transform whose blocks miss the least energy, or take the fewest coefficients, in sum.
fn best_transform(values: &[f32], (rows, cols): (usize, usize), plan: &HybridPlan) -> Result<Transform, HybridError> {
    let mut best = (Transform::Dct, f64::INFINITY);
    for transform in Transform::ALL {
        if places(rows, cols, plan.block).any(|p| transform.check(p.rows).and(transform.check(p.cols)).is_err()) {
            continue;
        }
        let mut encoders = Encoders { transform, format: plan.format, by_shape: BTreeMap::new() };
        let mut cost = 0.0;
        for place in places(rows, cols, plan.block) {
            cost += encoders.get(place)?.cost(&cut(values, cols, place), plan.selection)?;
        }
        if cost < best.1 {
            best = (transform, cost);
        }
    }
    Ok(best.0)
}

/// One encoder for every shape that was met; a matrix has at most four.
struct Encoders {
    transform: Transform,
    format: HybridFormat,
    by_shape: BTreeMap<(usize, usize), HybridEncoder>,
}

impl Encoders {
    fn get(&mut self, Place { rows, cols, .. }: Place) -> Result<&mut HybridEncoder, HybridError> {
        let spec = HybridSpec::new(rows, cols, self.transform, self.format)?;
        Ok(self.by_shape.entry((rows, cols)).or_insert_with(|| HybridEncoder::new(spec)))
    }
}

fn cut(values: &[f32], cols: usize, place: Place) -> Vec<f32> {
    let row = |i: usize| &values[(place.row + i) * cols + place.col..][..place.cols];
    (0..place.rows).flat_map(row).copied().collect()
}
