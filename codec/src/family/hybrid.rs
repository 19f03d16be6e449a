//! The hybrid block: eight smooth functions by least squares, and the K largest coefficients of what they leave.
//!
//! ```text
//!  X(i,j) ≈ Σ_{k<8} w_k·s_k(x_j, y_i) + Σ_{k<K} c_k·T_u(i)·T_v(j)        T: DCT-II, Haar or Daubechies-4
//!
//!  values ──► HybridEncoder ──► HybridBlock ──► bytes ──► HybridDecoder ──► values
//! ```
//!
//! | noun | file |
//! |---|---|
//! | the eight functions, their fit | `hybrid/smooth.rs` |
//! | the transforms | `hybrid/transform.rs` |
//! | the functions in the spectrum, the derivative | `hybrid/basis.rs` |
//! | which coefficients, fit and selection | `hybrid/encoder.rs` |
//! | a value's bits; a block's bytes; the range-coded form | `hybrid/code.rs`, `hybrid/format.rs`, `hybrid/entropy.rs` |
//! | bytes to values, fast | `hybrid/decoder.rs` |
//! | matrices of many blocks | `hybrid/matrix.rs` |
//!
//! It knows no layers, rounds or words; nothing here is random.

mod basis;
mod code;
mod decoder;
mod encoder;
#[cfg(feature = "entropy")]
mod entropy;
mod error;
mod format;
mod matrix;
mod smooth;
#[cfg(test)]
mod tests;
mod transform;

pub use basis::{HybridBasis, HybridGradient};
pub use decoder::HybridDecoder;
pub use encoder::{HybridEncoded, HybridEncoder, Selection};
pub use error::HybridError;
pub use format::{Coefficient, EDGE_MAX, HybridBlock, HybridFormat, REACH_MAX};
pub use matrix::{HybridMatrix, HybridPlan, decode_matrix, encode_matrix};
pub use smooth::SMOOTH;
pub use transform::Transform;

/// What a block's bytes leave to the caller: shape, transform and format, known to fit each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HybridSpec {
    rows: usize,
    cols: usize,
    transform: Transform,
    format: HybridFormat,
}

impl HybridSpec {
    /// A block of rows×cols.
    ///
    /// # Errors
    /// If an edge is outside `1..=format.edge_max()`, or no power of two under a wavelet.
    pub fn new(rows: usize, cols: usize, transform: Transform, format: HybridFormat) -> Result<Self, HybridError> {
        for edge in [rows, cols] {
            if edge == 0 || edge > format.edge_max() {
                return Err(HybridError::Edge { edge, max: format.edge_max() });
            }
            transform.check(edge)?;
        }
        Ok(Self { rows, cols, transform, format })
    }

    /// Rows of the block.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the block.
    #[must_use]
    pub const fn cols(&self) -> usize {
        self.cols
    }

    /// The transform of the coefficients.
    #[must_use]
    pub const fn transform(&self) -> Transform {
        self.transform
    }

    /// How the block is written.
    #[must_use]
    pub const fn format(&self) -> HybridFormat {
        self.format
    }

    /// Most coefficients that a block may have: its positions, at most 65 535.
    #[must_use]
    pub fn count_max(&self) -> usize {
        (self.rows * self.cols).min(u16::MAX.into())
    }
}
