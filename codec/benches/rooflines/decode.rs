//! Blocks decoded: merged and hybrid beside `rustdct`'s plain two-dimensional inverse, CORDIC beside floats.

use crate::race::Race;

/// All races of this file.
pub(crate) fn races() -> Vec<Race> {
    Vec::new()
}
