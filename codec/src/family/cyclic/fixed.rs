//! The functions behind the engine's tables, in integers: sine, cosine and the exponential by their power series.
//!
//! Fixed point in `i128`, so that a table is the same on every machine and in every build. Called once a
//! table entry; not meant to be fast. It knows nothing of codes.

/// A number in fixed point and its fraction bits are named together: `Q62` angles, `Q56` exponentials.
const ANGLE_BITS: u32 = 62;
const EXP_BITS: u32 = 56;
/// π in Q62.
const PI: i128 = 0xC90F_DAA2_2168_C234;

/// Fraction bits of [`exp`] and of its argument.
pub(super) const EXP_FRACTION: u32 = EXP_BITS;

/// Sine and cosine of `π·numerator/denominator`, an angle of the first quadrant, with `bits` fraction bits,
/// rounded to nearest.
pub(super) fn sine_and_cosine(numerator: u32, denominator: u32, bits: u32) -> (i128, i128) {
    let angle = PI * i128::from(numerator) / i128::from(denominator);
    let square = (angle * angle) >> ANGLE_BITS;
    let one = 1 << ANGLE_BITS;
    let (sine, cosine) = (alternating(angle, square, 1), alternating(one, square, 0));
    (rounded_shift(sine, ANGLE_BITS - bits), rounded_shift(cosine, ANGLE_BITS - bits))
}

/// `first·(1 − s/((d+1)(d+2)) + s²/((d+1)⋯(d+4)) − …)`: the sine's series for d = 1, the cosine's for d = 0.
fn alternating(first: i128, square: i128, degree: i128) -> i128 {
    let (mut sum, mut term, mut degree) = (first, first, degree);
    while term != 0 {
        term = -(((term * square) >> ANGLE_BITS) / ((degree + 1) * (degree + 2)));
        degree += 2;
        sum += term;
    }
    sum
}

/// `eˣ` for `x` in `[0, 4]`, argument and result with [`EXP_FRACTION`] fraction bits.
pub(super) fn exp(x: i128) -> i128 {
    debug_assert!((0..=4 << EXP_BITS).contains(&x), "{x} is outside the domain");
    let (mut sum, mut term) = (1 << EXP_BITS, 1 << EXP_BITS);
    let mut degree = 0;
    while term != 0 {
        degree += 1;
        term = ((term * x) >> EXP_BITS) / degree;
        sum += term;
    }
    sum
}

/// `value / 2^shift`, rounded to nearest, halves away from zero; odd, so a table and its negative agree.
pub(super) const fn rounded_shift(value: i128, shift: u32) -> i128 {
    let half = if shift == 0 { 0 } else { 1 << (shift - 1) };
    if value < 0 { -((half - value) >> shift) } else { (value + half) >> shift }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_agree_with_the_libraries_functions() {
        for n in 0..=1_000u32 {
            let (sine, cosine) = sine_and_cosine(n, 2_000, 60);
            let angle = std::f64::consts::PI * f64::from(n) / 2_000.0;
            assert!((sine as f64 / 60f64.exp2() - angle.sin()).abs() < 1e-15);
            assert!((cosine as f64 / 60f64.exp2() - angle.cos()).abs() < 1e-15);
            let x = (i128::from(n) << EXP_BITS) / 250;
            let expected = (f64::from(n) / 250.0).exp();
            assert!((exp(x) as f64 / 56f64.exp2() / expected - 1.0).abs() < 2e-15);
        }
    }

    #[test]
    fn rounding_is_odd_and_to_nearest() {
        let rounded = [-6, -5, -3, -2, -1, 0, 1, 2, 3, 5, 6].map(|value| rounded_shift(value, 2));
        assert_eq!(rounded, [-2, -1, -1, -1, 0, 0, 0, 1, 1, 1, 2]);
        assert_eq!(rounded_shift(-7, 0), -7);
    }
}
