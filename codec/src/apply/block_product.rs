//! The product of one decoded block with tokens, forward and transposed.
//!
//! A block is stored column by column. A few tokens go one by one: forward as sums of columns,
//! transposed as a dot product a column. A batch goes in tiles of tokens, feature-major: one weight
//! meets a register of tokens, whichever way round the block is read. Every sum has one fixed order. It does
//! not know how a block came about, nor what is kept of it.

use pulp::{Simd, WithSimd};

use crate::layout::Block;
use crate::wave::dot;

/// Tokens of a tile: one AVX-512 register.
const TOKENS: usize = 16;
/// Fewer tokens than this are not worth a tile.
const TILED_MIN: usize = 4;
/// Results that are summed at once, so that additions overlap.
const SUMS: usize = 8;

/// Tokens of features, in a tile.
type Tile = Vec<[f32; TOKENS]>;

/// Buffers of a tile on either side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tiles {
    from: Tile,
    to: Tile,
}

/// One block and the vectors that it multiplies; to be compiled once for every instruction set.
pub(crate) struct BlockProduct<'a> {
    pub(crate) block: &'a Block,
    /// Column by column.
    pub(crate) values: &'a [f32],
    pub(crate) tiles: &'a mut Tiles,
    pub(crate) direction: Direction,
    /// Tokens × features of the side that is read, and the number of features.
    pub(crate) from: (&'a [f32], usize),
    /// The same of the side that is added to.
    pub(crate) to: (&'a mut [f32], usize),
}

/// Which way round a block is read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    /// Inputs to outputs.
    Forward,
    /// Gradients of outputs to gradients of inputs.
    Transposed,
}

impl WithSimd for BlockProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) {
        let Self { block, values, tiles, direction, from: (from, from_width), to: (to, to_width) } = self;
        let (input, output) = ((block.col, block.cols), (block.row, block.rows));
        let ((from_first, depth), (to_first, count), steps) = match direction {
            Direction::Forward => (input, output, (1, block.rows)),
            Direction::Transposed => (output, input, (block.rows, 1)),
        };
        if from.len() < TILED_MIN * from_width {
            for (from, to) in from.chunks_exact(from_width).zip(to.chunks_exact_mut(to_width)) {
                let (from, to) = (&from[from_first..][..depth], &mut to[to_first..][..count]);
                match direction {
                    Direction::Forward => add_columns(values, from, to),
                    Direction::Transposed => add_dots(values, from, to),
                }
            }
            return;
        }
        for (from, to) in from.chunks(TOKENS * from_width).zip(to.chunks_mut(TOKENS * to_width)) {
            gather(from, from_width, from_first, depth, &mut tiles.from);
            product(values, steps, count, tiles);
            scatter_add(&tiles.to, to, to_width, to_first);
        }
    }
}

/// `to += Σ_j from[j]·column j`.
#[inline(always)]
fn add_columns(values: &[f32], from: &[f32], to: &mut [f32]) {
    let rows = to.len();
    let mut first = 0;
    while first + 16 <= rows {
        add_rows::<16>(values, rows, first, from, to);
        first += 16;
    }
    while first + 4 <= rows {
        add_rows::<4>(values, rows, first, from, to);
        first += 4;
    }
    while first < rows {
        add_rows::<1>(values, rows, first, from, to);
        first += 1;
    }
}

#[inline(always)]
fn add_rows<const N: usize>(values: &[f32], rows: usize, first: usize, from: &[f32], to: &mut [f32]) {
    let mut sums = [0.0; N];
    for (column, &x) in values.chunks_exact(rows).zip(from) {
        for (sum, &value) in sums.iter_mut().zip(&column[first..first + N]) {
            *sum += value * x;
        }
    }
    for (to, sum) in to[first..first + N].iter_mut().zip(sums) {
        *to += sum;
    }
}

/// `to[j] += column j · from`.
#[inline(always)]
fn add_dots(values: &[f32], from: &[f32], to: &mut [f32]) {
    for (column, to) in values.chunks_exact(from.len()).zip(to) {
        *to += dot(column, from);
    }
}

/// The transpose of some features of at most a tile of tokens, padded with zeros.
#[inline(always)]
fn gather(tokens: &[f32], width: usize, first: usize, count: usize, tile: &mut Tile) {
    tile.clear();
    tile.resize(count, [0.0; TOKENS]);
    for (t, token) in tokens.chunks_exact(width).enumerate() {
        for (feature, &value) in tile.iter_mut().zip(&token[first..]) {
            feature[t] = value;
        }
    }
}

#[inline(always)]
fn scatter_add(tile: &Tile, tokens: &mut [f32], width: usize, first: usize) {
    for (t, token) in tokens.chunks_exact_mut(width).enumerate() {
        for (value, feature) in token[first..].iter_mut().zip(tile) {
            *value += feature[t];
        }
    }
}

/// `to[r] = Σ_k values[r·steps.0 + k·steps.1]·from[k]`.
#[inline(always)]
fn product(values: &[f32], steps: (usize, usize), count: usize, tiles: &mut Tiles) {
    let Tiles { from, to } = tiles;
    to.clear();
    to.resize(count, [0.0; TOKENS]);
    let (many, rest) = to.as_chunks_mut::<SUMS>();
    let first_of_rest = SUMS * many.len();
    for (n, to) in many.iter_mut().enumerate() {
        product_rows(&values[n * SUMS * steps.0..], steps, from, to);
    }
    for (n, to) in rest.iter_mut().enumerate() {
        product_rows(&values[(first_of_rest + n) * steps.0..], steps, from, std::array::from_mut(to));
    }
}

#[inline(always)]
fn product_rows<const N: usize>(
    values: &[f32],
    steps: (usize, usize),
    from: &[[f32; TOKENS]],
    to: &mut [[f32; TOKENS]; N],
) {
    let mut sums = [[0.0; TOKENS]; N];
    for (k, from) in from.iter().enumerate() {
        for (r, sums) in sums.iter_mut().enumerate() {
            let weight = values[r * steps.0 + k * steps.1];
            for (sum, &from) in sums.iter_mut().zip(from) {
                *sum += weight * from;
            }
        }
    }
    *to = sums;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layout::{LayerSpec, Layout};
    use crate::scalar::Scalar;
    use crate::seed::Seed;

    proptest! {
        #[test]
        fn any_block_multiplies_as_its_definition(
            rows in 1..50usize, cols in 1..50usize, block in 1..50usize, tokens in 0..40usize, seed: u64,
        ) {
            let spec = LayerSpec { name: "w".into(), rows, cols, block, residual: 0, gain_exponent: 0 };
            let layout = Layout::new(&Seed::from_number(1), vec![spec]).unwrap();
            let block = layout.layers()[0].blocks().last().unwrap();
            let mut stream = Seed::from_number(seed).stream();
            let mut noise = |n: usize| (0..n).map(|_| f32::from_f64(2.0 * stream.unit() - 1.0)).collect::<Vec<_>>();
            let (values, x, grad_y) = (noise(block.rows * block.cols), noise(tokens * cols), noise(tokens * rows));
            let (mut y, mut grad_x) = (vec![1.0; tokens * rows], vec![1.0; tokens * cols]);
            let (mut exact_y, mut exact_grad_x) = (y.clone(), grad_x.clone());
            for t in 0..tokens {
                for (at, value) in values.iter().enumerate() {
                    let (i, j) = (t * rows + block.row + at % block.rows, t * cols + block.col + at / block.rows);
                    exact_y[i] += value * x[j];
                    exact_grad_x[j] += value * grad_y[i];
                }
            }
            let (values, arch, tiles) = (&values[..], pulp::Arch::new(), &mut Tiles::default());
            let direction = Direction::Forward;
            arch.dispatch(BlockProduct { block, values, tiles, direction, from: (&x, cols), to: (&mut y, rows) });
            let (direction, to) = (Direction::Transposed, (&mut grad_x[..], cols));
            arch.dispatch(BlockProduct { block, values, tiles, direction, from: (&grad_y, rows), to });
            prop_assert!(y.iter().zip(&exact_y).all(|(a, b)| (a - b).abs() < 1e-4));
            prop_assert!(grad_x.iter().zip(&exact_grad_x).all(|(a, b)| (a - b).abs() < 1e-4));
        }
    }
}
