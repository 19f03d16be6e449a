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
        let mut panel = Self::zeros(rows, values.len() / rows);
        for (token, features) in values.chunks_exact(rows).enumerate() {
            for (feature, &value) in features.iter().enumerate() {
                panel.data[feature * panel.stride + token] = value;
            }
        }
        panel
    }

    /// Adds the transpose back to `tokens`×`rows`.
    #[inline(always)]
    pub(crate) fn add_to_tokens(&self, values: &mut [S], rows: usize) {
        for (token, features) in values.chunks_exact_mut(rows).enumerate() {
            for (feature, value) in features.iter_mut().enumerate() {
                *value += self.data[feature * self.stride + token];
            }
        }
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

/// `out += weight·input`.
#[inline(always)]
pub(crate) fn add_scaled<S: Scalar>(out: &mut [S], weight: S, input: &[S]) {
    for (out, &input) in out.iter_mut().zip(input) {
        *out += weight * input;
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
