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
//! | the fast cosine transform, in place | `cosine.rs`, `leaf.rs` |
//! | which residual lanes a round trains | `window.rs` |
//! | 16 bytes | `word.rs` |
//! | floats to words and back | `quantize.rs` |
//! | the integer model | `state.rs` |
//! | the exact sum of many updates | `tally.rs` |
//! | what a replica has missed, entropy-coded | `catchup.rs` |
//! | `Δ·x` and its gradients without building Δ | `direct.rs`, `axis.rs`, `tile.rs`, `transpose.rs`, `single.rs` |
//! | cosine and sine by shifts and additions | `cordic.rs` |
//! | a wave decoded with integers alone | `integer_wave.rs` |
//! | a wave decoded in floats, and its gradients | `wave.rs` |
//! | Poincaré, Klein and Lorentz coordinates | `hyperbolic.rs` |
//! | `Δ·x` and its gradients without building Δ | `direct.rs`, `panel.rs` |
//! | Δ built once, for inference | `merged.rs` |
//! | smooth functions and the largest coefficients of a block | `hybrid.rs` |
//! | how close a decoded matrix is | `metrics.rs` |
//! | what no code can do with white noise | `shannon.rs` |
//! | a weight as an angle, a derivative order and a radius, in 8 or 16 bits | `cyclic.rs` |
//! | Δ built block by block, so many bytes of it kept | `cached.rs`, `lru.rs` |
//! | Δ built block by block, so many bytes of it kept | `cached.rs`, `lru.rs`, `block_product.rs` |
//! | the lanes by bit-planes, with the error that is left | `progressive.rs` |
//! | a sparse product by row masks | `masked.rs` |

mod axis;
//! | a block as one amplitude on a hashed pattern, 64 bits | `hashed.rs` |
//! | a block as a clamped cone, 128 bits | `radial.rs` |
//! | fitting such a block | `fit.rs`, `adam.rs` |
//! | how close a decoded matrix is | `metrics.rs` |
//! | what no code can do with white noise | `shannon.rs` |

mod adam;
mod basis;
mod block_product;
mod cached;
mod catchup;
mod cosine;
pub mod cyclic;
mod direct;
mod hybrid;
mod fit;
mod hashed;
mod cordic;
mod direct;
mod hyperbolic;
mod integer_wave;
mod layout;
mod leaf;
mod lru;
mod masked;
mod merged;
mod metrics;
mod packed;
mod panel;
mod progressive;
mod quantize;
mod radial;
mod scalar;
mod seed;
mod single;
mod shannon;
mod state;
mod tally;
mod tile;
mod transpose;
mod wave;
mod window;
mod word;

pub use adam::{Adam, AdamRates};
pub use basis::{Basis, dct_matrix, dst_matrix};
pub use cached::{CachedDelta, inference_lanes};
pub use catchup::{CatchUpError, decode_catch_up, encode_catch_up, encode_step};
pub use direct::{Coefficients, Direct, Gradients, Spectrum, Trained};
pub use direct::{Direct, Gradients, Spectrum};
pub use hybrid::{
    Coefficient, EDGE_MAX, HybridBasis, HybridBlock, HybridDecoder, HybridEncoded, HybridEncoder, HybridError,
    HybridFormat, HybridGradient, HybridMatrix, HybridPlan, HybridSpec, SMOOTH, Selection, Transform, decode_matrix,
    encode_matrix,
};
pub use fit::{Fit, FitError, Training};
pub use hashed::{HASHED_RADII, HASHED_START, HashedTarget, Packed64};
pub use cordic::{QUARTER_TURN, Steps, TURN_BITS, rotate, rotate_each};
pub use direct::{Direct, Gradients, Spectrum};
pub use hyperbolic::{HyperbolicError, Klein, Lorentz, Poincare, einstein_midpoint};
pub use integer_wave::IntegerWave;
pub use layout::{Block, Frequency, Layer, LayerSpec, Layout, LayoutDigest, LayoutError, Position, WAVE_LANES};
pub use lru::CacheStatistics;
pub use masked::{MASK_EDGE_MAX, MaskedBlock, MaskedError};
pub use merged::{Merger, PackedLayer};
pub use metrics::{MetricError, captured_energy, psnr, rmse, ssim};
pub use packed::{Packed128, PackedError};
pub use progressive::{Bound, PlaneError, Progressive, encode_planes};
pub use quantize::{Clips, EncodeError, Encoded, Encoder, Scales, decode_words};
pub use radial::{Derivative, Radial128, RadialError, RadialTarget};
pub use scalar::Scalar;
pub use seed::{Seed, Stream};
pub use shannon::{GUARD_CHANCE, GuardError, ShannonGuard, WhiteNoiseBound};
pub use state::{QUANTUM_EXPONENT, State, StateDigest, StateError, StepWords};
pub use tally::{Tally, TallyError};
pub use wave::{Wave, polar_gradient, sin_cos_turns};
pub use window::{Slot, Window};
pub use word::{Profile, UnknownProfile, WORD_BYTES, Word};
