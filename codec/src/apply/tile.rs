//! Tiles: a few tokens side by side, one short row of them per feature.
//!
//! The spectral kernels walk features and vectorise over tokens, so they want the transpose of what a
//! layer is given, a tile of `W` tokens at a time so that it stays in the cache. Tokens beyond the last
//! are zero throughout. Sums over features run in one fixed order whatever `W` or the instruction set, so
//! neither shows in a result. It knows no blocks and no bases.

use std::ops::Range;

use crate::apply::transpose::{SQUARE, Turn};
use crate::scalar::Scalar;

/// A tokens×features matrix in row-major order, and the tile of it that is meant.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// Features of the whole matrix.
    pub(crate) features: usize,
    /// First token of the tile.
    pub(crate) token: usize,
    /// First feature of the tile.
    pub(crate) feature: usize,
}

/// Copies a tile of `values` into `rows`, one row a feature.
#[inline(always)]
pub(crate) fn load<S: Scalar, const W: usize>(turn: Turn, values: &[S], place: Place, rows: &mut [[S; W]]) {
    let Place { features, token, feature } = place;
    let tokens = (values.len() / features - token).min(W);
    if tokens < W {
        rows.fill([S::ZERO; W]);
    }
    let (squares, rest) = rows.as_chunks_mut::<SQUARE>();
    let first_rest = squares.len() * SQUARE;
    for (n, square) in squares.iter_mut().enumerate() {
        let at = |t: usize| (token + t) * features + feature + n * SQUARE;
        for t in (0..tokens / SQUARE).map(|n| n * SQUARE) {
            let lines: [[S; SQUARE]; SQUARE] =
                std::array::from_fn(|i| *values[at(t + i)..].first_chunk().expect("the tile lies inside the matrix"));
            for (row, column) in square.iter_mut().zip(S::turned(turn, lines)) {
                row[t..t + SQUARE].copy_from_slice(&column);
            }
        }
        for t in tokens / SQUARE * SQUARE..tokens {
            for (row, &value) in square.iter_mut().zip(&values[at(t)..]) {
                row[t] = value;
            }
        }
    }
    for t in 0..tokens {
        for (row, &value) in rest.iter_mut().zip(&values[(token + t) * features + feature + first_rest..]) {
            row[t] = value;
        }
    }
}

/// Adds `rows`, one a feature, to a tile of `values`.
#[inline(always)]
pub(crate) fn add<S: Scalar, const W: usize>(turn: Turn, rows: &[[S; W]], values: &mut [S], place: Place) {
    let Place { features, token, feature } = place;
    let tokens = (values.len() / features - token).min(W);
    let (squares, rest) = rows.as_chunks::<SQUARE>();
    let first_rest = squares.len() * SQUARE;
    for (n, square) in squares.iter().enumerate() {
        let at = |t: usize| (token + t) * features + feature + n * SQUARE;
        for t in (0..tokens / SQUARE).map(|n| n * SQUARE) {
            let lines: [[S; SQUARE]; SQUARE] =
                std::array::from_fn(|j| *square[j][t..].first_chunk().expect("the square lies inside the tile"));
            for (i, line) in S::turned(turn, lines).into_iter().enumerate() {
                let values: &mut [S; SQUARE] =
                    values[at(t + i)..].first_chunk_mut().expect("the tile lies inside the matrix");
                for (value, part) in values.iter_mut().zip(line) {
                    *value += part;
                }
            }
        }
        for t in tokens / SQUARE * SQUARE..tokens {
            for (row, value) in square.iter().zip(&mut values[at(t)..]) {
                *value += row[t];
            }
        }
    }
    for t in 0..tokens {
        for (row, value) in rest.iter().zip(&mut values[(token + t) * features + feature + first_rest..]) {
            *value += row[t];
        }
    }
}

/// `out[r] += Σ_k matrix[r][k]·input[k]`, row-major, `input.len()` columns.
#[inline(always)]
pub(crate) fn add_product<S: Scalar, const W: usize>(matrix: &[S], input: &[[S; W]], out: &mut [[S; W]]) {
    let depth = input.len();
    if depth == 0 {
        return;
    }
    let (fours, rest) = out.as_chunks_mut::<4>();
    let (of_fours, of_rest) = matrix.split_at(4 * fours.len() * depth);
    for (four, weights) in fours.iter_mut().zip(of_fours.chunks_exact(4 * depth)) {
        // Four sums by name: indexed, they are not kept in registers.
        let [mut a, mut b, mut c, mut d] = *four;
        for (k, input) in input.iter().enumerate() {
            add_scaled(&mut a, weights[k], input);
            add_scaled(&mut b, weights[depth + k], input);
            add_scaled(&mut c, weights[2 * depth + k], input);
            add_scaled(&mut d, weights[3 * depth + k], input);
        }
        *four = [a, b, c, d];
    }
    for (out, weights) in rest.iter_mut().zip(of_rest.chunks_exact(depth)) {
        let mut sums = *out;
        for (&weight, input) in weights.iter().zip(input) {
            add_scaled(&mut sums, weight, input);
        }
        *out = sums;
    }
}

/// `sums += weight·values`.
#[inline(always)]
pub(crate) fn add_scaled<S: Scalar, const W: usize>(sums: &mut [S; W], weight: S, values: &[S; W]) {
    for (sum, &value) in sums.iter_mut().zip(values) {
        *sum += weight * value;
    }
}

/// `sums += Σ_t a[t·stride]·b[t·stride]`, value by value, tile by tile.
#[inline(always)]
pub(crate) fn add_product_of_tiles<S: Scalar, const W: usize>(
    sums: &mut [S; W],
    (a, a_stride): (&[[S; W]], usize),
    (b, b_stride): (&[[S; W]], usize),
    tiles: usize,
) {
    // By value: through the reference, it is not vectorised.
    let mut now = *sums;
    for tile in 0..tiles {
        for ((sum, &a), &b) in now.iter_mut().zip(&a[tile * a_stride]).zip(&b[tile * b_stride]) {
            *sum += a * b;
        }
    }
    *sums = now;
}

/// The sum of a row, in an order that the width of a register does not change.
#[inline(always)]
pub(crate) fn total<S: Scalar, const W: usize>(mut row: [S; W]) -> S {
    let mut width = W / 2;
    while width > 0 {
        let (low, high) = row.split_at_mut(width);
        for (low, &high) in low.iter_mut().zip(high.iter()) {
            *low += high;
        }
        width /= 2;
    }
    row[0]
}

/// A sparse matrix by rows: which rows of a tile are added into which, each with a coefficient of its own. Its rows
/// come in parts, one after the other, so that what is made of a part is still in the nearest cache when it is used.
#[derive(Clone, Debug)]
pub(crate) struct Sparse {
    parts: Vec<Part>,
    /// Rows of the result, counted from their part's first, with their number of terms; in a part the fewest first: a
    /// loop that runs as often as the one before it is predicted.
    rows: Vec<(u32, u32)>,
    /// Row of the input, for every term of every row.
    inputs: Vec<u32>,
    /// The pair that a term is, likewise.
    pairs: Vec<u32>,
}

/// Rows that belong together, and all their terms.
#[derive(Clone, Debug)]
struct Part {
    rows: Range<usize>,
    terms: Range<usize>,
}

impl Sparse {
    /// The matrix of these (row, input row) pairs, its rows in these parts.
    pub(crate) fn new(parts: impl Iterator<Item = Range<usize>>, pairs: impl Iterator<Item = (usize, usize)>) -> Self {
        let narrow = |n: usize| u32::try_from(n).expect("a layout has at most 2^30 lanes");
        let parts: Vec<_> = parts.collect();
        let mut terms = vec![Vec::new(); parts.last().map_or(0, |last| last.end)];
        for (number, (row, input)) in pairs.enumerate() {
            terms[row].push((narrow(input), narrow(number)));
        }
        let mut sparse = Self { parts: Vec::new(), rows: Vec::new(), inputs: Vec::new(), pairs: Vec::new() };
        for rows in parts {
            let mut order: Vec<usize> = rows.clone().collect();
            order.sort_by_key(|&row| terms[row].len());
            sparse.rows.extend(order.iter().map(|&row| (narrow(row - rows.start), narrow(terms[row].len()))));
            let (sorted, first) = (order.iter().flat_map(|&row| &terms[row]), sparse.inputs.len());
            sparse.inputs.extend(sorted.clone().map(|&(input, _)| input));
            sparse.pairs.extend(sorted.map(|&(_, pair)| pair));
            sparse.parts.push(Part { rows, terms: first..sparse.inputs.len() });
        }
        sparse
    }

    /// One coefficient a pair, in the order in which [`Sparse::product`] takes them.
    pub(crate) fn in_order<S: Scalar>(&self, coefficients: &[S]) -> Vec<S> {
        self.pairs.iter().map(|&pair| coefficients[pair as usize]).collect()
    }

    /// The rows `out` of one part of `self·input`; a row's terms are added in the order of their pairs.
    #[inline(always)]
    pub(crate) fn product<S: Scalar, const W: usize>(
        &self,
        part: usize,
        ordered: &[S],
        input: &[[S; W]],
        out: &mut [[S; W]],
    ) {
        let Part { rows, terms } = &self.parts[part];
        let (mut coefficients, mut inputs) = (&ordered[terms.clone()], &self.inputs[terms.clone()]);
        for &(row, terms) in &self.rows[rows.clone()] {
            let (now, later) = coefficients.split_at(terms as usize);
            let (from, rest) = inputs.split_at(terms as usize);
            (coefficients, inputs) = (later, rest);
            let mut sums = [S::ZERO; W];
            for (&coefficient, &from) in now.iter().zip(from) {
                add_scaled(&mut sums, coefficient, &input[from as usize]);
            }
            out[row as usize] = sums;
        }
    }
}
