//! Weights at scale 1 off the grid, and their gradients, in loops that vectorise.
//!
//! `w = R(ρ)·sin φ` with `∂w/∂φ = R(ρ)·cos φ` and `∂w/∂ρ = R′(ρ)·sin φ`. Sine and cosine are those of the
//! wave (`wave/float.rs`), the maps come from one exponential (Cephes `expf`, S. L. Moshier, 1989): no call
//! into a maths library, the same bits on every machine. It knows nothing of codes and scales.

use std::f32::consts::{FRAC_2_PI, LOG2_E};

use pulp::{Simd, WithSimd};

use super::super::radius::RadiusMap;
use crate::wave::sin_cos_quarters;

/// A map and the radii between which it is taken; beyond them a radius counts as the nearer end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Continuous {
    pub(super) map: RadiusMap,
    pub(super) first: f32,
    pub(super) last: f32,
}

/// One row, or a part of it.
pub(super) struct Gradients<'a> {
    /// φ, ρ and the gradient of the weights at scale 1.
    pub(super) inputs: (&'a [f32], &'a [f32], &'a [f32]),
    /// Gradients of φ and of ρ.
    pub(super) outputs: (&'a mut [f32], &'a mut [f32]),
}

impl Continuous {
    /// Writes the weights of some angles and radii.
    pub(super) fn values(self, angles: &[f32], radii: &[f32], weights: &mut [f32]) {
        let Self { first, last, .. } = self;
        let arch = pulp::Arch::new();
        match self.map {
            RadiusMap::Poincare => arch.dispatch(Values { map: poincare, first, last, angles, radii, weights }),
            RadiusMap::Lorentz => arch.dispatch(Values { map: lorentz, first, last, angles, radii, weights }),
            RadiusMap::Klein => arch.dispatch(Values { map: klein, first, last, angles, radii, weights }),
        }
    }

    /// Writes the gradients of angles and radii; a radius beyond the ends gets none that would drive it further.
    pub(super) fn gradients(self, row: Gradients<'_>) {
        let Self { first, last, .. } = self;
        let arch = pulp::Arch::new();
        match self.map {
            RadiusMap::Poincare => arch.dispatch(Backward { map: poincare, first, last, row }),
            RadiusMap::Lorentz => arch.dispatch(Backward { map: lorentz, first, last, row }),
            RadiusMap::Klein => arch.dispatch(Backward { map: klein, first, last, row }),
        }
    }
}

struct Values<'a, M> {
    map: M,
    first: f32,
    last: f32,
    angles: &'a [f32],
    radii: &'a [f32],
    weights: &'a mut [f32],
}

impl<M: Fn(f32) -> (f32, f32)> WithSimd for Values<'_, M> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) {
        let Self { map, first, last, angles, radii, weights } = self;
        for ((weight, &angle), &radius) in weights.iter_mut().zip(angles).zip(radii) {
            *weight = map(held(radius, first, last)).0 * sin_cos(angle).0;
        }
    }
}

struct Backward<'a, M> {
    map: M,
    first: f32,
    last: f32,
    row: Gradients<'a>,
}

impl<M: Fn(f32) -> (f32, f32)> WithSimd for Backward<'_, M> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) {
        let Self { map, first, last, row: Gradients { inputs: (angles, radii, gradient), outputs } } = self;
        let inputs = angles.iter().zip(radii).zip(gradient);
        for (((&angle, &radius), &gradient), (by_angle, by_radius)) in inputs.zip(outputs.0.iter_mut().zip(outputs.1)) {
            let (value, slope) = map(held(radius, first, last));
            let (sine, cosine) = sin_cos(angle);
            *by_angle = gradient * (value * cosine);
            let inward = gradient * (slope * sine);
            let outward = (radius > last) & (inward < 0.0) | (radius < first) & (inward > 0.0);
            *by_radius = if outward { 0.0 } else { inward };
        }
    }
}

/// `radius` within the ends; what is not a number is the first.
#[inline(always)]
fn held(radius: f32, first: f32, last: f32) -> f32 {
    let above = if radius > first { radius } else { first };
    if above < last { above } else { last }
}

/// Added to a number below 2²², it leaves the nearest integer in the lowest bits.
const ROUNDER: f32 = 12_582_912.0;

/// `(sin, cos)` of an angle in radians, of up to a million turns.
#[inline(always)]
fn sin_cos(angle: f32) -> (f32, f32) {
    let quarters = angle * FRAC_2_PI;
    let rounded = quarters + ROUNDER;
    sin_cos_quarters(rounded.to_bits(), quarters - (rounded - ROUNDER))
}

/// `(tanh(r/2), its slope)`.
#[inline(always)]
fn poincare(r: f32) -> (f32, f32) {
    let e = exp(r);
    let value = (e - 1.0) / (e + 1.0);
    (value, 0.5 * (1.0 - value * value))
}

/// `(sinh r, cosh r)`.
#[inline(always)]
fn lorentz(r: f32) -> (f32, f32) {
    let e = exp(r);
    let inverse = 1.0 / e;
    (0.5 * (e - inverse), 0.5 * (e + inverse))
}

/// `(2r/(1+r²), its slope)`.
#[inline(always)]
fn klein(r: f32) -> (f32, f32) {
    let square = r * r;
    let inverse = 1.0 / (1.0 + square);
    (2.0 * r * inverse, 2.0 * (1.0 - square) * inverse * inverse)
}

/// `eʳ` for `r` of a map's domain, 0 to 4.
#[inline(always)]
fn exp(r: f32) -> f32 {
    /// ln 2 in two parts, of which the first is exact in products with small integers.
    const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    const SERIES: [f32; 6] = [0.5, 0.166_666_65, 0.041_665_796, 8.333_452e-3, 1.398_2e-3, 1.987_569_2e-4];
    let rounded = r * LOG2_E + ROUNDER;
    let power = rounded - ROUNDER;
    let x = (r - power * LN2[0]) - power * LN2[1];
    let [c0, c1, c2, c3, c4, c5] = SERIES;
    let series = c0 + x * (c1 + x * (c2 + x * (c3 + x * (c4 + x * c5))));
    let part = 1.0 + x + x * x * series;
    f32::from_bits(part.to_bits().wrapping_add(rounded.to_bits() << 23))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn maps_agree_with_those_in_double_precision() {
        for (map, ours) in [
            (RadiusMap::Poincare, poincare as fn(f32) -> (f32, f32)),
            (RadiusMap::Lorentz, lorentz),
            (RadiusMap::Klein, klein),
        ] {
            for step in 0..=10_000u16 {
                let r = f32::from(step) / 10_000.0 * f32::from(map.domain());
                let ((value, slope), scale) = (ours(r), map.slope(r.into()).max(1.0));
                assert!((f64::from(value) - map.value(r.into())).abs() <= 2e-7 * scale, "{map:?} at {r}: {value}");
                assert!((f64::from(slope) - map.slope(r.into())).abs() <= 3e-7 * scale, "{map:?} at {r}: {slope}");
            }
        }
    }

    proptest! {
        #[test]
        fn sines_are_right_whatever_the_turn(angle in -60f32..60.0) {
            let (sine, cosine) = sin_cos(angle);
            let bound = 3e-7 * (1.0 + f64::from(angle.abs()) / 2.0);
            prop_assert!((f64::from(sine) - f64::from(angle).sin()).abs() <= bound);
            prop_assert!((f64::from(cosine) - f64::from(angle).cos()).abs() <= bound);
        }
    }
}
