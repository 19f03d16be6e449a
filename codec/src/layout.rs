//! The block layout of a model: which matrices are adapted, how each is cut into blocks, and where
//! each block's wave and residual live in the spectrum.
//!
//! Everything follows from the run's seed and the layer list, so nobody sends an index. Two parties
//! with the same [`LayoutDigest`] mean the same lane by the same number. The layout knows no values.
//!
//! ```text
//!   lanes of one block, in the state       [ x | y | c_0 | c_1 | … | c_{K-1} ]
//!   blocks of one layer, row by row        [ (0,0) | (0,1) | … ]   the last of a row or column may be smaller
//!   layers, in the order of the list       [ layer 0 | layer 1 | … ]
//! ```

use std::f64::consts::SQRT_2;
use std::fmt;
use std::ops::Range;

use thiserror::Error;

use crate::seed::{Seed, Stream};

/// Largest block edge: frequencies are ten bits with a sign.
const BLOCK_MAX: usize = 512;
/// Largest number of rows or columns of an adapted matrix.
const EDGE_MAX: usize = 1 << 22;
/// Most lanes that a layout may have.
const LANES_MAX: usize = 1 << 30;
/// Lanes of the wave, `x` and `y`.
pub const WAVE_LANES: usize = 2;
/// The gain is `2^e` with `e` in this range.
const GAIN_EXPONENTS: std::ops::RangeInclusive<i8> = -16..=10;

/// What the run's plan says of one adapted matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerSpec {
    /// Name of the matrix in the base model.
    pub name: String,
    /// Rows of the matrix: outputs.
    pub rows: usize,
    /// Columns of the matrix: inputs; 1 for a bias.
    pub cols: usize,
    /// Edge B of a block.
    pub block: usize,
    /// Residual positions K of a block; a block with fewer positions uses them all.
    pub residual: usize,
    /// The gain `g = 2^gain_exponent` bounds the wave.
    pub gain_exponent: i8,
}

/// A wave's spatial frequency in half-periods per block, rows then columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frequency {
    /// Along the rows, in `-512..512`.
    pub u: i16,
    /// Along the columns, in `-512..512`.
    pub v: i16,
}

/// One residual position: the product of row basis `u` and column basis `v`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Index of the row basis, below the block's rows.
    pub u: u16,
    /// Index of the column basis, below the block's columns.
    pub v: u16,
}

/// One block of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// First row of the matrix.
    pub row: usize,
    /// First column of the matrix.
    pub col: usize,
    /// Rows of the block, B but at the bottom edge.
    pub rows: usize,
    /// Columns of the block, B but at the right edge.
    pub cols: usize,
    /// The wave's frequency.
    pub frequency: Frequency,
    /// Where the block's lanes begin, counted from the layer's first lane.
    pub lane: usize,
    /// Number of residual positions.
    pub residual: usize,
    position: usize,
}

impl Block {
    /// Lanes of the block: the wave's two and the residual's.
    #[must_use]
    pub const fn lanes(&self) -> Range<usize> {
        self.lane..self.lane + WAVE_LANES + self.residual
    }

    /// `n_w`, which makes the wave unit-norm on average over its phase.
    #[must_use]
    pub fn wave_norm(&self) -> f64 {
        let area = (self.rows * self.cols) as f64;
        if self.frequency == (Frequency { u: 0, v: 0 }) { 1.0 / area.sqrt() } else { SQRT_2 / area.sqrt() }
    }
}

/// One adapted matrix: its specification and its blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    spec: LayerSpec,
    blocks: Vec<Block>,
    positions: Vec<Position>,
    lanes: Range<usize>,
    residual_min: usize,
}

impl Layer {
    /// What the plan says of the layer.
    #[must_use]
    pub const fn spec(&self) -> &LayerSpec {
        &self.spec
    }

    /// The blocks, row by row.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The residual positions of one of the layer's blocks.
    #[must_use]
    pub fn positions(&self, block: &Block) -> &[Position] {
        &self.positions[block.position..block.position + block.residual]
    }

    /// Residual positions of the block that has the fewest.
    pub(crate) const fn residual_min(&self) -> usize {
        self.residual_min
    }

    /// Where the layer's lanes lie in the state.
    #[must_use]
    pub fn lanes(&self) -> Range<usize> {
        self.lanes.clone()
    }

    /// The gain `g`.
    #[must_use]
    pub fn gain(&self) -> f64 {
        2f64.powi(i32::from(self.spec.gain_exponent))
    }

    fn new(index: usize, spec: LayerSpec, seed: &Seed, first_lane: usize) -> Result<Self, LayoutError> {
        check(index, &spec)?;
        let lanes = lane_count(&spec).saturating_add(first_lane as u64);
        if lanes > LANES_MAX as u64 {
            return Err(LayoutError::TooManyLanes { layer: index, lanes });
        }
        let mut layer = Self {
            blocks: Vec::new(),
            positions: Vec::new(),
            lanes: first_lane..first_lane,
            residual_min: usize::MAX,
            spec,
        };
        for row in (0..layer.spec.rows).step_by(layer.spec.block) {
            for col in (0..layer.spec.cols).step_by(layer.spec.block) {
                layer.push_block(index, row, col, seed);
            }
        }
        Ok(layer)
    }

    fn push_block(&mut self, index: usize, row: usize, col: usize, seed: &Seed) {
        let rows = self.spec.block.min(self.spec.rows - row);
        let cols = self.spec.block.min(self.spec.cols - col);
        let ids = [index as u64, self.blocks.len() as u64];
        let position = self.positions.len();
        let mut stream = seed.derive("packfed/residual/1", &ids).stream();
        draw_positions(&mut stream, rows, cols, self.spec.residual, &mut self.positions);
        let block = Block {
            row,
            col,
            rows,
            cols,
            frequency: draw_frequency(&mut seed.derive("packfed/wave/1", &ids).stream(), rows, cols),
            lane: self.lanes.len(),
            residual: self.positions.len() - position,
            position,
        };
        self.lanes.end += block.lanes().len();
        self.residual_min = self.residual_min.min(block.residual);
        self.blocks.push(block);
    }
}

/// The blocks of a whole model.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    layers: Vec<Layer>,
    digest: LayoutDigest,
}

impl Layout {
    /// Cuts the named matrices into blocks and draws every block's frequency and positions.
    ///
    /// # Errors
    /// If there is no layer, two have one name, or a size is out of bounds.
    pub fn new(seed: &Seed, specs: Vec<LayerSpec>) -> Result<Self, LayoutError> {
        if specs.is_empty() {
            return Err(LayoutError::Empty);
        }
        let digest = digest(seed, &specs);
        let mut layers: Vec<Layer> = Vec::with_capacity(specs.len());
        let mut first_lane = 0;
        for (index, spec) in specs.into_iter().enumerate() {
            if layers.iter().any(|layer| layer.spec.name == spec.name) {
                return Err(LayoutError::SameName { layer: index, name: spec.name });
            }
            let layer = Layer::new(index, spec, seed, first_lane)?;
            first_lane = layer.lanes.end;
            layers.push(layer);
        }
        Ok(Self { layers, digest })
    }

    /// The layers, in the order of the plan.
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Number of lanes of the model's state.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.lanes.end)
    }

    /// Number of blocks, which is the number of words of an update.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.layers.iter().map(|layer| layer.blocks.len()).sum()
    }

    /// What two parties compare to know that they mean the same lanes.
    #[must_use]
    pub const fn digest(&self) -> LayoutDigest {
        self.digest
    }
}

/// A hash of everything a layout follows from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LayoutDigest(pub [u8; 32]);

impl fmt::Debug for LayoutDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "LayoutDigest({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

/// Why a layer list is not a layout.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// Nothing to adapt.
    #[error("a layout needs at least one layer")]
    Empty,
    /// Two layers with one name.
    #[error("layer {layer} is the second named {name:?}")]
    SameName {
        /// Index of the later one.
        layer: usize,
        /// Their name.
        name: String,
    },
    /// A size out of its bounds.
    #[error("layer {layer} ({name}): {what} is {value}, allowed is {min} to {max}")]
    Size {
        /// Index of the layer.
        layer: usize,
        /// Its name.
        name: String,
        /// Which size.
        what: &'static str,
        /// Its value.
        value: i64,
        /// Least allowed.
        min: i64,
        /// Most allowed.
        max: i64,
    },
    /// More lanes than an index can name.
    #[error(
        "layer {layer} brings the layout to {lanes} lanes, allowed are {LANES_MAX}; use larger blocks or fewer residual positions"
    )]
    TooManyLanes {
        /// Index of the layer.
        layer: usize,
        /// Lanes of all layers up to it.
        lanes: u64,
    },
}

fn check(layer: usize, spec: &LayerSpec) -> Result<(), LayoutError> {
    let bound = |what, value: usize, min: usize, max: usize| {
        if (min..=max).contains(&value) {
            return Ok(());
        }
        let signed = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let (value, min, max) = (signed(value), signed(min), signed(max));
        Err(LayoutError::Size { layer, name: spec.name.clone(), what, value, min, max })
    };
    bound("rows", spec.rows, 1, EDGE_MAX)?;
    bound("cols", spec.cols, 1, EDGE_MAX)?;
    bound("block", spec.block, 1, BLOCK_MAX)?;
    bound("residual", spec.residual, 0, BLOCK_MAX * BLOCK_MAX)?;
    if GAIN_EXPONENTS.contains(&spec.gain_exponent) {
        return Ok(());
    }
    let (value, min, max) = (spec.gain_exponent, *GAIN_EXPONENTS.start(), *GAIN_EXPONENTS.end());
    let (value, min, max) = (i64::from(value), i64::from(min), i64::from(max));
    Err(LayoutError::Size { layer, name: spec.name.clone(), what: "gain exponent", value, min, max })
}

/// Lanes of a layer, known before anything is allocated for it.
fn lane_count(spec: &LayerSpec) -> u64 {
    let parts = |edge: usize| [(edge / spec.block, spec.block), (1, edge % spec.block)];
    let shapes = parts(spec.rows).into_iter().flat_map(|row| parts(spec.cols).map(|col| (row, col)));
    let lanes = shapes.filter(|((_, rows), (_, cols))| rows * cols > 0).map(|((down, rows), (across, cols))| {
        let of_a_block = WAVE_LANES + spec.residual.min(rows * cols);
        down as u64 * across as u64 * of_a_block as u64
    });
    lanes.sum()
}

/// `residual` positions of a `rows`×`cols` block, uniformly without replacement, in the order drawn.
fn draw_positions(stream: &mut Stream, rows: usize, cols: usize, residual: usize, out: &mut Vec<Position>) {
    let position = |index: usize| Position { u: narrow(index / cols), v: narrow(index % cols) };
    let area = rows * cols;
    let mut taken = vec![false; area];
    for _ in 0..residual.min(area) {
        let index = loop {
            let index = stream.index(area);
            if !taken[index] {
                break index;
            }
        };
        taken[index] = true;
        out.push(position(index));
    }
}

/// Any frequency but (0, 0), of either diagonal direction; a 1×1 block has only (0, 0).
fn draw_frequency(stream: &mut Stream, rows: usize, cols: usize) -> Frequency {
    let directions = 2 * cols - 1;
    let states = rows * directions;
    if states == 1 {
        return Frequency { u: 0, v: 0 };
    }
    loop {
        let state = stream.index(states);
        let (u, v) = (state / directions, state % directions);
        if u != 0 || v != cols - 1 {
            let signed = |n: usize| i16::try_from(n).expect("a frequency is below twice BLOCK_MAX");
            return Frequency { u: signed(u), v: signed(v) - signed(cols - 1) };
        }
    }
}

fn narrow(index: usize) -> u16 {
    u16::try_from(index).expect("a position is below BLOCK_MAX")
}

fn digest(seed: &Seed, specs: &[LayerSpec]) -> LayoutDigest {
    let mut hasher = blake3::Hasher::new_derive_key("packfed/layout/1");
    hasher.update(seed.bytes());
    for spec in specs {
        hasher.update(&(spec.name.len() as u64).to_le_bytes());
        hasher.update(spec.name.as_bytes());
        for size in [spec.rows, spec.cols, spec.block, spec.residual] {
            hasher.update(&(size as u64).to_le_bytes());
        }
        hasher.update(&spec.gain_exponent.to_le_bytes());
    }
    LayoutDigest(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn spec(rows: usize, cols: usize, block: usize, residual: usize) -> LayerSpec {
        LayerSpec { name: format!("{rows}x{cols}"), rows, cols, block, residual, gain_exponent: 4 }
    }

    #[test]
    fn blocks_tile_the_matrix_and_edges_are_smaller() {
        let layout = Layout::new(&Seed::from_number(1), vec![spec(10, 252, 4, 6)]).unwrap();
        let layer = &layout.layers()[0];
        assert_eq!(layer.blocks().len(), 3 * 63);
        let area: usize = layer.blocks().iter().map(|b| b.rows * b.cols).sum();
        assert_eq!(area, 2_520);
        let last = layer.blocks().last().unwrap();
        assert_eq!((last.rows, last.cols), (2, 4));
    }

    #[test]
    fn positions_are_distinct_and_a_small_block_uses_them_all() {
        let layout = Layout::new(&Seed::from_number(1), vec![spec(9, 8, 8, 12), spec(28, 28, 28, 96)]).unwrap();
        for layer in layout.layers() {
            for block in layer.blocks() {
                let distinct: BTreeSet<_> = layer.positions(block).iter().collect();
                assert_eq!(distinct.len(), layer.spec().residual.min(block.rows * block.cols));
            }
        }
        assert_eq!(layout.layers()[0].blocks()[1].residual, 8, "the 1×8 edge");
    }

    #[test]
    fn lanes_follow_one_another_without_gap() {
        let layout = Layout::new(&Seed::from_number(1), vec![spec(9, 8, 8, 12), spec(5, 1, 8, 12)]).unwrap();
        let mut next = 0;
        for layer in layout.layers() {
            assert_eq!(layer.lanes().start, next);
            for block in layer.blocks() {
                assert_eq!(layer.lanes().start + block.lane, next);
                next += block.lanes().len();
            }
        }
        assert_eq!(layout.lanes(), next);
        let counted: u64 = layout.layers().iter().map(|layer| lane_count(layer.spec())).sum();
        assert_eq!(counted, next as u64);
    }

    #[test]
    fn every_direction_of_a_wave_is_drawn_but_none_is_constant() {
        let mut stream = Seed::from_number(5).stream();
        let drawn: Vec<_> = (0..500).map(|_| draw_frequency(&mut stream, 4, 4)).collect();
        assert!(drawn.iter().any(|f| f.v < 0) && drawn.iter().any(|f| f.v > 0));
        assert!(drawn.iter().all(|f| (f.u, f.v) != (0, 0) && (0..4).contains(&f.u) && f.v.abs() < 4));
    }

    #[test]
    fn the_digest_names_seed_and_layers() {
        let digest = |n, s| Layout::new(&Seed::from_number(n), vec![s]).unwrap().digest();
        assert_eq!(digest(1, spec(8, 8, 4, 2)), digest(1, spec(8, 8, 4, 2)));
        assert_ne!(digest(1, spec(8, 8, 4, 2)), digest(2, spec(8, 8, 4, 2)));
        assert_ne!(digest(1, spec(8, 8, 4, 2)), digest(1, spec(8, 8, 4, 3)));
    }

    #[test]
    fn sizes_out_of_bounds_name_value_and_bound() {
        let error = Layout::new(&Seed::from_number(1), vec![spec(8, 8, 513, 2)]).unwrap_err();
        assert_eq!(error.to_string(), "layer 0 (8x8): block is 513, allowed is 1 to 512");
        let dust = Layout::new(&Seed::from_number(1), vec![spec(1 << 22, 1 << 22, 1, 0)]).unwrap_err();
        assert_eq!(dust, LayoutError::TooManyLanes { layer: 0, lanes: 1 << 45 }, "before 2^44 blocks are allocated");
        let twice = Layout::new(&Seed::from_number(1), vec![spec(8, 8, 4, 2), spec(8, 8, 4, 2)]);
        assert!(matches!(twice, Err(LayoutError::SameName { layer: 1, .. })));
    }
}
