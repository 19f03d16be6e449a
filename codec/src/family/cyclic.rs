//! Cyclic integer codes: a weight as `scale · R(ρ) · sin(φ + n·π/2)` in 8 or 16 bits.
//!
//! The derivative order of a sine is as cyclic as its phase (sine → cosine → −sine → −cosine), so one
//! field of a code is both the quadrant of its angle and the order of its derivative: to differentiate is
//! to add a constant to the code and look the sum up in the same table. Two parts, kept apart:
//!
//! ```text
//!  code.rs ──► engine.rs       the bit derivative engine: integers only, tables from fixed.rs
//!                 │
//!  radius.rs ──► quantizer.rs  the learnable quantizer: floats, straight-through gradients
//!                 │
//!              layer.rs        what is stored: scales and codes
//! ```
//!
//! The engine knows nothing of floats, scales or training; the quantizer never touches a code's bits.

mod code;
mod engine;
mod fixed;
mod layer;
mod quantizer;
mod radius;

pub use code::{Code, Code8, Code16, CodeError, Fields, pack, unpack};
pub use engine::{Engine, FRACTION_BITS};
pub use layer::{CodedLayer, LayerError};
pub use quantizer::{Parameters, Path, Quantizer, QuantizerError};
pub use radius::{RadiusMap, UnknownRadiusMap};
