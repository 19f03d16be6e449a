//! Softmax of a tile of attention scores, row by row in place, and its gradient.
//!
//! Rows are padded to whole registers; a row sees its first keys only, and what it does not see has weight 0. It knows
//! no queries and no values.

use pulp::{Simd, WithSimd};

use crate::adapted::Element;
use crate::nn::values::{LANES, dot, highest, sum};

/// Which keys the rows of a tile see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    /// Keys that the first row sees.
    pub(crate) first: usize,
    /// Keys that every row sees more than the one before it.
    pub(crate) step: usize,
    /// Values from one row to the next: a multiple of [`LANES`].
    pub(crate) pitch: usize,
}

impl Sight {
    /// Values from one row of `keys` scores to the next.
    pub(crate) const fn pitch(keys: usize) -> usize {
        keys.next_multiple_of(LANES)
    }
}

/// Scores to probabilities: `softmax(scale·row)` over what the row sees, 0 elsewhere.
pub(crate) struct Softmax<'a, E> {
    pub(crate) tile: &'a mut [E],
    pub(crate) sight: Sight,
    pub(crate) scale: E,
}

impl<E: Element> WithSimd for Softmax<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { tile, sight, scale } = self;
        for (n, row) in tile.chunks_exact_mut(sight.pitch).enumerate() {
            let seen = sight.first + n * sight.step;
            // Equal to the first score, so that it changes no maximum; its weight is taken away below.
            let filler = row[0];
            row[seen..].fill(filler);
            let highest = highest(row);
            for score in &mut *row {
                *score = (scale * (*score - highest)).exp();
            }
            row[seen..].fill(E::zero());
            let reciprocal = E::one() / sum(row);
            for weight in row {
                *weight *= reciprocal;
            }
        }
    }
}

/// The gradient of the scores from that of the probabilities, in its place: `scale·p·(g − Σ p·g)`.
pub(crate) struct SoftmaxGradient<'a, E> {
    pub(crate) probabilities: &'a [E],
    /// Gradients; values beyond a row's keys may be anything finite, for their probability is 0.
    pub(crate) tile: &'a mut [E],
    pub(crate) pitch: usize,
    pub(crate) scale: E,
}

impl<E: Element> WithSimd for SoftmaxGradient<'_, E> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { probabilities, tile, pitch, scale } = self;
        for (row, p) in tile.chunks_exact_mut(pitch).zip(probabilities.chunks_exact(pitch)) {
            let along = dot(p, row);
            for (gradient, &p) in row.iter_mut().zip(p) {
                *gradient = scale * p * (*gradient - along);
            }
        }
    }
}
