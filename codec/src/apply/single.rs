//! One vector: Δ·x and its gradients, vectorised over the segments of an edge instead of over tokens.
//!
//! Segments of one size share a transform, so eight of them go through it side by side, and beside them the same
//! eight with every second sign changed, which gives the sines: `S_v(j) = (−1)^j·D_{B−v}(j)`.
//!
//! ```text
//!  row of a group   [ segment 0 … segment 7 | segment 0 … segment 7, alternating ]   one row a value, later a coefficient
//! ```
//!
//! A spectrum stays as the transforms leave it; the sparse products know where in it a coefficient stands
//! (`sliced.rs`). An edge of more values than a 16-bit index can name has no such form.

use pulp::{Simd, WithSimd};

use crate::apply::aligned::Aligned;
use crate::apply::axis::Axis;
use crate::apply::sliced::{LANES, Samples, Sliced, Term};
use crate::apply::tables::{TABLE, Table};
use crate::apply::transpose::{SQUARE, Turn};
use crate::scalar::Scalar;

/// Values of a row of a group.
const WIDTH: usize = 2 * SQUARE;

/// A row of a group.
type Row<S> = [S; WIDTH];

/// One layer's Δ as a single vector meets it.
#[derive(Clone, Debug)]
pub(crate) struct Single<S> {
    outputs: Edge<S>,
    inputs: Edge<S>,
    by_output: Sliced,
    by_input: Sliced,
    /// What each product's coefficient is multiplied by.
    factors: Vec<S>,
}

/// The coefficient of every product, ordered for both passes.
#[derive(Clone, Debug)]
pub(crate) struct Ordered<S> {
    by_output: Vec<[S; LANES]>,
    by_input: Vec<[S; LANES]>,
}

/// How an axis is laid out in groups.
#[derive(Clone, Debug)]
struct Edge<S> {
    groups: Vec<Group>,
    /// Place and factor of every row of [`Axis::project`]; none where the basis vector is zero.
    places: Vec<Option<(u16, S)>>,
    /// Values of all groups.
    values: usize,
}

/// Up to eight segments of one size, by their first one, and where their rows begin.
#[derive(Clone, Copy, Debug)]
struct Group {
    segment: usize,
    count: usize,
    first: usize,
}

impl<S: Scalar> Edge<S> {
    fn new(axis: &Axis<S>) -> Option<Self> {
        let mut edge = Self { groups: Vec::new(), places: Vec::new(), values: 0 };
        let mut number = 0;
        for segments in axis.segments().chunk_by(|a, b| a.size == b.size).flat_map(|same| same.chunks(SQUARE)) {
            let (size, first) = (segments[0].size, edge.values);
            edge.groups.push(Group { segment: number, count: segments.len(), first });
            edge.values += size * WIDTH;
            if edge.values >= TABLE {
                return None;
            }
            let places = axis.transform(&segments[0]).places();
            let at = |row: usize, lane: usize| u16::try_from(first + row * WIDTH + lane).expect("less than the most");
            for (lane, segment) in segments.iter().enumerate() {
                edge.places.extend((0..size).map(|row| Some((at(row, lane), S::from_f64(1.0)))));
                edge.places.extend(segment.sines.iter().map(|&v| {
                    let place = places[size - v.checked_sub(1)? - 1];
                    Some((at(place.row, lane + SQUARE), S::from_f64(place.factor)))
                }));
            }
            number += segments.len();
        }
        Some(edge)
    }

    /// The spectrum of one vector.
    #[inline(always)]
    fn project(&self, axis: &Axis<S>, turn: Turn, values: &[S], spectrum: &mut Table<S>) {
        for &Group { segment, count, first } in &self.groups {
            let segments = &axis.segments()[segment..segment + count];
            let size = segments[0].size;
            let rows = rows_of(spectrum, first, size);
            let (squares, rest) = rows.as_chunks_mut::<SQUARE>();
            for (n, square) in squares.iter_mut().enumerate() {
                let mut lines = [[S::ZERO; SQUARE]; SQUARE];
                for (line, segment) in lines.iter_mut().zip(segments) {
                    *line =
                        *values[segment.start + n * SQUARE..].first_chunk().expect("a segment lies inside its edge");
                }
                for (j, (row, line)) in square.iter_mut().zip(S::turned(turn, lines)).enumerate() {
                    *row = alternating(j, line);
                }
            }
            for (n, row) in rest.iter_mut().enumerate() {
                let j = size / SQUARE * SQUARE + n;
                let mut line = [S::ZERO; SQUARE];
                line.iter_mut().zip(segments).for_each(|(line, segment)| *line = values[segment.start + j]);
                *row = alternating(j, line);
            }
            axis.transform(&segments[0]).forward(0, rows);
        }
    }

    /// Adds what a spectrum stands for to one vector; the spectrum is used up.
    #[inline(always)]
    fn expand(&self, axis: &Axis<S>, turn: Turn, spectrum: &mut Table<S>, values: &mut [S]) {
        for &Group { segment, count, first } in &self.groups {
            let segments = &axis.segments()[segment..segment + count];
            let size = segments[0].size;
            let rows = rows_of(spectrum, first, size);
            axis.transform(&segments[0]).transposed(0, rows);
            let (squares, rest) = rows.as_chunks::<SQUARE>();
            for (n, square) in squares.iter().enumerate() {
                let mut lines = [[S::ZERO; SQUARE]; SQUARE];
                for (j, (line, row)) in lines.iter_mut().zip(square).enumerate() {
                    *line = added(j, row);
                }
                for (line, segment) in S::turned(turn, lines).into_iter().zip(segments) {
                    let values: &mut [S; SQUARE] =
                        values[segment.start + n * SQUARE..].first_chunk_mut().expect("a segment lies inside its edge");
                    // By value: through the reference, it is not vectorised.
                    let mut sums = *values;
                    for (sum, part) in sums.iter_mut().zip(line) {
                        *sum += part;
                    }
                    *values = sums;
                }
            }
            for (n, row) in rest.iter().enumerate() {
                let j = size / SQUARE * SQUARE + n;
                for (part, segment) in added(j, row).into_iter().zip(segments) {
                    values[segment.start + j] += part;
                }
            }
        }
    }
}

/// The rows of one group.
#[inline(always)]
fn rows_of<S>(spectrum: &mut Table<S>, first: usize, size: usize) -> &mut [Row<S>] {
    spectrum[first..first + size * WIDTH].as_chunks_mut().0
}

/// A row of a group from the values `j` of its segments.
#[inline(always)]
fn alternating<S: Scalar>(j: usize, values: [S; SQUARE]) -> Row<S> {
    let mut second = values;
    if !j.is_multiple_of(2) {
        for value in &mut second {
            *value = -*value;
        }
    }
    let mut row = [S::ZERO; WIDTH];
    let (plain, alternating) = row.split_at_mut(SQUARE);
    plain.copy_from_slice(&values);
    alternating.copy_from_slice(&second);
    row
}

/// The transpose of [`alternating`].
#[inline(always)]
fn added<S: Scalar>(j: usize, row: &Row<S>) -> [S; SQUARE] {
    let [mut plain, alternating] = *row.as_chunks::<SQUARE>().0 else { unreachable!("a row is two squares wide") };
    for (plain, alternating) in plain.iter_mut().zip(alternating) {
        *plain = if j.is_multiple_of(2) { *plain + alternating } else { *plain - alternating };
    }
    plain
}

impl<S: Scalar> Single<S> {
    /// The form of a layer whose products are pairs of rows of its two axes; none if an axis is too long.
    pub(crate) fn new(outputs: &Axis<S>, inputs: &Axis<S>, products: &[(usize, usize)]) -> Option<Self> {
        let (outputs, inputs) = (Edge::new(outputs)?, Edge::new(inputs)?);
        let pairs = || products.iter().map(|&(output, input)| Some((outputs.places[output]?, inputs.places[input]?)));
        let there = || (0..).zip(pairs()).filter_map(|(pair, places)| Some((pair, places?)));
        Some(Self {
            by_output: Sliced::new(there().map(|(pair, ((row, _), (input, _)))| Term { row, input, pair })),
            by_input: Sliced::new(there().map(|(pair, ((input, _), (row, _)))| Term { row, input, pair })),
            factors: pairs().map(|places| places.map_or(S::ZERO, |((_, a), (_, b))| a * b)).collect(),
            outputs,
            inputs,
        })
    }

    /// The coefficients of all products in the orders of the passes.
    pub(crate) fn ordered(&self, coefficients: &[S]) -> Ordered<S> {
        let all: Vec<S> = coefficients.iter().zip(&self.factors).map(|(&value, &factor)| value * factor).collect();
        Ordered { by_output: self.by_output.in_order(&all), by_input: self.by_input.in_order(&all) }
    }

    /// The products whose gradients count towards slots, from (slot, row of the outputs, row of the inputs, factor).
    pub(crate) fn samples(&self, slots: usize, products: impl Iterator<Item = (u32, u32, u32, S)>) -> Samples<S> {
        let placed = products.filter_map(|(slot, output, input, factor)| {
            let ((a, of_a), (b, of_b)) = (self.outputs.places[output as usize]?, self.inputs.places[input as usize]?);
            Some((slot, a, b, factor * (of_a * of_b)))
        });
        Samples::new(slots, placed)
    }
}

/// The forward pass of one vector.
pub(crate) struct Forward<'a, S> {
    pub(crate) single: &'a Single<S>,
    pub(crate) axes: [&'a Axis<S>; 2],
    pub(crate) ordered: &'a Ordered<S>,
    pub(crate) x: &'a [S],
    pub(crate) y: &'a mut [S],
    pub(crate) spectrum: &'a mut Aligned<S>,
}

impl<S: Scalar> Forward<'_, S> {
    /// Adds Δ·x to y.
    pub(crate) fn run(self) {
        let Self { single, axes: [outputs, inputs], ordered, x, y, spectrum } = self;
        let arch = pulp::Arch::new();
        S::with_tables(|tables| {
            let [input, products, _] = tables.each();
            arch.dispatch(Project { edge: &single.inputs, axis: inputs, values: x, spectrum: &mut *input });
            products[..single.outputs.values].fill(S::ZERO);
            single.by_output.product(&ordered.by_output, input, products);
            arch.dispatch(Expand { edge: &single.outputs, axis: outputs, spectrum: products, values: y });
            spectrum.resized(single.inputs.values).copy_from_slice(&input[..single.inputs.values]);
        });
    }
}

/// The backward pass of one vector.
pub(crate) struct Backward<'a, S> {
    pub(crate) single: &'a Single<S>,
    pub(crate) axes: [&'a Axis<S>; 2],
    pub(crate) ordered: &'a Ordered<S>,
    pub(crate) spectrum: &'a Aligned<S>,
    pub(crate) grad_y: &'a [S],
    pub(crate) samples: &'a Samples<S>,
    pub(crate) grad_x: Option<&'a mut [S]>,
}

impl<S: Scalar> Backward<'_, S> {
    /// Adds the input's gradient where one is wanted, and returns the gradients of the lanes, by slot.
    pub(crate) fn run(self) -> Vec<S> {
        let Self { single, axes: [outputs, inputs], ordered, spectrum, grad_y, samples, grad_x } = self;
        let arch = pulp::Arch::new();
        S::with_tables(|tables| {
            let [grad, input, back] = tables.each();
            arch.dispatch(Project { edge: &single.outputs, axis: outputs, values: grad_y, spectrum: &mut *grad });
            input[..single.inputs.values].copy_from_slice(spectrum.get());
            let lanes = samples.sums(grad, input);
            if let Some(grad_x) = grad_x {
                back[..single.inputs.values].fill(S::ZERO);
                single.by_input.product(&ordered.by_input, grad, back);
                arch.dispatch(Expand { edge: &single.inputs, axis: inputs, spectrum: back, values: grad_x });
            }
            lanes
        })
    }
}

/// [`Edge::project`], to be compiled once for every instruction set.
struct Project<'a, S> {
    edge: &'a Edge<S>,
    axis: &'a Axis<S>,
    values: &'a [S],
    spectrum: &'a mut Table<S>,
}

impl<S: Scalar> WithSimd for Project<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) {
        self.edge.project(self.axis, Turn::new(), self.values, self.spectrum);
    }
}

/// [`Edge::expand`], likewise.
struct Expand<'a, S> {
    edge: &'a Edge<S>,
    axis: &'a Axis<S>,
    spectrum: &'a mut Table<S>,
    values: &'a mut [S],
}

impl<S: Scalar> WithSimd for Expand<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) {
        self.edge.expand(self.axis, Turn::new(), self.spectrum, self.values);
    }
}
