//! One vector's spectrum and back, vectorised over the segments of an edge instead of over tokens.
//!
//! All segments of one size share a transform, so eight of them go through it side by side. The sines
//! come from the same transform, of the vector with every second sign changed:
//! `S_v(j) = (−1)^j·D_{B−v}(j)`. It knows no coefficients.

use crate::apply::axis::{Axis, Segment};
use crate::apply::tile::{self, Place};
use crate::apply::transpose::{SQUARE, Turn};
use crate::scalar::Scalar;

/// Segments that are transformed together.
const TOGETHER: usize = SQUARE;

/// The spectrum of one vector, in the rows of [`Axis::project`].
#[inline(always)]
pub(crate) fn project<S: Scalar>(axis: &Axis<S>, turn: Turn, values: &[S], spectrum: &mut [S]) {
    let (mut plain, mut alternating) = (Vec::new(), Vec::new());
    for segments in axis.segments().chunk_by(|a, b| a.size == b.size).flat_map(|same| same.chunks(TOGETHER)) {
        let size = segments[0].size;
        plain.resize(size, [S::ZERO; TOGETHER]);
        alternating.resize(size, [S::ZERO; TOGETHER]);
        let start = segments[0].start;
        let place = Place { features: size, token: 0, feature: 0 };
        tile::load(turn, &values[start..start + segments.len() * size], place, &mut plain);
        for (j, (alternating, plain)) in alternating.iter_mut().zip(&plain).enumerate() {
            *alternating = signed(j, *plain);
        }
        let transform = axis.transform(&segments[0]);
        transform.forward(0, &mut plain);
        transform.forward(0, &mut alternating);
        store(turn, segments, &plain, spectrum);
        for (n, segment) in segments.iter().enumerate() {
            let sines = &mut spectrum[segment.first + size..segment.first + segment.rows()];
            for (out, &v) in sines.iter_mut().zip(&segment.sines) {
                if let Some(place) = v.checked_sub(1).map(|below| transform.places()[size - 1 - below]) {
                    *out = S::from_f64(place.factor) * alternating[place.row][n];
                }
            }
        }
    }
}

/// Adds what a spectrum stands for to one vector.
#[inline(always)]
pub(crate) fn expand<S: Scalar>(axis: &Axis<S>, turn: Turn, spectrum: &[S], values: &mut [S]) {
    let (mut plain, mut alternating) = (Vec::new(), Vec::new());
    for segments in axis.segments().chunk_by(|a, b| a.size == b.size).flat_map(|same| same.chunks(TOGETHER)) {
        let size = segments[0].size;
        plain.resize(size, [S::ZERO; TOGETHER]);
        alternating.clear();
        alternating.resize(size, [S::ZERO; TOGETHER]);
        let transform = axis.transform(&segments[0]);
        fetch(turn, segments, spectrum, &mut plain);
        for (n, segment) in segments.iter().enumerate() {
            let sines = &spectrum[segment.first + size..segment.first + segment.rows()];
            for (&value, &v) in sines.iter().zip(&segment.sines) {
                if let Some(place) = v.checked_sub(1).map(|below| transform.places()[size - 1 - below]) {
                    alternating[place.row][n] = S::from_f64(place.factor) * value;
                }
            }
        }
        transform.transposed(0, &mut plain);
        transform.transposed(0, &mut alternating);
        for (j, (plain, alternating)) in plain.iter_mut().zip(&alternating).enumerate() {
            for (plain, sine) in plain.iter_mut().zip(signed(j, *alternating)) {
                *plain += sine;
            }
        }
        let start = segments[0].start;
        let place = Place { features: size, token: 0, feature: 0 };
        tile::add(turn, &plain, &mut values[start..start + segments.len() * size], place);
    }
}

/// Copies the segments' columns to their cosine rows.
#[inline(always)]
fn store<S: Scalar>(turn: Turn, segments: &[Segment<S>], columns: &[[S; TOGETHER]], spectrum: &mut [S]) {
    let (squares, rest) = columns.as_chunks::<SQUARE>();
    for (n, &square) in squares.iter().enumerate() {
        for (segment, line) in segments.iter().zip(S::turned(turn, square)) {
            spectrum[segment.first + n * SQUARE..][..SQUARE].copy_from_slice(&line);
        }
    }
    for (n, row) in rest.iter().enumerate() {
        for (segment, &value) in segments.iter().zip(row) {
            spectrum[segment.first + squares.len() * SQUARE + n] = value;
        }
    }
}

/// The reverse of [`store`].
#[inline(always)]
fn fetch<S: Scalar>(turn: Turn, segments: &[Segment<S>], spectrum: &[S], columns: &mut [[S; TOGETHER]]) {
    let (squares, rest) = columns.as_chunks_mut::<SQUARE>();
    for (n, square) in squares.iter_mut().enumerate() {
        let mut lines = [[S::ZERO; SQUARE]; SQUARE];
        for (line, segment) in lines.iter_mut().zip(segments) {
            line.copy_from_slice(&spectrum[segment.first + n * SQUARE..][..SQUARE]);
        }
        *square = S::turned(turn, lines);
    }
    let first = squares.len() * SQUARE;
    for (n, row) in rest.iter_mut().enumerate() {
        for (value, segment) in row.iter_mut().zip(segments) {
            *value = spectrum[segment.first + first + n];
        }
    }
}

/// `(−1)^j` times a row.
#[inline(always)]
fn signed<S: Scalar, const W: usize>(j: usize, row: [S; W]) -> [S; W] {
    if j.is_multiple_of(2) { row } else { row.map(|value| -value) }
}
