//! Floats to words and back: a power-of-two scale per layer and lane kind, stochastic or nearest rounding.
//!
//! Values are laid out by *slot*: block after block over the whole model, `window.width()` slots each,
//! wave first; a block with fewer lanes than the window leaves its last slots unused and zero.
//! Stochastic rounding `⌊v + u⌋`, u uniform in [0, 1), is unbiased (Gupta et al., ICML 2015).

use thiserror::Error;

use crate::layout::Layout;
use crate::pack::{PackLayers, Rounding, UnpackLayers, check_once};
use crate::scalar::Scalar;
use crate::seed::Seed;
use crate::state::QUANTUM_EXPONENT;
use crate::window::{Slot, Window};
use crate::word::{Profile, WIDTH_MAX, WORD_BYTES};

/// The scales of one layer: a lane of value `q` stands for `q·2^exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scales {
    /// Exponent of the wave's two lanes.
    pub wave: i8,
    /// Exponent of the residual lanes.
    pub residual: i8,
}

impl Scales {
    /// Exponents that a scale may have: from the state's own quantum, so that decoding is exact.
    pub const EXPONENTS: std::ops::RangeInclusive<i8> = QUANTUM_EXPONENT..=8;

    /// The exponent of a lane of the wave, or of the residual.
    #[must_use]
    pub const fn exponent(self, wave: bool) -> i8 {
        if wave { self.wave } else { self.residual }
    }
}

/// How many lanes of one layer did not fit their field and were held at its bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clips {
    /// Of the wave's lanes.
    pub wave: u32,
    /// Of the residual lanes.
    pub residual: u32,
}

/// An encoded update: one word a block, and what was clipped in each layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The words, 16 bytes a block, in layout order.
    pub words: Vec<u8>,
    /// Clipped lanes, a pair a layer.
    pub clips: Vec<Clips>,
}

/// Why values or words do not fit a layout.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// Not one pair of scales a layer.
    #[error("{found} pairs of scales for {layers} layers")]
    ScaleCount {
        /// Pairs given.
        found: usize,
        /// Layers of the layout.
        layers: usize,
    },
    /// A scale that the integer state cannot add exactly.
    #[error("layer {layer}: scale exponent {exponent} is outside -20 to 8")]
    Scale {
        /// Index of the layer.
        layer: usize,
        /// The exponent.
        exponent: i8,
    },
    /// Not one value a slot.
    #[error("{found} values for {slots} slots")]
    ValueCount {
        /// Values given.
        found: usize,
        /// Slots of the layout in this window.
        slots: usize,
    },
    /// A value is infinite or not a number.
    #[error("slot {slot} is not finite")]
    NotFinite {
        /// The slot.
        slot: usize,
    },
    /// Not 16 bytes a block.
    #[error("{found} bytes of words, the layout's {blocks} blocks take {}", blocks * WORD_BYTES)]
    WordBytes {
        /// Bytes given.
        found: usize,
        /// Blocks of the layout.
        blocks: usize,
    },
    /// A lane that no position stands behind is not zero.
    #[error("byte {offset}: lane {lane} of the word of block {block} is {value}, the block has {lanes} lanes")]
    Padding {
        /// First byte of the word.
        offset: usize,
        /// Block, counted over the whole layout.
        block: usize,
        /// Lane of the word.
        lane: usize,
        /// What it holds.
        value: i32,
        /// Lanes that the block has in this window.
        lanes: usize,
    },
}

/// Quantizes slot values to words under one assignment.
#[derive(Clone, Debug)]
pub struct Encoder<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) profile: Profile,
    pub(crate) window: Window,
    pub(crate) scales: &'a [Scales],
}

impl<'a> Encoder<'a> {
    /// An encoder for a profile, a turn of the window, and one pair of scales a layer.
    ///
    /// # Errors
    /// If the scales do not fit the layout.
    pub fn new(layout: &'a Layout, profile: Profile, turn: u32, scales: &'a [Scales]) -> Result<Self, EncodeError> {
        check_scales(layout, scales)?;
        Ok(Self { layout, profile, window: Window::new(profile, turn), scales })
    }

    /// Encodes with stochastic rounding; the same seed gives the same words.
    ///
    /// # Errors
    /// If the number of values is wrong or one is not finite.
    pub fn stochastic<S: Scalar>(&self, values: &[S], seed: &Seed) -> Result<Encoded, EncodeError> {
        self.encode(values, Rounding::Stochastic(Box::new(seed.stream())))
    }

    /// Encodes with rounding to nearest, ties to even.
    ///
    /// # Errors
    /// If the number of values is wrong or one is not finite.
    pub fn nearest<S: Scalar>(&self, values: &[S]) -> Result<Encoded, EncodeError> {
        self.encode(values, Rounding::Nearest)
    }

    fn encode<S: Scalar>(&self, values: &[S], rounding: Rounding) -> Result<Encoded, EncodeError> {
        let slots = self.layout.blocks() * self.window.width();
        if values.len() != slots {
            return Err(EncodeError::ValueCount { found: values.len(), slots });
        }
        if !values.iter().fold(true, |finite, v| finite & v.to_f64().is_finite()) {
            let slot = values.iter().position(|v| !v.to_f64().is_finite()).expect("one value is not finite");
            return Err(EncodeError::NotFinite { slot });
        }
        let mut encoded = Encoded {
            words: vec![0; self.layout.blocks() * WORD_BYTES],
            clips: vec![Clips::default(); self.layout.layers().len()],
        };
        let run = PackLayers { encoder: self, values, encoded: &mut encoded, rounding };
        pulp::Arch::new().dispatch(run);
        Ok(encoded)
    }

    /// The values that words stand for, slot by slot: the inverse of encoding, exact.
    ///
    /// # Errors
    /// If the words are not 16 bytes a block, or there is not one value a slot, or a lane without a position is not
    /// zero.
    pub fn decode(&self, words: &[u8], values: &mut [f32]) -> Result<(), EncodeError> {
        let (chunks, rest) = words.as_chunks::<WORD_BYTES>();
        if chunks.len() != self.layout.blocks() || !rest.is_empty() {
            return Err(EncodeError::WordBytes { found: words.len(), blocks: self.layout.blocks() });
        }
        let slots = self.layout.blocks() * self.window.width();
        if values.len() != slots {
            return Err(EncodeError::ValueCount { found: values.len(), slots });
        }
        pulp::Arch::new().dispatch(UnpackLayers { encoder: self, words: chunks, values });
        check_once(self.layout, self.profile, chunks)
    }
}

/// Reads words in place and hands every slot and its integer to `visit`, in layout order.
///
/// # Errors
/// If the length is not 16 bytes a block, or a lane without a position is not zero; then nothing has been visited.
pub fn decode_words(
    layout: &Layout,
    profile: Profile,
    turn: u32,
    words: &[u8],
    mut visit: impl FnMut(Slot, i32),
) -> Result<(), EncodeError> {
    let (chunks, rest) = words.as_chunks::<WORD_BYTES>();
    if chunks.len() != layout.blocks() || !rest.is_empty() {
        return Err(EncodeError::WordBytes { found: words.len(), blocks: layout.blocks() });
    }
    check_once(layout, profile, chunks)?;
    let mut lanes = [0; WIDTH_MAX];
    for block in Window::new(profile, turn).blocks(layout) {
        profile.unpack(&chunks[block.number], &mut lanes);
        for (slot, &q) in block.slots().zip(&lanes) {
            visit(slot, q);
        }
    }
    Ok(())
}

pub(crate) fn check_scales(layout: &Layout, scales: &[Scales]) -> Result<(), EncodeError> {
    let layers = layout.layers().len();
    if scales.len() != layers {
        return Err(EncodeError::ScaleCount { found: scales.len(), layers });
    }
    for (layer, scales) in scales.iter().enumerate() {
        for exponent in [scales.wave, scales.residual] {
            if !Scales::EXPONENTS.contains(&exponent) {
                return Err(EncodeError::Scale { layer, exponent });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::LayerSpec;

    fn layout() -> Layout {
        let spec = |name: &str, rows, cols| LayerSpec {
            name: name.into(),
            rows,
            cols,
            block: 4,
            residual: 13,
            gain_exponent: 4,
        };
        Layout::new(&Seed::from_number(1), vec![spec("a", 6, 8), spec("b", 5, 1)]).unwrap()
    }

    const SCALES: [Scales; 2] = [Scales { wave: -8, residual: -5 }, Scales { wave: -7, residual: -4 }];

    fn decode(words: &[u8]) -> Vec<(Slot, i32)> {
        let mut lanes = Vec::new();
        decode_words(&layout(), Profile::Plain, 0, words, |slot, q| lanes.push((slot, q))).unwrap();
        lanes
    }

    #[test]
    fn decoding_gives_the_values_that_the_words_stand_for() {
        let layout = layout();
        let encoder = Encoder::new(&layout, Profile::Plain, 0, &SCALES).unwrap();
        let words = encoder.nearest(&vec![0.31f64; layout.blocks() * 14]).unwrap().words;
        let mut expected = vec![0.0f32; layout.blocks() * 14];
        for (slot, q) in decode(&words) {
            let exponent = SCALES[slot.layer].exponent(slot.wave);
            expected[slot.index] = f32::from_f64(f64::from(q) * 2f64.powi(exponent.into()));
        }
        let mut values = vec![f32::NAN; expected.len()];
        encoder.decode(&words, &mut values).unwrap();
        assert_eq!(values, expected);
        assert!(matches!(encoder.decode(&words[..16], &mut values), Err(EncodeError::WordBytes { .. })));
    }

    #[test]
    fn values_on_the_grid_survive_either_rounding() {
        let layout = layout();
        let encoder = Encoder::new(&layout, Profile::Plain, 0, &SCALES).unwrap();
        let values = vec![0.25f32; layout.blocks() * 14];
        let nearest = encoder.nearest(&values).unwrap();
        assert_eq!(nearest, encoder.stochastic(&values, &Seed::from_number(9)).unwrap());
        for (slot, q) in decode(&nearest.words) {
            let exponent = SCALES[slot.layer].exponent(slot.wave);
            assert_eq!(f64::from(q) * 2f64.powi(exponent.into()), 0.25);
        }
    }

    #[test]
    fn stochastic_rounding_is_unbiased() {
        let layout = layout();
        let encoder = Encoder::new(&layout, Profile::Plain, 0, &SCALES).unwrap();
        let values = vec![0.01f64; layout.blocks() * 14];
        let (mut sum, mut count) = (0.0, 0.0);
        for n in 0..400 {
            let encoded = encoder.stochastic(&values, &Seed::from_number(n)).unwrap();
            for (_, q) in decode(&encoded.words).iter().filter(|(slot, _)| slot.layer == 0 && !slot.wave) {
                sum += f64::from(*q) / 32.0;
                count += 1.0;
            }
        }
        // One draw has a standard deviation of about 0.0146; nearest rounding would give 0.
        let mean: f64 = sum / count;
        assert!((mean - 0.01).abs() < 5.0 * 0.0146 / f64::sqrt(count), "{mean}");
    }

    #[test]
    fn clipped_lanes_are_counted_and_held_at_the_bound() {
        let layout = layout();
        let encoder = Encoder::new(&layout, Profile::Plain, 0, &SCALES).unwrap();
        let encoded = encoder.nearest(&vec![-1e6f64; layout.blocks() * 14]).unwrap();
        assert_eq!(encoded.clips[1], Clips { wave: 4, residual: 5 }, "blocks of 4×1 and 1×1");
        assert!(decode(&encoded.words).iter().all(|(slot, q)| *q == if slot.wave { -32_767 } else { -127 }));
    }

    #[test]
    fn what_does_not_fit_is_an_error_with_its_numbers() {
        let layout = layout();
        let encoder = Encoder::new(&layout, Profile::Plain, 0, &SCALES).unwrap();
        assert!(matches!(encoder.nearest(&[0.0f32; 3]), Err(EncodeError::ValueCount { found: 3, .. })));
        let mut values = vec![0.0f32; layout.blocks() * 14];
        values[5] = f32::NAN;
        assert_eq!(encoder.nearest(&values), Err(EncodeError::NotFinite { slot: 5 }));
        assert!(Encoder::new(&layout, Profile::Plain, 0, &SCALES[..1]).is_err());
        let wide = [SCALES[0], Scales { wave: -21, residual: 0 }];
        assert!(matches!(
            Encoder::new(&layout, Profile::Plain, 0, &wide),
            Err(EncodeError::Scale { layer: 1, exponent: -21 })
        ));
        let short = decode_words(&layout, Profile::Plain, 0, &[0; 17], |_, _| {});
        assert_eq!(short, Err(EncodeError::WordBytes { found: 17, blocks: 6 }));
        let mut words = vec![0; layout.blocks() * WORD_BYTES];
        *words.last_mut().unwrap() = 3;
        let padded = decode_words(&layout, Profile::Plain, 0, &words, |_, _| {});
        assert_eq!(padded, Err(EncodeError::Padding { offset: 80, block: 5, lane: 13, value: 3, lanes: 3 }));
    }
}
