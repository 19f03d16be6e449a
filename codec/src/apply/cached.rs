//! `Δ·x` from decoded blocks of which only so many bytes are kept: between `merged`, which holds all of Δ, and
//! `direct`, which holds none.
//!
//! The layer stays packed, 16 bytes and the residual a block; a block that is needed is decoded and kept until
//! blocks used since fill the bound. A pass walks the blocks of one row (backward: of one column) in a fixed
//! order, since they add into the same sums, but every other pass takes the rows from the last to the
//! first: a cyclic walk is the worst case of an LRU, while a serpentine one finds what the last pass left. So
//! neither the bound nor the history changes a bit of a result. Waves are read from Seed0, as `merged` does.

use std::sync::OnceLock;

use crate::apply::block_decoder::BlockDecoder;
use crate::apply::block_product::{BlockProduct, Direction, Tiles};
use crate::apply::direct::{Direct, Spectrum};
use crate::apply::lru::{CacheStatistics, Lru};
use crate::apply::merged::PackedLayer;
use crate::layout::{Block, Layer};
use crate::scalar::Scalar;
use crate::window::Window;

/// The lanes that inference sees, in the order of the state: `z` from Seed0, then the residual, block after block.
///
/// # Panics
/// If `packed` is not of this layer.
#[must_use]
pub fn inference_lanes<S: Scalar>(layer: &Layer, packed: &PackedLayer) -> Vec<S> {
    assert_fits(layer, packed);
    let mut lanes = Vec::with_capacity(layer.lanes().len());
    let mut residual = packed.residual.as_slice();
    for (block, wave) in layer.blocks().iter().zip(&packed.waves) {
        let (x, y) = wave.quantized_z(layer.gain());
        let (coefficients, rest) = residual.split_at(block.residual);
        residual = rest;
        lanes.extend([x, y].map(S::from_f64));
        lanes.extend(coefficients.iter().map(|&c| S::from_f64(c.into())));
    }
    lanes
}

fn assert_fits(layer: &Layer, packed: &PackedLayer) {
    assert_eq!(packed.waves.len(), layer.blocks().len(), "one wave a block");
    let residual = layer.blocks().iter().map(|block| block.residual).sum::<usize>();
    assert_eq!(packed.residual.len(), residual, "one coefficient a position");
}

/// One packed layer and the decoded blocks that fit its bound.
#[derive(Clone, Debug)]
pub struct CachedDelta {
    layer: Layer,
    packed: PackedLayer,
    /// Where each block's coefficients begin.
    starts: Vec<usize>,
    decoder: BlockDecoder,
    decoded: Lru,
    tiles: Tiles,
    backwards: bool,
    direct: OnceLock<Direct<f32>>,
}

/// Blocks that add into one stretch of the result, one stretch after the other.
#[derive(Clone, Copy)]
struct Walk {
    stretches: usize,
    stretch_step: usize,
    blocks: usize,
    block_step: usize,
}

impl CachedDelta {
    /// The layer with nothing decoded; at most `bytes_max` bytes of decoded blocks will be held.
    ///
    /// # Panics
    /// If `packed` is not of this layer.
    #[must_use]
    pub fn new(layer: &Layer, packed: PackedLayer, bytes_max: usize) -> Self {
        assert_fits(layer, &packed);
        let sizes = layer.blocks().iter().map(|block| block.residual);
        let starts = sizes.scan(0, |next, size| Some(std::mem::replace(next, *next + size))).collect();
        Self {
            starts,
            decoder: BlockDecoder::default(),
            decoded: Lru::new(layer.blocks().len(), bytes_max),
            layer: layer.clone(),
            packed,
            tiles: Tiles::default(),
            backwards: false,
            direct: OnceLock::new(),
        }
    }

    /// Hits, misses, evictions and the bytes held; one block more is held as a buffer.
    #[must_use]
    pub const fn statistics(&self) -> CacheStatistics {
        self.decoded.statistics()
    }

    /// Adds `Δ·x` to `y`: `x` is tokens × inputs, `y` tokens × outputs.
    ///
    /// # Panics
    /// If the lengths do not fit the layer.
    pub fn forward(&mut self, x: &[f32], y: &mut [f32]) {
        let (outputs, inputs) = self.assert_tokens(x, y);
        let (high, wide) = self.grid();
        let by_rows = Walk { stretches: high, stretch_step: wide, blocks: wide, block_step: 1 };
        self.walk(by_rows, |block, values, tiles| {
            let (direction, from, to) = (Direction::Forward, (x, inputs), (&mut *y, outputs));
            pulp::Arch::new().dispatch(BlockProduct { block, values, tiles, direction, from, to });
        });
    }

    /// Adds `Δᵀ·grad_y` to `grad_x`, the gradient of the input: tokens × outputs and tokens × inputs.
    ///
    /// # Panics
    /// If the lengths do not fit the layer.
    pub fn backward(&mut self, grad_y: &[f32], grad_x: &mut [f32]) {
        let (outputs, inputs) = self.assert_tokens(grad_x, grad_y);
        let (high, wide) = self.grid();
        let by_cols = Walk { stretches: wide, stretch_step: 1, blocks: high, block_step: wide };
        self.walk(by_cols, |block, values, tiles| {
            let (direction, from, to) = (Direction::Transposed, (grad_y, outputs), (&mut *grad_x, inputs));
            pulp::Arch::new().dispatch(BlockProduct { block, values, tiles, direction, from, to });
        });
    }

    /// Gradients of the window's lanes by slot, as of [`Direct::backward`], to which this delegates: decoded
    /// blocks would need a dense weight gradient. Costs a direct forward and backward pass; the sparse form is
    /// made when first asked for.
    ///
    /// # Panics
    /// If the lengths do not fit the layer.
    #[must_use]
    pub fn lane_gradients(&self, x: &[f32], grad_y: &[f32], window: &Window) -> Vec<f32> {
        let direct = self.direct.get_or_init(|| Direct::new(&self.layer));
        let coefficients = direct.coefficients(&inference_lanes(&self.layer, &self.packed));
        let mut spectrum = Spectrum::default();
        direct.forward(&coefficients, x, &mut vec![0.0; grad_y.len()], &mut spectrum);
        direct.backward(&coefficients, &spectrum, grad_y, &direct.trained(window), None)
    }

    /// Blocks down and across.
    fn grid(&self) -> (usize, usize) {
        let spec = self.layer.spec();
        (spec.rows.div_ceil(spec.block), spec.cols.div_ceil(spec.block))
    }

    fn assert_tokens(&self, x: &[f32], y: &[f32]) -> (usize, usize) {
        let (outputs, inputs) = (self.layer.spec().rows, self.layer.spec().cols);
        let tokens = x.len() / inputs;
        assert_eq!(x.len(), tokens * inputs, "tokens × inputs");
        assert_eq!(y.len(), tokens * outputs, "tokens × outputs");
        (outputs, inputs)
    }

    fn walk(&mut self, walk: Walk, mut visit: impl FnMut(&Block, &[f32], &mut Tiles)) {
        let Self { layer, packed, starts, decoder, decoded, tiles, backwards, .. } = self;
        for stretch in 0..walk.stretches {
            let stretch = if *backwards { walk.stretches - 1 - stretch } else { stretch };
            for number in (0..walk.blocks).map(|n| stretch * walk.stretch_step + n * walk.block_step) {
                let block = &layer.blocks()[number];
                let coefficients = &packed.residual[starts[number]..][..block.residual];
                let values = decoded.get_or_fill(number, block.rows * block.cols, |out| {
                    decoder.by_columns((layer, block), packed.waves[number], coefficients, out);
                });
                visit(block, values, tiles);
            }
        }
        *backwards = !*backwards;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{LayerSpec, Layout};
    use crate::packed::Packed128;
    use crate::seed::Seed;

    const BLOCK_BYTES: usize = 4 * 8 * 8;

    /// 8×6 blocks of 8×8, and what belongs to one of them.
    fn layer() -> (Layout, PackedLayer, Vec<f32>) {
        let spec = LayerSpec { name: "w".into(), rows: 64, cols: 48, block: 8, residual: 9, gain_exponent: 2 };
        let layout = Layout::new(&Seed::from_number(1), vec![spec]).unwrap();
        let mut stream = Seed::from_number(2).stream();
        let mut noise = |n: usize| (0..n).map(|_| f32::from_f64(2.0 * stream.unit() - 1.0)).collect::<Vec<_>>();
        let (z, residual, x) = (noise(96), noise(48 * 9), noise(3 * 48));
        let waves = layout.layers()[0].blocks().iter().zip(z.as_chunks().0);
        let waves = waves.map(|(block, &[x, y])| Packed128::from_z(x.into(), y.into(), 4.0, block.frequency));
        let packed = PackedLayer { waves: waves.collect(), residual };
        (layout, packed, x)
    }

    #[test]
    fn neither_bound_nor_history_changes_a_bit() {
        let (layout, packed, x) = layer();
        let mut results = Vec::new();
        for bytes_max in [0, BLOCK_BYTES - 1, BLOCK_BYTES, 13 * BLOCK_BYTES, usize::MAX] {
            let mut delta = CachedDelta::new(&layout.layers()[0], packed.clone(), bytes_max);
            for _ in 0..3 {
                let (mut y, mut grad_x) = (vec![0.0; 3 * 64], vec![0.0; 3 * 48]);
                delta.forward(&x, &mut y);
                delta.backward(&y, &mut grad_x);
                assert!(delta.statistics().bytes <= bytes_max);
                results.push((y, grad_x));
            }
        }
        assert!(results.iter().all(|result| *result == results[0]));
    }

    #[test]
    fn a_bound_of_half_the_layer_hits_half_the_time() {
        let (layout, packed, x) = layer();
        let mut delta = CachedDelta::new(&layout.layers()[0], packed, 24 * BLOCK_BYTES);
        for _ in 0..11 {
            delta.forward(&x, &mut vec![0.0; 3 * 64]);
        }
        let CacheStatistics { hits, misses, evictions, bytes } = delta.statistics();
        assert_eq!((hits, misses), (10 * 24, 48 + 10 * 24));
        assert_eq!((evictions, bytes), (misses - 24, 24 * BLOCK_BYTES));
    }

    #[test]
    fn everything_is_decoded_once_where_it_fits() {
        let (layout, packed, x) = layer();
        let mut delta = CachedDelta::new(&layout.layers()[0], packed, 48 * BLOCK_BYTES);
        for _ in 0..5 {
            delta.forward(&x, &mut vec![0.0; 3 * 64]);
            delta.backward(&[1.0; 64], &mut [0.0; 48]);
        }
        let statistics = delta.statistics();
        assert_eq!((statistics.misses, statistics.hits, statistics.evictions), (48, 9 * 48, 0));
    }
}
