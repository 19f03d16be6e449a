//! `Packed128`: a block's wave in its two representations, 64 bits each.
//!
//! ```text
//!  hi  Seed0, for inference   [63:44] r, Q0.20 | [43:20] θ, Q0.24 turns | [19:10] u | [9:0] v
//!  lo  Seed1, for training    [63:32] r as f32 | [31:0] θ as f32, radians
//! ```
//!
//! `(r, θ)` is a point of the Poincaré disk in polar form; `κ(r) = 2r/(1+r²)` is its radius in the
//! Klein model. Training works on `z = g·κ(r)·(cos θ, sin θ)`, which adds up; this file converts.
//! It does not know layers, words or rounds.

use std::f64::consts::TAU;

use thiserror::Error;

use crate::layout::Frequency;
use crate::scalar::Scalar;

/// One block's wave: an inference seed of integers and a training seed of two floats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Packed128 {
    seed0: u64,
    seed1: u64,
}

const _: () = assert!(size_of::<Packed128>() == 16);

const R_BITS: u32 = 20;
const TURN_BITS: u32 = 24;
const FREQUENCY_BITS: u32 = 10;
const R_ONE: u64 = 1 << R_BITS;
const TURN_MASK: u64 = (1 << TURN_BITS) - 1;
const FREQUENCY_MASK: u64 = (1 << FREQUENCY_BITS) - 1;
/// Largest radius that Seed0 can hold; both seeds are kept at or below it.
const R_MAX: f64 = 1.0 - 1.0 / (1u64 << R_BITS) as f64;

/// Why 128 bits are not a block.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum PackedError {
    /// Seed1's radius lies outside the disk, or is not a number.
    #[error("radius {0} in bits 32 to 63 of Seed1 is outside [0, 1)")]
    Radius(f32),
    /// Seed1's angle is not finite.
    #[error("angle {0} in bits 0 to 31 of Seed1 is not finite")]
    Angle(f32),
}

impl Packed128 {
    /// A block from its polar point, `r` in `[0, 1)` and `theta` in radians.
    ///
    /// # Errors
    /// If `r` is outside the disk or `theta` is not finite.
    pub fn new(r: f32, theta: f32, frequency: Frequency) -> Result<Self, PackedError> {
        if !(0.0..1.0).contains(&r) {
            return Err(PackedError::Radius(r));
        }
        if !theta.is_finite() {
            return Err(PackedError::Angle(theta));
        }
        let seed1 = u64::from(r.to_bits()) << 32 | u64::from(theta.to_bits());
        Ok(Self { seed0: requantize(r, theta, frequency), seed1 })
    }

    /// A block from its trained coordinates `z = (x, y)` under the layer's gain `g`.
    ///
    /// `κ = |z|/g` is held just below 1, so whatever a worker sent, the wave stays within `g`.
    #[must_use]
    pub fn from_z(x: f64, y: f64, gain: f64, frequency: Frequency) -> Self {
        let kappa = x.hypot(y) / gain;
        let r = if kappa.is_finite() { poincare_radius(kappa.min(1.0)) } else { 0.0 };
        let theta = if r > 0.0 { y.atan2(x) } else { 0.0 };
        let theta = if theta < 0.0 { theta + TAU } else { theta };
        Self::new(f32::from_f64(r.min(R_MAX)), f32::from_f64(theta), frequency)
            .expect("r was held in [0, R_MAX] and an angle of finite numbers is finite")
    }

    /// A block from its two words, as stored.
    ///
    /// # Errors
    /// If Seed1 is not a point of the disk. Seed0 may hold any bits.
    pub fn from_bits(seed0: u64, seed1: u64) -> Result<Self, PackedError> {
        let packed = Self { seed0, seed1 };
        let (r, theta) = packed.polar();
        Self::new(r, theta, packed.frequency())?;
        Ok(packed)
    }

    /// Seed0 and Seed1.
    #[must_use]
    pub const fn bits(self) -> (u64, u64) {
        (self.seed0, self.seed1)
    }

    /// The 16 bytes on disk: Seed0 then Seed1, little-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.seed1) << 64 | u128::from(self.seed0)).to_le_bytes()
    }

    /// The inverse of [`Packed128::to_bytes`].
    ///
    /// # Errors
    /// As [`Packed128::from_bits`].
    pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, PackedError> {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self::from_bits(u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes([i, j, k, l, m, n, o, p]))
    }

    /// Seed1: radius and angle (radians), exact.
    #[must_use]
    pub fn polar(self) -> (f32, f32) {
        let [a, b, c, d, e, f, g, h] = self.seed1.to_le_bytes();
        (f32::from_bits(u32::from_le_bytes([e, f, g, h])), f32::from_bits(u32::from_le_bytes([a, b, c, d])))
    }

    /// Seed0: radius as Q0.20 and angle as Q0.24 turns.
    #[must_use]
    pub fn quantized_polar(self) -> (u32, u32) {
        let r = self.seed0 >> (TURN_BITS + 2 * FREQUENCY_BITS);
        let turns = self.seed0 >> (2 * FREQUENCY_BITS) & TURN_MASK;
        let narrow = |v: u64| u32::try_from(v).expect("20 and 24 bits fit 32");
        (narrow(r), narrow(turns))
    }

    /// Seed0: the block's spatial frequency.
    #[must_use]
    pub fn frequency(self) -> Frequency {
        let field = |bits: u64| {
            let value = i16::try_from(bits & FREQUENCY_MASK).expect("10 bits fit 15");
            value << (16 - FREQUENCY_BITS) >> (16 - FREQUENCY_BITS)
        };
        Frequency { u: field(self.seed0 >> FREQUENCY_BITS), v: field(self.seed0) }
    }

    /// `z` under gain `g`, from the training seed.
    #[must_use]
    pub fn z(self, gain: f64) -> (f64, f64) {
        let (r, theta) = self.polar();
        from_polar(f64::from(r), f64::from(theta), gain)
    }

    /// `z` under gain `g`, from the inference seed; within `2⁻¹⁸·g` of [`Packed128::z`].
    #[must_use]
    pub fn quantized_z(self, gain: f64) -> (f64, f64) {
        let (r, turns) = self.quantized_polar();
        from_polar(f64::from(r) / (1u32 << R_BITS) as f64, f64::from(turns) / (1u32 << TURN_BITS) as f64 * TAU, gain)
    }
}

/// Seed1 → Seed0: the *re-quantization* of the design.
fn requantize(r: f32, theta: f32, frequency: Frequency) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "both are non-negative and below 2^25")]
    let (radius, turns) = (
        (f64::from(r) * R_ONE as f64).round() as u64,
        ((f64::from(theta) / TAU).rem_euclid(1.0) * (TURN_MASK + 1) as f64).round() as u64,
    );
    let field = |v: i16| u64::from(v.cast_unsigned()) & FREQUENCY_MASK;
    radius.min(R_ONE - 1) << (TURN_BITS + 2 * FREQUENCY_BITS)
        | (turns & TURN_MASK) << (2 * FREQUENCY_BITS)
        | field(frequency.u) << FREQUENCY_BITS
        | field(frequency.v)
}

/// `κ → r`, the inverse of `κ(r) = 2r/(1+r²)` on the disk.
fn poincare_radius(kappa: f64) -> f64 {
    kappa / (1.0 + (1.0 - kappa * kappa).max(0.0).sqrt())
}

fn from_polar(r: f64, theta: f64, gain: f64) -> (f64, f64) {
    let radius = gain * 2.0 * r / (1.0 + r * r);
    (radius * theta.cos(), radius * theta.sin())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const F: Frequency = Frequency { u: 3, v: -5 };

    #[test]
    fn fields_stand_where_the_diagram_says() {
        let packed = Packed128::new(0.5, std::f32::consts::PI, F).unwrap();
        let (hi, lo) = packed.bits();
        assert_eq!(hi >> 44, 1 << 19, "r = 0.5 in Q0.20");
        assert_eq!(hi >> 20 & 0xff_ffff, 1 << 23, "half a turn in Q0.24");
        assert_eq!(hi >> 10 & 0x3ff, 3);
        assert_eq!(hi & 0x3ff, 0x3fb, "two's complement");
        assert_eq!(lo >> 32, u64::from(0.5f32.to_bits()));
        assert_eq!(packed.frequency(), F);
    }

    #[test]
    fn points_outside_the_disk_are_refused() {
        assert_eq!(Packed128::new(1.0, 0.0, F), Err(PackedError::Radius(1.0)));
        assert!(matches!(Packed128::new(f32::NAN, 0.0, F), Err(PackedError::Radius(_))));
        assert!(matches!(Packed128::new(0.1, f32::INFINITY, F), Err(PackedError::Angle(_))));
        assert!(Packed128::from_bits(0, u64::MAX).is_err());
    }

    #[test]
    fn the_wave_stays_within_its_gain_whatever_z_is() {
        for z in [1e30, f64::INFINITY, f64::NAN, -1e300] {
            let (x, y) = Packed128::from_z(z, z, 4.0, F).z(4.0);
            assert!(x.hypot(y) <= 4.0);
        }
    }

    proptest! {
        #[test]
        fn z_survives_both_seeds(x in -3.0..3.0f64, y in -3.0..3.0f64) {
            let gain = 8.0;
            let packed = Packed128::from_z(x, y, gain, F);
            let (tx, ty) = packed.z(gain);
            prop_assert!((tx - x).hypot(ty - y) < gain * 1e-6);
            let (ix, iy) = packed.quantized_z(gain);
            prop_assert!((ix - tx).hypot(iy - ty) < gain / f64::from(1 << 18));
            prop_assert_eq!(Packed128::from_bytes(packed.to_bytes()), Ok(packed));
        }

        #[test]
        fn any_bits_return(seed0: u64, seed1: u64) {
            if let Ok(packed) = Packed128::from_bits(seed0, seed1) {
                prop_assert_eq!(packed.bits(), (seed0, seed1));
                let (x, y) = packed.quantized_z(1.0);
                prop_assert!(x.hypot(y) <= 1.0);
            }
        }
    }
}
