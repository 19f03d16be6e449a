//! The block's relatives: the other members of the RBE family (Riemannian Basis Encoding).
//!
//! | member | bits | file |
//! |---|---|---|
//! | hashed: one amplitude on a fixed pattern | 64 a block | `hashed.rs` |
//! | radial: a clamped cone | 128 a block | `radial.rs` |
//! | hybrid: eight smooth functions and the largest coefficients of a transform | 32 bytes and K coefficients a block | [`hybrid`] |
//! | cyclic: an angle, a derivative order and a radius | 8 or 16 a weight | [`cyclic`] |
//!
//! Hashed and radial blocks are fitted by `adam.rs`, as `fit.rs` reports. None of them travels in a round; that is
//! [`Packed128`](crate::Packed128)'s part.

mod adam;
pub mod cyclic;
mod fit;
mod hashed;
pub mod hybrid;
mod radial;

pub use adam::{Adam, AdamRates};
pub use fit::{Fit, FitError, Training};
pub use hashed::{HASHED_RADII, HASHED_START, HashedTarget, Packed64};
pub use radial::{Derivative, Radial128, RadialError, RadialTarget};
