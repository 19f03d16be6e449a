//! What holds of every decoder and any bytes: one function a decoder.
//!
//! An input is a few bytes that choose what the caller would (shape, format, profile), then the decoder's own bytes.
//! A function returns whether the bytes were accepted, and panics where a promise is broken: the decoder returns; it
//! holds no more memory than its documentation says; what it accepts has one spelling where the format is canonical,
//! and is finite; a refusal leaves no trace. Stable tests and the fuzzer run the same functions.

use std::sync::{Arc, LazyLock};

use packfed_codec::apply::Progressive;
use packfed_codec::family::cyclic::{Code, Code8, Code16, CodedLayer, pack, unpack};
use packfed_codec::family::hybrid::{HybridBlock, HybridDecoder, HybridFormat, HybridSpec, Transform, decode_matrix};
use packfed_codec::family::{Packed64, Radial128};
use packfed_codec::wave::{IntegerWave, Steps};
use packfed_codec::{
    Layer, LayerSpec, Layout, Packed128, Profile, Seed, State, StepWords, Tally, WORD_BYTES, decode_catch_up,
    decode_words, encode_catch_up,
};

use super::allocation::within;

/// A decoder and the name of its fuzz target.
pub struct Target {
    /// The name.
    pub name: &'static str,
    /// Whether the bytes were accepted.
    pub run: fn(&[u8]) -> bool,
}

/// Every decoder of bytes.
pub const TARGETS: [Target; 12] = [
    Target { name: "words", run: words },
    Target { name: "step", run: step },
    Target { name: "catch_up", run: catch_up },
    Target { name: "state", run: state },
    Target { name: "packed128", run: packed128 },
    Target { name: "packed64", run: packed64 },
    Target { name: "radial128", run: radial128 },
    Target { name: "hybrid_block", run: hybrid_block },
    Target { name: "hybrid_matrix", run: hybrid_matrix },
    Target { name: "coded_layer", run: coded_layer },
    Target { name: "cyclic_codes", run: cyclic_codes },
    Target { name: "planes", run: planes },
];

/// Edges of hybrid blocks that an input can choose.
pub const EDGES: [usize; 12] = [1, 2, 3, 5, 8, 15, 16, 20, 33, 64, 128, 256];

/// Two layers with ragged edges, blocks with fewer positions than a word and with more, and a bias.
pub fn layout() -> &'static Arc<Layout> {
    static LAYOUT: LazyLock<Arc<Layout>> = LazyLock::new(|| {
        let spec = |name: &str, rows, cols| LayerSpec {
            name: name.into(),
            rows,
            cols,
            block: 5,
            residual: 16,
            gain_exponent: 4,
        };
        let specs = vec![spec("matrix", 12, 6), spec("bias", 6, 1)];
        Arc::new(Layout::new(&Seed::from_number(1), specs).expect("the sizes are in bounds"))
    });
    &LAYOUT
}

/// The profile that a byte chooses.
pub fn profile(byte: u8) -> Profile {
    if byte.is_multiple_of(2) { Profile::Plain } else { Profile::Nibble }
}

/// `decode_words`, `Profile::unpack` and `Tally::add`: `[profile][turn u32][words]`.
pub fn words(input: &[u8]) -> bool {
    let Some((&[choice, t0, t1, t2, t3], words)) = input.split_first_chunk() else { return false };
    let (layout, profile, turn) = (layout(), profile(choice), u32::from_le_bytes([t0, t1, t2, t3]));
    let mut lanes = vec![0; layout.blocks() * profile.width()];
    let decoded =
        within(0, || decode_words(layout, profile, turn, words, |slot, q| lanes[slot.index] = q)).map_err(drop);
    let mut tally = Tally::new(layout, profile);
    let empty = tally.clone();
    assert_eq!(within(1024, || tally.add(words, 1)).map_err(drop), decoded);
    if decoded.is_err() {
        assert_eq!(tally, empty);
        return false;
    }
    for (word, lanes) in words.as_chunks::<WORD_BYTES>().0.iter().zip(lanes.chunks_exact(profile.width())) {
        assert_eq!(profile.pack(lanes), *word);
    }
    true
}

/// `StepWords::from_bytes` and `State::apply`: `[profile][step]`.
pub fn step(input: &[u8]) -> bool {
    let Some((&choice, bytes)) = input.split_first() else { return false };
    let Ok(step) = within(bytes.len(), || StepWords::from_bytes(bytes)) else { return false };
    assert_eq!(step.to_bytes(), bytes);
    let zero = State::zero(layout().clone());
    let mut state = zero.clone();
    let applied = within(4 * state.lanes().len(), || state.apply(profile(choice), &step)).is_ok();
    if applied {
        state.retract(profile(choice), [&step]).expect("what was added can be taken back");
    }
    assert_eq!(state, zero);
    applied
}

/// `decode_catch_up`: `[profile and first state][body]`.
pub fn catch_up(input: &[u8]) -> bool {
    let Some((&choice, body)) = input.split_first() else { return false };
    let lane = (i32::from(choice.cast_signed()) << 23).to_le_bytes();
    let lanes = layout().lanes();
    let before = State::from_bytes(layout().clone(), &lane.repeat(lanes)).expect("four bytes a lane");
    let mut state = before.clone();
    let decoded = within(body.len() + 4 * lanes, || decode_catch_up(&mut state, profile(choice), body));
    if decoded.is_err() {
        assert_eq!(state, before);
        return false;
    }
    let mut again = before.clone();
    decode_catch_up(&mut again, profile(choice), &encode_catch_up(&before, &state)).expect("our own encoding");
    assert_eq!(again, state);
    true
}

/// `State::from_bytes`: `[lanes]`.
pub fn state(input: &[u8]) -> bool {
    let layout = layout().clone();
    let Ok(state) = within(input.len(), || State::from_bytes(layout, input)) else { return false };
    assert_eq!(state.to_bytes(), input);
    true
}

/// `Packed128::from_bytes` and the integer wave: `[rows][cols][block]`.
pub fn packed128(input: &[u8]) -> bool {
    let Some((&[rows, cols], rest)) = input.split_first_chunk() else { return false };
    let Ok(bytes) = <[u8; 16]>::try_from(rest) else { return false };
    let Ok(packed) = within(0, || Packed128::from_bytes(bytes)) else { return false };
    assert_eq!(packed.to_bytes(), bytes);
    for (x, y) in [packed.z(4.0), packed.quantized_z(4.0)] {
        assert!(x.hypot(y) <= 4.0 + 1e-12, "{packed:?}");
    }
    let (rows, cols) = (usize::from(rows) + 1, usize::from(cols) % 4 + 1);
    for steps in [Steps::Twenty, Steps::TwentyFour] {
        let wave = IntegerWave::new(packed, rows, cols, steps);
        let (mut cosine, mut sine) = (vec![0; rows * cols], vec![0; rows * cols]);
        wave.values(&mut cosine, &mut sine);
        wave.half_slopes(&mut cosine, &mut sine);
        assert!(wave.norm() > 0);
    }
    true
}

/// `Packed64::from_bytes`, of which there is nothing to refuse: `[block]`.
pub fn packed64(input: &[u8]) -> bool {
    let Ok(bytes) = <[u8; 8]>::try_from(input) else { return false };
    let block = within(0, || Packed64::from_bytes(bytes));
    assert_eq!(block.to_bytes(), bytes);
    let mut out = [f32::NAN; 7 * 9];
    within(0, || block.decode_into(7, 9, &mut out));
    assert!(out.iter().all(|value| value.abs() <= 1.1), "{block:?}");
    true
}

/// `Radial128::from_bytes`: `[block]`.
pub fn radial128(input: &[u8]) -> bool {
    let Ok(bytes) = <[u8; 16]>::try_from(input) else { return false };
    let Ok(block) = within(0, || Radial128::from_bytes(bytes)) else { return false };
    assert_eq!(block.to_bytes(), bytes);
    let mut out = [f32::NAN; 2 * 63];
    let (training, inference) = out.split_at_mut(63);
    block.decode_into(7, 9, training);
    block.decode_quantized_into(7, 9, inference);
    assert!(out.iter().all(|value| (0.0..=1.0).contains(value)), "{block:?}");
    true
}

/// Transform and format that a byte chooses.
pub fn kind(byte: u8) -> (Transform, HybridFormat) {
    let (transforms, byte) = (Transform::ALL, usize::from(byte));
    let formats = HybridFormat::ALL;
    (transforms[byte % transforms.len()], formats[byte / transforms.len() % formats.len()])
}

/// `HybridBlock::from_bytes` and `HybridDecoder::decode_into`: `[row edge][column edge][transform, format][block]`.
pub fn hybrid_block(input: &[u8]) -> bool {
    let Some((&[rows, cols, choice], bytes)) = input.split_first_chunk() else { return false };
    let ((transform, format), edge) = (kind(choice), |byte: u8| EDGES[usize::from(byte) % EDGES.len()]);
    let Ok(spec) = HybridSpec::new(edge(rows), edge(cols), transform, format) else { return false };
    let decoded = within(hybrid_bytes_max(bytes.len()), || HybridBlock::from_bytes(&spec, bytes));
    // A decoder's tables grow with the square of its edges: larger blocks are parsed only, so that the fuzzer gets on.
    let area = spec.rows() * spec.cols();
    if area <= 1 << 8 || decoded.is_ok() && area <= 1 << 12 {
        let (mut decoder, mut out) = (HybridDecoder::new(spec), vec![SENTINEL; area]);
        // The decoder keeps room for the rows that are used, padded to whole registers: the caller's shape bounds it.
        let scratch = 8 * (spec.rows() + 36) * (spec.cols() + 36);
        let bytes_max = hybrid_bytes_max(bytes.len()) + scratch;
        let expanded = within(bytes_max, || decoder.decode_into(bytes, &mut out));
        assert_eq!(expanded.err().map(|e| e.to_string()), decoded.as_ref().err().map(ToString::to_string));
        assert!(out.iter().all(|value| value.is_finite()), "{decoded:?}");
        assert!(decoded.is_ok() || out.iter().all(|&value| value == SENTINEL), "a refusal leaves no trace");
    }
    let Ok(block) = decoded else { return false };
    assert_eq!(block.to_bytes(), bytes);
    let positions: Vec<_> = block.coefficients().map(|c| (c.row, c.col)).collect();
    assert!(positions.is_sorted_by(|a, b| a < b));
    true
}

/// Stands in an output for "not written".
const SENTINEL: f32 = 123.0;

/// What reading a hybrid block may hold: in the range-coded form a word of two bytes has room for sixteen coefficients
/// of eight bytes, and is held as it was read and as it is encoded again.
const fn hybrid_bytes_max(bytes: usize) -> usize {
    72 * bytes
}

/// `decode_matrix`: `[rows][columns][block edge][transform, format][blocks]`.
pub fn hybrid_matrix(input: &[u8]) -> bool {
    let Some((&[rows, cols, edge, choice], bytes)) = input.split_first_chunk() else { return false };
    let ((transform, format), edge) = (kind(choice), EDGES[usize::from(edge) % EDGES.len()]);
    let (rows, cols) = (usize::from(rows) % 80 + 1, usize::from(cols) % 80 + 1);
    // The values, one block's, and the tables of at most four shapes.
    let (padded, area) = (edge.min(rows).max(edge.min(cols)) + 36, rows * cols);
    let bytes_max = hybrid_bytes_max(bytes.len()) + 8 * area + 96 * padded * padded;
    let decoded = within(bytes_max, || decode_matrix(bytes, (rows, cols), edge, transform, format));
    let Ok(values) = decoded else { return false };
    assert_eq!(values.len(), area);
    assert!(values.iter().all(|value| value.is_finite()));
    if edge >= rows.max(cols) {
        let spec = HybridSpec::new(rows, cols, transform, format).expect("it was decoded");
        let mut out = vec![0.0; area];
        HybridDecoder::new(spec).decode_into(bytes, &mut out).expect("it was decoded");
        assert_eq!(out, values, "a matrix of one block");
    }
    true
}

/// `CodedLayer::from_bytes`: `[width][weights allowed u16][layer]`.
pub fn coded_layer(input: &[u8]) -> bool {
    let Some((&[width, low, high], bytes)) = input.split_first_chunk() else { return false };
    let weights_max = usize::from(u16::from_le_bytes([low, high]));
    if width.is_multiple_of(2) { layer_of::<Code8>(bytes, weights_max) } else { layer_of::<Code16>(bytes, weights_max) }
}

fn layer_of<C: Code>(bytes: &[u8], weights_max: usize) -> bool {
    let Ok(layer) = within(bytes.len(), || CodedLayer::<C>::from_bytes(bytes, weights_max)) else { return false };
    assert_eq!(layer.to_bytes(), bytes);
    assert!(layer.codes().len() <= weights_max);
    let mut weights = vec![f32::NAN; layer.codes().len()];
    layer.decode(&mut weights).expect("one weight a code");
    assert!(weights.iter().all(|weight| weight.is_finite()), "{:?}", layer.scales());
    true
}

/// `cyclic::unpack`: `[width][codes]`.
pub fn cyclic_codes(input: &[u8]) -> bool {
    let Some((&width, bytes)) = input.split_first() else { return false };
    if width.is_multiple_of(2) { codes_of::<Code8>(bytes) } else { codes_of::<Code16>(bytes) }
}

fn codes_of<C: Code>(bytes: &[u8]) -> bool {
    let Ok(codes) = within(bytes.len(), || unpack::<C>(bytes)) else { return false };
    assert_eq!(pack(&codes), bytes);
    assert!(codes.iter().all(|code| C::new(code.fields()) == Ok(*code)), "every bit pattern is a code");
    true
}

/// `Progressive::decode` and `refine`: `[layer][planes to begin with][prefix]`.
pub fn planes(input: &[u8]) -> bool {
    let Some((&[layer, first], bytes)) = input.split_first_chunk() else { return false };
    let layer: &Layer = &layout().layers()[usize::from(layer) % layout().layers().len()];
    let lanes = layer.lanes().len();
    let bytes_max = 4 * lanes + lanes.div_ceil(8) + size_of::<usize>() * layer.blocks().len();
    let Ok(read) = within(bytes_max, || Progressive::decode(layer, bytes)) else { return false };
    for section in bytes[8..].chunks_exact(lanes.div_ceil(8)) {
        let last = section.last().copied().map_or(0, u16::from);
        assert_eq!(last >> ((lanes - 1) % 8 + 1), 0, "bits behind the last lane");
    }
    let bound = read.bound();
    let values = read.lanes::<f64>();
    assert!(values.iter().all(|value| value.is_finite()));
    assert!(bound.lane.is_finite() && bound.frobenius.is_finite());
    let first = first % (read.planes().0 + 1);
    let mut refined = Progressive::decode(layer, &bytes[..read.plane_range(first).start]).expect("a prefix of it");
    for (lane, value) in refined.lanes::<f64>().iter().zip(&values) {
        assert!((lane - value).abs() <= refined.bound().lane, "{lane} becomes {value}");
    }
    for plane in first..read.planes().0 {
        within(0, || refined.refine(&bytes[read.plane_range(plane)])).expect("it was decoded");
    }
    assert_eq!(refined, read, "in place or at once");
    true
}
