//! Applying Δ: the modes of one product, and what they are made of.
//!
//! | mode | when | file |
//! |---|---|---|
//! | direct: transforms and a sparse product, never Δ itself | training, batches | `direct.rs` |
//! | merged: Δ built once | inference | `merged.rs` |
//! | cached: Δ built block by block, so many bytes of it kept | single vectors within a bound of memory | `cached.rs` |
//! | progressive: the lanes by bit-planes, with the error that is left | slow links | `progressive.rs` |
//! | masked: a sparse product by row masks | a block with few coefficients | `masked.rs` |
//!
//! The direct mode's parts: an edge of the matrix and its segments (`axis.rs`), tiles of tokens (`batch.rs`,
//! `tile.rs`, `transpose.rs`), the fast cosine transform (`cosine.rs`, `leaf.rs`), a single vector (`single.rs`, `sliced.rs`, `tables.rs`). Where Δ is
//! built, it is built block by block (`block_decoder.rs`) with the inverse transform that the hybrid block shares
//! (`sparse_inverse.rs`, `vectors.rs`).

mod aligned;
mod axis;
mod batch;
mod block_decoder;
mod block_product;
mod cached;
mod cosine;
mod direct;
mod leaf;
mod lru;
mod masked;
mod merged;
mod progressive;
mod single;
mod sliced;
pub(crate) mod sparse_inverse;
pub(crate) mod tables;
mod tile;
pub(crate) mod transpose;
pub(crate) mod vectors;

pub use cached::{CachedDelta, inference_lanes};
pub use direct::{Coefficients, Direct, Spectrum, Trained};
pub use lru::CacheStatistics;
pub use masked::{MASK_EDGE_MAX, MaskedBlock, MaskedError};
pub use merged::{Merger, PackedLayer};
pub use progressive::{Bound, PlaneError, Progressive, encode_planes};
