//! The transforms of 8 and 16 rows as straight code, so that their rows stay in registers.
//!
//! The same factorisation as `cosine.rs`, spelled out: `U_8 = U_4 ⊕ V_4` and `U_16 = U_8 ⊕ V_8` behind their
//! butterflies, and the transposes. Inputs and outputs are in natural order.

use std::f64::consts::{FRAC_PI_8, PI, SQRT_2};

use crate::scalar::Scalar;

/// A row of a tile.
type Row<S, const W: usize> = [S; W];

/// The cosines and sines that the leaves rotate by, in the kernels' float type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Angles<S> {
    root: S,
    eighth: (S, S),
    sixteenth: [(S, S); 2],
    thirty_second: [(S, S); 4],
}

impl<S: Scalar> Angles<S> {
    /// The constants.
    pub(crate) fn new() -> Self {
        let turn = |angle: f64, by: f64| (S::from_f64(by * angle.cos()), S::from_f64(by * angle.sin()));
        Self {
            root: S::from_f64(SQRT_2),
            eighth: turn(FRAC_PI_8, SQRT_2),
            sixteenth: [1.0, 3.0].map(|n| turn(n * PI / 16.0, 1.0)),
            thirty_second: [1.0, 3.0, 5.0, 7.0].map(|n| turn(n * PI / 32.0, 1.0)),
        }
    }

    /// `U_8`.
    #[inline(always)]
    pub(crate) fn second_8<const W: usize>(&self, x: [Row<S, W>; 8]) -> [Row<S, W>; 8] {
        let [x0, x1, x2, x3, x4, x5, x6, x7] = x;
        let [y0, y2, y4, y6] = self.second_4([add(&x0, &x7), add(&x1, &x6), add(&x2, &x5), add(&x3, &x4)]);
        let [y1, y3, y5, y7] = self.fourth_4([sub(&x0, &x7), sub(&x1, &x6), sub(&x2, &x5), sub(&x3, &x4)]);
        [y0, y1, y2, y3, y4, y5, y6, y7]
    }

    /// `U_8` transposed.
    #[inline(always)]
    pub(crate) fn second_8_transposed<const W: usize>(&self, y: [Row<S, W>; 8]) -> [Row<S, W>; 8] {
        let [y0, y1, y2, y3, y4, y5, y6, y7] = y;
        let [s0, s1, s2, s3] = self.second_4_transposed([y0, y2, y4, y6]);
        let [d0, d1, d2, d3] = self.fourth_4_transposed([y1, y3, y5, y7]);
        [
            add(&s0, &d0),
            add(&s1, &d1),
            add(&s2, &d2),
            add(&s3, &d3),
            sub(&s3, &d3),
            sub(&s2, &d2),
            sub(&s1, &d1),
            sub(&s0, &d0),
        ]
    }

    /// `V_8`.
    #[inline(always)]
    pub(crate) fn fourth_8<const W: usize>(&self, x: [Row<S, W>; 8]) -> [Row<S, W>; 8] {
        let [x0, x1, x2, x3, x4, x5, x6, x7] = x;
        let [t0, t1, t2, t3] = self.thirty_second;
        let (p0, q0) = rotate(t0, &x0, &x7);
        let (p1, q1) = rotate(t1, &x1, &x6);
        let (p2, q2) = rotate(t2, &x2, &x5);
        let (p3, q3) = rotate(t3, &x3, &x4);
        let [p0, p1, p2, p3] = self.second_4([p0, p1, p2, p3]);
        let [q0, q1, q2, q3] = self.second_4([q0, negative(&q1), q2, negative(&q3)]);
        [
            scaled(self.root, &p0),
            sub(&p1, &q3),
            add(&p1, &q3),
            sub(&p2, &q2),
            add(&p2, &q2),
            sub(&p3, &q1),
            add(&p3, &q1),
            scaled(-self.root, &q0),
        ]
    }

    /// `V_8` transposed; it is symmetric up to the order of its operations.
    #[inline(always)]
    pub(crate) fn fourth_8_transposed<const W: usize>(&self, y: [Row<S, W>; 8]) -> [Row<S, W>; 8] {
        let [y0, y1, y2, y3, y4, y5, y6, y7] = y;
        let [t0, t1, t2, t3] = self.thirty_second;
        let p = [scaled(self.root, &y0), add(&y2, &y1), add(&y4, &y3), add(&y6, &y5)];
        let q = [scaled(-self.root, &y7), sub(&y6, &y5), sub(&y4, &y3), sub(&y2, &y1)];
        let [p0, p1, p2, p3] = self.second_4_transposed(p);
        let [q0, q1, q2, q3] = self.second_4_transposed(q);
        let (x0, x7) = rotate_back(t0, &p0, &q0);
        let (x1, x6) = rotate_back(t1, &p1, &negative(&q1));
        let (x2, x5) = rotate_back(t2, &p2, &q2);
        let (x3, x4) = rotate_back(t3, &p3, &negative(&q3));
        [x0, x1, x2, x3, x4, x5, x6, x7]
    }

    #[inline(always)]
    fn second_4<const W: usize>(&self, x: [Row<S, W>; 4]) -> [Row<S, W>; 4] {
        let [x0, x1, x2, x3] = x;
        let (a0, a1) = (add(&x0, &x3), add(&x1, &x2));
        let (b0, b1) = (sub(&x0, &x3), sub(&x1, &x2));
        let (y2, q) = rotate(self.eighth, &b0, &b1);
        [add(&a0, &a1), y2, sub(&a0, &a1), negative(&q)]
    }

    #[inline(always)]
    fn second_4_transposed<const W: usize>(&self, y: [Row<S, W>; 4]) -> [Row<S, W>; 4] {
        let [y0, y1, y2, y3] = y;
        let (a0, a1) = (add(&y0, &y2), sub(&y0, &y2));
        let (b0, b1) = rotate_back(self.eighth, &y1, &negative(&y3));
        [add(&a0, &b0), add(&a1, &b1), sub(&a1, &b1), sub(&a0, &b0)]
    }

    #[inline(always)]
    fn fourth_4<const W: usize>(&self, x: [Row<S, W>; 4]) -> [Row<S, W>; 4] {
        let [x0, x1, x2, x3] = x;
        let [t0, t1] = self.sixteenth;
        let (p0, q0) = rotate(t0, &x0, &x3);
        let (p1, q1) = rotate(t1, &x1, &x2);
        // `q1` enters with its sign changed.
        let (p, q) = (sub(&p0, &p1), add(&q0, &q1));
        [scaled(self.root, &add(&p0, &p1)), sub(&p, &q), add(&p, &q), scaled(-self.root, &sub(&q0, &q1))]
    }

    #[inline(always)]
    fn fourth_4_transposed<const W: usize>(&self, y: [Row<S, W>; 4]) -> [Row<S, W>; 4] {
        let [y0, y1, y2, y3] = y;
        let [t0, t1] = self.sixteenth;
        let (p, q) = (add(&y2, &y1), sub(&y2, &y1));
        let (p_sum, q_sum) = (scaled(self.root, &y0), scaled(-self.root, &y3));
        let (x0, x3) = rotate_back(t0, &add(&p_sum, &p), &add(&q_sum, &q));
        let (x1, x2) = rotate_back(t1, &sub(&p_sum, &p), &sub(&q, &q_sum));
        [x0, x1, x2, x3]
    }
}

/// `(c·a + s·b, c·b − s·a)`.
#[inline(always)]
fn rotate<S: Scalar, const W: usize>((c, s): (S, S), a: &Row<S, W>, b: &Row<S, W>) -> (Row<S, W>, Row<S, W>) {
    (add(&scaled(c, a), &scaled(s, b)), sub(&scaled(c, b), &scaled(s, a)))
}

/// The transpose of [`rotate`]: `(c·p − s·q, s·p + c·q)`.
#[inline(always)]
fn rotate_back<S: Scalar, const W: usize>((c, s): (S, S), p: &Row<S, W>, q: &Row<S, W>) -> (Row<S, W>, Row<S, W>) {
    (sub(&scaled(c, p), &scaled(s, q)), add(&scaled(s, p), &scaled(c, q)))
}

#[inline(always)]
fn add<S: Scalar, const W: usize>(a: &Row<S, W>, b: &Row<S, W>) -> Row<S, W> {
    let mut sum = *a;
    for (sum, &b) in sum.iter_mut().zip(b) {
        *sum += b;
    }
    sum
}

#[inline(always)]
fn sub<S: Scalar, const W: usize>(a: &Row<S, W>, b: &Row<S, W>) -> Row<S, W> {
    let mut difference = *a;
    for (difference, &b) in difference.iter_mut().zip(b) {
        *difference = *difference - b;
    }
    difference
}

#[inline(always)]
fn scaled<S: Scalar, const W: usize>(by: S, a: &Row<S, W>) -> Row<S, W> {
    let mut product = *a;
    for product in &mut product {
        *product = by * *product;
    }
    product
}

#[inline(always)]
fn negative<S: Scalar, const W: usize>(a: &Row<S, W>) -> Row<S, W> {
    let mut negative = *a;
    for negative in &mut negative {
        *negative = -*negative;
    }
    negative
}
