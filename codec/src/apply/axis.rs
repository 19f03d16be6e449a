//! One edge of a matrix, cut into block edges: its segments to their spectra and back.
//!
//! ```text
//!  spectrum rows of one segment   [ cosine 0 … cosine B−1, as the fast transform leaves them | sine v, only those that a wave names ]
//! ```
//!
//! A sine row is half a product: after the transform's first step the sums `x_j + x_{B−1−j}` carry the odd
//! sines and the differences the even ones, because `S_v(B−1−j) = ∓S_v(j)`. It knows no coefficients.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::apply::cosine::{Cosine, Place};
use crate::apply::tile;
use crate::apply::transpose::Turn;
use crate::basis::dst_matrix;
use crate::scalar::Scalar;

/// An edge of the matrix.
#[derive(Clone, Debug)]
pub(crate) struct Axis<S> {
    length: usize,
    transforms: BTreeMap<usize, Cosine<S>>,
    segments: Vec<Segment<S>>,
}

/// One block edge of it.
#[derive(Clone, Debug)]
pub(crate) struct Segment<S> {
    /// First value.
    pub(crate) start: usize,
    /// Number of values.
    pub(crate) size: usize,
    /// First row of its spectrum.
    pub(crate) first: usize,
    /// Which sine every row after the cosines is.
    pub(crate) sines: Vec<usize>,
    halves: Vec<Half<S>>,
}

/// Sines that depend on one half of the folded segment.
#[derive(Clone, Debug)]
struct Half<S> {
    /// Folded values, counted from the segment's first row.
    from: usize,
    to: usize,
    /// Sine rows, counted likewise.
    first: usize,
    last: usize,
    project: Vec<S>,
    expand: Vec<S>,
}

impl<S: Scalar> Axis<S> {
    /// An edge of `length` values in segments of `block`, with the sines that are used in each.
    pub(crate) fn new(length: usize, block: usize, sines: &[BTreeSet<usize>]) -> Self {
        let mut axis = Self { length, transforms: BTreeMap::new(), segments: Vec::new() };
        let mut first = 0;
        for (start, sines) in (0..length).step_by(block).zip(sines) {
            let size = block.min(length - start);
            axis.transforms.entry(size).or_insert_with(|| Cosine::new(size));
            let segment = Segment::new(start, size, first, sines);
            first += segment.rows();
            axis.segments.push(segment);
        }
        axis
    }

    /// Number of values.
    pub(crate) const fn length(&self) -> usize {
        self.length
    }

    /// Number of rows of a spectrum.
    pub(crate) fn rows(&self) -> usize {
        self.segments.last().map_or(0, |last| last.first + last.rows())
    }

    /// The segments, first to last.
    pub(crate) fn segments(&self) -> &[Segment<S>] {
        &self.segments
    }

    /// The transform of a segment.
    pub(crate) fn transform(&self, segment: &Segment<S>) -> &Cosine<S> {
        &self.transforms[&segment.size]
    }

    /// Where a basis vector stands: cosine `index` below the segment's size, sine `index − size` from there on.
    pub(crate) fn place(&self, segment: usize, index: usize) -> Place {
        let segment = &self.segments[segment];
        match index.checked_sub(segment.size) {
            None => {
                let place = self.transform(segment).places()[index];
                Place { row: segment.first + place.row, ..place }
            }
            Some(sine) => {
                let among = segment.sines.iter().position(|&s| s == sine).expect("the sine was named at the start");
                Place { row: segment.first + segment.size + among, factor: 1.0 }
            }
        }
    }

    /// The spectrum of a tile of tokens that starts at `token`.
    #[inline(always)]
    pub(crate) fn project<const W: usize>(&self, turn: Turn, values: &[S], token: usize, spectrum: &mut [[S; W]]) {
        for segment in &self.segments {
            let (cosines, sines) = spectrum[segment.range()].split_at_mut(segment.size);
            let place = tile::Place { features: self.length, token, feature: segment.start };
            tile::load(turn, values, place, cosines);
            let transform = self.transform(segment);
            transform.fold(cosines);
            sines.fill([S::ZERO; W]);
            for half in &segment.halves {
                tile::add_product(&half.project, &cosines[half.from..half.to], &mut sines[half.first..half.last]);
            }
            transform.forward(transform.folding(), cosines);
        }
    }

    /// Adds what one segment's rows of a tile's spectrum stand for to the tokens from `token` on; the rows are used up.
    #[inline(always)]
    pub(crate) fn expand<const W: usize>(
        &self,
        turn: Turn,
        segment: &Segment<S>,
        rows: &mut [[S; W]],
        values: &mut [S],
        token: usize,
    ) {
        let (cosines, sines) = rows.split_at_mut(segment.size);
        let transform = self.transform(segment);
        transform.transposed(transform.folding(), cosines);
        for half in &segment.halves {
            tile::add_product(&half.expand, &sines[half.first..half.last], &mut cosines[half.from..half.to]);
        }
        transform.fold(cosines);
        tile::add(turn, cosines, values, tile::Place { features: self.length, token, feature: segment.start });
    }
}

impl<S: Scalar> Segment<S> {
    fn new(start: usize, size: usize, first: usize, used: &BTreeSet<usize>) -> Self {
        let mut segment = Self { start, size, first, sines: Vec::new(), halves: Vec::new() };
        let all = dst_matrix(size);
        let half = size / 2;
        if size.is_multiple_of(2) {
            let (odd, even): (Vec<usize>, Vec<usize>) = used.iter().partition(|&&v| v % 2 == 1);
            segment.push_half(odd, (0, half), |v, row| all[v * size + row]);
            segment.push_half(even, (half, size), |v, row| all[v * size + size - 1 - row]);
        } else {
            segment.push_half(used.iter().copied().collect(), (0, size), |v, row| all[v * size + row]);
        }
        segment
    }

    /// Number of rows of its spectrum.
    pub(crate) fn rows(&self) -> usize {
        self.size + self.sines.len()
    }

    /// Its rows in the spectrum of the whole axis.
    pub(crate) fn range(&self) -> Range<usize> {
        self.first..self.first + self.rows()
    }

    fn push_half(&mut self, sines: Vec<usize>, (from, to): (usize, usize), entry: impl Fn(usize, usize) -> f64) {
        let rows = || from..to;
        let value = |v: usize, row: usize| S::from_f64(entry(v, row));
        let (first, last) = (self.sines.len(), self.sines.len() + sines.len());
        let project = sines.iter().flat_map(|&v| rows().map(move |row| value(v, row))).collect();
        let expand = rows().flat_map(|row| sines.iter().map(move |&v| value(v, row))).collect();
        self.halves.push(Half { from, to, first, last, project, expand });
        self.sines.extend(sines);
    }
}
