//! Bit-planes: bounds that hold at every plane, bytes that are pinned, and bytes that are hostile.

use packfed_codec::apply::{PlaneError, Progressive, encode_planes};
use packfed_codec::{Direct, Layer, LayerSpec, Layout, Seed, Spectrum};
use proptest::prelude::*;

/// 3×2 blocks, the smallest of 1×3, and 66 lanes.
fn layout() -> Layout {
    let spec = LayerSpec { name: "w".into(), rows: 9, cols: 7, block: 4, residual: 9, gain_exponent: 4 };
    Layout::new(&Seed::from_number(1), vec![spec]).expect("the sizes are in bounds")
}

/// Lanes of a heavy-tailed size, as coefficients are.
fn lanes(layer: &Layer, seed: u64) -> Vec<f64> {
    let mut stream = Seed::from_number(seed).stream();
    layer.lanes().map(|_| (2.0 * stream.unit() - 1.0).powi(5) * 3.0).collect()
}

fn decode(layer: &Layer, bytes: &[u8], planes: u8) -> Progressive {
    let end = Progressive::decode(layer, bytes).expect("all the planes").plane_range(planes).start;
    Progressive::decode(layer, &bytes[..end]).expect("a prefix of them")
}

#[test]
fn bytes_are_pinned_for_ever() {
    let layout = layout();
    let layer = &layout.layers()[0];
    let mut values = vec![0.0; layer.lanes().len()];
    (values[0], values[2], values[9]) = (-0.75, 0.5, -3.0);
    let bytes = encode_planes(layer, &values, 2).unwrap();
    let count = u8::try_from(values.len()).unwrap();
    assert_eq!(bytes[..8], [1, 2, 0, 2, count, 0, 0, 0], "wave below 1, residual below 4");
    let width = values.len().div_ceil(8);
    let low = |plane: usize| [bytes[8 + plane * width], bytes[9 + plane * width]];
    assert_eq!([low(0), low(1), low(2)], [[1, 2], [1, 2], [1 | 4, 2]], "signs, halves, quarters");
    assert_eq!(bytes.len(), 8 + 3 * width);
}

#[test]
fn a_state_s_lanes_survive_all_planes_exactly() {
    let layout = layout();
    let layer = &layout.layers()[0];
    let mut stream = Seed::from_number(3).stream();
    let quanta = layer.lanes().map(|_| f64::from(stream.bits_32().cast_signed() >> 1) * 2f64.powi(-20));
    let values: Vec<f64> = quanta.collect();
    let read = Progressive::decode(layer, &encode_planes(layer, &values, 31).unwrap()).unwrap();
    assert_eq!(read.lanes::<f64>(), values);
}

#[test]
fn hostile_bytes_are_named() {
    let layout = layout();
    let layer = &layout.layers()[0];
    let bytes = encode_planes(layer, &lanes(layer, 1), 5).unwrap();
    let (n, width) = (layer.lanes().len(), layer.lanes().len().div_ceil(8));
    assert_ne!(n % 8, 0, "there are bits behind the last lane");
    let with = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        Progressive::decode(layer, &bytes).unwrap_err()
    };
    let header = |offset, value, min, max| PlaneError::Header { offset, value, min, max };
    assert_eq!(with(0, 2), header(0, 2, 1, 1));
    assert_eq!(with(1, 0), header(1, 0, 1, 31));
    assert_eq!(with(1, 255).to_string(), "byte 1 is 255, allowed is 1 to 31");
    assert_eq!(with(2, 100), header(2, 100, -32, 32));
    assert_eq!(with(3, 128), header(3, -128, -32, 32));
    assert!(matches!(with(7, 255), PlaneError::Lanes { offset: 4, .. }));
    assert!(matches!(with(8 + width - 1, 255), PlaneError::Padding { offset, .. } if offset == 8 + width - 1));
    assert!(matches!(with(8 + 3 * width - 1, 255), PlaneError::Padding { offset, .. } if offset == 8 + 3 * width - 1));
    let needed = 8 + width;
    let short = Progressive::decode(layer, &bytes[..needed - 1]);
    assert_eq!(short, Err(PlaneError::Truncated { offset: needed - 1, needed }));
    assert_eq!(with(1, 4), PlaneError::LeftOver { offset: 8 + 5 * width, bytes: width, planes: 4 });
}

#[test]
fn what_cannot_be_coded_is_named() {
    let layout = layout();
    let layer = &layout.layers()[0];
    let mut values = lanes(layer, 1);
    assert_eq!(encode_planes(layer, &values, 0), Err(PlaneError::Planes { planes: 0 }));
    assert_eq!(encode_planes(layer, &values, 32), Err(PlaneError::Planes { planes: 32 }));
    values[5] = 1e10;
    assert_eq!(encode_planes(layer, &values, 8), Err(PlaneError::Lane { lane: 5, value: 1e10 }));
    values[5] = f64::NAN;
    assert!(matches!(encode_planes(layer, &values, 8), Err(PlaneError::Lane { lane: 5, .. })));
}

#[test]
fn a_refused_plane_changes_nothing() {
    let layout = layout();
    let layer = &layout.layers()[0];
    let bytes = encode_planes(layer, &lanes(layer, 1), 5).unwrap();
    let mut read = decode(layer, &bytes, 2);
    let before = read.clone();
    let plane = &bytes[read.plane_range(2)];
    assert!(matches!(read.refine(&plane[1..]), Err(PlaneError::PlaneLength { .. })));
    assert!(matches!(read.refine(&vec![255; plane.len()]), Err(PlaneError::Padding { .. })));
    assert_eq!(read, before);
    let mut all = Progressive::decode(layer, &bytes).unwrap();
    assert!(matches!(all.refine(plane), Err(PlaneError::LeftOver { planes: 5, .. })));
}

proptest! {
    #[test]
    fn every_plane_keeps_its_bounds(seed: u64, planes in 1..=31u8) {
        let layout = layout();
        let layer = &layout.layers()[0];
        let values = lanes(layer, seed);
        let bytes = encode_planes(layer, &values, planes).unwrap();
        let direct = Direct::<f64>::new(layer);
        let mut refined = decode(layer, &bytes, 0);
        let mut identity = vec![0.0; 49];
        (0..7).for_each(|n| identity[8 * n] = 1.0);
        for plane in 0..=planes {
            prop_assert_eq!(&refined, &decode(layer, &bytes, plane), "in place or at once");
            let error: Vec<f64> = refined.lanes::<f64>().iter().zip(&values).map(|(a, b)| a - b).collect();
            let mut delta = vec![0.0; 7 * 9];
            direct.forward(&direct.coefficients(&error), &identity, &mut delta, &mut Spectrum::default());
            let frobenius = delta.iter().map(|d| d * d).sum::<f64>().sqrt();
            let (known, before) = (refined.bound(), refined.bound_after(plane));
            prop_assert!(error.iter().all(|e| e.abs() <= known.lane));
            prop_assert!(frobenius <= known.frobenius * (1.0 + 1e-12));
            prop_assert!(known.lane <= before.lane && known.frobenius <= before.frobenius * (1.0 + 1e-12));
            if plane < planes {
                refined.refine(&bytes[refined.plane_range(plane)]).unwrap();
                let after = refined.bound();
                prop_assert!(after.lane < known.lane && after.frobenius < known.frobenius);
            }
        }
    }

    #[test]
    fn any_bytes_return(mut bytes in prop::collection::vec(any::<u8>(), 0..99), header in any::<bool>()) {
        let layout = layout();
        let layer = &layout.layers()[0];
        if header && bytes.len() >= 8 {
            let count = u8::try_from(layer.lanes().len()).unwrap();
            let valid = [1, bytes[1] % 6 + 1, bytes[2] % 32, bytes[3] % 32, count, 0, 0, 0];
            bytes[..8].copy_from_slice(&valid);
        }
        if let Ok(read) = Progressive::decode(layer, &bytes) {
            prop_assert!(read.lanes::<f32>().iter().all(|lane| lane.is_finite()));
            prop_assert!(read.bound().frobenius.is_finite());
        }
    }
}
