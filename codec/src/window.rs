//! Which residual lanes a round trains: the wave and the next `n` of a block's K.
//!
//! The window advances by `n` each turn and wraps modulo the block's own K, so all K take their
//! turn; a block with at most `n` positions trains them all each time. It knows no round numbers:
//! a turn is just a count.

use crate::layout::{Block, Layout, WAVE_LANES};
use crate::word::Profile;

/// One lane of the window, in one block: where it stands in an update, and which lane of the state it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Index of the layer.
    pub layer: usize,
    /// Place among an update's values: `block · window.width() + lane of the word`.
    pub index: usize,
    /// Lane of the state.
    pub lane: usize,
    /// Whether it belongs to the wave.
    pub wave: bool,
}

/// The lanes of a word under one profile and turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    turn: u32,
    lanes: usize,
}

impl Window {
    /// The window of a profile at a turn.
    #[must_use]
    pub const fn new(profile: Profile, turn: u32) -> Self {
        Self { turn, lanes: profile.residual_lanes() }
    }

    /// The first `residual` lanes of every block beside its wave, for lanes that never travel in words.
    #[must_use]
    pub const fn first(residual: usize) -> Self {
        Self { turn: 0, lanes: residual }
    }

    /// Lanes of a word, the wave's two included: the stride of a delta array.
    #[must_use]
    pub const fn width(&self) -> usize {
        WAVE_LANES + self.lanes
    }

    /// The block's residual lanes in this window, in word order: indices below the block's K.
    pub fn residual(&self, block: &Block) -> impl ExactSizeIterator<Item = usize> + use<> {
        let count = block.residual;
        // A turn is any u32, so only its place within K is multiplied.
        let start = if count == 0 { 0 } else { self.turn as usize % count * self.lanes };
        (0..self.lanes.min(count)).map(move |slot| (start + slot) % count)
    }

    /// The block's lanes in this window, in word order: indices into the block's lanes, wave first.
    pub fn lanes(&self, block: &Block) -> impl Iterator<Item = usize> + use<> {
        (0..WAVE_LANES).chain(self.residual(block).map(|k| WAVE_LANES + k))
    }

    /// Every slot of a layout in this window, in layout order.
    pub fn for_each_slot(&self, layout: &Layout, mut visit: impl FnMut(Slot)) {
        for block in self.blocks(layout) {
            block.slots().for_each(&mut visit);
        }
    }

    /// Every block of a layout, in layout order, with its place in an update of this window.
    pub(crate) fn blocks<'a>(&self, layout: &'a Layout) -> impl Iterator<Item = BlockSlots<'a>> + use<'a> {
        let window = *self;
        let of_layers = layout.layers().iter().enumerate();
        let blocks = of_layers.flat_map(|(index, layer)| layer.blocks().iter().map(move |block| (index, layer, block)));
        blocks.enumerate().map(move |(number, (layer, of, block))| BlockSlots {
            window,
            number,
            layer,
            first_lane: of.lanes().start + block.lane,
            block,
        })
    }
}

/// One block in an update: where its slots and lanes begin.
pub(crate) struct BlockSlots<'a> {
    window: Window,
    /// Number of the block over the whole layout: of its word.
    pub(crate) number: usize,
    layer: usize,
    first_lane: usize,
    block: &'a Block,
}

impl BlockSlots<'_> {
    /// The block's slots, wave first.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        let (layer, first_slot, first_lane) = (self.layer, self.number * self.window.width(), self.first_lane);
        self.window.lanes(self.block).enumerate().map(move |(of_word, lane)| Slot {
            layer,
            index: first_slot + of_word,
            lane: first_lane + lane,
            wave: of_word < WAVE_LANES,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{LayerSpec, Layout};
    use crate::seed::Seed;

    fn block(residual: usize) -> Block {
        let spec = LayerSpec { name: "w".into(), rows: 28, cols: 28, block: 28, residual, gain_exponent: 4 };
        Layout::new(&Seed::from_number(1), vec![spec]).unwrap().layers()[0].blocks()[0].clone()
    }

    #[test]
    fn all_lanes_take_their_turn_equally() {
        let block = block(30);
        let mut seen = vec![0; 30];
        for turn in 0..5 {
            Window::new(Profile::Plain, turn).residual(&block).for_each(|k| seen[k] += 1);
        }
        assert!(seen.iter().all(|&n| n == 2), "{seen:?}");
    }

    #[test]
    fn a_small_block_trains_all_it_has() {
        let mut lanes: Vec<_> = Window::new(Profile::Plain, 9).residual(&block(5)).collect();
        lanes.sort_unstable();
        assert_eq!(lanes, [0, 1, 2, 3, 4]);
        assert_eq!(Window::new(Profile::Plain, 9).residual(&block(0)).count(), 0);
    }
}
