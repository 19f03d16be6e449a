//! Hand-written malice: every error names its offset, the value and the bound, and nothing is allocated on the way.

use packfed_codec::apply::{PlaneError, Progressive};
use packfed_codec::family::cyclic::{Code16, CodeError, CodedLayer, LayerError, unpack};
use packfed_codec::family::hybrid::{
    HybridBlock, HybridError, HybridFormat, HybridSpec, REACH_MAX, Transform, decode_matrix,
};
use packfed_codec::family::{Radial128, RadialError};
use packfed_codec::{
    CatchUpError, EncodeError, Packed128, PackedError, Profile, State, StateError, StepError, StepWords,
    decode_catch_up, decode_words,
};

use super::allocation::within;
use super::samples::sample;
use super::targets::layout;

const FOUR_GIB: [u8; 4] = [0xff; 4];

/// A sample of a target without what chooses for the caller, patched.
fn patched(name: &str, skip: usize, patches: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = sample(name, 1)[skip..].to_vec();
    for &(at, patch) in patches {
        bytes[at..at + patch.len()].copy_from_slice(patch);
    }
    bytes
}

#[test]
fn words_of_another_model_and_lanes_behind_the_last_are_named() {
    let layout = layout();
    let read = |words: &[u8]| within(0, || decode_words(layout, Profile::Nibble, u32::MAX, words, |_, _| {}));
    let blocks = layout.blocks();
    assert_eq!(read(&[0; 15]), Err(EncodeError::WordBytes { found: 15, blocks }));
    assert_eq!(read(&vec![0; 16 * blocks + 16]), Err(EncodeError::WordBytes { found: 16 * blocks + 16, blocks }));
    let mut words = vec![0; 16 * blocks];
    words[16 * blocks - 1] = 0x70;
    let padding = EncodeError::Padding { offset: 16 * blocks - 16, block: blocks - 1, lane: 29, value: 7, lanes: 3 };
    assert_eq!(read(&words), Err(padding.clone()));
    let text = "byte 112: lane 29 of the word of block 7 is 7, the block has 3 lanes";
    assert_eq!(padding.to_string(), text, "the last block of the bias is 1×1");
}

#[test]
fn a_step_that_claims_four_gibi_layers_is_refused_at_once() {
    let bomb = patched("step", 1, &[(4, &FOUR_GIB)]);
    let bytes = bomb.len() - 8;
    let error = within(0, || StepWords::from_bytes(&bomb)).unwrap_err();
    assert_eq!(error, StepError::Scales { layers: u32::MAX, bytes });
    let body = [&[1], &bomb[..]].concat();
    let mut replica = State::zero(layout().clone());
    let error = within(0, || decode_catch_up(&mut replica, Profile::Plain, &body)).unwrap_err();
    assert_eq!(error, CatchUpError::Step(StepError::Scales { layers: u32::MAX, bytes }));
}

#[test]
fn a_sum_that_ends_or_overflows_names_its_bit() {
    let mut replica = State::zero(layout().clone());
    let mut error = |body: &[u8]| {
        let lanes = 4 * layout().lanes();
        within(lanes, || decode_catch_up(&mut replica, Profile::Plain, body)).unwrap_err().to_string()
    };
    assert_eq!(error(&[2]), "bit 8: a field of layer 0 begins here and the body ends at bit 8");
    let overflow = "bit 19: a difference of 1·2^31 in layer 0, allowed is -2^31 to 2^31 - 1";
    assert_eq!(error(&[2, 0x3f, 0x18, 0, 0]), overflow);
    assert_eq!(
        error(&[2, 0, 0, 0, 0, 0, 0, 0]),
        "bit 33: the last lane ends here, 31 bits before the end, allowed are 7"
    );
    assert_eq!(error(&[2, 0, 0, 0, 8]), "bit 33: the padding from here on is 0x4, not 0");
}

#[test]
fn a_state_of_another_size_is_refused() {
    let layout = layout();
    let lanes = layout.lanes();
    let read = |bytes: &[u8]| within(0, || State::from_bytes(layout.clone(), bytes).map(drop));
    for found in [0, 1, 4 * lanes - 1, 4 * lanes + 1] {
        assert_eq!(read(&vec![0; found]), Err(StateError::Length { found, lanes }));
    }
}

#[test]
fn seeds_outside_their_disk_or_range_name_their_bits() {
    let with = |r: f32, theta: f32| {
        let words = [0, 0, theta.to_bits(), r.to_bits()].map(u32::to_le_bytes);
        words.as_flattened().try_into().expect("16 bytes")
    };
    let packed = |r, theta| within(0, || Packed128::from_bytes(with(r, theta))).unwrap_err();
    assert_eq!(packed(1.0, 0.0), PackedError::Radius(1.0));
    assert!(matches!(packed(f32::NAN, 0.0), PackedError::Radius(_)));
    assert_eq!(packed(0.5, f32::INFINITY).to_string(), "angle inf in bits 0 to 31 of Seed1 is not finite");
    let radial = |r, theta| within(0, || Radial128::from_bytes(with(r, theta))).unwrap_err();
    assert_eq!(radial(2.0, 0.0), RadialError::Radius(2.0));
    assert!(matches!(radial(0.0, f32::NAN), RadialError::Offset(_)));
    assert_eq!(radial(-3.0, 0.0).to_string(), "radius -3 in bits 32 to 63 of Seed1 is outside [-2, 2)");
}

/// A whole block of 300 and more positions: eight weights of 0, then `rest`.
fn hybrid(format: HybridFormat, rest: &[u8]) -> HybridError {
    let spec = HybridSpec::new(60, 60, Transform::Dct, format).expect("edges of every format");
    let bytes = [&[0; 32], rest].concat();
    within(8, || HybridBlock::from_bytes(&spec, &bytes)).expect_err("a bomb")
}

#[test]
fn a_hybrid_block_cannot_claim_more_than_it_has() {
    for &format in HybridFormat::ALL {
        let error = hybrid(format, &u16::MAX.to_le_bytes());
        assert_eq!(error, HybridError::Count { offset: 32, count: 65_535, max: 3_600 }, "{format:?}");
    }
    let most = 3_600u16.to_le_bytes();
    let truncated = |offset, needed, bytes| HybridError::Truncated { offset, needed, bytes };
    assert_eq!(hybrid(HybridFormat::Plain, &most), truncated(34, 4 * 3_600, 34));
    assert_eq!(hybrid(HybridFormat::Packed32, &most), truncated(34, 4 * 3_600, 34));
    assert_eq!(hybrid(HybridFormat::Packed24, &most), truncated(34, 3 * 3_600, 34));
    assert_eq!(hybrid(HybridFormat::MuLaw, &[&most[..], &[0; 4]].concat()), truncated(38, 3 * 3_600, 38));
}

#[cfg(feature = "entropy")]
#[test]
fn range_coded_words_cannot_claim_four_gibi() {
    let spec = HybridSpec::new(256, 256, Transform::Dct, HybridFormat::Entropy).expect("edges of the format");
    let bytes = [&[0; 32][..], &[0xff, 0xff], &[0, 0, 0, 0], &FOUR_GIB].concat();
    let error = within(0, || HybridBlock::from_bytes(&spec, &bytes)).unwrap_err();
    assert_eq!(error, HybridError::Truncated { offset: 42, needed: 2 * 0xffff_ffff, bytes: 42 });
    let error = hybrid(HybridFormat::Entropy, &[9, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(error, HybridError::Count { offset: 40, count: 9, max: 0 }, "nine coefficients in no words");
}

#[test]
fn positions_outside_and_values_that_are_none_are_refused() {
    let plain = |entry: [u8; 4]| hybrid(HybridFormat::Plain, &[&[1, 0], &entry[..]].concat());
    let outside = |row, col| HybridError::Position { offset: 34, row, col, rows: 60, cols: 60 };
    assert_eq!(plain([60, 0, 0, 0]), outside(60, 0));
    assert_eq!(plain([0, 255, 0, 0]), outside(0, 255));
    assert_eq!(plain([0, 0, 0, 0x7e]), HybridError::Reserved { offset: 34, code: 0x7e00 }, "NaN of an f16");
    assert_eq!(plain([0, 0, 0, 0xfc]), HybridError::Reserved { offset: 34, code: 0xfc00 }, "-∞ of an f16");
    let packed = |format, word: u32, bytes: usize| hybrid(format, &[&[1, 0], &word.to_le_bytes()[..bytes]].concat());
    assert_eq!(packed(HybridFormat::Packed32, 63 << 26, 4), outside(63, 0));
    assert_eq!(packed(HybridFormat::Packed32, 0x7f800, 4), HybridError::Reserved { offset: 34, code: 0x7f800 });
    assert_eq!(packed(HybridFormat::Packed24, 63 << 12, 3), outside(0, 63));
    assert_eq!(packed(HybridFormat::Packed24, 0x7c0, 3), HybridError::Reserved { offset: 34, code: 0x7c0 });
    let scale = |scale: f32| hybrid(HybridFormat::MuLaw, &[&[0, 0], &scale.to_le_bytes()[..]].concat());
    assert!(matches!(scale(f32::NAN), HybridError::Float { offset: 34, .. }));
    assert!(matches!(scale(-1.0), HybridError::Float { offset: 34, value: -1.0 }));
}

#[test]
fn finite_numbers_with_an_infinite_sum_are_refused() {
    let spec = HybridSpec::new(4, 4, Transform::Dct, HybridFormat::Packed32).expect("edges of the format");
    let read = |weights: [f32; 8], value: u32| {
        let weights: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
        let bytes = [&weights[..], &[1], &value.to_le_bytes()].concat();
        HybridBlock::from_bytes(&spec, &bytes).map(drop)
    };
    assert_eq!(read([1e37; 8], 0), Ok(()));
    let range = |magnitude| Err(HybridError::Range { offset: 0, magnitude, max: REACH_MAX });
    assert_eq!(read([2f32.powi(126); 8], 0), range(2f64.powi(130)));
    assert_eq!(read([0.0; 8], 0x7f000), range(2f64.powi(127)));
    let bomb = [&f32::MAX.to_le_bytes().repeat(8)[..], &[0]].concat();
    let two = [&[0; 33][..], &bomb].concat();
    let error = decode_matrix(&two, (4, 8), 4, Transform::Dct, HybridFormat::Plain).unwrap_err();
    assert!(matches!(error, HybridError::Range { offset: 33, .. }), "{error}");
}

#[test]
fn a_matrix_of_tebibytes_in_a_hundred_bytes_is_refused_at_once() {
    let read = |rows, cols, block| {
        within(0, || decode_matrix(&[0; 100], (rows, cols), block, Transform::Dct, HybridFormat::Plain)).unwrap_err()
    };
    let needed = (1 << 24) * 33;
    assert_eq!(read(1 << 20, 1 << 20, 256), HybridError::Truncated { offset: 0, needed, bytes: 100 });
    assert!(matches!(read(usize::MAX, usize::MAX, 256), HybridError::Edge { .. }));
    assert_eq!(read(4, 4, 257), HybridError::Edge { edge: 257, max: 256 });
    assert!(matches!(read(0, 4, 4), HybridError::Edge { edge: 0, .. }));
}

#[test]
fn a_coded_layer_cannot_claim_more_than_it_has() {
    let read = |patches: &[(usize, &[u8])], max: usize| {
        let mut bytes = vec![16, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0x80, 0x3f, 7, 7];
        patches.iter().for_each(|&(at, patch)| bytes[at..at + patch.len()].copy_from_slice(patch));
        within(6, || CodedLayer::<Code16>::from_bytes(&bytes, max).map(drop))
    };
    assert_eq!(read(&[], 1), Ok(()));
    assert_eq!(read(&[(2, &FOUR_GIB)], 9), Err(LayerError::TooMany { rows: u32::MAX, cols: 1, max: 9 }));
    let expected = 10 + 6 * 0xffff_ffff;
    assert_eq!(read(&[(2, &FOUR_GIB)], usize::MAX), Err(LayerError::Bytes { found: 16, expected }));
    assert_eq!(
        read(&[(2, &FOUR_GIB), (6, &[0])], 9),
        Err(LayerError::Bytes { found: 16, expected: 10 + 4 * 0xffff_ffff })
    );
    let scale = |value: f32| read(&[(10, &value.to_le_bytes())], 1);
    for value in [0.0, -1.0, f32::INFINITY, f32::MAX] {
        assert_eq!(scale(value), Err(LayerError::Scale { offset: 10, value }));
    }
    assert!(matches!(scale(f32::NAN), Err(LayerError::Scale { offset: 10, .. })));
    let cut = within(0, || unpack::<Code16>(&[1, 2, 3]));
    assert_eq!(cut, Err(CodeError::CutShort { offset: 2, left: 1, width: 2 }));
}

#[test]
fn planes_of_another_layer_and_reserved_bits_are_named() {
    let layer = &layout().layers()[0];
    let lanes = layer.lanes().len();
    let read = |skip: usize, patches: &[(usize, &[u8])]| {
        let bytes = [vec![1, 2, 0, 0], lanes.to_le_bytes()[..4].to_vec(), vec![0; 3 * lanes.div_ceil(8)]].concat();
        let mut bytes = bytes[..bytes.len() - skip].to_vec();
        patches.iter().for_each(|&(at, patch)| bytes[at..at + patch.len()].copy_from_slice(patch));
        within(0, || Progressive::decode(layer, &bytes).map(drop)).unwrap_err()
    };
    assert_eq!(read(0, &[(4, &FOUR_GIB)]), PlaneError::Lanes { offset: 4, found: u32::MAX, lanes });
    assert_eq!(read(0, &[(1, &[255])]), PlaneError::Header { offset: 1, value: 255, min: 1, max: 31 });
    assert_eq!(read(0, &[(2, &[0x80])]), PlaneError::Header { offset: 2, value: -128, min: -32, max: 32 });
    let (signs, used) = (8 + lanes.div_ceil(8), lanes % 8);
    assert_ne!(used, 0, "there are bits behind the last lane");
    let reserved = PlaneError::Padding { offset: signs - 1, value: 0x80, bits: used };
    assert_eq!(read(0, &[(signs - 1, &[0x80])]), reserved);
    let short = signs - 1;
    assert_eq!(read(2 * (signs - 8) + 1, &[]), PlaneError::Truncated { offset: short, needed: signs });
}
