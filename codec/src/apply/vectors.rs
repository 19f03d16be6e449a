//! The basis vectors of one edge as the sparse inverse reads them: half of each where the other is its image.
//!
//! Every vector is padded with zeros to whole registers, and it is known of each on which tiles of rows it vanishes.
//! It knows no coefficients.

use crate::basis::{dct_matrix, dst_matrix};
use crate::scalar::Scalar;

/// Rows of a tile: as many sums at once, enough to hide an addition's latency and few enough for AVX2.
pub(crate) const TILE_ROWS: usize = 8;
/// Vectors are padded to this, whole registers of every width up to 512 bits and whole tiles.
const STRIDE: usize = 16;

const _: () = assert!(STRIDE.is_multiple_of(TILE_ROWS));

/// The vectors of one edge.
#[derive(Clone, Debug)]
pub(crate) struct Vectors {
    size: usize,
    kept: usize,
    stride: usize,
    values: Vec<f32>,
    odd: Vec<bool>,
    tiles: Vec<u64>,
}

impl Vectors {
    /// Vectors of `size` values, one after the other, without symmetry.
    pub(crate) fn whole(size: usize, vectors: &[f64]) -> Self {
        Self::new(size, size, vectors, vec![false; vectors.len() / size])
    }

    /// Vectors of `size` values, one after the other; each is its own mirror image, or, if `odd`, that with the
    /// other sign.
    pub(crate) fn mirrored(size: usize, vectors: &[f64], odd: Vec<bool>) -> Self {
        Self::new(size, size.div_ceil(2), vectors, odd)
    }

    /// The orthonormal cosines `0..size` of an edge, then their sine companions, numbered as [`crate::Basis`] does.
    pub(crate) fn cosines_and_sines(size: usize) -> Self {
        let odd = (0..size).map(|n| n % 2 == 1).chain((0..size).map(|n| n % 2 == 0));
        Self::mirrored(size, &[dct_matrix(size), dst_matrix(size)].concat(), odd.collect())
    }

    fn new(size: usize, kept: usize, vectors: &[f64], odd: Vec<bool>) -> Self {
        assert!(kept.div_ceil(TILE_ROWS) <= u64::BITS as usize, "{kept} rows are more than 64 tiles");
        let stride = kept.next_multiple_of(STRIDE);
        let mut values = vec![0.0; odd.len() * stride];
        let mut tiles = vec![0; odd.len()];
        for ((to, tiles), from) in values.chunks_exact_mut(stride).zip(&mut tiles).zip(vectors.chunks_exact(size)) {
            for (i, (to, &from)) in to[..kept].iter_mut().zip(from).enumerate() {
                *to = f32::from_f64(from);
                *tiles |= u64::from(*to != 0.0) << (i / TILE_ROWS);
            }
        }
        Self { size, kept, stride, values, odd, tiles }
    }

    /// Values of a whole vector.
    #[inline(always)]
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    /// Values of a vector that are kept.
    #[inline(always)]
    pub(crate) const fn kept(&self) -> usize {
        self.kept
    }

    /// Kept values, padded.
    #[inline(always)]
    pub(crate) const fn stride(&self) -> usize {
        self.stride
    }

    /// Number of vectors.
    #[inline(always)]
    pub(crate) const fn count(&self) -> usize {
        self.odd.len()
    }

    /// Whether values beyond the kept ones are images of them.
    #[inline(always)]
    pub(crate) const fn is_mirrored(&self) -> bool {
        self.kept < self.size
    }

    /// The kept values of every vector, `count × stride`.
    #[inline(always)]
    pub(crate) fn values(&self) -> &[f32] {
        &self.values
    }

    /// The kept values of one vector, padded.
    #[inline(always)]
    pub(crate) fn vector(&self, index: usize) -> &[f32] {
        &self.values[index * self.stride..][..self.stride]
    }

    /// Whether a vector's image has the other sign.
    #[inline(always)]
    pub(crate) fn is_odd(&self, index: usize) -> bool {
        self.odd[index]
    }

    /// Bit n: whether one of the kept values `TILE_ROWS·n..TILE_ROWS·(n + 1)` is not 0.
    #[inline(always)]
    pub(crate) fn tiles(&self, index: usize) -> u64 {
        self.tiles[index]
    }
}
