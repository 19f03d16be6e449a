//! The hybrid block from values to bytes and back: exactness of bytes, hostile bytes, the reference's table.

use proptest::prelude::*;

use super::smooth::smooth_functions;
use super::*;
use crate::scalar::Scalar;
use crate::seed::Seed;

fn spec(rows: usize, cols: usize, transform: Transform, format: HybridFormat) -> HybridSpec {
    HybridSpec::new(rows, cols, transform, format).unwrap()
}

fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut stream = Seed::from_number(seed).stream();
    (0..len).map(|_| stream.bits_32() as f32 / 2f32.powi(31) - 1.0).collect()
}

/// A bump, a slope and some noise.
fn landscape(rows: usize, cols: usize) -> Vec<f32> {
    let grain = noise(1, rows * cols);
    let at = |(i, grain): (usize, &f32)| {
        let (y, x) = ((i / cols) as f32 / rows as f32, (i % cols) as f32 / cols as f32);
        (-8.0 * ((x - 0.3).powi(2) + (y - 0.6).powi(2))).exp() + 0.3 * x + 0.01 * grain
    };
    grain.iter().enumerate().map(at).collect()
}

/// `1/(1+ρ)` over `[-1,1]²` with its edges, normalised to 0–1.
fn cone(size: usize) -> Vec<f32> {
    let at = |i: usize| 2.0 * i as f64 / (size - 1) as f64 - 1.0;
    let values: Vec<f64> = (0..size * size).map(|i| 1.0 / (1.0 + at(i / size).hypot(at(i % size)))).collect();
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), &v| (low.min(v), high.max(v)));
    values.iter().map(|v| f32::from_f64((v - low) / (high - low))).collect()
}

fn plan(block: usize, format: HybridFormat, selection: Selection) -> HybridPlan {
    HybridPlan { block, transform: Some(Transform::Dct), format, selection }
}

/// A block's values from their definition, in f64.
fn by_definition(block: &HybridBlock) -> Vec<f64> {
    let HybridSpec { rows, cols, transform, .. } = *block.spec();
    let (by_row, by_col) = (transform.matrix(rows), transform.matrix(cols));
    let smooth = smooth_functions(rows, cols);
    let at = |i: usize, j: usize| -> f64 {
        let smooth: f64 = smooth.iter().zip(block.weights()).map(|(s, &w)| f64::from(w) * s[i * cols + j]).sum();
        let products = block.coefficients().map(|c| {
            f64::from(c.value) * by_row[usize::from(c.row) * rows + i] * by_col[usize::from(c.col) * cols + j]
        });
        smooth + products.sum::<f64>()
    };
    (0..rows * cols).map(|n| at(n / cols, n % cols)).collect()
}

const SHAPES: [(usize, usize); 9] =
    [(1, 1), (1, 8), (7, 1), (5, 3), (16, 16), (33, 64), (2, 64), (40, 130), (255, 256)];

#[test]
fn decoded_values_are_the_definition_of_the_block() {
    for (&format, transform) in HybridFormat::ALL.iter().flat_map(|f| Transform::ALL.map(|t| (f, t))) {
        for (rows, cols) in SHAPES {
            let Ok(spec) = HybridSpec::new(rows, cols, transform, format) else { continue };
            let encoded = HybridEncoder::new(spec).encode(&landscape(rows, cols), Selection::Count(30)).unwrap();
            let mut out = vec![f32::NAN; rows * cols];
            HybridDecoder::new(spec).decode_into(&encoded.block.to_bytes(), &mut out).unwrap();
            for (n, (found, exact)) in out.iter().zip(by_definition(&encoded.block)).enumerate() {
                assert!((f64::from(*found) - exact).abs() < 2e-5, "{spec:?}, value {n}: {found}, not {exact}");
            }
        }
    }
}

#[test]
fn a_reused_decoder_gives_the_bits_of_a_fresh_one() {
    let spec = spec(48, 40, Transform::Dct, HybridFormat::Plain);
    let mut encoder = HybridEncoder::new(spec);
    let mut reused = HybridDecoder::new(spec);
    for (seed, count) in [(1, 300), (2, 7), (3, 0), (4, 1920)] {
        let bytes = encoder.encode(&noise(seed, 48 * 40), Selection::Count(count)).unwrap().block.to_bytes();
        let (mut a, mut b) = (vec![0.0; 48 * 40], vec![1.0; 48 * 40]);
        reused.decode_into(&bytes, &mut a).unwrap();
        HybridDecoder::new(spec).decode_into(&bytes, &mut b).unwrap();
        assert_eq!(a, b);
    }
}

#[test]
fn the_rmse_told_is_that_of_the_decoded_values() {
    for &format in HybridFormat::ALL {
        let (spec, values) = (spec(32, 64, Transform::Daubechies4, format), landscape(32, 64));
        let encoded = HybridEncoder::new(spec).encode(&values, Selection::Count(60)).unwrap();
        let mut out = vec![0.0; values.len()];
        HybridDecoder::new(spec).decode_into(&encoded.block.to_bytes(), &mut out).unwrap();
        let squares: f64 = values.iter().zip(&out).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let rmse = (squares / values.len() as f64).sqrt();
        assert!((rmse - encoded.rmse).abs() < 1e-6 * rmse, "{format:?}: {rmse}, told {}", encoded.rmse);
        assert!(encoded.rmse < 0.02, "{format:?}: {rmse}");
    }
}

#[test]
fn a_target_is_met_with_few_coefficients_or_refused() {
    let (spec, values) = (spec(32, 32, Transform::Dct, HybridFormat::Plain), landscape(32, 32));
    let mut encoder = HybridEncoder::new(spec);
    for target in [0.5, 0.05, 0.01, 0.003, 1e-4] {
        let found = encoder.encode(&values, Selection::Rmse(target)).unwrap();
        assert!(found.rmse <= target);
        let count = found.block.coefficients().len();
        if let Some(fewer) = (count * 9 / 10).checked_sub(2) {
            let rmse = encoder.encode(&values, Selection::Count(fewer)).unwrap().rmse;
            assert!(rmse > target, "{fewer} of {count} coefficients give {rmse}, {target} asked");
        }
    }
    assert!(matches!(encoder.encode(&values, Selection::Rmse(1e-12)), Err(HybridError::Unreachable { .. })));
    assert_eq!(encoder.encode(&values, Selection::Rmse(-1.0)), Err(HybridError::Target(-1.0)));
    assert!(matches!(encoder.encode(&values, Selection::Rmse(f64::NAN)), Err(HybridError::Target(_))));
}

#[test]
fn the_largest_coefficients_are_kept_and_equal_ones_by_position() {
    let spec = spec(4, 4, Transform::Haar, HybridFormat::Plain);
    // An impulse has equal magnitudes in many places, and the smooth functions are few enough to leave some.
    let mut values = vec![0.0; 16];
    values[5] = 1.0;
    let mut encoder = HybridEncoder::new(spec);
    let mut before = f64::INFINITY;
    for count in 0..=16 {
        let encoded = encoder.encode(&values, Selection::Count(count)).unwrap();
        assert!(encoded.block.coefficients().len() <= count);
        assert!(encoded.rmse <= before * 1.001 + 1e-4, "{count}: {} after {before}", encoded.rmse);
        assert_eq!(encoded, encoder.encode(&values, Selection::Count(count)).unwrap(), "twice the same");
        before = encoded.rmse;
    }
}

#[test]
fn measured_energy_picks_the_transform_that_the_values_were_made_of() {
    for (transform, seed) in [(Transform::Haar, 3), (Transform::Daubechies4, 4), (Transform::Dct, 5)] {
        let made = HybridBlock {
            entries: (0..12).map(|k| format::Entry { row: 40 + k, col: 50 - 3 * k, code: 0x3c00 }).collect(),
            ..HybridBlock::empty(spec(64, 64, transform, HybridFormat::Plain))
        };
        let mut values = vec![0.0; 64 * 64];
        HybridDecoder::new(*made.spec()).decode_block(&made, &mut values).unwrap();
        values.iter_mut().zip(noise(seed, 64 * 64)).for_each(|(v, grain)| *v += 1e-3 * grain);
        for selection in [Selection::Count(12), Selection::Rmse(2e-3)] {
            let plan = HybridPlan { block: 64, transform: None, format: HybridFormat::Plain, selection };
            assert_eq!(encode_matrix(&values, (64, 64), &plan).unwrap().transform, transform);
        }
    }
}

#[test]
fn plain_bytes_are_pinned_for_ever() {
    let block = HybridBlock {
        weights: [1.0, -2.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.25],
        entries: vec![format::Entry { row: 2, col: 1, code: 0xbc00 }, format::Entry { row: 15, col: 19, code: 0x3555 }],
        ..HybridBlock::empty(spec(16, 20, Transform::Dct, HybridFormat::Plain))
    };
    let weights = "0000803f000000c00000003f000000000000000000000000000000000000803e";
    let expected = format!("{weights}0200{}{}", "020100bc", "0f135535");
    let hex: String = block.to_bytes().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, expected, "weights, K in two bytes, (row, col, f16)");
    assert_eq!(block.coefficients().map(|c| c.value).next(), Some(-1.0));
}

#[test]
fn the_reference_table_is_met_within_twelve_hundredths() {
    let table = [(256, 50, 1.91e-3), (512, 50, 5.91e-4), (1024, 50, 1.91e-4), (1024, 400, 1.80e-5)];
    for (size, count, reference) in table {
        let plan = plan(128, HybridFormat::Plain, Selection::Count(count));
        let encoded = encode_matrix(&cone(size), (size, size), &plan).unwrap();
        let reference_ratio = 65_536.0 / (32 + 8 * count) as f64;
        assert!(encoded.rmse <= 1.12 * reference, "{size}², K {count}: {} for {reference}", encoded.rmse);
        assert!(encoded.ratio() > 1.8 * reference_ratio, "{size}², K {count}: {} : 1", encoded.ratio());
    }
}

#[test]
fn matrices_of_any_size_come_back_as_their_rmse_says() {
    for (rows, cols, block) in [(70, 50, 32), (1, 40, 16), (33, 1, 8), (5, 5, 64)] {
        let values = landscape(rows, cols);
        for &format in HybridFormat::ALL {
            let encoded = encode_matrix(&values, (rows, cols), &plan(block, format, Selection::Count(20))).unwrap();
            let squares = values.iter().zip(encoded.decode().unwrap()).map(|(a, b)| f64::from(a - b).powi(2));
            let rmse = (squares.sum::<f64>() / values.len() as f64).sqrt();
            assert!((rmse - encoded.rmse).abs() < 1e-9 + 1e-5 * rmse, "{rows}×{cols} {format:?}");
            let cut = &encoded.bytes[..encoded.bytes.len() - 1];
            assert!(decode_matrix(cut, (rows, cols), block, Transform::Dct, format).is_err());
            let longer = [&encoded.bytes[..], &[0]].concat();
            let left_over = HybridError::LeftOver { offset: encoded.bytes.len(), bytes: longer.len() };
            assert_eq!(decode_matrix(&longer, (rows, cols), block, Transform::Dct, format), Err(left_over));
        }
    }
    let huge = decode_matrix(&[0; 100], (1 << 20, 1 << 20), 64, Transform::Dct, HybridFormat::Plain);
    assert!(matches!(huge, Err(HybridError::Truncated { .. })), "refused before 4 TiB are asked for");
    let edges = encode_matrix(
        &[0.0; 12],
        (4, 3),
        &HybridPlan { transform: Some(Transform::Haar), ..plan(2, HybridFormat::Plain, Selection::Count(1)) },
    );
    assert!(edges.is_ok(), "blocks of 2×2 and 2×1");
}

#[test]
fn shapes_beyond_a_format_are_refused_with_the_bound() {
    let new = |edge, format| HybridSpec::new(8, edge, Transform::Dct, format).map(|_| ());
    assert_eq!(new(65, HybridFormat::Packed32), Err(HybridError::Edge { edge: 65, max: 64 }));
    assert_eq!(new(65, HybridFormat::Packed24), Err(HybridError::Edge { edge: 65, max: 64 }));
    assert_eq!(new(257, HybridFormat::Plain), Err(HybridError::Edge { edge: 257, max: 256 }));
    assert_eq!(new(0, HybridFormat::MuLaw), Err(HybridError::Edge { edge: 0, max: 256 }));
    let mut encoder = HybridEncoder::new(spec(2, 2, Transform::Dct, HybridFormat::Plain));
    let with = |value| [0.0, 0.0, value, 0.0];
    assert_eq!(encoder.encode(&with(f32::NAN), Selection::Count(1)), Err(HybridError::Value { index: 2 }));
    assert!(matches!(encoder.encode(&[0.0; 3], Selection::Count(1)), Err(HybridError::Length { values: 3, .. })));
    let beyond = encoder.encode(&[3e38; 4], Selection::Count(0));
    assert!(matches!(beyond, Err(HybridError::Magnitude { max: REACH_MAX, .. })), "no decoder would take it");
}

/// A block of 20×20 with three coefficients at (1, 2), (1, 3) and (19, 0).
fn small(format: HybridFormat) -> Vec<u8> {
    let code = if format.has_scale() { 5 } else { 0x123 };
    let entry = |(row, col)| format::Entry { row, col, code };
    let entries = [(1, 2), (1, 3), (19, 0)].map(entry).to_vec();
    HybridBlock { entries, ..HybridBlock::empty(spec(20, 20, Transform::Dct, format)) }.to_bytes()
}

fn read(format: HybridFormat, bytes: &[u8]) -> Result<(), HybridError> {
    HybridBlock::from_bytes(&spec(20, 20, Transform::Dct, format), bytes).map(|_| ())
}

#[test]
fn malformed_blocks_are_refused_with_offset_and_bound() {
    let patched = |at: usize, with: &[u8]| {
        let mut bytes = small(HybridFormat::Plain);
        bytes[at..at + with.len()].copy_from_slice(with);
        read(HybridFormat::Plain, &bytes)
    };
    assert_eq!(patched(0, &[]), Ok(()));
    assert_eq!(patched(32, &401u16.to_le_bytes()), Err(HybridError::Count { offset: 32, count: 401, max: 400 }));
    assert_eq!(
        patched(32, &400u16.to_le_bytes()),
        Err(HybridError::Truncated { offset: 34, needed: 1600, bytes: 46 }),
        "before anything is allocated"
    );
    assert!(matches!(patched(8, &f32::NAN.to_le_bytes()), Err(HybridError::Float { offset: 8, .. })));
    let outside = HybridError::Position { offset: 38, row: 1, col: 20, rows: 20, cols: 20 };
    assert_eq!(patched(39, &[20]), Err(outside));
    assert_eq!(patched(39, &[2]), Err(HybridError::Order { offset: 38, row: 1, col: 2 }), "twice");
    assert_eq!(patched(36, &[0, 0x7c]), Err(HybridError::Reserved { offset: 34, code: 0x7c00 }), "infinity");
    let mut mu = small(HybridFormat::MuLaw);
    mu[40] = 0x80;
    assert_eq!(read(HybridFormat::MuLaw, &mu), Err(HybridError::Reserved { offset: 38, code: 0x8000_0080 }));
    mu[34..38].copy_from_slice(&(-1f32).to_le_bytes());
    assert_eq!(read(HybridFormat::MuLaw, &mu), Err(HybridError::Float { offset: 34, value: -1.0 }));
}

#[test]
fn every_cut_and_every_extension_of_a_block_is_refused() {
    for &format in HybridFormat::ALL {
        let bytes = small(format);
        assert_eq!(read(format, &bytes), Ok(()));
        for end in 0..bytes.len() {
            let cut = read(format, &bytes[..end]);
            assert!(matches!(cut, Err(HybridError::Truncated { bytes, .. }) if bytes == end), "{format:?}: {cut:?}");
        }
        let left_over = HybridError::LeftOver { offset: bytes.len(), bytes: bytes.len() + 1 };
        assert_eq!(read(format, &[&bytes[..], &[0]].concat()), Err(left_over));
    }
}

#[cfg(feature = "entropy")]
#[test]
fn range_coded_words_are_taken_only_as_the_encoder_writes_them() {
    let bytes = small(HybridFormat::Entropy);
    let words = u16::from_le_bytes([bytes[38], bytes[39]]);
    let padded = |extra: &[u8]| {
        let mut longer = [&bytes[..], extra].concat();
        longer[38..40].copy_from_slice(&(words + 1).to_le_bytes());
        read(HybridFormat::Entropy, &longer)
    };
    assert_eq!(padded(&[0, 0]), Err(HybridError::Words { offset: 40, coefficient: 3, count: 3 }));
    let mut bomb = bytes.clone();
    bomb[32..34].copy_from_slice(&400u16.to_le_bytes());
    let max = 16 * usize::from(words);
    assert_eq!(read(HybridFormat::Entropy, &bomb), Err(HybridError::Count { offset: 40, count: 400, max }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn decode_then_encode_gives_the_same_bytes(
        rows in 1..=64usize, cols in 1..=64usize, count in 0..200usize, seed: u64, format in 0..HybridFormat::ALL.len(),
    ) {
        let spec = spec(rows, cols, Transform::Dct, HybridFormat::ALL[format]);
        let encoded = HybridEncoder::new(spec).encode(&noise(seed, rows * cols), Selection::Count(count)).unwrap();
        let bytes = encoded.block.to_bytes();
        let decoded = HybridBlock::from_bytes(&spec, &bytes);
        prop_assert_eq!(decoded.as_ref(), Ok(&encoded.block));
        prop_assert_eq!(decoded.unwrap().to_bytes(), bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_return_and_what_is_accepted_is_canonical(
        format in 0..HybridFormat::ALL.len(),
        weights in prop::array::uniform32(0u8..0x7f),
        rest in prop::collection::vec(any::<u8>(), 0..80),
        count in 0..6u8,
        whole: bool,
    ) {
        let format = HybridFormat::ALL[format];
        let spec = spec(15, 15, Transform::Dct, format);
        let bytes = if whole { [&weights[..], &[count], &rest[..]].concat() } else { rest };
        if let Ok(block) = HybridBlock::from_bytes(&spec, &bytes) {
            prop_assert_eq!(block.to_bytes(), bytes);
        }
    }

    #[test]
    fn a_block_with_one_byte_changed_is_refused_or_another_block(
        format in 0..HybridFormat::ALL.len(), at: prop::sample::Index, with: u8,
    ) {
        let format = HybridFormat::ALL[format];
        let mut bytes = small(format);
        let at = at.index(bytes.len());
        bytes[at] = with;
        if let Ok(block) = HybridBlock::from_bytes(&spec(20, 20, Transform::Dct, format), &bytes) {
            prop_assert_eq!(block.to_bytes(), bytes);
        }
    }
}
