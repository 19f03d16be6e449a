//! The rotation that integer-only inference is made of: cosine and sine by shifts and additions.
//!
//! J. E. Volder, *The CORDIC Trigonometric Computing Technique*, 1959; J. S. Walther, *A Unified Algorithm
//! for Elementary Functions*, 1971. A phase is a 24-bit turn. Half a quadrant is added and the two top
//! bits taken off, which leaves an angle of at most an eighth of a turn; step `i` turns the vector by
//! `±atan 2⁻ⁱ`, whichever sign brings the rest nearer to zero, and the quadrant then swaps and negates.
//! Steps begin at `i = 1`, since an eighth of a turn needs no `i = 0`: the same number of steps
//! leaves half the angle. Each stretches the vector, all together by the gain
//! `K = Π √(1 + 4⁻ⁱ) = 1.164…`, so the start vector carries its amplitude divided by K and nothing is
//! multiplied. It knows amplitudes and phases only: no blocks, no seeds.

use pulp::{Simd, WithSimd};

/// Bits of a phase: it counts 2⁻²⁴ turns, and bits above are ignored.
pub const TURN_BITS: u32 = 24;
/// 90°: `cos(φ + 90°) = −sin φ`, exact to the bit.
pub const QUARTER_TURN: u32 = 1 << (TURN_BITS - 2);
/// `2⁴⁴/K`.
pub(crate) const INVERSE_GAIN_Q44: u64 = 15_107_911_411_580;

/// Phases that are rotated side by side: two AVX-512 registers, so that one waits less for the other.
pub(crate) const LANES: usize = 32;
/// The angle's unit is 2⁻³² turns: a phase and eight guard bits.
const GUARD_BITS: u32 = 8;
/// `atan 2⁻ⁱ` in 2⁻³² turns, for `i = 1, 2, …, 24`.
const ARCTANGENTS: [i32; 24] = [
    316_933_406,
    167_458_907,
    85_004_756,
    42_667_331,
    21_354_465,
    10_679_838,
    5_340_245,
    2_670_163,
    1_335_087,
    667_544,
    333_772,
    166_886,
    83_443,
    41_722,
    20_861,
    10_430,
    5_215,
    2_608,
    1_304,
    652,
    326,
    163,
    81,
    41,
];

/// How many steps a rotation takes, and with them the fixed point that it works in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// 20 steps on 24 fraction bits.
    Twenty,
    /// 24 steps on 30 fraction bits.
    TwentyFour,
}

impl Steps {
    /// Number of steps.
    #[must_use]
    pub const fn count(self) -> usize {
        match self {
            Self::Twenty => 20,
            Self::TwentyFour => 24,
        }
    }

    /// An integer `n` stands for `n·2^−fraction_bits`.
    #[must_use]
    pub const fn fraction_bits(self) -> u32 {
        match self {
            Self::Twenty => 24,
            Self::TwentyFour => 30,
        }
    }

    /// The start vector of amplitude 1: `2^fraction_bits/K`.
    #[must_use]
    pub const fn unit(self) -> i32 {
        match self {
            Self::Twenty => 14_408_027,
            Self::TwentyFour => 922_113_734,
        }
    }

    /// Largest error of a cosine or sine of amplitude 1: 2⁻¹⁹ with 20 steps, 2⁻²² with 24.
    #[must_use]
    pub const fn error(self) -> f64 {
        match self {
            Self::Twenty => 1.0 / (1u32 << 19) as f64,
            Self::TwentyFour => 1.0 / (1u32 << 22) as f64,
        }
    }
}

/// `(a·cos φ, a·sin φ)` for a phase in 2⁻²⁴ turns and a start vector `a·2^fraction_bits/K`.
///
/// # Panics
/// If `start` is longer than [`Steps::unit`], beyond which a vector could leave 32 bits.
#[must_use]
pub fn rotate(start: i32, phase: u32, steps: Steps) -> (i32, i32) {
    assert_start(start, steps);
    let [(cosine, sine)] = rotate_lanes(start, &[phase], steps);
    (cosine, sine)
}

/// [`rotate`] for many phases, vectorised; the same bits.
///
/// # Panics
/// As [`rotate`], and if the slices are not of one length.
pub fn rotate_each(start: i32, phases: &[u32], steps: Steps, out: &mut [(i32, i32)]) {
    assert_start(start, steps);
    assert_eq!(phases.len(), out.len(), "one vector a phase");
    pulp::Arch::new().dispatch(RotateEach { start, phases, steps, out });
}

fn assert_start(start: i32, steps: Steps) {
    let unit = steps.unit();
    assert!((-unit..=unit).contains(&start), "start vector {start} is longer than {unit}");
}

struct RotateEach<'a> {
    start: i32,
    phases: &'a [u32],
    steps: Steps,
    out: &'a mut [(i32, i32)],
}

impl WithSimd for RotateEach<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) {
        let (phases, rest) = self.phases.as_chunks::<LANES>();
        let (out, out_rest) = self.out.as_chunks_mut::<LANES>();
        for (phases, out) in phases.iter().zip(out) {
            *out = rotate_lanes(self.start, phases, self.steps);
        }
        for (&phase, out) in rest.iter().zip(out_rest) {
            [*out] = rotate_lanes(self.start, &[phase], self.steps);
        }
    }
}

/// The rotation of `N` phases side by side.
#[inline(always)]
pub(crate) fn rotate_lanes<const N: usize>(start: i32, phases: &[u32; N], steps: Steps) -> [(i32, i32); N] {
    let shifted = phases.map(|phase| phase.wrapping_add(QUARTER_TURN / 2));
    let half_quadrant = (QUARTER_TURN / 2).cast_signed();
    let mut rest = shifted.map(|shifted| ((shifted % QUARTER_TURN).cast_signed() - half_quadrant) << GUARD_BITS);
    let (mut x, mut y) = ([start; N], [0; N]);
    for (i, &arctangent) in (1u32..).zip(&ARCTANGENTS[..steps.count()]) {
        for lane in 0..N {
            let sign = rest[lane] >> 31;
            let negate = |value: i32| (value ^ sign) - sign;
            let (across, along) = (negate(y[lane] >> i), negate(x[lane] >> i));
            x[lane] -= across;
            y[lane] += along;
            rest[lane] -= negate(arctangent);
        }
    }
    std::array::from_fn(|lane| turn_quadrants(x[lane], y[lane], shifted[lane] / QUARTER_TURN))
}

/// Turns a vector by whole quadrants, of which the two low bits count.
#[inline(always)]
fn turn_quadrants(x: i32, y: i32, quadrants: u32) -> (i32, i32) {
    let odd = -(quadrants & 1).cast_signed();
    let (cosine, sine) = (x ^ ((x ^ y) & odd), y ^ ((x ^ y) & odd));
    let (cosine_sign, sine_sign) = (-((quadrants + 1) >> 1 & 1).cast_signed(), -(quadrants >> 1 & 1).cast_signed());
    ((cosine ^ cosine_sign) - cosine_sign, (sine ^ sine_sign) - sine_sign)
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use proptest::prelude::*;

    use super::*;

    const BOTH: [Steps; 2] = [Steps::Twenty, Steps::TwentyFour];

    #[test]
    fn the_constants_are_the_arctangents_and_the_gain() {
        let mut gain = 1.0;
        for (i, &arctangent) in (1..).zip(&ARCTANGENTS) {
            let exact = 0.5f64.powi(i).atan() / TAU * 2f64.powi(32);
            assert!((f64::from(arctangent) - exact).abs() < 0.5 + 1e-6, "step {i}");
            gain *= (1.0 + 0.25f64.powi(i)).sqrt();
        }
        assert!((INVERSE_GAIN_Q44 as f64 - 2f64.powi(44) / gain).abs() < 1.0);
        for steps in BOTH {
            let exact = f64::from(1u32 << steps.fraction_bits()) / gain;
            assert!((f64::from(steps.unit()) - exact).abs() <= 0.5);
        }
    }

    /// Every phase of one quadrant against `f64`; the next test carries it round the whole turn.
    #[test]
    fn every_phase_is_within_the_bound() {
        for steps in BOTH {
            let unit = f64::from(1u32 << steps.fraction_bits());
            let mut worst = 0f64;
            let mut out = vec![(0, 0); 1 << 12];
            for first in (0..QUARTER_TURN).step_by(out.len()) {
                let phases: Vec<u32> = (first..).take(out.len()).collect();
                let exact: Vec<_> =
                    phases.iter().map(|&p| (f64::from(p) / f64::from(1 << TURN_BITS) * TAU).sin_cos()).collect();
                for quadrant in 0..4 {
                    let phases: Vec<u32> = phases.iter().map(|p| p + quadrant * QUARTER_TURN).collect();
                    rotate_each(steps.unit(), &phases, steps, &mut out);
                    for (&(cosine, sine), &(s, c)) in out.iter().zip(&exact) {
                        let (c, s) = [(c, s), (-s, c), (-c, -s), (s, -c)][quadrant as usize];
                        worst = worst.max((f64::from(cosine) / unit - c).abs().max((f64::from(sine) / unit - s).abs()));
                    }
                }
            }
            println!("{steps:?}: 2^{:.2}", worst.log2());
            assert!(worst <= steps.error(), "{steps:?}: {worst:e}");
        }
    }

    #[test]
    fn a_quarter_turn_swaps_cosine_and_sine_to_the_bit() {
        for steps in BOTH {
            for phase in (0..1 << TURN_BITS).step_by(61) {
                let (cosine, sine) = rotate(steps.unit(), phase, steps);
                assert_eq!(rotate(steps.unit(), phase.wrapping_add(QUARTER_TURN), steps), (-sine, cosine));
            }
        }
    }

    #[test]
    #[should_panic(expected = "longer than")]
    fn a_start_vector_that_could_overflow_is_refused() {
        let _ = rotate(i32::MAX, 0, Steps::TwentyFour);
    }

    proptest! {
        #[test]
        fn the_vectorised_rotation_gives_the_same_bits(
            phases in prop::collection::vec(any::<u32>(), 0..70),
            start in 0..=Steps::Twenty.unit(),
        ) {
            for steps in BOTH {
                let mut out = vec![(0, 0); phases.len()];
                rotate_each(start, &phases, steps, &mut out);
                for (&phase, &found) in phases.iter().zip(&out) {
                    prop_assert_eq!(found, rotate(start, phase, steps));
                    prop_assert_eq!(found, rotate(start, phase % (1 << TURN_BITS), steps));
                }
            }
        }
    }
}
