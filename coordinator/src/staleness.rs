//! What an update against an older base counts for: FedBuff's staleness weight, as an exact fixed-point number.
//!
//! FedBuff (Nguyen et al., AISTATS 2022) scales an update by `w(s)`, s the versions that were committed between
//! its base and the head that it is added to. Here `w` is a whole number of 2⁻¹⁰, so that sums stay integers.

use serde::{Deserialize, Serialize};

/// Fraction bits of a factor.
pub const FACTOR_BITS: u32 = 10;
/// The factor of an update against the head itself: one.
pub const FRESH: u32 = 1 << FACTOR_BITS;

/// How an update's factor falls with its staleness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StalenessWeight {
    /// `w(s) = 1`.
    Constant,
    /// `w(s) = 1/√(1 + s)`.
    #[default]
    InverseSqrt,
}

impl StalenessWeight {
    /// `⌊2¹⁰·w(s)⌋`, at least 1.
    #[must_use]
    pub fn factor(self, staleness: u64) -> u32 {
        match self {
            Self::Constant => FRESH,
            Self::InverseSqrt => {
                let square = (1u64 << (2 * FACTOR_BITS)) / staleness.saturating_add(1);
                u32::try_from(square.isqrt()).map_or(FRESH, |factor| factor.max(1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_the_formula_to_ten_bits() {
        for staleness in 0..2_000u64 {
            let exact = f64::from(FRESH) / (1.0 + staleness as f64).sqrt();
            let factor = f64::from(StalenessWeight::InverseSqrt.factor(staleness));
            assert!((0.0..1.0).contains(&(exact - factor)), "{staleness}: {factor} {exact}");
        }
        assert_eq!([0, 3, u64::MAX].map(|s| StalenessWeight::InverseSqrt.factor(s)), [FRESH, FRESH / 2, 1]);
        assert_eq!([0, 9].map(|s| StalenessWeight::Constant.factor(s)), [FRESH; 2]);
    }
}
