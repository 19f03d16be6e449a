//! The radius maps: what a hyperbolic distance from the origin is worth in three models of the plane.
//!
//! | model | map | domain | inverse |
//! |---|---|---|---|
//! | Poincaré | `tanh(r/2)` | 0 to 4 | `2·artanh κ` |
//! | Lorentz | `sinh r` | 0 to 2 | `arsinh κ` |
//! | Klein | `2r/(1+r²)`, r a Poincaré radius | 0 to 1 | `κ/(1+√(1−κ²))` |
//!
//! (J. W. Cannon et al., *Hyperbolic Geometry*, 1997.) The domains are bounded because a code has a last
//! radius: tanh is flat beyond 4, sinh grows without end, and the Klein map turns back at 1. A grid of M
//! radii stands at the midpoints `(m + ½)·D/M` of its domain D, so that no slope on it vanishes. In floats,
//! for the quantizer; the engine has integer tables of the same maps.

use thiserror::Error;

/// One of the three maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RadiusMap {
    /// `tanh(r/2)`: levels crowd at the rim, near-uniform weights.
    Poincare,
    /// `sinh r`: levels crowd at the origin, long-tailed weights.
    Lorentz,
    /// `2r/(1+r²)`: as Poincaré, with a rational map.
    Klein,
}

/// A byte that names no radius map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("radius map {0} is unknown, known are 0 (Poincaré), 1 (Lorentz) and 2 (Klein)")]
pub struct UnknownRadiusMap(pub u8);

impl RadiusMap {
    /// All maps.
    pub const ALL: [Self; 3] = [Self::Poincare, Self::Lorentz, Self::Klein];

    /// The end D of the map's domain `[0, D]`.
    #[must_use]
    pub const fn domain(self) -> u8 {
        match self {
            Self::Poincare => 4,
            Self::Lorentz => 2,
            Self::Klein => 1,
        }
    }

    /// The map's byte in a stored layer.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::Poincare => 0,
            Self::Lorentz => 1,
            Self::Klein => 2,
        }
    }

    /// The inverse of [`RadiusMap::to_byte`].
    ///
    /// # Errors
    /// If the byte names no map.
    pub const fn from_byte(byte: u8) -> Result<Self, UnknownRadiusMap> {
        match byte {
            0 => Ok(Self::Poincare),
            1 => Ok(Self::Lorentz),
            2 => Ok(Self::Klein),
            unknown => Err(UnknownRadiusMap(unknown)),
        }
    }

    /// `R(r)`, for `r` of the domain.
    #[must_use]
    pub fn value(self, r: f64) -> f64 {
        match self {
            Self::Poincare => (0.5 * r).tanh(),
            Self::Lorentz => r.sinh(),
            Self::Klein => 2.0 * r / (1.0 + r * r),
        }
    }

    /// `R′(r)`.
    #[must_use]
    pub fn slope(self, r: f64) -> f64 {
        match self {
            Self::Poincare => {
                let value = (0.5 * r).tanh();
                0.5 * (1.0 - value * value)
            }
            Self::Lorentz => r.cosh(),
            Self::Klein => {
                let square = r * r;
                2.0 * (1.0 - square) / ((1.0 + square) * (1.0 + square))
            }
        }
    }

    /// The `r` of the domain with `R(r) = value`; what no `r` reaches gives the nearest end.
    #[must_use]
    pub fn inverse(self, value: f64) -> f64 {
        let end = f64::from(self.domain());
        let value = value.clamp(0.0, self.value(end));
        let r = match self {
            Self::Poincare => 2.0 * value.atanh(),
            Self::Lorentz => value.asinh(),
            Self::Klein => value / (1.0 + (1.0 - value * value).max(0.0).sqrt()),
        };
        r.clamp(0.0, end)
    }

    /// Radius number `index` of a grid of `radii`: a midpoint, `(index + ½)·D/radii`.
    #[must_use]
    pub fn grid(self, index: u32, radii: u32) -> f64 {
        (f64::from(index) + 0.5) * f64::from(self.domain()) / f64::from(radii)
    }

    /// The grid's radius nearest to `r`, by number.
    #[must_use]
    pub fn nearest(self, r: f64, radii: u32) -> u32 {
        let cell = (r * f64::from(radii) / f64::from(self.domain())).floor().clamp(0.0, f64::from(radii - 1));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "held within 0 to radii − 1")]
        let index = cell as u32;
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_name_their_maps_and_no_other() {
        for map in RadiusMap::ALL {
            assert_eq!(RadiusMap::from_byte(map.to_byte()), Ok(map));
        }
        assert!((3..=u8::MAX).all(|byte| RadiusMap::from_byte(byte) == Err(UnknownRadiusMap(byte))));
    }

    #[test]
    fn slopes_on_the_grid_are_positive() {
        for (map, radii) in RadiusMap::ALL.into_iter().flat_map(|map| [(map, 4), (map, 64)]) {
            assert!((0..radii).all(|m| map.slope(map.grid(m, radii)) > 0.0), "{map:?}");
        }
    }

    #[test]
    fn values_beyond_reach_give_the_ends_of_the_domain() {
        for map in RadiusMap::ALL {
            assert_eq!(map.inverse(-1.0), 0.0);
            assert!((map.inverse(1e9) - f64::from(map.domain())).abs() < 1e-6);
        }
    }

    #[test]
    fn the_nearest_radius_is_the_grids_own_and_never_beyond() {
        for map in RadiusMap::ALL {
            for m in 0..64 {
                assert_eq!(map.nearest(map.grid(m, 64), 64), m);
            }
            assert_eq!([-1.0, 1e9, f64::NAN].map(|r| map.nearest(r, 64)), [0, 63, 0]);
        }
    }

    proptest! {
        #[test]
        fn slopes_agree_with_finite_differences(part in 0.001..0.999f64) {
            for map in RadiusMap::ALL {
                let (r, step) = (part * f64::from(map.domain()), 1e-5);
                let difference = (map.value(r + step) - map.value(r - step)) / (2.0 * step);
                prop_assert!((map.slope(r) - difference).abs() < 1e-8, "{map:?} at {r}");
            }
        }

        #[test]
        fn the_inverse_undoes_the_map(part in 0.0..=0.999f64) {
            for map in RadiusMap::ALL {
                let r = part * f64::from(map.domain());
                prop_assert!((map.inverse(map.value(r)) - r).abs() < 1e-9, "{map:?} at {r}");
            }
        }
    }
}
