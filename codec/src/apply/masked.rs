//! A sparse product for a block of at most 64×64 with few coefficients: one 64-bit mask a row.
//!
//! ```text
//!  rows    one bit for every row that has a coefficient
//!  masks   for each of those rows, one bit for every column that has one
//!  values  the coefficients in the order of the bits: row by row, low column first
//! ```
//!
//! The coefficient at (u, v) is found by counting the bits below it (the rank of a bit vector: G. Jacobson,
//! *Space-efficient Static Trees and Graphs*, 1989); a row is walked by its trailing zeros. It costs 8 bytes a
//! non-empty row and 8 a block beside the values, whatever the number of coefficients. A CSR of the same
//! block with 32-bit indices costs 4 a coefficient and 4 a row: the masks are smaller from two
//! coefficients a non-empty row on (96 drawn in 64×64: 416 bytes against 644). A CSR packed to 8-bit columns
//! and 16-bit row ends costs 1 and 2, so against that only from eight a row on. Whether a position has a
//! coefficient is one bit test here and a search there.
//!
//! It works in the spectral domain, `ŷ += C·x̂`, and knows neither transforms nor layers.

use thiserror::Error;

use crate::layout::Position;

/// Largest edge of a block that a mask can name.
pub const MASK_EDGE_MAX: usize = 64;

/// Why coefficients do not make a masked block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MaskedError {
    /// The block is empty, or larger than a mask.
    #[error("block of {rows}×{cols}, allowed are edges of 1 to {MASK_EDGE_MAX}")]
    Size {
        /// Rows of the block.
        rows: usize,
        /// Columns of the block.
        cols: usize,
    },
    /// There is not one value a position.
    #[error("{values} values for {positions} positions")]
    Count {
        /// Values given.
        values: usize,
        /// Positions given.
        positions: usize,
    },
    /// A position lies outside the block.
    #[error("position {index} is ({}, {}), the block has {rows}×{cols}", position.u, position.v)]
    Outside {
        /// Index of the position.
        index: usize,
        /// The position.
        position: Position,
        /// Rows of the block.
        rows: usize,
        /// Columns of the block.
        cols: usize,
    },
    /// A position was named before.
    #[error("position {index}, ({}, {}), is named twice", position.u, position.v)]
    Twice {
        /// Index of the later one.
        index: usize,
        /// The position.
        position: Position,
    },
}

/// A block's coefficients under their masks.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskedBlock {
    rows: usize,
    cols: usize,
    occupied: u64,
    masks: Vec<u64>,
    values: Vec<f32>,
}

impl MaskedBlock {
    /// A block of `rows`×`cols` with one value at each of these positions, in any order.
    ///
    /// # Errors
    /// If an edge is not in `1..=64`, there is not one value a position, or a position is outside or named twice.
    pub fn from_positions(
        rows: usize,
        cols: usize,
        positions: &[Position],
        values: &[f32],
    ) -> Result<Self, MaskedError> {
        if !(1..=MASK_EDGE_MAX).contains(&rows) || !(1..=MASK_EDGE_MAX).contains(&cols) {
            return Err(MaskedError::Size { rows, cols });
        }
        if values.len() != positions.len() {
            return Err(MaskedError::Count { values: values.len(), positions: positions.len() });
        }
        let mut by_row = [0u64; MASK_EDGE_MAX];
        for (index, &position) in positions.iter().enumerate() {
            let (u, v) = (usize::from(position.u), usize::from(position.v));
            if u >= rows || v >= cols {
                return Err(MaskedError::Outside { index, position, rows, cols });
            }
            if by_row[u] >> v & 1 == 1 {
                return Err(MaskedError::Twice { index, position });
            }
            by_row[u] |= 1 << v;
        }
        let occupied = by_row.iter().enumerate().fold(0, |bits, (u, &mask)| bits | u64::from(mask != 0) << u);
        let masks = by_row.into_iter().filter(|&mask| mask != 0).collect();
        let mut block = Self { rows, cols, occupied, masks, values: vec![0.0; values.len()] };
        for (&position, &value) in positions.iter().zip(values) {
            let index = block.index(position).expect("its bit was set");
            block.values[index] = value;
        }
        Ok(block)
    }

    /// Number of coefficients.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no coefficient.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Bytes of the masks, the values apart.
    #[must_use]
    pub const fn mask_bytes(&self) -> usize {
        size_of::<u64>() * (1 + self.masks.len())
    }

    /// The coefficient at a position, if there is one.
    #[must_use]
    pub fn get(&self, position: Position) -> Option<f32> {
        Some(self.values[self.index(position)?])
    }

    /// The coefficients, in mask order: row by row, low column first.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The coefficients, to be changed in place.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// The positions, in mask order.
    pub fn positions(&self) -> impl Iterator<Item = Position> {
        self.masked_rows().flat_map(|(u, mask)| Bits(mask).map(move |v| Position { u: narrow(u), v: narrow(v) }))
    }

    /// Adds `C·x` to `y`, for one spectrum `x` of `cols` values and `y` of `rows`.
    ///
    /// # Panics
    /// If the lengths do not fit the block.
    pub fn forward(&self, x: &[f32], y: &mut [f32]) {
        assert_eq!((x.len(), y.len()), (self.cols, self.rows), "one spectrum");
        let mut values = self.values.iter();
        for (u, mask) in self.masked_rows() {
            y[u] += Bits(mask).zip(&mut values).map(|(v, &c)| c * x[v]).sum::<f32>();
        }
    }

    /// Adds `Cᵀ·grad_y` to `grad_x`, for one spectrum.
    ///
    /// # Panics
    /// As [`MaskedBlock::forward`].
    pub fn backward(&self, grad_y: &[f32], grad_x: &mut [f32]) {
        assert_eq!((grad_x.len(), grad_y.len()), (self.cols, self.rows), "one spectrum");
        self.for_each(|u, v, c, _| grad_x[v] += c * grad_y[u]);
    }

    /// Adds `C·x` to `y` for a batch, feature-major: `x` is cols × tokens, `y` rows × tokens.
    ///
    /// # Panics
    /// If the lengths do not fit the block and the tokens.
    pub fn forward_batch(&self, tokens: usize, x: &[f32], y: &mut [f32]) {
        self.assert_batch(tokens, x, y);
        self.for_each(|u, v, c, _| add_scaled(c, &x[v * tokens..][..tokens], &mut y[u * tokens..][..tokens]));
    }

    /// Adds `Cᵀ·grad_y` to `grad_x` for a batch, feature-major.
    ///
    /// # Panics
    /// As [`MaskedBlock::forward_batch`].
    pub fn backward_batch(&self, tokens: usize, grad_y: &[f32], grad_x: &mut [f32]) {
        self.assert_batch(tokens, grad_x, grad_y);
        self.for_each(|u, v, c, _| add_scaled(c, &grad_y[u * tokens..][..tokens], &mut grad_x[v * tokens..][..tokens]));
    }

    /// Gradients of the coefficients from a batch, in mask order: `Σ_t grad_y[u, t]·x[v, t]`.
    ///
    /// # Panics
    /// As [`MaskedBlock::forward_batch`].
    #[must_use]
    pub fn value_gradients(&self, tokens: usize, x: &[f32], grad_y: &[f32]) -> Vec<f32> {
        self.assert_batch(tokens, x, grad_y);
        let mut gradients = vec![0.0; self.values.len()];
        self.for_each(|u, v, _, index| {
            let pairs = x[v * tokens..][..tokens].iter().zip(&grad_y[u * tokens..][..tokens]);
            gradients[index] = pairs.map(|(x, grad)| x * grad).sum();
        });
        gradients
    }

    /// Every coefficient with its row, column and index, in mask order.
    fn for_each(&self, mut visit: impl FnMut(usize, usize, f32, usize)) {
        let places = self.masked_rows().flat_map(|(u, mask)| Bits(mask).map(move |v| (u, v)));
        for (index, ((u, v), &c)) in places.zip(&self.values).enumerate() {
            visit(u, v, c, index);
        }
    }

    fn masked_rows(&self) -> impl Iterator<Item = (usize, u64)> {
        Bits(self.occupied).zip(self.masks.iter().copied())
    }

    fn index(&self, position: Position) -> Option<usize> {
        let (u, v) = (usize::from(position.u), usize::from(position.v));
        if u >= self.rows || v >= self.cols || self.occupied >> u & 1 == 0 {
            return None;
        }
        let row = count_below(self.occupied, u);
        let mask = self.masks[row];
        if mask >> v & 1 == 0 {
            return None;
        }
        let before: usize = self.masks[..row].iter().map(|mask| mask.count_ones() as usize).sum();
        Some(before + count_below(mask, v))
    }

    fn assert_batch(&self, tokens: usize, x: &[f32], y: &[f32]) {
        assert_eq!((x.len(), y.len()), (self.cols * tokens, self.rows * tokens), "edges × tokens");
    }
}

/// Places of the bits that are set, from the lowest.
struct Bits(u64);

impl Iterator for Bits {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let place = self.0.trailing_zeros() as usize;
        // Clears the lowest bit that is set; of none, nothing.
        self.0 &= self.0.wrapping_sub(1);
        (place < 64).then_some(place)
    }
}

const fn count_below(bits: u64, place: usize) -> usize {
    (bits & ((1 << place) - 1)).count_ones() as usize
}

fn narrow(place: usize) -> u16 {
    u16::try_from(place).expect("a place is below 64")
}

fn add_scaled(weight: f32, from: &[f32], to: &mut [f32]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to += weight * from;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::scalar::Scalar;
    use crate::seed::Seed;

    const fn at(u: u16, v: u16) -> Position {
        Position { u, v }
    }

    fn noise(seed: u64, n: usize) -> Vec<f32> {
        let mut stream = Seed::from_number(seed).stream();
        (0..n).map(|_| f32::from_f64(2.0 * stream.unit() - 1.0)).collect()
    }

    #[test]
    fn what_is_no_masked_block_is_named() {
        let make = |rows, cols, positions: &[Position]| {
            MaskedBlock::from_positions(rows, cols, positions, &vec![1.0; positions.len()])
        };
        assert_eq!(make(65, 4, &[]), Err(MaskedError::Size { rows: 65, cols: 4 }));
        assert_eq!(make(4, 0, &[]), Err(MaskedError::Size { rows: 4, cols: 0 }));
        let error = make(4, 5, &[at(0, 0), at(3, 5)]).unwrap_err();
        assert_eq!(error.to_string(), "position 1 is (3, 5), the block has 4×5");
        assert_eq!(make(4, 5, &[at(1, 1), at(1, 1)]), Err(MaskedError::Twice { index: 1, position: at(1, 1) }));
        let error = MaskedBlock::from_positions(4, 5, &[at(1, 1)], &[]);
        assert_eq!(error, Err(MaskedError::Count { values: 0, positions: 1 }));
    }

    #[test]
    fn the_corners_of_the_largest_block_are_reached() {
        let corners = [at(63, 63), at(0, 63), at(63, 0), at(0, 0)];
        let block = MaskedBlock::from_positions(64, 64, &corners, &[4.0, 2.0, 3.0, 1.0]).unwrap();
        assert_eq!(block.values(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(block.positions().collect::<Vec<_>>(), [at(0, 0), at(0, 63), at(63, 0), at(63, 63)]);
        assert_eq!((block.get(at(63, 63)), block.get(at(62, 63)), block.get(at(63, 62))), (Some(4.0), None, None));
        assert_eq!((block.get(at(64, 0)), block.get(at(0, 64))), (None, None));
        assert_eq!((block.mask_bytes(), block.len(), block.is_empty()), (24, 4, false));
    }

    proptest! {
        #[test]
        fn any_block_multiplies_as_its_plain_sparse_product(
            rows in 1..=64usize, cols in 1..=64usize, tokens in 0..19usize, seed: u64,
            places in prop::collection::vec((0..64u16, 0..64u16), 0..150),
        ) {
            let inside = |&(u, v): &(u16, u16)| usize::from(u) < rows && usize::from(v) < cols;
            let distinct: BTreeSet<_> = places.iter().filter(|place| inside(place)).collect();
            let mut places: Vec<Position> = distinct.into_iter().map(|&(u, v)| at(u, v)).collect();
            let sorted = places.clone();
            Seed::from_number(seed).stream().shuffle(&mut places);
            let values = noise(seed, places.len());
            let block = MaskedBlock::from_positions(rows, cols, &places, &values).unwrap();
            prop_assert!(block.positions().eq(sorted.iter().copied()));
            let entries: Vec<_> = places.iter().map(|p| (usize::from(p.u), usize::from(p.v))).zip(values).collect();

            let (x, grad_y) = (noise(seed ^ 1, cols * tokens), noise(seed ^ 2, rows * tokens));
            let (mut y, mut grad_x) = (vec![1.0; rows * tokens], vec![1.0; cols * tokens]);
            block.forward_batch(tokens, &x, &mut y);
            block.backward_batch(tokens, &grad_y, &mut grad_x);
            let gradients = block.value_gradients(tokens, &x, &grad_y);
            let (mut exact_y, mut exact_grad_x) = (vec![1.0; rows * tokens], vec![1.0; cols * tokens]);
            for t in 0..tokens {
                let column = |panel: &[f32]| panel.iter().copied().skip(t).step_by(tokens).collect::<Vec<f32>>();
                for &((u, v), c) in &entries {
                    exact_y[u * tokens + t] += c * x[v * tokens + t];
                    exact_grad_x[v * tokens + t] += c * grad_y[u * tokens + t];
                }
                let (mut one_y, mut one_grad_x) = (vec![1.0; rows], vec![1.0; cols]);
                block.forward(&column(&x), &mut one_y);
                block.backward(&column(&grad_y), &mut one_grad_x);
                prop_assert!(one_y.iter().zip(column(&y)).all(|(a, b)| (a - b).abs() < 1e-4));
                prop_assert_eq!(one_grad_x, column(&grad_x));
            }
            prop_assert!(y.iter().zip(&exact_y).all(|(a, b)| (a - b).abs() < 1e-4));
            prop_assert!(grad_x.iter().zip(&exact_grad_x).all(|(a, b)| (a - b).abs() < 1e-4));
            for &((u, v), c) in &entries {
                let position = at(narrow(u), narrow(v));
                prop_assert_eq!(block.get(position), Some(c));
                let exact: f32 = (0..tokens).map(|t| x[v * tokens + t] * grad_y[u * tokens + t]).sum();
                let index = sorted.iter().position(|&p| p == position).unwrap();
                prop_assert!((gradients[index] - exact).abs() < 1e-4);
            }
        }
    }
}
