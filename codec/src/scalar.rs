//! The two float types that the kernels are written for: `f32` to train, `f64` to check gradients.

use std::cell::Cell;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul, Neg, Sub};

use crate::apply::tables::Tables;
use crate::apply::transpose::{SQUARE, Turn, by_elements};

/// What a kernel needs of its float beyond arithmetic; closed, because only two floats have it.
mod sealed {
    pub trait Turned: Sized {
        /// The transpose of a square.
        fn turned(
            turn: super::Turn,
            lines: [[Self; super::SQUARE]; super::SQUARE],
        ) -> [[Self; super::SQUARE]; super::SQUARE];

        /// Lends the tables that this thread keeps.
        fn with_tables<R>(run: impl FnOnce(&mut super::Tables<Self>) -> R) -> R;
    }
}
pub(crate) use sealed::Turned;

/// A float that the kernels can work in.
pub trait Scalar:
    Turned
    + Copy
    + Send
    + Sync
    + PartialEq
    + std::fmt::Debug
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + Sum
    + 'static
{
    /// The additive identity.
    const ZERO: Self;
    /// The nearest value of this type.
    fn from_f64(value: f64) -> Self;
    /// This value, exactly.
    fn to_f64(self) -> f64;
}

impl Turned for f32 {
    #[inline(always)]
    fn turned(turn: Turn, lines: [[Self; SQUARE]; SQUARE]) -> [[Self; SQUARE]; SQUARE] {
        turn.square(lines)
    }

    fn with_tables<R>(run: impl FnOnce(&mut Tables<Self>) -> R) -> R {
        thread_local! {
            static KEPT: Cell<Option<Tables<f32>>> = const { Cell::new(None) };
        }
        KEPT.with(|kept| Tables::lent(kept, run))
    }
}

impl Turned for f64 {
    #[inline(always)]
    fn turned(_: Turn, lines: [[Self; SQUARE]; SQUARE]) -> [[Self; SQUARE]; SQUARE] {
        by_elements(lines)
    }

    fn with_tables<R>(run: impl FnOnce(&mut Tables<Self>) -> R) -> R {
        thread_local! {
            static KEPT: Cell<Option<Tables<f64>>> = const { Cell::new(None) };
        }
        KEPT.with(|kept| Tables::lent(kept, run))
    }
}

impl Scalar for f32 {
    const ZERO: Self = 0.0;

    #[expect(clippy::cast_possible_truncation, reason = "rounding to nearest is what is asked for")]
    fn from_f64(value: f64) -> Self {
        value as Self
    }

    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Scalar for f64 {
    const ZERO: Self = 0.0;

    fn from_f64(value: f64) -> Self {
        value
    }

    fn to_f64(self) -> f64 {
        self
    }
}
