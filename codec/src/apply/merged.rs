//! Δ built once, for inference: every block's Packed128 and residual decoded into a dense matrix.
//!
//! The wave is read from Seed0, the quantized inference seed; the residual goes through `rustdct`'s
//! inverse transform, rows that hold no coefficient skipped. It knows nothing of base weights.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustdct::{Dct3, DctPlanner};

use crate::basis::alpha;
use crate::layout::{Block, Layer, WAVE_LANES};
use crate::packed::Packed128;
use crate::scalar::Scalar;
use crate::state::State;

/// One layer as it is stored for inference: 16 bytes a block, and the residual coefficients.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedLayer {
    /// One wave a block.
    pub waves: Vec<Packed128>,
    /// The residual coefficients, block after block.
    pub residual: Vec<f32>,
}

impl PackedLayer {
    /// Packs a layer of a state.
    #[must_use]
    pub fn from_state(state: &State, layer: &Layer) -> Self {
        let values: Vec<f32> = state.values(layer);
        let waves = layer.blocks().iter().map(|block| {
            let (x, y) = state.wave(layer, block);
            Packed128::from_z(x, y, layer.gain(), block.frequency)
        });
        let residual = layer.blocks().iter().flat_map(|block| &values[block.lanes()][WAVE_LANES..]);
        Self { waves: waves.collect(), residual: residual.copied().collect() }
    }
}

/// Decodes packed layers, keeping the transforms of the block edges that it has met.
pub struct Merger {
    planner: DctPlanner<f32>,
    inverse: BTreeMap<usize, Arc<dyn Dct3<f32>>>,
}

impl Default for Merger {
    fn default() -> Self {
        Self::new()
    }
}

impl Merger {
    /// A merger that has met no block yet.
    #[must_use]
    pub fn new() -> Self {
        Self { planner: DctPlanner::new(), inverse: BTreeMap::new() }
    }

    /// The layer's Δ, rows×cols.
    ///
    /// # Panics
    /// If `packed` is not of this layer.
    #[must_use]
    pub fn delta(&mut self, layer: &Layer, packed: &PackedLayer) -> Vec<f32> {
        assert_eq!(packed.waves.len(), layer.blocks().len(), "one wave a block");
        let cols = layer.spec().cols;
        let mut delta = vec![0.0; layer.spec().rows * cols];
        let mut residual = packed.residual.as_slice();
        for (block, wave) in layer.blocks().iter().zip(&packed.waves) {
            let (coefficients, rest) = residual.split_at(block.residual);
            residual = rest;
            let mut values = self.residual(layer, block, coefficients);
            add_wave(&mut values, block, wave.quantized_z(layer.gain()));
            for (i, row) in values.chunks_exact(block.cols).enumerate() {
                let start = (block.row + i) * cols + block.col;
                delta[start..start + block.cols].copy_from_slice(row);
            }
        }
        delta
    }

    fn residual(&mut self, layer: &Layer, block: &Block, coefficients: &[f32]) -> Vec<f32> {
        let (rows, cols) = (block.rows, block.cols);
        let mut spectrum = vec![0.0f32; rows * cols];
        for (position, &c) in layer.positions(block).iter().zip(coefficients) {
            let (u, v) = (usize::from(position.u), usize::from(position.v));
            spectrum[u * cols + v] = c * factor(rows, u) * factor(cols, v);
        }
        let inverse = self.inverse(cols);
        for row in spectrum.chunks_exact_mut(cols).filter(|row| row.iter().any(|&c| c != 0.0)) {
            inverse.process_dct3(row);
        }
        let inverse = self.inverse(rows);
        let mut column = vec![0.0; rows];
        for j in 0..cols {
            for (i, value) in column.iter_mut().enumerate() {
                *value = spectrum[i * cols + j];
            }
            inverse.process_dct3(&mut column);
            for (i, &value) in column.iter().enumerate() {
                spectrum[i * cols + j] = value;
            }
        }
        spectrum
    }

    fn inverse(&mut self, size: usize) -> Arc<dyn Dct3<f32>> {
        let planner = &mut self.planner;
        self.inverse.entry(size).or_insert_with(|| planner.plan_dct3(size)).clone()
    }
}

/// What `rustdct`'s DCT-III, which halves its first coefficient, wants for an orthonormal one.
fn factor(size: usize, v: usize) -> f32 {
    f32::from_f64(alpha(size, v) * if v == 0 { 2.0 } else { 1.0 })
}

/// `n_w·(x·cos φ − y·sin φ)`, separable in rows and columns.
fn add_wave(values: &mut [f32], block: &Block, (x, y): (f64, f64)) {
    let table = |size: usize, frequency: i16| -> Vec<(f64, f64)> {
        let step = std::f64::consts::PI / (2 * size) as f64 * f64::from(frequency);
        (0..size).map(|n| (step * (2 * n + 1) as f64).sin_cos()).collect()
    };
    let columns = table(block.cols, block.frequency.v);
    for (row, (sin, cos)) in values.chunks_exact_mut(block.cols).zip(table(block.rows, block.frequency.u)) {
        let norm = block.wave_norm();
        let (even, odd) = (norm * (x * cos - y * sin), norm * (x * sin + y * cos));
        for (value, &(sin, cos)) in row.iter_mut().zip(&columns) {
            *value += f32::from_f64(even * cos - odd * sin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::direct::Direct;
    use crate::layout::{LayerSpec, Layout};
    use crate::quantize::Encoder;
    use crate::quantize::Scales;
    use crate::seed::Seed;
    use crate::state::StepWords;
    use crate::word::Profile;

    fn trained(rows: usize, cols: usize, block: usize) -> State {
        let spec = LayerSpec { name: "w".into(), rows, cols, block, residual: 12, gain_exponent: 4 };
        let layout = Arc::new(Layout::new(&Seed::from_number(1), vec![spec]).unwrap());
        let mut stream = Seed::from_number(2).stream();
        let values: Vec<f64> = (0..layout.blocks() * 14).map(|_| 2.0 * stream.unit() - 1.0).collect();
        let scales = vec![Scales { wave: -12, residual: -6 }];
        let words = Encoder::new(&layout, Profile::Plain, 0, &scales).unwrap().nearest(&values).unwrap().words;
        let mut state = State::zero(layout);
        state.apply(Profile::Plain, &StepWords { turn: 0, scales, words }).unwrap();
        state
    }

    #[test]
    fn merged_and_direct_agree() {
        for (rows, cols, block) in [(28, 56, 28), (10, 9, 4), (64, 64, 64), (7, 1, 3)] {
            let state = trained(rows, cols, block);
            let layer = &state.layout().layers()[0];
            let delta = Merger::new().delta(layer, &PackedLayer::from_state(&state, layer));
            let direct = Direct::<f32>::new(layer);
            let mut identity = vec![0.0; cols * cols];
            (0..cols).for_each(|i| identity[i * cols + i] = 1.0);
            let mut columns = vec![0.0; cols * rows];
            direct.forward(&direct.coefficients(&state.values(layer)), &identity, &mut columns);
            let norm = delta.iter().map(|d| d * d).sum::<f32>().sqrt();
            let error = (0..rows * cols).map(|i| (delta[i] - columns[i % cols * rows + i / cols]).powi(2));
            assert!(error.sum::<f32>().sqrt() < 1e-5 * norm.max(1.0) + 16.0 / 262_144.0, "{rows}×{cols}");
        }
    }
}
