use crate::layout::LayoutError;
use crate::packed::PackedError;
use crate::seed::Stream;
use proptest::prelude::*;

use super::*;

fn specs() -> Vec<LayerSpec> {
    let spec = |name: &str, rows, cols, block, residual, gain_exponent| LayerSpec {
        name: name.into(),
        rows,
        cols,
        block,
        residual,
        gain_exponent,
    };
    vec![spec("a.weight", 9, 14, 8, 5, 4), spec("classifier.bias", 3, 1, 4, 12, -2), spec("b", 6, 4, 4, 0, 10)]
}

/// Lanes of every size that an `i32` has, zero and far beyond the gain included.
fn state(seed: &Seed, stream: &mut Stream) -> State {
    let layout = Arc::new(Layout::new(seed, specs()).unwrap());
    let lane = |stream: &mut Stream| stream.bits_32().cast_signed() >> stream.index(33).min(31);
    let bytes: Vec<u8> = (0..layout.lanes()).flat_map(|_| lane(stream).to_le_bytes()).collect();
    State::from_bytes(layout, &bytes).unwrap()
}

fn adapter(number: u64) -> Adapter {
    let seed = Seed::from_number(number);
    let metrics = [("loss", 0.25), ("accuracy", 0.82)].map(|(name, value)| (name.to_owned(), value));
    let state = state(&seed, &mut seed.derive("lanes", &[]).stream());
    Adapter::new(BaseDigest([7; 32]), seed, state, metrics.into()).unwrap()
}

/// The bytes with their digest made right again: what somebody could write who wants to do harm.
fn signed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - DIGEST_BYTES);
    let digest = digest(&bytes);
    bytes.extend_from_slice(&digest.0);
    bytes
}

/// `bytes` with those at `offset` replaced and the digest made right again.
fn forged(bytes: &[u8], offset: usize, new: &[u8]) -> AdapterError {
    let mut bytes = bytes.to_vec();
    bytes[offset..offset + new.len()].copy_from_slice(new);
    Adapter::from_bytes(&signed(bytes)).unwrap_err()
}

const FIRST_LAYER: usize = 8 + 4 + 3 * 32;

proptest! {
    #[test]
    fn every_state_comes_back_to_the_last_integer(number: u64) {
        let adapter = adapter(number);
        let bytes = adapter.to_bytes();
        let back = Adapter::from_bytes(&bytes).unwrap();
        prop_assert_eq!(back.state().lanes(), adapter.state().lanes());
        prop_assert_eq!(back.state().digest(), adapter.state().digest());
        prop_assert_eq!(&back, &adapter);
        prop_assert_eq!(back.to_bytes(), bytes);
    }

    #[test]
    fn any_bytes_return(mut bytes: Vec<u8>, whole in 0usize..3) {
        if whole > 0 {
            bytes.splice(0..0, adapter(1).to_bytes()[..12].iter().copied());
        }
        prop_assert!(Adapter::from_bytes(&bytes).is_err());
        if whole > 1 {
            bytes.extend_from_slice(&digest(&bytes).0);
            prop_assert!(Adapter::from_bytes(&bytes).is_err());
        }
    }
}

#[test]
fn every_cut_and_every_flipped_bit_is_an_error() {
    let bytes = adapter(3).to_bytes();
    for length in 0..bytes.len() {
        assert!(Adapter::from_bytes(&bytes[..length]).is_err(), "{length}");
    }
    for offset in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[offset] ^= 1 << (offset % 8);
        assert!(Adapter::from_bytes(&bytes).is_err(), "{offset}");
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(matches!(Adapter::from_bytes(&longer), Err(AdapterError::Digest { .. })));
}

/// A flipped bit under a right digest is another adapter or an error, never a panic; only the last bits of a wave's
/// Seed1, which no lane depends on, may differ and go by.
#[test]
fn flips_and_cuts_under_a_right_digest_return() {
    let original = adapter(3);
    let bytes = original.to_bytes();
    let seed = FIRST_LAYER - 64..FIRST_LAYER - 32;
    let layout = original.state().layout();
    let lanes = bytes.len() - DIGEST_BYTES - LANE_BYTES * layout.lanes();
    let waves = lanes - WAVE_BYTES * layout.blocks()..lanes;
    for offset in 0..bytes.len() - DIGEST_BYTES {
        let mut flipped = bytes.clone();
        flipped[offset] ^= 1 << (offset % 8);
        match Adapter::from_bytes(&signed(flipped)) {
            Ok(found) if waves.contains(&offset) => assert!(found == original && (offset - waves.start) % 16 > 7),
            Ok(found) => assert!(found != original, "{offset}"),
            Err(error) => assert!(!seed.contains(&offset) || matches!(error, AdapterError::State { .. })),
        }
    }
    for length in DIGEST_BYTES..bytes.len() {
        assert!(Adapter::from_bytes(&signed(bytes[..length].to_vec())).is_err(), "{length}");
    }
}

#[test]
fn errors_name_the_place_and_the_bound() {
    let bytes = adapter(1).to_bytes();
    let text = |error: AdapterError| error.to_string();
    assert_eq!(Adapter::from_bytes(b"PK\x03\x04 a zip file").unwrap_err(), AdapterError::Magic);
    assert_eq!(text(forged(&bytes, 8, &[2])), "byte 8: version 2 of the format, known is 1");
    let short = Adapter::from_bytes(&bytes[..5]).unwrap_err();
    assert_eq!(text(short), "byte 0: the first 8 bytes takes 8 bytes, 5 are left");
    let layers = forged(&bytes, FIRST_LAYER, &u32::MAX.to_le_bytes());
    assert_eq!(text(layers), "byte 108: the number of layers is 4294967295, allowed are 4096");
    let name = forged(&bytes, FIRST_LAYER + 4, &u16::MAX.to_le_bytes());
    assert!(matches!(name, AdapterError::Short { offset: 114, needed: 65_535, .. }), "{name}");
    let utf8 = forged(&bytes, FIRST_LAYER + 6, &[0xff]);
    assert!(text(utf8).starts_with("byte 112: a layer's name: invalid utf-8"));
}

#[test]
fn a_layout_beyond_the_bytes_is_refused_before_it_is_made() {
    let bytes = adapter(1).to_bytes();
    let rows = FIRST_LAYER + 4 + 2 + "a.weight".len();
    for (offset, new) in [(rows, 1u32 << 22), (rows + 4, u32::MAX), (rows + 8, 1), (rows + 8, 0), (rows + 12, 64)] {
        let error = forged(&bytes, offset, &new.to_le_bytes());
        assert!(matches!(error, AdapterError::Length { .. }), "{error}");
    }
    // A gain takes no room, so it is the layout that refuses it.
    assert!(matches!(forged(&bytes, rows + 16, &[127]), AdapterError::Layers(LayoutError::Size { .. })));
}

#[test]
fn a_wave_that_is_not_its_blocks_is_refused() {
    let adapter = adapter(1);
    let layout = adapter.state().layout();
    let bytes = adapter.to_bytes();
    let first = bytes.len() - DIGEST_BYTES - 4 * layout.lanes() - 16 * layout.blocks();
    let apart = |offset, new: &[u8]| matches!(forged(&bytes, offset, new), AdapterError::Apart { block: 0, .. });
    // Seed0's last frequency bit, its angle's last bit, and Seed1's angle.
    assert!(apart(first, &[bytes[first] ^ 1]));
    assert!(apart(first + 2, &[bytes[first + 2] ^ 0x10]));
    assert!(apart(first + 10, &[bytes[first + 10] ^ 1]));
    let outside = forged(&bytes, first + 12, &2f32.to_le_bytes());
    assert!(matches!(outside, AdapterError::Wave { source: PackedError::Radius(_), .. }), "{outside}");
}

#[test]
fn what_no_file_takes_is_refused_when_it_is_made() {
    let (seed, good) = (Seed::from_number(1), adapter(1));
    let make = |seed, metrics: BTreeMap<String, f64>| {
        Adapter::new(BaseDigest([0; 32]), seed, good.state().clone(), metrics).unwrap_err()
    };
    assert_eq!(make(Seed::from_number(2), BTreeMap::new()), AdapterError::Seed);
    let infinite = make(seed, BTreeMap::from([("perplexity".to_owned(), f64::INFINITY)]));
    assert_eq!(infinite.to_string(), "metric perplexity is inf, which is no finite number");
    let long = make(seed, BTreeMap::from([("x".repeat(70_000), 1.0)]));
    assert!(matches!(long, AdapterError::Entry { .. }), "{long}");
}
