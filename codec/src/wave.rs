//! A block's wave, evaluated: with integers alone, or vectorised in floats; and the disk its points live in.
//!
//! | noun | file |
//! |---|---|
//! | cosine and sine by shifts and additions | `cordic.rs` |
//! | a wave decoded with integers alone | `integer.rs` |
//! | a wave decoded in floats, and its gradients | `float.rs` |
//! | Poincaré, Klein and Lorentz coordinates, the Einstein midpoint | `hyperbolic.rs` |

mod cordic;
mod float;
mod hyperbolic;
mod integer;

pub use cordic::{QUARTER_TURN, Steps, TURN_BITS, rotate, rotate_each};
pub use float::{Wave, polar_gradient, sin_cos_turns};
pub(crate) use float::{dot, sin_cos_quarters};
pub use hyperbolic::{HyperbolicError, Klein, Lorentz, Poincare, einstein_midpoint};
pub use integer::IntegerWave;
