//! One vector's spectrum and back, vectorised over the segments of an edge instead of over tokens.
//!
//! All segments of one size share a transform, so eight of them go through it side by side. The sines
//! come from the same transform, of the vector with every second sign changed:
//! `S_v(j) = (−1)^j·D_{B−v}(j)`. It knows no coefficients.

use crate::axis::{Axis, Segment};
use crate::scalar::Scalar;

/// Segments that are transformed together.
const TOGETHER: usize = 8;

/// The spectrum of one vector, in the rows of [`Axis::project`].
#[inline(always)]
pub(crate) fn project<S: Scalar>(axis: &Axis<S>, values: &[S], spectrum: &mut [[S; 1]]) {
    let (mut plain, mut alternating) = (Vec::new(), Vec::new());
    for segments in axis.segments().chunk_by(|a, b| a.size == b.size).flat_map(|same| same.chunks(TOGETHER)) {
        let size = segments[0].size;
        plain.resize(size, [S::ZERO; TOGETHER]);
        alternating.resize(size, [S::ZERO; TOGETHER]);
        for (n, segment) in segments.iter().enumerate() {
            for (row, &value) in plain.iter_mut().zip(&values[segment.start..segment.start + size]) {
                row[n] = value;
            }
        }
        for (j, (alternating, plain)) in alternating.iter_mut().zip(&plain).enumerate() {
            *alternating = signed(j, *plain);
        }
        let transform = axis.transform(&segments[0]);
        transform.forward(0, &mut plain);
        transform.forward(0, &mut alternating);
        for (n, segment) in segments.iter().enumerate() {
            let (cosines, sines) = rows_mut(segment, spectrum);
            for (out, row) in cosines.iter_mut().zip(&plain) {
                *out = [row[n]];
            }
            for (out, &v) in sines.iter_mut().zip(&segment.sines) {
                if let Some(place) = v.checked_sub(1).map(|below| transform.places()[size - 1 - below]) {
                    *out = [S::from_f64(place.factor) * alternating[place.row][n]];
                }
            }
        }
    }
}

/// Adds what a spectrum stands for to one vector.
#[inline(always)]
pub(crate) fn expand<S: Scalar>(axis: &Axis<S>, spectrum: &[[S; 1]], values: &mut [S]) {
    let (mut plain, mut alternating) = (Vec::new(), Vec::new());
    for segments in axis.segments().chunk_by(|a, b| a.size == b.size).flat_map(|same| same.chunks(TOGETHER)) {
        let size = segments[0].size;
        plain.clear();
        plain.resize(size, [S::ZERO; TOGETHER]);
        alternating.clear();
        alternating.resize(size, [S::ZERO; TOGETHER]);
        let transform = axis.transform(&segments[0]);
        for (n, segment) in segments.iter().enumerate() {
            let (cosines, sines) = spectrum[segment.first..segment.first + segment.rows()].split_at(size);
            for (row, &[value]) in plain.iter_mut().zip(cosines) {
                row[n] = value;
            }
            for (&[value], &v) in sines.iter().zip(&segment.sines) {
                if let Some(place) = v.checked_sub(1).map(|below| transform.places()[size - 1 - below]) {
                    alternating[place.row][n] = S::from_f64(place.factor) * value;
                }
            }
        }
        transform.transposed(0, &mut plain);
        transform.transposed(0, &mut alternating);
        for (n, segment) in segments.iter().enumerate() {
            let out = &mut values[segment.start..segment.start + size];
            for (j, ((value, plain), alternating)) in out.iter_mut().zip(&plain).zip(&alternating).enumerate() {
                let [sine] = signed(j, [alternating[n]]);
                *value += plain[n] + sine;
            }
        }
    }
}

#[inline(always)]
fn rows_mut<'a, S: Scalar>(segment: &Segment<S>, spectrum: &'a mut [[S; 1]]) -> (&'a mut [[S; 1]], &'a mut [[S; 1]]) {
    spectrum[segment.first..segment.first + segment.rows()].split_at_mut(segment.size)
}

/// `(−1)^j` times a row.
#[inline(always)]
fn signed<S: Scalar, const W: usize>(j: usize, row: [S; W]) -> [S; W] {
    if j % 2 == 0 { row } else { row.map(|value| -value) }
}
