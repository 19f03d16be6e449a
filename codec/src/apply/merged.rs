//! Δ built once, for inference: every block's Packed128 and residual decoded into a dense matrix.
//!
//! The wave is read from Seed0, the quantized inference seed. It knows nothing of base weights.

use crate::apply::block_decoder::BlockDecoder;
use crate::layout::{Block, Layer, WAVE_LANES};
use crate::packed::Packed128;
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

/// Decodes packed layers, keeping the bases of the block edges that it has met.
#[derive(Clone, Debug, Default)]
pub struct Merger {
    decoder: BlockDecoder,
}

impl Merger {
    /// A merger that has met no block yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
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
        for (block, &wave) in layer.blocks().iter().zip(&packed.waves) {
            let (coefficients, rest) = residual.split_at(block.residual);
            residual = rest;
            let out = &mut delta[block.row * cols + block.col..];
            self.decoder.by_rows((layer, block), wave, coefficients, out, cols);
        }
        delta
    }

    /// One block of a layer, its rows×cols, from its wave and residual coefficients. Allocates only where a block
    /// has an edge that none had before, or needs more room.
    ///
    /// # Panics
    /// If `coefficients` or `out` is not of this block.
    pub fn block(&mut self, layer: &Layer, block: &Block, wave: Packed128, coefficients: &[f32], out: &mut [f32]) {
        assert_eq!(out.len(), block.rows * block.cols, "rows × cols values");
        self.decoder.by_rows((layer, block), wave, coefficients, out, block.cols);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::apply::direct::{Direct, Spectrum};
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
            direct.forward(
                &direct.coefficients(&state.values(layer)),
                &identity,
                &mut columns,
                &mut Spectrum::default(),
            );
            let norm = delta.iter().map(|d| d * d).sum::<f32>().sqrt();
            let error = (0..rows * cols).map(|i| (delta[i] - columns[i % cols * rows + i / cols]).powi(2));
            assert!(error.sum::<f32>().sqrt() < 1e-5 * norm.max(1.0) + 16.0 / 262_144.0, "{rows}×{cols}");
        }
    }

    #[test]
    fn a_block_alone_has_the_bits_that_it_has_in_its_layer() {
        let state = trained(21, 30, 8);
        let layer = &state.layout().layers()[0];
        let packed = PackedLayer::from_state(&state, layer);
        let delta = Merger::new().delta(layer, &packed);
        let (mut merger, mut residual) = (Merger::new(), packed.residual.as_slice());
        for (block, &wave) in layer.blocks().iter().zip(&packed.waves) {
            let (coefficients, rest) = residual.split_at(block.residual);
            residual = rest;
            let mut values = vec![f32::NAN; block.rows * block.cols];
            merger.block(layer, block, wave, coefficients, &mut values);
            for (i, row) in values.chunks_exact(block.cols).enumerate() {
                assert_eq!(row, &delta[(block.row + i) * 30 + block.col..][..block.cols]);
            }
        }
    }
}
