//! The bit derivative engine: codes to values and derivatives, in integers only.
//!
//! Two tables make every answer: the sine at the 4 × P angles of the circle, Q1.30, and the radius map at
//! the M radii, Q3.28, with its slope beside it. A value is one product and one shift,
//!
//! ```text
//!  v(code) = (radius[m]·sine[a]) >> 30,   ∂ⁿv/∂φⁿ = v(code + n quadrants),   ∂v/∂ρ = (slope[m]·sine[a]) >> 30
//! ```
//!
//! so a derivative of any order is a look-up and a shift. Angles are in radians, radii in the map's own
//! unit. There is no float in this file: the same bits on every machine and in every build. It knows
//! nothing of scales, gradients or training.

use std::marker::PhantomData;

use super::code::Code;
use super::fixed::{EXP_FRACTION, exp, rounded_shift, sine_and_cosine};
use super::radius::RadiusMap;

/// Fraction bits of every value and derivative.
pub const FRACTION_BITS: u32 = 28;
/// Fraction bits of the sine.
const SINE_BITS: u32 = 30;
/// Highest order of a product's derivative: up to here Leibniz' sum of values below 4 fits 64 bits.
const PRODUCT_ORDER_MAX: u32 = 30;

/// The tables of one code width and one radius map.
#[derive(Clone, Debug)]
pub struct Engine<C> {
    /// One entry an angle: sine, cosine, −sine, −cosine of the first quadrant's angles.
    sine: Vec<i32>,
    /// One entry a radius: the map and its slope.
    radius: Vec<(i32, i32)>,
    code: PhantomData<C>,
}

impl<C: Code> Engine<C> {
    /// Builds the tables.
    #[must_use]
    pub fn new(map: RadiusMap) -> Self {
        let quadrant: Vec<(i32, i32)> = (0..C::PHASES).map(quadrant_entry::<C>).collect();
        let order = |entry: fn(&(i32, i32)) -> i32| quadrant.iter().map(entry);
        let sine = order(|&(sine, _)| sine)
            .chain(order(|&(_, cosine)| cosine))
            .chain(order(|&(sine, _)| -sine))
            .chain(order(|&(_, cosine)| -cosine));
        let radius = (0..C::RADII).map(|index| radius_entry::<C>(map, index));
        Self { sine: sine.collect(), radius: radius.collect(), code: PhantomData }
    }

    /// `R(ρ)·sin φ` with [`FRACTION_BITS`] fraction bits.
    #[must_use]
    pub fn value(&self, code: C) -> i32 {
        self.product(self.radius[code.radius() as usize].0, code)
    }

    /// The n-th derivative of [`Engine::value`] by the angle φ, in radians.
    #[must_use]
    pub fn angle_derivative(&self, code: C, n: u32) -> i32 {
        self.value(code.derivative(n))
    }

    /// The derivative of [`Engine::value`] by the radius ρ, in the map's unit.
    #[must_use]
    pub fn radius_derivative(&self, code: C) -> i32 {
        self.product(self.radius[code.radius() as usize].1, code)
    }

    /// The n-th derivative of a sum of waves that turn together: the sum of theirs.
    #[must_use]
    pub fn sum_derivative(&self, codes: &[C], n: u32) -> i64 {
        codes.iter().map(|&code| i64::from(self.angle_derivative(code, n))).sum()
    }

    /// The n-th derivative of a product of two waves that turn together, by Leibniz' rule
    /// `Σ binomial(n, k)·f⁽ᵏ⁾·g⁽ⁿ⁻ᵏ⁾`, rounded once; none if `n` is above 30, where it could leave 64 bits.
    #[must_use]
    pub fn product_derivative(&self, f: C, g: C, n: u32) -> Option<i64> {
        if n > PRODUCT_ORDER_MAX {
            return None;
        }
        let (mut sum, mut binomial) = (0i128, 1i128);
        for k in 0..=n {
            let factors = (self.angle_derivative(f, k), self.angle_derivative(g, n - k));
            sum += binomial * i128::from(factors.0) * i128::from(factors.1);
            binomial = binomial * i128::from(n - k) / i128::from(k + 1);
        }
        i64::try_from(rounded_shift(sum, FRACTION_BITS)).ok()
    }

    fn product(&self, radius: i32, code: C) -> i32 {
        let product = i128::from(radius) * i128::from(self.sine[code.angle() as usize]);
        narrow(rounded_shift(product, SINE_BITS))
    }
}

/// Sine and cosine of a phase of the first quadrant, `(phase + ¼)·π/2P`.
fn quadrant_entry<C: Code>(phase: u32) -> (i32, i32) {
    let (sine, cosine) = sine_and_cosine(4 * phase + 1, 8 * C::PHASES, SINE_BITS);
    (narrow(sine), narrow(cosine))
}

/// The map and its slope at `(index + ½)·D/M`.
fn radius_entry<C: Code>(map: RadiusMap, index: u32) -> (i32, i32) {
    let one: i128 = 1 << EXP_FRACTION;
    let r = one * i128::from(2 * index + 1) * i128::from(map.domain()) / i128::from(2 * C::RADII);
    let quotient = |a: i128, b: i128| (a << EXP_FRACTION) / b;
    let (value, slope) = match map {
        RadiusMap::Poincare => {
            let e = exp(r);
            let value = quotient(e - one, e + one);
            (value, (one - ((value * value) >> EXP_FRACTION)) / 2)
        }
        RadiusMap::Lorentz => {
            let (e, inverse) = (exp(r), quotient(one, exp(r)));
            ((e - inverse) / 2, (e + inverse) / 2)
        }
        RadiusMap::Klein => {
            let square = (r * r) >> EXP_FRACTION;
            let value = quotient(2 * r, one + square);
            (value, quotient(quotient(2 * (one - square), one + square), one + square))
        }
    };
    let rounded = |value| narrow(rounded_shift(value, EXP_FRACTION - FRACTION_BITS));
    (rounded(value), rounded(slope))
}

fn narrow(value: i128) -> i32 {
    i32::try_from(value).expect("a sine is at most 1, and no map's value or slope reaches 8 on its domain")
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::super::code::{Code8, Code16};
    use super::*;

    fn angle<C: Code>(code: C) -> f64 {
        (f64::from(code.angle()) + 0.25) * 2.0 * PI / f64::from(C::ANGLES)
    }

    fn check_every_code<C: Code>(check: impl Fn(&Engine<C>, RadiusMap, C)) {
        for map in RadiusMap::ALL {
            let engine = Engine::<C>::new(map);
            (0..C::CODES).for_each(|bits| check(&engine, map, C::from_bits(bits)));
        }
    }

    /// Units in the last place between a table's integer and a float.
    fn ulps(integer: impl Into<i64>, float: f64, bits: u32) -> f64 {
        (integer.into() as f64 - float * f64::from(bits).exp2()).abs()
    }

    /// Half a unit, and what f64 itself is off by.
    const HALF: f64 = 0.5 + 1e-5;

    fn tables_are_rounded_to_nearest<C: Code>() {
        check_every_code::<C>(|engine, map, code| {
            let r = map.grid(code.radius(), C::RADII);
            let (value, slope) = engine.radius[code.radius() as usize];
            assert!(ulps(engine.sine[code.angle() as usize], angle(code).sin(), SINE_BITS) <= HALF);
            assert!(ulps(value, map.value(r), FRACTION_BITS) <= HALF, "{map:?} at {r}");
            assert!(ulps(slope, map.slope(r), FRACTION_BITS) <= HALF, "{map:?} at {r}");
        });
    }

    #[test]
    fn every_table_entry_is_within_half_a_unit_of_f64() {
        tables_are_rounded_to_nearest::<Code8>();
        tables_are_rounded_to_nearest::<Code16>();
    }

    /// Half a unit from the radius, as much from the last shift, an eighth of the radius from the sine.
    fn values_are_near_f64<C: Code>() {
        check_every_code::<C>(|engine, map, code| {
            let r = map.grid(code.radius(), C::RADII);
            for n in 0..4 {
                let expected = map.value(r) * (angle(code) + f64::from(n) * PI / 2.0).sin();
                let found = engine.angle_derivative(code, n);
                assert!(ulps(found, expected, FRACTION_BITS) <= 2.0 * HALF + map.value(r) / 8.0);
            }
            let expected = map.slope(r) * angle(code).sin();
            let found = engine.radius_derivative(code);
            assert!(ulps(found, expected, FRACTION_BITS) <= 2.0 * HALF + map.slope(r) / 8.0);
        });
    }

    #[test]
    fn values_and_derivatives_are_within_a_unit_and_a_half_of_f64() {
        values_are_near_f64::<Code8>();
        values_are_near_f64::<Code16>();
    }

    fn derivatives_cycle<C: Code>() {
        check_every_code::<C>(|engine, _, code| {
            let at = |n| engine.angle_derivative(code, n);
            assert_eq!([at(2), at(3), at(4)], [-at(0), -at(1), at(0)]);
            assert_eq!(at(1_000_003), at(3));
        });
    }

    #[test]
    fn the_second_derivative_is_the_negative_and_the_fourth_the_value_exactly() {
        derivatives_cycle::<Code8>();
        derivatives_cycle::<Code16>();
    }

    /// `|f(φ+h) − f(φ−h) − 2h·f′(φ)| ≤ h³/3·R`, beside two units of rounding for each of the values.
    fn derivatives_are_differences<C: Code>() {
        let step = 2.0 * PI / f64::from(C::ANGLES);
        check_every_code::<C>(|engine, map, code| {
            let neighbour = |by: u32| C::at(code.angle() + by, code.radius());
            let difference = i64::from(engine.value(neighbour(1))) - i64::from(engine.value(neighbour(C::ANGLES - 1)));
            let derivative = f64::from(engine.angle_derivative(code, 1)) * 2.0 * step;
            let r = map.grid(code.radius(), C::RADII);
            let bound = step.powi(3) / 3.0 * map.value(r) * f64::from(FRACTION_BITS).exp2() + 4.0;
            assert!((difference as f64 - derivative).abs() <= bound);
        });
    }

    #[test]
    fn the_derivative_is_the_difference_of_neighbours_up_to_the_third_order() {
        derivatives_are_differences::<Code8>();
        derivatives_are_differences::<Code16>();
    }

    /// `Σ|R(r+h) − R(r−h) − 2h·R′(r)| ≤ h³/3·max|R‴|`, and |R‴| is below 12 on the three domains.
    #[test]
    fn the_radius_derivative_is_the_difference_of_neighbours_up_to_the_third_order() {
        for map in RadiusMap::ALL {
            let engine = Engine::<Code16>::new(map);
            let step = f64::from(map.domain()) / f64::from(Code16::RADII);
            for (angle, m) in (0..Code16::ANGLES).flat_map(|angle| (1..Code16::RADII - 1).map(move |m| (angle, m))) {
                let value = |m| f64::from(engine.value(Code16::at(angle, m)));
                let derivative = f64::from(engine.radius_derivative(Code16::at(angle, m))) * 2.0 * step;
                let bound = step.powi(3) / 3.0 * 12.0 * f64::from(FRACTION_BITS).exp2() + 4.0;
                assert!((value(m + 1) - value(m - 1) - derivative).abs() <= bound, "{map:?}: {angle}, {m}");
            }
        }
    }

    #[test]
    fn sums_and_products_follow_their_rules() {
        let engine = Engine::<Code16>::new(RadiusMap::Lorentz);
        let unit = f64::from(FRACTION_BITS).exp2();
        for (f, g) in (0..Code16::CODES).step_by(257).zip((0..Code16::CODES).rev().step_by(101)) {
            let (f, g) = (Code16::from_bits(f), Code16::from_bits(g));
            let radius = |code: Code16| RadiusMap::Lorentz.value(RadiusMap::Lorentz.grid(code.radius(), Code16::RADII));
            let (a, b) = (angle(f), angle(g));
            for n in 0..=PRODUCT_ORDER_MAX {
                let sum = i64::from(engine.angle_derivative(f, n)) + i64::from(engine.angle_derivative(g, n));
                assert_eq!(engine.sum_derivative(&[f, g], n), sum);
                // sin a·sin b = (cos(a−b) − cos(a+b))/2, of which only a+b turns, twice as fast.
                let turned = (a + b + f64::from(n % 4) * PI / 2.0).cos() * f64::from(n).exp2();
                let constant = if n == 0 { (a - b).cos() } else { 0.0 };
                let expected = 0.5 * radius(f) * radius(g) * (constant - turned) * unit;
                let found = engine.product_derivative(f, g, n).unwrap() as f64;
                assert!((found - expected).abs() <= 1.0 + 16.0 * f64::from(n).exp2(), "order {n}");
            }
            assert_eq!(engine.product_derivative(f, g, PRODUCT_ORDER_MAX + 1), None);
        }
    }

    fn digest<C: Code>() -> String {
        let mut hasher = blake3::Hasher::new();
        for map in RadiusMap::ALL {
            let engine = Engine::<C>::new(map);
            for code in (0..C::CODES).map(C::from_bits) {
                hasher.update(&engine.value(code).to_le_bytes());
                hasher.update(&engine.radius_derivative(code).to_le_bytes());
            }
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }

    #[test]
    fn every_value_is_pinned_for_ever() {
        assert_eq!([digest::<Code8>(), digest::<Code16>()], ["9814d0eafb6ec2f2", "9aa31dcbba957e1f"]);
    }
}
