//! The weight block of packfed: how a delta is described, trained, quantized, summed and applied.
//!
//! Everything here is pure computation over slices. The crate knows nothing of tensors, networks,
//! rounds, clocks or files, and reads no global randomness: every random choice comes from a
//! [`Seed`] that the caller hands in.
//!
//! The path of one block through a round, type by type:
//!
//! ```text
//!  Layout ──► Direct (forward, backward) ──► lane deltas ──► Encoder ──► Word (16 bytes)
//!    │                                                                     │
//!    └──► State (integers) ◄── apply ── Word ◄── Encoder ◄── mean ◄── Tally (integers)
//!            │
//!            └──► PackedLayer (Packed128 + residual) ──► merged weights
//! ```
//!
//! | noun | file |
//! |---|---|
//! | keyed randomness | `seed.rs` |
//! | the block's two seeds, 128 bits | `packed.rs` |
//! | which blocks a model has, their positions and frequencies | `layout.rs` |
//! | orthonormal cosine and sine bases | `basis.rs` |
//! | which residual lanes a round trains | `window.rs` |
//! | 16 bytes | `word.rs` |
//! | floats to words and back | `quantize.rs`, `pack.rs` |
//! | the integer model | `state.rs` |
//! | a whole model's Δ in one file, `*.packfed` | `adapter.rs` |
//! | the exact sum of many updates | `tally.rs`, `fold.rs` |
//! | median, trimmed mean, Krum: sums that bear liars | [`robust`] |
//! | what a replica has missed, entropy-coded | `catchup.rs` |
//! | `Δ·x` and its gradients, in five ways | [`apply`] |
//! | a wave from its 64 bits, with integers or vectorised; points of the disk | [`wave`] |
//! | the block's relatives: hashed, radial, hybrid, cyclic | [`family`] |
//! | how close a decoded matrix is, and what no code can do | [`quality`] |

#![forbid(unsafe_code)]

mod adapter;
pub mod apply;
mod basis;
mod catchup;
pub mod family;
mod fold;
mod layout;
mod pack;
mod packed;
pub mod quality;
mod quantize;
pub mod robust;
mod scalar;
mod seed;
mod state;
mod tally;
pub mod wave;
mod window;
mod word;

pub use adapter::{Adapter, AdapterError, BaseDigest};
pub use apply::{Coefficients, Direct, Merger, PackedLayer, Spectrum, Trained};
pub use basis::{Basis, dct_matrix, dst_matrix};
pub use catchup::{CatchUpError, decode_catch_up, encode_catch_up, encode_step};
pub use fold::Update;
pub use layout::{Block, Frequency, Layer, LayerSpec, Layout, LayoutDigest, LayoutError, Position, WAVE_LANES};
pub use packed::{Packed128, PackedError};
pub use quantize::{Clips, EncodeError, Encoded, Encoder, Scales, decode_words};
pub use scalar::Scalar;
pub use seed::{Seed, Stream};
pub use state::{QUANTUM_EXPONENT, State, StateDigest, StateError, StepError, StepWords};
pub use tally::{Tally, TallyError};
pub use window::{Slot, Window};
pub use word::{Profile, UnknownProfile, WORD_BYTES, Word};
