//! Feature-major panels: one contiguous row of tokens per feature, padded to whole tiles.
//!
//! The spectral kernels walk features and vectorise over tokens, so they want the transpose of what a
//! layer is given. Padding tokens are zero throughout and cost nothing but their lanes. Sums over
//! features and tokens run in one fixed order, so results do not depend on the instruction set.

use crate::scalar::Scalar;

/// Tokens of one tile: two AVX-512 registers of `f32`.
pub(crate) const TILE: usize = 32;

/// `rows` features × `stride` tokens, `stride` a multiple of [`TILE`].
#[derive(Clone, Debug)]
pub(crate) struct Panel<S> {
    stride: usize,
    data: Vec<S>,
}

impl<S: Scalar> Panel<S> {
    /// A panel of zeros for a number of tokens.
    pub(crate) fn zeros(rows: usize, tokens: usize) -> Self {
        let stride = tokens.next_multiple_of(TILE);
        Self { stride, data: vec![S::ZERO; rows * stride] }
    }

    /// The transpose of `tokens`×`rows`.
    #[inline(always)]
    pub(crate) fn from_tokens(values: &[S], rows: usize) -> Self {
        let tokens = values.len() / rows;
        let mut panel = Self::zeros(rows, tokens);
        let stride = panel.stride;
        for_each_square(tokens, rows, |token, feature, square| {
            for (i, row) in square.iter_mut().enumerate() {
                row.copy_from_slice(&values[(token + i) * rows + feature..][..SQUARE]);
            }
            for j in 0..SQUARE {
                let out = &mut panel.data[(feature + j) * stride + token..][..SQUARE];
                for (out, row) in out.iter_mut().zip(&*square) {
                    *out = row[j];
                }
            }
        });
        for_each_outside(tokens, rows, |token, feature| {
            panel.data[feature * stride + token] = values[token * rows + feature];
        });
        panel
    }

    /// Adds the transpose back to `tokens`×`rows`.
    #[inline(always)]
    pub(crate) fn add_to_tokens(&self, values: &mut [S], rows: usize) {
        let tokens = values.len() / rows;
        for_each_square(tokens, rows, |token, feature, square| {
            for (j, row) in square.iter_mut().enumerate() {
                row.copy_from_slice(&self.data[(feature + j) * self.stride + token..][..SQUARE]);
            }
            for i in 0..SQUARE {
                let out = &mut values[(token + i) * rows + feature..][..SQUARE];
                for (out, row) in out.iter_mut().zip(&*square) {
                    *out += row[i];
                }
            }
        });
        for_each_outside(tokens, rows, |token, feature| {
            values[token * rows + feature] += self.data[feature * self.stride + token];
        });
    }

    pub(crate) const fn stride(&self) -> usize {
        self.stride
    }

    pub(crate) fn row(&self, row: usize) -> &[S] {
        &self.data[row * self.stride..(row + 1) * self.stride]
    }

    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [S] {
        &mut self.data[row * self.stride..(row + 1) * self.stride]
    }
}

/// Edge of the squares that a transpose moves at once, so that both sides are touched by whole lines.
const SQUARE: usize = 8;

/// Every whole square of a tokens×rows matrix, by its first token and feature, with room for its values.
#[inline(always)]
fn for_each_square<S: Scalar>(
    tokens: usize,
    rows: usize,
    mut visit: impl FnMut(usize, usize, &mut [[S; SQUARE]; SQUARE]),
) {
    let mut square = [[S::ZERO; SQUARE]; SQUARE];
    for token in (0..tokens / SQUARE).map(|n| n * SQUARE) {
        for feature in (0..rows / SQUARE).map(|n| n * SQUARE) {
            visit(token, feature, &mut square);
        }
    }
}

/// Every place that no whole square covers.
#[inline(always)]
fn for_each_outside(tokens: usize, rows: usize, mut visit: impl FnMut(usize, usize)) {
    let (whole_tokens, whole_rows) = (tokens / SQUARE * SQUARE, rows / SQUARE * SQUARE);
    for token in 0..tokens {
        let first = if token < whole_tokens { whole_rows } else { 0 };
        for feature in first..rows {
            visit(token, feature);
        }
    }
}

/// `out[first_out + r] = Σ_k matrix[r][k]·input[first_in + k]` for an `m`×`depth` matrix.
#[inline(always)]
pub(crate) fn product<S: Scalar>(
    matrix: &[S],
    depth: usize,
    (input, first_in): (&Panel<S>, usize),
    (out, first_out): (&mut Panel<S>, usize),
) {
    let m = matrix.len() / depth;
    let input = &input.data[first_in * out.stride..(first_in + depth) * out.stride];
    for tile in (0..out.stride).step_by(TILE) {
        let mut r = 0;
        while r + 4 <= m {
            product_rows::<S, 4>(&matrix[r * depth..], depth, input, tile, out, first_out + r);
            r += 4;
        }
        while r < m {
            product_rows::<S, 1>(&matrix[r * depth..], depth, input, tile, out, first_out + r);
            r += 1;
        }
    }
}

#[inline(always)]
fn product_rows<S: Scalar, const R: usize>(
    matrix: &[S],
    depth: usize,
    input: &[S],
    tile: usize,
    out: &mut Panel<S>,
    first: usize,
) {
    let mut sums = [[S::ZERO; TILE]; R];
    for (k, tokens) in input.chunks_exact(out.stride).enumerate() {
        let tokens: &[S; TILE] = tokens[tile..].first_chunk().expect("a stride is whole tiles");
        for (r, sums) in sums.iter_mut().enumerate() {
            let weight = matrix[r * depth + k];
            for (sum, &token) in sums.iter_mut().zip(tokens) {
                *sum += weight * token;
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        out.row_mut(first + r)[tile..tile + TILE].copy_from_slice(sums);
    }
}

/// A sparse matrix by rows: for every row of the result, which rows are added with which coefficient.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sparse {
    /// Where each row's terms begin; one more than there are rows.
    starts: Vec<usize>,
    /// Row of the input, and number of the coefficient.
    terms: Vec<(u32, u32)>,
}

impl Sparse {
    /// The matrix of these (row, input row) pairs; coefficient `n` belongs to pair `n`.
    pub(crate) fn new(rows: usize, pairs: impl Iterator<Item = (usize, usize)> + Clone) -> Self {
        let mut starts = vec![0; rows + 1];
        for (row, _) in pairs.clone() {
            starts[row + 1] += 1;
        }
        for row in 0..rows {
            starts[row + 1] += starts[row];
        }
        let mut next = starts.clone();
        let mut terms = vec![(0, 0); starts[rows]];
        for (number, (row, input)) in pairs.enumerate() {
            let narrow = |n: usize| u32::try_from(n).expect("a layout has at most 2^30 lanes");
            terms[next[row]] = (narrow(input), narrow(number));
            next[row] += 1;
        }
        Self { starts, terms }
    }

    /// `out = self·input` with these coefficients; a row's terms are added in the order of their numbers.
    #[inline(always)]
    pub(crate) fn product<S: Scalar>(&self, coefficients: &[S], input: &Panel<S>, out: &mut Panel<S>) {
        for row in 0..self.starts.len() - 1 {
            let terms = &self.terms[self.starts[row]..self.starts[row + 1]];
            for tile in (0..out.stride).step_by(TILE) {
                let mut sums = [S::ZERO; TILE];
                for &(from, number) in terms {
                    let weight = coefficients[number as usize];
                    let tokens: &[S; TILE] =
                        input.row(from as usize)[tile..].first_chunk().expect("a stride is whole tiles");
                    for (sum, &token) in sums.iter_mut().zip(tokens) {
                        *sum += weight * token;
                    }
                }
                out.row_mut(row)[tile..tile + TILE].copy_from_slice(&sums);
            }
        }
    }
}

/// `Σ a·b` over whole tiles, in an order that the width of a register does not change.
#[inline(always)]
pub(crate) fn dot<S: Scalar>(a: &[S], b: &[S]) -> S {
    let mut sums = [S::ZERO; TILE];
    for (a, b) in a.as_chunks::<TILE>().0.iter().zip(b.as_chunks::<TILE>().0) {
        for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let mut width = TILE / 2;
    while width > 0 {
        let (low, high) = sums.split_at_mut(width);
        for (low, &high) in low.iter_mut().zip(high.iter()) {
            *low += high;
        }
        width /= 2;
    }
    sums[0]
}
