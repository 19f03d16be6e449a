//! Inputs that every target accepts: what a test damages and a fuzzer starts from.

use packfed_codec::apply::encode_planes;
use packfed_codec::family::cyclic::{Code, Code8, Code16, CodedLayer, RadiusMap};
use packfed_codec::family::hybrid::{HybridEncoder, HybridPlan, HybridSpec, Selection, encode_matrix};
use packfed_codec::{
    Encoder, Frequency, Packed128, Scales, Seed, State, StepWords, Stream, WORD_BYTES, encode_catch_up, encode_step,
};

use super::targets::{EDGES, kind, layout, profile};

/// Sample `number` of the target of a name.
///
/// # Panics
/// If there is no such target.
pub fn sample(name: &str, number: u64) -> Vec<u8> {
    let stream = &mut Seed::from_number(number).derive(name, &[]).stream();
    match name {
        "words" => words(stream),
        "step" => step(stream),
        "catch_up" => catch_up(stream),
        "state" => bytes(stream, 4 * layout().lanes()),
        "packed128" => packed128(stream),
        "packed64" => bytes(stream, 8),
        "radial128" => radial128(stream),
        "hybrid_block" => hybrid_block(stream),
        "hybrid_matrix" => hybrid_matrix(stream),
        "coded_layer" => coded_layer(stream),
        "cyclic_codes" => [vec![1], bytes(stream, 24)].concat(),
        "planes" => planes(stream),
        _ => unreachable!("no target is called {name}"),
    }
}

fn byte(stream: &mut Stream) -> u8 {
    stream.bits_32().to_le_bytes()[0]
}

fn bytes(stream: &mut Stream, count: usize) -> Vec<u8> {
    (0..count).map(|_| byte(stream)).collect()
}

/// Values in `(-1, 1)`, most of them small.
fn values(stream: &mut Stream, count: usize) -> Vec<f32> {
    (0..count).map(|_| f32::from(byte(stream).cast_signed()).powi(3) / 128f32.powi(3)).collect()
}

fn step_words(stream: &mut Stream, choice: u8) -> StepWords {
    let (layout, turn) = (layout(), stream.bits_32());
    let scales = vec![Scales { wave: -14, residual: -6 }; layout.layers().len()];
    let encoder = Encoder::new(layout, profile(choice), turn, &scales).expect("the scales are in range");
    let values = values(stream, layout.blocks() * profile(choice).width());
    let words = encoder.nearest(&values).expect("the values are finite").words;
    assert_eq!(words.len(), layout.blocks() * WORD_BYTES);
    StepWords { turn, scales, words }
}

fn words(stream: &mut Stream) -> Vec<u8> {
    let choice = byte(stream);
    let step = step_words(stream, choice);
    [&[choice], &step.turn.to_le_bytes()[..], &step.words].concat()
}

fn step(stream: &mut Stream) -> Vec<u8> {
    let choice = byte(stream);
    [vec![choice], step_words(stream, choice).to_bytes()].concat()
}

fn catch_up(stream: &mut Stream) -> Vec<u8> {
    let choice = byte(stream) % 2;
    let step = step_words(stream, choice);
    if byte(stream).is_multiple_of(2) {
        return [vec![choice], encode_step(&step)].concat();
    }
    let zero = State::zero(layout().clone());
    let mut state = zero.clone();
    state.apply(profile(choice), &step).expect("small words fit");
    [vec![choice], encode_catch_up(&zero, &state)].concat()
}

fn packed128(stream: &mut Stream) -> Vec<u8> {
    let (r, theta) = (values(stream, 1)[0].abs(), values(stream, 1)[0] * 7.0);
    let packed = Packed128::new(r, theta, Frequency { u: 3, v: -5 }).expect("a point of the disk");
    [bytes(stream, 2), packed.to_bytes().to_vec()].concat()
}

fn radial128(stream: &mut Stream) -> Vec<u8> {
    let parameters = values(stream, 2);
    [bytes(stream, 8), parameters.iter().flat_map(|p| p.to_le_bytes()).collect()].concat()
}

fn hybrid_block(stream: &mut Stream) -> Vec<u8> {
    loop {
        // Edges to 64, and all of the formats and transforms that go with them.
        let [rows, cols, choice] = [byte(stream) % 10, byte(stream) % 10, byte(stream) % 15];
        let ((transform, format), edge) = (kind(choice), |byte: u8| EDGES[usize::from(byte)]);
        let Ok(spec) = HybridSpec::new(edge(rows), edge(cols), transform, format) else { continue };
        let values = values(stream, spec.rows() * spec.cols());
        let count = Selection::Count(stream.index(40));
        let encoded = HybridEncoder::new(spec).encode(&values, count).expect("small finite values");
        return [vec![rows, cols, choice], encoded.block.to_bytes()].concat();
    }
}

fn hybrid_matrix(stream: &mut Stream) -> Vec<u8> {
    loop {
        let [rows, cols, edge, choice] = [byte(stream) % 40, byte(stream) % 40, byte(stream) % 10, byte(stream) % 15];
        let ((transform, format), block) = (kind(choice), EDGES[usize::from(edge)]);
        let shape = (usize::from(rows) + 1, usize::from(cols) + 1);
        let selection = Selection::Count(stream.index(9));
        let plan = HybridPlan { block, transform: Some(transform), format, selection };
        let Ok(encoded) = encode_matrix(&values(stream, shape.0 * shape.1), shape, &plan) else { continue };
        // Blocks of one value by the hundred say nothing new.
        if encoded.bytes.len() < 3_000 {
            return [vec![rows, cols, edge, choice], encoded.bytes].concat();
        }
    }
}

fn coded_layer(stream: &mut Stream) -> Vec<u8> {
    let width = byte(stream) % 2;
    let body = if width == 0 { layer_of::<Code8>(stream) } else { layer_of::<Code16>(stream) };
    [vec![width, 64, 0], body].concat()
}

fn layer_of<C: Code>(stream: &mut Stream) -> Vec<u8> {
    let (rows, cols, map) = (stream.index(5), stream.index(9), RadiusMap::ALL[stream.index(3)]);
    let scales = (0..rows).map(|_| 0.5 + values(stream, 1)[0].abs()).collect();
    let codes = (0..rows * cols).map(|_| C::from_bits(stream.bits_32())).collect();
    CodedLayer::new(map, cols, scales, codes).expect("a scale a row, a code a weight").to_bytes()
}

fn planes(stream: &mut Stream) -> Vec<u8> {
    let (choice, planes) = (stream.index(2), byte(stream) % 31 + 1);
    let layer = &layout().layers()[choice];
    let values = values(stream, layer.lanes().len());
    let mut body = encode_planes(layer, &values, planes).expect("small finite lanes");
    if byte(stream).is_multiple_of(3) {
        // A prefix that ends within a plane.
        let signs = 8 + values.len().div_ceil(8);
        body.truncate(signs + stream.index(body.len() - signs + 1));
    }
    [vec![u8::from(choice == 1), byte(stream)], body].concat()
}
