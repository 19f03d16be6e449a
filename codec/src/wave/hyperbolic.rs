//! Points of hyperbolic space in the Poincaré, Klein and Lorentz models, and their Einstein midpoint.
//!
//! ```text
//!  Poincaré p, |p| < 1       k = 2p/(1+|p|²)           p = k/(1+√(1−|k|²)) = s/(1+t)
//!  Klein    k, |k| < 1       (t, s) = γ·(1, k)         γ = 1/√(1−|k|²)
//!  Lorentz  (t, s)           t² − |s|² = 1, t > 0      k = s/t
//! ```
//!
//! A block's wave is such a point: `(r, θ)` in the Poincaré disk, `κ(r)` its radius in Klein's. Straight lines of
//! Klein's disk are geodesics, which gives the Einstein midpoint its closed form: A. A. Ungar, *Analytic
//! Hyperbolic Geometry*, 2005; used for averaging by Gulcehre et al., *Hyperbolic Attention Networks*,
//! 2019; the disk as an embedding space is Nickel & Kiela, *Poincaré Embeddings*, 2017.
//!
//! **Near the rim.** In `f64` a Poincaré point reaches to distance 37 from the centre, a Klein point to half of
//! that, 19, since `1 − |k|` is about `(1 − |p|)²/2`; a Lorentz point has no such limit. The relative error
//! of `1 − |k|²`, and with it of γ, grows as `2⁻⁵³·γ²`: beyond distance 9 a Klein point has lost half its
//! digits. A conversion that would round onto the rim is an error that names the norm. It knows no blocks and
//! no gradients.

use thiserror::Error;

/// Why numbers are not a point, or points have no midpoint.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum HyperbolicError {
    /// The point lies outside the open unit ball, or rounds onto its rim, or is not a number.
    #[error("norm {norm} is outside [0, 1)")]
    OutsideBall {
        /// Norm of the point.
        norm: f64,
    },
    /// The point is farther than `f64` reaches, or is not a number.
    #[error("spatial norm {norm} is not finite")]
    NotFinite {
        /// Norm of the spatial part.
        norm: f64,
    },
    /// A weight is negative or not finite.
    #[error("weight {index} is {weight}, allowed are finite weights from 0")]
    Weight {
        /// Index of the weight.
        index: usize,
        /// Its value.
        weight: f64,
    },
    /// All weights are zero, or there are none.
    #[error("the {points} weights sum to zero")]
    NoWeight {
        /// Number of points.
        points: usize,
    },
}

/// A point in the Poincaré ball of `N` dimensions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Poincare<const N: usize>([f64; N]);

/// A point in the Klein ball of `N` dimensions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Klein<const N: usize>([f64; N]);

/// A point on the upper sheet of the hyperboloid: `time² − |space|² = 1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lorentz<const N: usize> {
    time: f64,
    space: [f64; N],
}

impl Poincare<2> {
    /// A block's polar point, `theta` in radians.
    ///
    /// # Errors
    /// If `r` is outside the disk.
    pub fn from_polar(r: f64, theta: f64) -> Result<Self, HyperbolicError> {
        Self::new([r * theta.cos(), r * theta.sin()])
    }
}

impl<const N: usize> Poincare<N> {
    /// A point from its coordinates.
    ///
    /// # Errors
    /// If its norm is not below 1.
    pub fn new(coordinates: [f64; N]) -> Result<Self, HyperbolicError> {
        in_ball(&coordinates)?;
        Ok(Self(coordinates))
    }

    /// The coordinates.
    #[must_use]
    pub const fn coordinates(&self) -> &[f64; N] {
        &self.0
    }

    /// The same point in Klein's model.
    ///
    /// # Errors
    /// If it rounds onto the rim, from distance 19 on.
    pub fn to_klein(&self) -> Result<Klein<N>, HyperbolicError> {
        Klein::new(scaled(&self.0, 2.0 / (1.0 + dot(&self.0, &self.0))))
    }

    /// The same point on the hyperboloid.
    #[must_use]
    pub fn to_lorentz(&self) -> Lorentz<N> {
        Lorentz::above(scaled(&self.0, 2.0 / self.one_minus_square()))
    }

    /// Hyperbolic distance: `2·arsinh(|p−q| / √((1−|p|²)(1−|q|²)))`.
    #[must_use]
    pub fn distance(&self, other: &Self) -> f64 {
        let apart = norm(&difference(&self.0, &other.0));
        2.0 * (apart / (self.one_minus_square() * other.one_minus_square()).sqrt()).asinh()
    }

    fn one_minus_square(&self) -> f64 {
        let norm = norm(&self.0);
        (1.0 - norm) * (1.0 + norm)
    }
}

impl<const N: usize> Klein<N> {
    /// A point from its coordinates.
    ///
    /// # Errors
    /// If its norm is not below 1.
    pub fn new(coordinates: [f64; N]) -> Result<Self, HyperbolicError> {
        in_ball(&coordinates)?;
        Ok(Self(coordinates))
    }

    /// The coordinates.
    #[must_use]
    pub const fn coordinates(&self) -> &[f64; N] {
        &self.0
    }

    /// `γ = 1/√(1−|k|²)`, the point's time on the hyperboloid.
    #[must_use]
    pub fn gamma(&self) -> f64 {
        1.0 / self.one_minus_square().sqrt()
    }

    /// The same point in Poincaré's model, where its norm is at most `1 − 10⁻⁸`.
    #[must_use]
    pub fn to_poincare(&self) -> Poincare<N> {
        Poincare(scaled(&self.0, 1.0 / (1.0 + self.one_minus_square().sqrt())))
    }

    /// The same point on the hyperboloid.
    #[must_use]
    pub fn to_lorentz(&self) -> Lorentz<N> {
        Lorentz::above(scaled(&self.0, self.gamma()))
    }

    /// Hyperbolic distance: `arsinh √((|k−l|² − |k∧l|²) / ((1−|k|²)(1−|l|²)))`, which is
    /// `arcosh((1−k·l)/√…)` without its cancellation for points that are close.
    #[must_use]
    pub fn distance(&self, other: &Self) -> f64 {
        let apart = difference(&self.0, &other.0);
        let wedge = wedge_square(&self.0, &apart);
        let square = (dot(&apart, &apart) - wedge).max(0.0) / (self.one_minus_square() * other.one_minus_square());
        square.sqrt().asinh()
    }

    fn one_minus_square(&self) -> f64 {
        let norm = norm(&self.0);
        (1.0 - norm) * (1.0 + norm)
    }
}

impl<const N: usize> Lorentz<N> {
    /// The point of the hyperboloid above these spatial coordinates.
    ///
    /// # Errors
    /// If their norm is not finite.
    pub fn new(space: [f64; N]) -> Result<Self, HyperbolicError> {
        let norm = norm(&space);
        if norm.is_finite() { Ok(Self::above(space)) } else { Err(HyperbolicError::NotFinite { norm }) }
    }

    fn above(space: [f64; N]) -> Self {
        Self { time: norm(&space).hypot(1.0), space }
    }

    /// `t = cosh` of the distance to the centre.
    #[must_use]
    pub const fn time(&self) -> f64 {
        self.time
    }

    /// The spatial coordinates.
    #[must_use]
    pub const fn space(&self) -> &[f64; N] {
        &self.space
    }

    /// The same point in Poincaré's model.
    ///
    /// # Errors
    /// If it rounds onto the rim, from distance 37 on.
    pub fn to_poincare(&self) -> Result<Poincare<N>, HyperbolicError> {
        Poincare::new(scaled(&self.space, 1.0 / (1.0 + self.time)))
    }

    /// The same point in Klein's model.
    ///
    /// # Errors
    /// If it rounds onto the rim, from distance 19 on.
    pub fn to_klein(&self) -> Result<Klein<N>, HyperbolicError> {
        Klein::new(scaled(&self.space, 1.0 / self.time))
    }

    /// Hyperbolic distance, `arcosh(tt′ − s·s′)`, computed as
    /// `2·arsinh(½·|s/(1+t) − s′/(1+t′)|·√((1+t)(1+t′)))`, in which nothing cancels but the difference itself.
    #[must_use]
    pub fn distance(&self, other: &Self) -> f64 {
        let (a, b) = (1.0 + self.time, 1.0 + other.time);
        let apart = norm(&difference(&scaled(&self.space, 1.0 / a), &scaled(&other.space, 1.0 / b)));
        2.0 * (apart / 2.0 * a.sqrt() * b.sqrt()).asinh()
    }
}

/// The Einstein midpoint `Σ γ_i·w_i·k_i / Σ γ_i·w_i` of weighted points.
///
/// It lies in their convex hull, moves with every isometry, and of two points with equal weights is the
/// middle of the geodesic.
///
/// # Errors
/// If a weight is negative or not finite, all are zero, or the midpoint rounds onto the rim.
pub fn einstein_midpoint<const N: usize>(points: &[(Klein<N>, f64)]) -> Result<Klein<N>, HyperbolicError> {
    // Weights relative to the largest, so that no sum overflows.
    let mut largest = 0f64;
    for (index, &(_, weight)) in points.iter().enumerate() {
        if !(0.0..f64::INFINITY).contains(&weight) {
            return Err(HyperbolicError::Weight { index, weight });
        }
        largest = largest.max(weight);
    }
    if largest == 0.0 {
        return Err(HyperbolicError::NoWeight { points: points.len() });
    }
    let (mut total, mut sum) = (0.0, [0.0; N]);
    for (point, weight) in points {
        let weight = weight / largest * point.gamma();
        total += weight;
        for (sum, &k) in sum.iter_mut().zip(&point.0) {
            *sum += weight * k;
        }
    }
    Klein::new(scaled(&sum, 1.0 / total))
}

fn in_ball(coordinates: &[f64]) -> Result<(), HyperbolicError> {
    let norm = norm(coordinates);
    if norm < 1.0 { Ok(()) } else { Err(HyperbolicError::OutsideBall { norm }) }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Without overflow, as coordinates on the hyperboloid may be large.
fn norm(a: &[f64]) -> f64 {
    a.iter().fold(0.0, |norm, &a| a.hypot(norm))
}

fn scaled<const N: usize>(a: &[f64; N], by: f64) -> [f64; N] {
    a.map(|a| a * by)
}

fn difference<const N: usize>(a: &[f64; N], b: &[f64; N]) -> [f64; N] {
    std::array::from_fn(|n| b[n] - a[n])
}

/// `|a∧b|² = |a|²|b|² − (a·b)²`, as the sum of squares that it is.
fn wedge_square(a: &[f64], b: &[f64]) -> f64 {
    let pairs = (0..a.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    pairs.map(|(i, j)| (a[i] * b[j] - a[j] * b[i]).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use proptest::prelude::*;

    use super::*;
    use crate::layout::Frequency;
    use crate::packed::Packed128;

    /// Points of three dimensions up to a distance of about 5.3 from the centre.
    fn points() -> impl Strategy<Value = Poincare<3>> {
        (prop::array::uniform3(-1.0..1.0f64), 0.0..0.99f64).prop_map(|(direction, radius)| {
            let length = norm(&direction).max(1e-9);
            Poincare::new(scaled(&direction, radius / length)).unwrap()
        })
    }

    fn klein(point: &Poincare<3>) -> Klein<3> {
        point.to_klein().unwrap()
    }

    fn close(a: &[f64], b: &[f64], within: f64) -> bool {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() <= within)
    }

    fn rotated(point: Klein<3>, (a, b): (f64, f64)) -> Klein<3> {
        let [x, y, z] = point.0;
        let (x, y) = (x * a.cos() - y * a.sin(), x * a.sin() + y * a.cos());
        Klein([x * b.cos() - z * b.sin(), y, x * b.sin() + z * b.cos()])
    }

    #[test]
    fn points_outside_the_ball_are_refused_with_their_norm() {
        assert_eq!(Poincare::new([0.6, 0.8]), Err(HyperbolicError::OutsideBall { norm: 1.0 }));
        assert_eq!(Klein::new([3.0, 4.0]).unwrap_err().to_string(), "norm 5 is outside [0, 1)");
        assert!(Klein::new([f64::NAN, 0.0]).is_err() && Poincare::new([f64::INFINITY, 0.0]).is_err());
        assert!(matches!(Lorentz::new([f64::MAX, f64::MAX]), Err(HyperbolicError::NotFinite { .. })));
    }

    #[test]
    fn the_rim_is_where_the_documentation_says() {
        let far = Poincare::new([1.0 - f64::EPSILON / 2.0, 0.0]).unwrap();
        let lorentz = far.to_lorentz();
        assert!((lorentz.time().acosh() - 37.4).abs() < 0.1);
        assert_eq!(far.to_klein(), Err(HyperbolicError::OutsideBall { norm: 1.0 }));
        assert!(lorentz.to_poincare().is_ok() && lorentz.to_klein().is_err());
        let far = Klein::new([1.0 - f64::EPSILON / 2.0, 0.0]).unwrap();
        assert!((far.to_lorentz().time().acosh() - 18.7).abs() < 0.1);
        assert!(norm(&far.to_poincare().0) < 1.0 - 1e-8);
    }

    #[test]
    fn weights_that_are_none_are_refused() {
        let point = Klein::new([0.5, 0.0]).unwrap();
        assert_eq!(einstein_midpoint::<2>(&[]), Err(HyperbolicError::NoWeight { points: 0 }));
        assert_eq!(einstein_midpoint(&[(point, 0.0)]), Err(HyperbolicError::NoWeight { points: 1 }));
        let error = einstein_midpoint(&[(point, 1.0), (point, -1.0)]);
        assert_eq!(error, Err(HyperbolicError::Weight { index: 1, weight: -1.0 }));
        assert!(einstein_midpoint(&[(point, f64::NAN)]).is_err());
        let heavy = einstein_midpoint(&[(point, f64::MAX), (point, f64::MAX)]).unwrap();
        assert!(close(&heavy.0, &point.0, 1e-15));
    }

    proptest! {
        #[test]
        fn a_block_s_wave_is_its_point_in_the_klein_disk(r in 0f32..1.0, theta in 0f32..7.0) {
            let packed = Packed128::new(r, theta, Frequency { u: 1, v: 1 }).unwrap();
            let point = Poincare::from_polar(r.into(), theta.into()).unwrap().to_klein().unwrap();
            let (x, y) = packed.z(1.0);
            prop_assert!(close(point.coordinates(), &[x, y], 1e-15));
        }

        #[test]
        fn every_conversion_has_its_inverse(p in points()) {
            let (k, l) = (klein(&p), p.to_lorentz());
            prop_assert!(close(&k.to_poincare().0, &p.0, 1e-12));
            prop_assert!(close(&l.to_poincare().unwrap().0, &p.0, 1e-14));
            prop_assert!(close(&k.to_lorentz().to_klein().unwrap().0, &k.0, 1e-12));
            prop_assert!(close(&l.to_klein().unwrap().0, &k.0, 1e-14));
            prop_assert!((l.time * l.time - dot(&l.space, &l.space) - 1.0).abs() < 1e-11 * l.time * l.time);
            prop_assert!((k.gamma() - l.time).abs() < 1e-11 * l.time.powi(3));
        }

        #[test]
        fn the_models_agree_on_distance(p in points(), q in points(), near in 0.0..1.0f64) {
            let nearby = Poincare(std::array::from_fn(|n| p.0[n] + 1e-6 * near * (q.0[n] - p.0[n])));
            for q in [q, nearby, p] {
                let distance = p.distance(&q);
                let of_lorentz = p.to_lorentz().distance(&q.to_lorentz());
                let of_klein = klein(&p).distance(&klein(&q));
                prop_assert!((of_lorentz - distance).abs() <= 1e-10 * (1.0 + distance), "{of_lorentz} {distance}");
                prop_assert!((of_klein - distance).abs() <= 1e-8 * (1.0 + distance), "{of_klein} {distance}");
                prop_assert!((q.distance(&p) - distance).abs() <= 1e-14);
            }
            let cosh = (1.0 - dot(&klein(&p).0, &klein(&q).0)) * klein(&p).gamma() * klein(&q).gamma();
            prop_assert!((cosh.acosh() - p.distance(&q)).abs() <= 1e-5, "the textbook's formula");
        }

        #[test]
        fn distance_obeys_the_triangle(p in points(), q in points(), s in points()) {
            prop_assert!(p.distance(&q) <= p.distance(&s) + s.distance(&q) + 1e-12);
        }

        #[test]
        fn the_midpoint_of_two_is_equidistant_and_between(p in points(), q in points()) {
            let (p, q) = (klein(&p), klein(&q));
            let middle = einstein_midpoint(&[(p, 1.0), (q, 1.0)]).unwrap();
            let (a, b) = (middle.distance(&p), middle.distance(&q));
            prop_assert!((a - b).abs() < 1e-8, "{a} {b}");
            prop_assert!((a + b - p.distance(&q)).abs() < 1e-8);
        }

        #[test]
        fn the_midpoint_turns_with_its_points(
            points in prop::collection::vec((points(), 0.1..3.0f64), 1..6), angles in (0.0..TAU, 0.0..TAU),
        ) {
            let points: Vec<_> = points.iter().map(|(p, w)| (klein(p), *w)).collect();
            let turned: Vec<_> = points.iter().map(|&(p, w)| (rotated(p, angles), w)).collect();
            let (middle, of_turned) = (einstein_midpoint(&points).unwrap(), einstein_midpoint(&turned).unwrap());
            prop_assert!(close(&rotated(middle, angles).0, &of_turned.0, 1e-9));
        }

        #[test]
        fn the_midpoint_is_inside_the_hull(
            points in prop::collection::vec((points(), 0.0..3.0f64), 1..6),
            direction in prop::array::uniform3(-1.0..1.0f64),
        ) {
            prop_assume!(points.iter().any(|(_, w)| *w > 0.0));
            let points: Vec<_> = points.iter().map(|(p, w)| (klein(p), *w)).collect();
            let middle = dot(&einstein_midpoint(&points).unwrap().0, &direction);
            let along = points.iter().map(|(p, _)| dot(&p.0, &direction));
            let (least, most) = along.fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(x), b.max(x)));
            prop_assert!((least - 1e-14..=most + 1e-14).contains(&middle));
        }
    }
}
