//! What a replica has missed, in the smaller of two exact forms.
//!
//! ```text
//!  body   [ 1 ][ StepWords ]             the one step that it missed, 16 bytes a block
//!         [ 2 ][ bit stream ]            the sum of all that it missed, Rice-coded
//!
//!  bit stream, least significant bit first; for every layer, for every lane number of a block:
//!         0                              no block of the layer changed this lane
//!         1 [shift: 5][k: 5] then, for every block that has the lane, its difference >> shift,
//!           zigzag, as a Rice code of parameter k: unary quotient, 0, k bits of remainder;
//!           a quotient of 24 or more is 24 ones and the 32 bits themselves
//!  padded with zero bits to a whole byte
//! ```
//!
//! Steps are integer additions, so their sum is one difference of states, whatever the number of
//! rounds missed; from version 0 it is a checkpoint. Differences are near-Laplacian and small against
//! their scale, which is what Rice codes are for (R. F. Rice, JPL 79-22, 1979).

use thiserror::Error;

use crate::layout::{Layer, Layout, WAVE_LANES};
use crate::state::{State, StateError, StepError, StepWords};
use crate::word::Profile;

const STEP: u8 = 1;
const SUM: u8 = 2;
const ESCAPE: u32 = 24;

/// Why bytes are not a catch-up for this layout. Bits count from the body's start: the stream's first is bit 8.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CatchUpError {
    /// There is no first byte.
    #[error("byte 0: an empty body has no form")]
    Empty,
    /// The first byte names no form.
    #[error("byte 0: catch-up form {0} is unknown, known are 1 (step) and 2 (sum)")]
    Form(u8),
    /// The step is cut short or malformed.
    #[error("the step that begins at byte 1: {0}")]
    Step(#[from] StepError),
    /// The step does not fit the state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The bit stream ended early.
    #[error("bit {bit}: a field of layer {layer} begins here and the body ends at bit {bits}")]
    Truncated {
        /// First bit of the field that is cut.
        bit: usize,
        /// Bits of the body.
        bits: usize,
        /// Index of the layer.
        layer: usize,
    },
    /// A code stands for a difference that a lane cannot have.
    #[error("bit {bit}: a difference of {code}·2^{shift} in layer {layer}, allowed is -2^31 to 2^31 - 1")]
    Range {
        /// First bit of the code.
        bit: usize,
        /// The difference before its shift.
        code: i64,
        /// The shift of its group.
        shift: u32,
        /// Index of the layer.
        layer: usize,
    },
    /// Whole bytes follow the last lane.
    #[error("bit {bit}: the last lane ends here, {left} bits before the end, allowed are 7")]
    LeftOver {
        /// First bit after the last lane.
        bit: usize,
        /// Bits from there on.
        left: usize,
    },
    /// The padding is not zero.
    #[error("bit {bit}: the padding from here on is {value:#x}, not 0")]
    Padding {
        /// First bit of the padding.
        bit: usize,
        /// What it holds.
        value: u32,
    },
}

/// Encodes one step in full.
#[must_use]
pub fn encode_step(step: &StepWords) -> Vec<u8> {
    let mut body = vec![STEP];
    body.extend_from_slice(&step.to_bytes());
    body
}

/// Encodes the difference of two states of one layout.
///
/// # Panics
/// If the states are of different layouts.
#[must_use]
pub fn encode_catch_up(from: &State, to: &State) -> Vec<u8> {
    assert_eq!(from.layout().digest(), to.layout().digest(), "states of one layout");
    let mut bits = BitWriter { bytes: vec![SUM], pending: 0, count: 0 };
    for layer in to.layout().layers() {
        for lane in 0..lanes_of_a_block(layer) {
            let indices = lane_indices(layer, lane);
            let group = indices.map(|i| to.lanes()[i].wrapping_sub(from.lanes()[i])).collect::<Vec<_>>();
            encode_group(&mut bits, &group);
        }
    }
    bits.finish()
}

/// Applies a catch-up to a state; on an error the state is as it was.
///
/// # Errors
/// If the bytes are not a catch-up for the state's layout. Whether it is the right one is for the
/// digest to say.
pub fn decode_catch_up(state: &mut State, profile: Profile, body: &[u8]) -> Result<(), CatchUpError> {
    match body.split_first() {
        Some((&STEP, bytes)) => Ok(state.apply(profile, &StepWords::from_bytes(bytes)?)?),
        Some((&SUM, _)) => {
            let difference = decode_sum(state.layout(), body)?;
            for (lane, difference) in state.lanes_mut().iter_mut().zip(difference) {
                *lane = lane.wrapping_add(difference);
            }
            Ok(())
        }
        Some((&form, _)) => Err(CatchUpError::Form(form)),
        None => Err(CatchUpError::Empty),
    }
}

/// The differences of a body whose first byte is [`SUM`].
fn decode_sum(layout: &Layout, body: &[u8]) -> Result<Vec<i32>, CatchUpError> {
    let mut bits = BitReader { bytes: body, position: 8 };
    let mut difference = vec![0; layout.lanes()];
    for (index, layer) in layout.layers().iter().enumerate() {
        for lane in 0..lanes_of_a_block(layer) {
            let group = decode_group(&mut bits, lane_indices(layer, lane), &mut difference);
            group.map_err(|broken| match broken {
                Broken::Cut => CatchUpError::Truncated { bit: bits.position, bits: 8 * body.len(), layer: index },
                Broken::Range { bit, code, shift } => CatchUpError::Range { bit, code, shift, layer: index },
            })?;
        }
    }
    let (bit, left) = (bits.position, 8 * body.len() - bits.position);
    match u32::try_from(left).ok().filter(|&left| left < 8).and_then(|left| bits.take(left)) {
        Some(0) => Ok(difference),
        Some(value) => Err(CatchUpError::Padding { bit, value }),
        None => Err(CatchUpError::LeftOver { bit, left }),
    }
}

fn lanes_of_a_block(layer: &Layer) -> usize {
    WAVE_LANES + layer.blocks().iter().map(|block| block.residual).max().unwrap_or(0)
}

/// State lanes with one lane number, over the blocks that have it.
fn lane_indices(layer: &Layer, lane: usize) -> impl Iterator<Item = usize> {
    let first = layer.lanes().start;
    let blocks = layer.blocks().iter().filter(move |block| lane < block.lanes().len());
    blocks.map(move |block| first + block.lane + lane)
}

fn encode_group(bits: &mut BitWriter, group: &[i32]) {
    let union = group.iter().fold(0, |union, &d| union | d);
    if union == 0 {
        bits.put(0, 1);
        return;
    }
    let shift = union.trailing_zeros();
    let codes: Vec<u32> = group.iter().map(|&d| zigzag(d >> shift)).collect();
    let k = best_parameter(&codes);
    bits.put(1, 1);
    bits.put(shift, 5);
    bits.put(k, 5);
    for code in codes {
        let quotient = code >> k;
        if quotient >= ESCAPE {
            bits.put((1 << ESCAPE) - 1, ESCAPE);
            bits.put(code, 32);
        } else {
            bits.put((1 << quotient) - 1, quotient + 1);
            bits.put(code & ((1 << k) - 1), k);
        }
    }
}

/// Why a group cannot be read.
enum Broken {
    /// The stream ends within the field at the reader's position.
    Cut,
    /// `code·2^shift` is no `i32`.
    Range { bit: usize, code: i64, shift: u32 },
}

fn decode_group(bits: &mut BitReader<'_>, lanes: impl Iterator<Item = usize>, out: &mut [i32]) -> Result<(), Broken> {
    if bits.take(1).ok_or(Broken::Cut)? == 0 {
        return Ok(());
    }
    let (shift, k) = (bits.take(5).ok_or(Broken::Cut)?, bits.take(5).ok_or(Broken::Cut)?);
    let range = i64::from(i32::MIN >> shift)..=i64::from(i32::MAX >> shift);
    for lane in lanes {
        let bit = bits.position;
        let code = unzigzag(decode_code(bits, k).ok_or(Broken::Cut)?);
        let in_range = i32::try_from(code).ok().filter(|_| range.contains(&code));
        out[lane] = in_range.ok_or(Broken::Range { bit, code, shift })? << shift;
    }
    Ok(())
}

/// One Rice code of parameter `k`, below `2^36`.
fn decode_code(bits: &mut BitReader<'_>, k: u32) -> Option<u64> {
    match bits.ones(ESCAPE)? {
        ESCAPE => bits.take(32).map(u64::from),
        quotient => bits.take(k).map(|low| u64::from(quotient) << k | u64::from(low)),
    }
}

/// The parameter that codes a group in the fewest bits: the cost falls and then rises with `k`, so a walk
/// from near the mean finds it.
fn best_parameter(codes: &[u32]) -> u32 {
    let cost = |k: u32| -> u64 {
        let one = |&code: &u32| match code >> k {
            quotient if quotient >= ESCAPE => u64::from(ESCAPE) + 32,
            quotient => u64::from(quotient + 1 + k),
        };
        codes.iter().map(one).sum()
    };
    let mean = codes.iter().map(|&code| u64::from(code)).sum::<u64>() / (codes.len() as u64).max(1);
    let mut best = mean.checked_ilog2().unwrap_or(0);
    let mut least = cost(best);
    for step in [-1, 1] {
        while let Some(next) = best.checked_add_signed(step).filter(|&k| k < 32) {
            let bits = cost(next);
            if bits >= least {
                break;
            }
            (best, least) = (next, bits);
        }
    }
    best
}

const fn zigzag(d: i32) -> u32 {
    (d << 1 ^ d >> 31).cast_unsigned()
}

const fn unzigzag(code: u64) -> i64 {
    (code >> 1).cast_signed() ^ -(code & 1).cast_signed()
}

struct BitWriter {
    bytes: Vec<u8>,
    pending: u64,
    count: u32,
}

impl BitWriter {
    /// Appends the low `count` ≤ 32 bits.
    fn put(&mut self, bits: u32, count: u32) {
        self.pending |= u64::from(bits) << self.count;
        self.count += count;
        while self.count >= 8 {
            let [low, ..] = self.pending.to_le_bytes();
            self.bytes.push(low);
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.put(0, 8 - self.count);
        }
        self.bytes
    }
}

struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl BitReader<'_> {
    /// The next 64 bits that there are, and how many of them are real.
    fn peek(&self) -> (u64, usize) {
        let mut window = [0; 9];
        let rest = self.bytes.get(self.position / 8..).unwrap_or(&[]);
        let n = rest.len().min(9);
        window[..n].copy_from_slice(&rest[..n]);
        let [a, b, c, d, e, f, g, h, i] = window;
        let skip = self.position % 8;
        let low = u64::from_le_bytes([a, b, c, d, e, f, g, h]) >> skip;
        let high = if skip == 0 { 0 } else { u64::from(i) << (64 - skip) };
        (low | high, (8 * n).saturating_sub(skip).min(64))
    }

    fn take(&mut self, count: u32) -> Option<u32> {
        let (bits, available) = self.peek();
        if available < count as usize {
            return None;
        }
        self.position += count as usize;
        let masked = bits & ((1u64 << count) - 1);
        Some(u32::try_from(masked).expect("at most 32 bits are asked for"))
    }

    /// Length of a run of ones of at most `max`, its closing zero eaten unless the run reached `max`.
    fn ones(&mut self, max: u32) -> Option<u32> {
        let (bits, available) = self.peek();
        let run = bits.trailing_ones().min(max);
        let eaten = (run + u32::from(run < max)) as usize;
        if eaten > available {
            return None;
        }
        self.position += eaten;
        Some(run)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::layout::LayerSpec;
    use crate::quantize::Scales;
    use crate::seed::Seed;

    fn zero() -> State {
        let spec =
            |name: &str, cols| LayerSpec { name: name.into(), rows: 9, cols, block: 4, residual: 16, gain_exponent: 4 };
        State::zero(Arc::new(Layout::new(&Seed::from_number(1), vec![spec("a", 8), spec("b", 1)]).unwrap()))
    }

    fn state(lanes: &[i32]) -> State {
        let mut state = zero();
        state.lanes_mut().iter_mut().zip(lanes.iter().cycle()).for_each(|(lane, &value)| *lane = value);
        state
    }

    #[test]
    fn a_sum_of_small_steps_is_smaller_than_the_steps() {
        let spec = LayerSpec { name: "w".into(), rows: 64, cols: 64, block: 4, residual: 12, gain_exponent: 4 };
        let from = State::zero(Arc::new(Layout::new(&Seed::from_number(1), vec![spec]).unwrap()));
        let mut to = from.clone();
        let mut stream = Seed::from_number(2).stream();
        to.lanes_mut().iter_mut().for_each(|lane| *lane = (i32::try_from(stream.below(9)).unwrap() - 4) << 16);
        let body = encode_catch_up(&from, &to);
        assert!(body.len() < 256 * 8, "{} bytes for 256 blocks, whose words take 4096 a step", body.len());
    }

    #[test]
    fn an_unchanged_model_costs_a_bit_a_lane_number() {
        assert_eq!(encode_catch_up(&zero(), &zero()).len(), 1 + (18 + 6usize).div_ceil(8));
    }

    #[test]
    fn a_step_travels_as_it_is() {
        let step = StepWords { turn: 1, scales: vec![Scales { wave: -9, residual: -3 }; 2], words: vec![0; 9 * 16] };
        let mut step = step;
        step.words[0] = 7;
        let (mut direct, mut caught_up) = (zero(), zero());
        direct.apply(Profile::Plain, &step).unwrap();
        decode_catch_up(&mut caught_up, Profile::Plain, &encode_step(&step)).unwrap();
        assert_eq!(direct, caught_up);
    }

    #[test]
    fn every_truncation_and_every_left_over_byte_is_an_error() {
        let target = state(&[1, -1, 70_000, i32::MIN, i32::MAX, 0, 3]);
        let mut body = encode_catch_up(&zero(), &target);
        for length in 0..body.len() {
            let mut replica = zero();
            assert!(decode_catch_up(&mut replica, Profile::Plain, &body[..length]).is_err(), "{length}");
            assert_eq!(replica, zero());
        }
        body.push(0);
        let error = decode_catch_up(&mut zero(), Profile::Plain, &body).unwrap_err();
        assert!(matches!(error, CatchUpError::LeftOver { left: 8..16, .. }));
    }

    #[test]
    fn malformed_bodies_name_bit_value_and_bound() {
        let error = |body: &[u8]| decode_catch_up(&mut zero(), Profile::Plain, body).unwrap_err();
        assert_eq!(error(&[]), CatchUpError::Empty);
        assert_eq!(error(&[9]), CatchUpError::Form(9));
        assert_eq!(error(&[STEP, 1]), CatchUpError::Step(StepError::Header { bytes: 1 }));
        // A group's bit, shift 0, k 0, then nothing.
        assert_eq!(
            error(&[SUM, 1, 0]),
            CatchUpError::Truncated { bit: 24, bits: 24, layer: 0 },
            "more codes than bits"
        );
        let range = |code, shift| CatchUpError::Range { bit: 19, code, shift, layer: 0 };
        assert_eq!(error(&[SUM, 0x3f, 0x18, 0, 0]), range(1, 31), "shift 31, k 0, quotient 2");
        assert_eq!(error(&[SUM, 0xc1, 0x1f, 0, 0, 0, 0, 0]), range(1 << 31, 0), "shift 0, k 31, quotient 2");
        let unchanged = encode_catch_up(&zero(), &zero());
        assert_eq!(unchanged.len(), 4, "a form and 24 bits");
        assert_eq!(error(&[&unchanged[..], &[0]].concat()), CatchUpError::LeftOver { bit: 32, left: 8 });
    }

    proptest! {
        #[test]
        fn any_difference_survives(from in prop::collection::vec(any::<i32>(), 1..300), to in prop::collection::vec(-99..99i32, 1..300)) {
            let (from, to) = (state(&from), state(&to));
            for (a, b) in [(&from, &to), (&to, &from), (&zero(), &to)] {
                let mut replica = a.clone();
                decode_catch_up(&mut replica, Profile::Plain, &encode_catch_up(a, b)).unwrap();
                prop_assert_eq!(&replica, b);
            }
        }

        #[test]
        fn any_bytes_return(mut body in prop::collection::vec(any::<u8>(), 0..400), form in 0..3u8) {
            if let Some(first) = body.first_mut() {
                *first = form;
            }
            let _ = decode_catch_up(&mut zero(), Profile::Nibble, &body);
        }
    }
}
