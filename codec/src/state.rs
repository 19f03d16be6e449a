//! The model as integers: one fixed-point `i32` a lane, quantum 2⁻²⁰.
//!
//! A step's words are `q·2^e` with `e ≥ −20`, so adding them is exact, and the digest is a hash of the
//! integers: two replicas agree to the bit or differ in their digest. Floats are only ever read out.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::layout::{Block, Layer, Layout, WAVE_LANES};
use crate::quantize::{EncodeError, Scales, check_scales, decode_words};
use crate::scalar::Scalar;
use crate::word::{Profile, WORD_BYTES};

/// A lane's integer `n` stands for `n·2^QUANTUM_EXPONENT`.
pub const QUANTUM_EXPONENT: i8 = -20;

/// One committed step of the model: the words that every replica adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepWords {
    /// Turn of the residual window that the words are in.
    pub turn: u32,
    /// One pair of scales a layer.
    pub scales: Vec<Scales>,
    /// The words, 16 bytes a block.
    pub words: Vec<u8>,
}

impl StepWords {
    /// `[turn u32][layers u32][wave i8, residual i8]…[words]`, little-endian.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let layers = u32::try_from(self.scales.len()).expect("a layout has fewer layers than LANES_MAX");
        let mut bytes = Vec::with_capacity(8 + 2 * self.scales.len() + self.words.len());
        bytes.extend_from_slice(&self.turn.to_le_bytes());
        bytes.extend_from_slice(&layers.to_le_bytes());
        for scales in &self.scales {
            bytes.extend_from_slice(&[scales.wave.cast_unsigned(), scales.residual.cast_unsigned()]);
        }
        bytes.extend_from_slice(&self.words);
        bytes
    }

    /// The inverse of [`StepWords::to_bytes`]; whether the words fit a layout is for [`State::apply`] to say.
    /// Allocates no more than the bytes given.
    ///
    /// # Errors
    /// If the bytes end before the scales do, or what follows them is not whole words.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StepError> {
        let Some((&[t0, t1, t2, t3, l0, l1, l2, l3], rest)) = bytes.split_first_chunk() else {
            return Err(StepError::Header { bytes: bytes.len() });
        };
        let layers = u32::from_le_bytes([l0, l1, l2, l3]);
        let scale_bytes = usize::try_from(layers).unwrap_or(usize::MAX).saturating_mul(SCALE_BYTES);
        let Some((scales, words)) = rest.split_at_checked(scale_bytes) else {
            return Err(StepError::Scales { layers, bytes: rest.len() });
        };
        let extra = words.len() % WORD_BYTES;
        if extra > 0 {
            return Err(StepError::Words { offset: bytes.len() - extra, bytes: extra });
        }
        let scales = scales.as_chunks().0.iter();
        let scales = scales.map(|&[wave, residual]: &[u8; SCALE_BYTES]| Scales {
            wave: wave.cast_signed(),
            residual: residual.cast_signed(),
        });
        Ok(Self { turn: u32::from_le_bytes([t0, t1, t2, t3]), scales: scales.collect(), words: words.to_vec() })
    }
}

/// Bytes before a step's scales, and of one layer's pair of them.
const STEP_HEADER_BYTES: usize = 8;
const SCALE_BYTES: usize = 2;

/// Why bytes are not a step. Offsets count bytes from the step's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StepError {
    /// The turn and the number of layers are cut short.
    #[error("byte 0: {bytes} bytes do not hold a header of {STEP_HEADER_BYTES}")]
    Header {
        /// Bytes given.
        bytes: usize,
    },
    /// The scales are cut short.
    #[error("byte 4: {layers} layers of 2 bytes, {bytes} bytes follow the header")]
    Scales {
        /// Layers that the header claims.
        layers: u32,
        /// Bytes after the header.
        bytes: usize,
    },
    /// The last word is cut short.
    #[error("byte {offset}: {bytes} bytes are left for a word of {WORD_BYTES}")]
    Words {
        /// Where the last word begins.
        offset: usize,
        /// Bytes from there on.
        bytes: usize,
    },
}

/// A hash of every lane's integer, and of the layout that gives them meaning.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateDigest(pub [u8; 32]);

impl fmt::Debug for StateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "StateDigest({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

/// Why a step cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StateError {
    /// The words or scales do not fit the layout.
    #[error(transparent)]
    Words(#[from] EncodeError),
    /// A lane would leave the range of an `i32`.
    #[error("lane {lane} would leave ±2048")]
    Overflow {
        /// Lane of the state.
        lane: usize,
    },
    /// The stored lanes are of another length than the layout's.
    #[error("{found} bytes of state, the layout's {lanes} lanes take {}", lanes * 4)]
    Length {
        /// Bytes given.
        found: usize,
        /// Lanes of the layout.
        lanes: usize,
    },
}

/// Every lane of one model version.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    layout: Arc<Layout>,
    lanes: Vec<i32>,
}

impl State {
    /// The state in which Δ is zero: version 0 of every run.
    #[must_use]
    pub fn zero(layout: Arc<Layout>) -> Self {
        let lanes = vec![0; layout.lanes()];
        Self { layout, lanes }
    }

    /// A stored state, `i32` little-endian a lane.
    ///
    /// # Errors
    /// If the length is not the layout's.
    pub fn from_bytes(layout: Arc<Layout>, bytes: &[u8]) -> Result<Self, StateError> {
        let (chunks, rest) = bytes.as_chunks();
        if chunks.len() != layout.lanes() || !rest.is_empty() {
            return Err(StateError::Length { found: bytes.len(), lanes: layout.lanes() });
        }
        let lanes = chunks.iter().map(|&lane| i32::from_le_bytes(lane)).collect();
        Ok(Self { layout, lanes })
    }

    /// The inverse of [`State::from_bytes`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect()
    }

    /// The layout that gives the lanes meaning.
    #[must_use]
    pub const fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The integers.
    #[must_use]
    pub fn lanes(&self) -> &[i32] {
        &self.lanes
    }

    pub(crate) fn lanes_mut(&mut self) -> &mut [i32] {
        &mut self.lanes
    }

    /// Adds a step exactly; on an error the state is as it was.
    ///
    /// # Errors
    /// If the words do not fit the layout, or a lane would overflow.
    pub fn apply(&mut self, profile: Profile, step: &StepWords) -> Result<(), StateError> {
        self.add(profile, std::iter::once(step), 1)
    }

    /// Takes steps back exactly, the inverse of [`State::apply`]; on an error the state is as it was.
    ///
    /// # Errors
    /// As [`State::apply`].
    pub fn retract<'a>(
        &mut self,
        profile: Profile,
        steps: impl IntoIterator<Item = &'a StepWords>,
    ) -> Result<(), StateError> {
        self.add(profile, steps.into_iter(), -1)
    }

    fn add<'a>(
        &mut self,
        profile: Profile,
        steps: impl Iterator<Item = &'a StepWords>,
        sign: i64,
    ) -> Result<(), StateError> {
        let mut next = self.lanes.clone();
        let mut overflow = None;
        for step in steps {
            check_scales(&self.layout, &step.scales)?;
            decode_words(&self.layout, profile, step.turn, &step.words, |slot, q| {
                let exponent = step.scales[slot.layer].exponent(slot.wave);
                let change = i64::from(q) << (exponent - QUANTUM_EXPONENT);
                match i32::try_from(i64::from(next[slot.lane]) + sign * change) {
                    Ok(sum) => next[slot.lane] = sum,
                    Err(_) => overflow = Some(slot.lane),
                }
            })?;
        }
        match overflow {
            Some(lane) => Err(StateError::Overflow { lane }),
            None => {
                self.lanes = next;
                Ok(())
            }
        }
    }

    /// Two replicas with one digest hold the same model.
    #[must_use]
    pub fn digest(&self) -> StateDigest {
        let mut hasher = blake3::Hasher::new_derive_key("packfed/state/1");
        hasher.update(&self.layout.digest().0);
        for chunk in self.lanes.chunks(256) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|lane| lane.to_le_bytes()).collect();
            hasher.update(&bytes);
        }
        StateDigest(*hasher.finalize().as_bytes())
    }

    /// The lanes of one layer as floats, in layout order.
    #[must_use]
    pub fn values<S: Scalar>(&self, layer: &Layer) -> Vec<S> {
        self.lanes[layer.lanes()].iter().map(|&lane| S::from_f64(value(lane))).collect()
    }

    /// The value of one lane.
    #[must_use]
    pub fn value(&self, lane: usize) -> f64 {
        value(self.lanes[lane])
    }

    /// The wave `z = (x, y)` of one block.
    #[must_use]
    pub fn wave(&self, layer: &Layer, block: &Block) -> (f64, f64) {
        let first = layer.lanes().start + block.lane;
        debug_assert_eq!(WAVE_LANES, 2, "x and y");
        (self.value(first), self.value(first + 1))
    }
}

/// The real number that a lane's integer stands for.
#[must_use]
fn value(lane: i32) -> f64 {
    f64::from(lane) * 2f64.powi(i32::from(QUANTUM_EXPONENT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::LayerSpec;
    use crate::seed::Seed;

    fn layout() -> Arc<Layout> {
        let spec = LayerSpec { name: "w".into(), rows: 8, cols: 8, block: 4, residual: 16, gain_exponent: 4 };
        Arc::new(Layout::new(&Seed::from_number(1), vec![spec]).unwrap())
    }

    fn step(turn: u32, lanes: [i32; 14]) -> StepWords {
        let word = Profile::Plain.pack(&lanes);
        StepWords { turn, scales: vec![Scales { wave: -10, residual: -4 }], words: word.repeat(4) }
    }

    #[test]
    fn a_word_adds_exactly_to_the_lanes_of_its_window() {
        let mut state = State::zero(layout());
        state.apply(Profile::Plain, &step(1, [5, -7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])).unwrap();
        let lanes = &state.lanes()[..18];
        assert_eq!(lanes[..2], [5 << 10, -7 << 10]);
        // Turn 1 starts at residual lane 12 of 16 and wraps.
        assert_eq!(lanes[2 + 12], 1 << 16);
        assert_eq!(lanes[2], 5 << 16);
        assert_eq!(lanes[2 + 8], 0, "not in the window");
        state.retract(Profile::Plain, [&step(1, [5, -7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])]).unwrap();
        assert_eq!(state, State::zero(layout()));
    }

    #[test]
    fn an_overflow_leaves_the_state_as_it_was() {
        let mut state = State::zero(layout());
        state.lanes_mut()[2] = i32::MAX;
        let before = state.clone();
        let error = state.apply(Profile::Plain, &step(0, [1; 14])).unwrap_err();
        assert_eq!(error, StateError::Overflow { lane: 2 });
        assert_eq!(state, before);
    }

    #[test]
    fn the_digest_sees_one_unit_of_one_lane() {
        let state = State::zero(layout());
        let mut other = state.clone();
        other.lanes_mut()[17] = 1;
        assert_ne!(state.digest(), other.digest());
    }

    #[test]
    fn states_and_steps_survive_their_bytes() {
        let mut state = State::zero(layout());
        let step = step(3, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
        state.apply(Profile::Plain, &step).unwrap();
        assert_eq!(State::from_bytes(layout(), &state.to_bytes()), Ok(state));
        assert_eq!(StepWords::from_bytes(&step.to_bytes()), Ok(step));
        assert_eq!(State::from_bytes(layout(), &[0; 5]), Err(StateError::Length { found: 5, lanes: 72 }));
    }

    #[test]
    fn malformed_steps_name_offset_value_and_bound() {
        let bytes = step(3, [1; 14]).to_bytes();
        let error = |bytes: &[u8]| StepWords::from_bytes(bytes).unwrap_err();
        assert_eq!(error(&bytes[..7]), StepError::Header { bytes: 7 });
        assert_eq!(error(&bytes[..9]), StepError::Scales { layers: 1, bytes: 1 });
        assert_eq!(error(&bytes[..bytes.len() - 1]), StepError::Words { offset: 58, bytes: 15 });
        let mut bomb = bytes;
        bomb[4..8].fill(0xff);
        assert_eq!(error(&bomb).to_string(), "byte 4: 4294967295 layers of 2 bytes, 66 bytes follow the header");
    }
}
