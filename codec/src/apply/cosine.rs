//! The fast cosine transform as a list of in-place operations on pairs of rows.
//!
//! `U_N = √N·C_N`, `C_N` the orthonormal DCT-II, is factored into butterflies and rotations after G.
//! Plonka and M. Tasche, *Fast and numerically stable algorithms for discrete cosine transforms*, Linear
//! Algebra Appl. 394 (2005). With `V_M = √M·(DCT-IV)`, `M = N/2`:
//!
//! ```text
//!  U_N   x_j ± x_{N−1−j}, then U_M of the sums gives X_{2k}, V_M of the differences X_{2k+1}
//!  V_N   p_j = cos θ_j·x_j + sin θ_j·x_{N−1−j},  q_j = (−1)^j·(cos θ_j·x_{N−1−j} − sin θ_j·x_j),  θ_j = π(2j+1)/4N
//!        P = U_M p, Q = U_M q;  X_0 = √2·P_0,  X_{N−1} = −√2·Q_0,  X_{2m} = P_m + Q_{M−m},  X_{2m−1} = P_m − Q_{M−m}
//! ```
//!
//! Every operation replaces two rows by two combinations of them, so nothing is moved: where a
//! coefficient ends up, and by which factor, is worked out once and kept as a list of [`Place`]s. The
//! inverse is the transpose: the same operations, transposed, in reverse. An odd length is one dense
//! operation. A row holds one vector of a tile, so the work is done for a whole tile at once. It knows no
//! blocks, coefficients or layers.

use std::f64::consts::{FRAC_PI_4, PI, SQRT_2};

use crate::apply::leaf::Angles;
use crate::scalar::Scalar;

/// Where a coefficient stands after the transform, and what it must be multiplied by there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Place {
    /// Row of the tile.
    pub(crate) row: usize,
    /// The orthonormal coefficient is `factor ×` the row; the transpose takes rows multiplied by it.
    pub(crate) factor: f64,
}

/// One operation on rows of a tile.
#[derive(Clone, Debug)]
enum Step<S> {
    /// `(a, b) ← (a + b, a − b)` for every pair.
    Butterflies(Vec<(u32, u32)>),
    /// `(a, b) ← (m₀·a + m₁·b, m₂·a + m₃·b)` for every pair.
    Mixes(Vec<(u32, u32, [S; 4])>),
    /// `U_8` on these rows.
    Second8([u32; 8]),
    /// `V_8` on these rows.
    Fourth8([u32; 8]),
    /// A product with a square matrix, row-major, on these rows.
    Dense(Vec<u32>, Vec<S>),
}

/// The transform of one length.
#[derive(Clone, Debug)]
pub(crate) struct Cosine<S> {
    steps: Vec<Step<S>>,
    places: Vec<Place>,
    angles: Angles<S>,
}

impl<S: Scalar> Cosine<S> {
    /// The transform of `size ≥ 1` values.
    pub(crate) fn new(size: usize) -> Self {
        let rows: Vec<_> = (0..size).map(|row| Place { row, factor: 1.0 }).collect();
        let mut program = Program::default();
        let scale = 1.0 / (size as f64).sqrt();
        let places = program.second(&rows).into_iter().map(|p| Place { factor: p.factor * scale, ..p }).collect();
        Self { steps: program.steps.into_iter().map(rounded).collect(), places, angles: Angles::new() }
    }

    /// Where every coefficient ends up, in the order of the coefficients.
    pub(crate) fn places(&self) -> &[Place] {
        &self.places
    }

    /// Number of leading steps after which row `j < N/2` holds `x_j + x_{N−1−j}` and row `N−1−j` holds
    /// `x_j − x_{N−1−j}`: 1, or 0 if the length is odd.
    pub(crate) fn folding(&self) -> usize {
        usize::from(self.places.len().is_multiple_of(2))
    }

    /// The steps from `first` on, in place.
    #[inline(always)]
    pub(crate) fn forward<const W: usize>(&self, first: usize, rows: &mut [[S; W]]) {
        for step in &self.steps[first..] {
            match step {
                Step::Butterflies(pairs) => butterflies(pairs, rows),
                Step::Mixes(mixes) => {
                    for &(a, b, m) in mixes {
                        mix(rows, (a, b), m);
                    }
                }
                Step::Second8(at) => put(rows, at, self.angles.second_8(take(rows, at))),
                Step::Fourth8(at) => put(rows, at, self.angles.fourth_8(take(rows, at))),
                Step::Dense(at, matrix) => dense(at, matrix, rows, |out, k, n| out * n + k),
            }
        }
    }

    /// The transposes of the steps from `first` on, last first, in place.
    #[inline(always)]
    pub(crate) fn transposed<const W: usize>(&self, first: usize, rows: &mut [[S; W]]) {
        for step in self.steps[first..].iter().rev() {
            match step {
                Step::Butterflies(pairs) => butterflies(pairs, rows),
                Step::Mixes(mixes) => {
                    for &(a, b, [m0, m1, m2, m3]) in mixes {
                        mix(rows, (a, b), [m0, m2, m1, m3]);
                    }
                }
                Step::Second8(at) => put(rows, at, self.angles.second_8_transposed(take(rows, at))),
                Step::Fourth8(at) => put(rows, at, self.angles.fourth_8_transposed(take(rows, at))),
                Step::Dense(at, matrix) => dense(at, matrix, rows, |out, k, n| k * n + out),
            }
        }
    }

    /// The first [`Cosine::folding`] steps, in place; they are their own transpose.
    #[inline(always)]
    pub(crate) fn fold<const W: usize>(&self, rows: &mut [[S; W]]) {
        if let (1, Some(Step::Butterflies(pairs))) = (self.folding(), self.steps.first()) {
            butterflies(pairs, rows);
        }
    }
}

#[inline(always)]
fn take<S: Scalar, const W: usize>(rows: &[[S; W]], [a, b, c, d, e, f, g, h]: &[u32; 8]) -> [[S; W]; 8] {
    let row = |at: &u32| rows[*at as usize];
    [row(a), row(b), row(c), row(d), row(e), row(f), row(g), row(h)]
}

#[inline(always)]
fn put<S: Scalar, const W: usize>(rows: &mut [[S; W]], at: &[u32; 8], values: [[S; W]; 8]) {
    for (&at, value) in at.iter().zip(values) {
        rows[at as usize] = value;
    }
}

#[inline(always)]
fn butterflies<S: Scalar, const W: usize>(pairs: &[(u32, u32)], rows: &mut [[S; W]]) {
    for &(a, b) in pairs {
        let (a, b) = (a as usize, b as usize);
        let (x, y) = (rows[a], rows[b]);
        for ((&x, &y), sum) in x.iter().zip(&y).zip(&mut rows[a]) {
            *sum = x + y;
        }
        for ((&x, &y), difference) in x.iter().zip(&y).zip(&mut rows[b]) {
            *difference = x - y;
        }
    }
}

#[inline(always)]
fn mix<S: Scalar, const W: usize>(rows: &mut [[S; W]], (a, b): (u32, u32), [m0, m1, m2, m3]: [S; 4]) {
    let (a, b) = (a as usize, b as usize);
    let (x, y) = (rows[a], rows[b]);
    for ((&x, &y), out) in x.iter().zip(&y).zip(&mut rows[a]) {
        *out = m0 * x + m1 * y;
    }
    for ((&x, &y), out) in x.iter().zip(&y).zip(&mut rows[b]) {
        *out = m2 * x + m3 * y;
    }
}

/// `rows[at[out]] ← Σ_k matrix[entry(out, k, n)]·rows[at[k]]`.
#[inline(always)]
fn dense<S: Scalar, const W: usize>(
    at: &[u32],
    matrix: &[S],
    rows: &mut [[S; W]],
    entry: impl Fn(usize, usize, usize) -> usize,
) {
    let n = at.len();
    let (mut stack, mut heap) = ([[S::ZERO; W]; DENSE_STACK], Vec::new());
    let inputs = if n <= DENSE_STACK {
        &mut stack[..n]
    } else {
        heap.resize(n, [S::ZERO; W]);
        &mut heap[..]
    };
    for (input, &row) in inputs.iter_mut().zip(at) {
        *input = rows[row as usize];
    }
    for (out, &row) in at.iter().enumerate() {
        let mut sums = [S::ZERO; W];
        for (k, input) in inputs.iter().enumerate() {
            let weight = matrix[entry(out, k, n)];
            for (sum, &value) in sums.iter_mut().zip(input) {
                *sum += weight * value;
            }
        }
        rows[row as usize] = sums;
    }
}

/// Rows that a dense step keeps on the stack.
const DENSE_STACK: usize = 16;

/// Works the factorisation out: which operations, on which rows, and where the coefficients end up.
#[derive(Default)]
struct Program {
    steps: Vec<Step<f64>>,
}

impl Program {
    /// `U_N` of the values that these places stand for.
    fn second(&mut self, x: &[Place]) -> Vec<Place> {
        let size = x.len();
        if size == 1 {
            return x.to_vec();
        }
        if !size.is_multiple_of(2) {
            return self.dense(x, |k, j| {
                let scale = if k == 0 { 1.0 } else { SQRT_2 };
                scale * (PI * (k * (2 * j + 1)) as f64 / (2 * size) as f64).cos()
            });
        }
        if let Some(places) = self.leaf(x, Step::Second8) {
            return places;
        }
        let pairs: Vec<_> = (0..size / 2).map(|j| (x[j], x[size - 1 - j])).collect();
        let (sums, differences): (Vec<_>, Vec<_>) = self.butterflies(&pairs).into_iter().unzip();
        let (even, odd) = (self.second(&sums), self.fourth(&differences));
        even.into_iter().zip(odd).flat_map(|(even, odd)| [even, odd]).collect()
    }

    /// `V_N`, likewise.
    fn fourth(&mut self, x: &[Place]) -> Vec<Place> {
        let size = x.len();
        if size == 1 {
            return x.to_vec();
        }
        if !size.is_multiple_of(2) {
            return self.dense(x, |k, j| SQRT_2 * (PI * ((2 * k + 1) * (2 * j + 1)) as f64 / (4 * size) as f64).cos());
        }
        if let Some(places) = self.leaf(x, Step::Fourth8) {
            return places;
        }
        let half = size / 2;
        let rotations = (0..half).map(|j| {
            let (sin, cos) = (FRAC_PI_4 * (2 * j + 1) as f64 / size as f64).sin_cos();
            let sign = if j % 2 == 0 { 1.0 } else { -1.0 };
            (x[j], x[size - 1 - j], [cos, sin, -sign * sin, sign * cos])
        });
        let rotations: Vec<_> = rotations.collect();
        let (p, q): (Vec<_>, Vec<_>) = self.mixes(&rotations).into_iter().unzip();
        let (p, q) = (self.second(&p), self.second(&q));
        let scaled = |place: Place, by: f64| Place { factor: by * place.factor, ..place };
        let pairs: Vec<_> = (1..half).map(|m| (p[m], q[half - m])).collect();
        let mut out = vec![scaled(p[0], SQRT_2)];
        out.extend(self.butterflies(&pairs).into_iter().flat_map(|(sum, difference)| [difference, sum]));
        out.push(scaled(q[0], -SQRT_2));
        out
    }

    /// Eight rows of one factor, in registers; not at the start, where the first step stands alone.
    fn leaf(&mut self, x: &[Place], step: fn([u32; 8]) -> Step<f64>) -> Option<Vec<Place>> {
        let rows: &[Place; 8] = x.try_into().ok()?;
        if self.steps.is_empty() || x.iter().any(|place| place.factor != x[0].factor) {
            return None;
        }
        self.steps.push(step(rows.map(|place| narrow(place.row))));
        Some(x.to_vec())
    }

    /// The sum and the difference of each pair.
    fn butterflies(&mut self, pairs: &[(Place, Place)]) -> Vec<(Place, Place)> {
        let (even, uneven): (Vec<_>, Vec<_>) = pairs.iter().partition(|(a, b)| a.factor.abs() == b.factor.abs());
        if !even.is_empty() {
            self.steps.push(Step::Butterflies(even.iter().map(|(a, b)| (narrow(a.row), narrow(b.row))).collect()));
        }
        let as_mix: Vec<_> = uneven.iter().map(|&(a, b)| (a, b, [1.0, 1.0, 1.0, -1.0])).collect();
        let mut mixed = self.mixes(&as_mix).into_iter();
        let result = pairs.iter().map(|&(a, b)| {
            if a.factor == b.factor {
                (a, Place { factor: a.factor, ..b })
            } else if a.factor == -b.factor {
                (Place { factor: a.factor, ..b }, a)
            } else {
                mixed.next().expect("one result for each uneven pair")
            }
        });
        result.collect()
    }

    /// Two combinations of each pair; the factors go into the combination.
    fn mixes(&mut self, pairs: &[(Place, Place, [f64; 4])]) -> Vec<(Place, Place)> {
        if pairs.is_empty() {
            return Vec::new();
        }
        let one = |&(a, b, [m0, m1, m2, m3]): &(Place, Place, [f64; 4])| {
            let m = [m0 * a.factor, m1 * b.factor, m2 * a.factor, m3 * b.factor];
            (narrow(a.row), narrow(b.row), m)
        };
        self.steps.push(Step::Mixes(pairs.iter().map(one).collect()));
        let plain = |place: Place| Place { factor: 1.0, ..place };
        pairs.iter().map(|&(a, b, _)| (plain(a), plain(b))).collect()
    }

    fn dense(&mut self, x: &[Place], entry: impl Fn(usize, usize) -> f64) -> Vec<Place> {
        let rows = x.iter().map(|place| narrow(place.row)).collect();
        let matrix = (0..x.len()).flat_map(|k| x.iter().enumerate().map(move |(j, place)| (k, j, place.factor)));
        self.steps.push(Step::Dense(rows, matrix.map(|(k, j, factor)| entry(k, j) * factor).collect()));
        x.iter().map(|&place| Place { factor: 1.0, ..place }).collect()
    }
}

fn narrow(row: usize) -> u32 {
    u32::try_from(row).expect("a block edge is at most 512")
}

fn rounded<S: Scalar>(step: Step<f64>) -> Step<S> {
    match step {
        Step::Butterflies(pairs) => Step::Butterflies(pairs),
        Step::Mixes(mixes) => Step::Mixes(mixes.into_iter().map(|(a, b, m)| (a, b, m.map(S::from_f64))).collect()),
        Step::Second8(rows) => Step::Second8(rows),
        Step::Fourth8(rows) => Step::Fourth8(rows),
        Step::Dense(rows, matrix) => Step::Dense(rows, matrix.into_iter().map(S::from_f64).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::basis::dct_matrix;
    use crate::seed::Seed;

    const SIZES: [usize; 14] = [1, 2, 3, 4, 5, 7, 8, 12, 16, 28, 32, 36, 64, 128];

    fn noise(n: usize) -> Vec<[f64; 2]> {
        let mut stream = Seed::from_number(n as u64).stream();
        (0..n).map(|_| [2.0 * stream.unit() - 1.0, 2.0 * stream.unit() - 1.0]).collect()
    }

    #[test]
    fn every_coefficient_stands_where_its_place_says() {
        for size in SIZES {
            let (cosine, x, matrix) = (Cosine::<f64>::new(size), noise(size), dct_matrix(size));
            let mut rows = x.clone();
            cosine.forward(0, &mut rows);
            for (k, place) in cosine.places().iter().enumerate() {
                for lane in 0..2 {
                    let expected: f64 = (0..size).map(|j| matrix[k * size + j] * x[j][lane]).sum();
                    assert!((place.factor * rows[place.row][lane] - expected).abs() < 1e-13, "{size}: {k}");
                }
            }
        }
    }

    #[test]
    fn the_transpose_is_the_inverse() {
        for size in SIZES {
            let (cosine, x) = (Cosine::<f64>::new(size), noise(size));
            let mut rows = x.clone();
            cosine.forward(0, &mut rows);
            for place in cosine.places() {
                rows[place.row] = rows[place.row].map(|value| value * place.factor * place.factor);
            }
            cosine.transposed(0, &mut rows);
            for (a, b) in rows.iter().flatten().zip(x.iter().flatten()) {
                assert!((a - b).abs() < 1e-13, "{size}");
            }
        }
    }

    #[test]
    fn folding_is_the_first_step() {
        for size in SIZES {
            let (cosine, x) = (Cosine::<f64>::new(size), noise(size));
            let (mut whole, mut parts) = (x.clone(), x.clone());
            cosine.forward(0, &mut whole);
            cosine.fold(&mut parts);
            if cosine.folding() == 1 {
                for j in 0..size / 2 {
                    assert_eq!(parts[j][0], x[j][0] + x[size - 1 - j][0]);
                    assert_eq!(parts[size - 1 - j][1], x[j][1] - x[size - 1 - j][1]);
                }
            }
            cosine.forward(cosine.folding(), &mut parts);
            assert_eq!(whole, parts);
        }
    }

    #[test]
    fn the_work_grows_as_n_log_n() {
        let operations = |size: usize| -> usize {
            let count = |step: &Step<f64>| match step {
                Step::Butterflies(pairs) => pairs.len(),
                Step::Mixes(mixes) => mixes.len(),
                Step::Second8(_) => 13,
                Step::Fourth8(_) => 15,
                Step::Dense(rows, _) => rows.len() * rows.len(),
            };
            Cosine::<f64>::new(size).steps.iter().map(count).sum()
        };
        assert_eq!([8, 64].map(operations), [13, 228], "a product with the matrix takes 64 and 4096");
    }
}
