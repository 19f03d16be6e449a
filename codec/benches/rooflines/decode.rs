//! Blocks decoded: merged and hybrid beside `rustdct`'s plain two-dimensional inverse, CORDIC beside floats.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use packfed_codec::family::hybrid::{HybridDecoder, HybridEncoder, HybridFormat, HybridSpec, Selection, Transform};
use packfed_codec::wave::{Steps, rotate_each, sin_cos_turns};
use packfed_codec::{Frequency, LayerSpec, Layout, Merger, Packed128, Seed};
use rustdct::DctPlanner;

use crate::race::{Goal, Race, Work};

/// All races of this file.
pub(crate) fn races() -> Vec<Race> {
    let mut races: Vec<Race> = [12, 48].map(merged).into();
    races.extend([Transform::Dct, Transform::Haar, Transform::Daubechies4].map(hybrid));
    races.push(cordic());
    races
}

fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut stream = Seed::from_number(seed).stream();
    #[expect(clippy::cast_possible_truncation, reason = "a random value is as good rounded")]
    let value = |_| (stream.unit() - 0.5) as f32;
    (0..n).map(value).collect()
}

/// The whole inverse, rows and then columns, whatever is zero.
fn plain_inverse(edge: usize) -> Work {
    let inverse = DctPlanner::new().plan_dct3(edge);
    let (spectrum, mut rows, mut columns) = (noise(edge * edge, 7), vec![0.0f32; edge * edge], vec![0.0; edge * edge]);
    let mut scratch = vec![0.0; inverse.get_scratch_len()];
    Box::new(move || {
        rows.copy_from_slice(black_box(&spectrum));
        for row in rows.chunks_exact_mut(edge) {
            inverse.process_dct3_with_scratch(row, &mut scratch);
        }
        for (j, column) in columns.chunks_exact_mut(edge).enumerate() {
            for (i, value) in column.iter_mut().enumerate() {
                *value = rows[i * edge + j];
            }
            inverse.process_dct3_with_scratch(column, &mut scratch);
        }
        for (i, row) in rows.chunks_exact_mut(edge).enumerate() {
            for (j, value) in row.iter_mut().enumerate() {
                *value = columns[j * edge + i];
            }
        }
        black_box(&mut rows);
    })
}

const BESIDE: &str = "rustdct's plain 2-D inverse";

fn merged(residual: usize) -> Race {
    const EDGE: usize = 64;
    let spec = LayerSpec { name: "w".into(), rows: EDGE, cols: EDGE, block: EDGE, residual, gain_exponent: 4 };
    let layout = Arc::new(Layout::new(&Seed::from_number(1), vec![spec]).expect("the specification is within bounds"));
    let ours = move || -> Work {
        let (layout, mut merger) = (layout.clone(), Merger::new());
        let wave = Packed128::new(0.3, 1.0, Frequency { u: 3, v: 5 }).expect("a point of the disk");
        let (coefficients, mut out) = (noise(residual, 8), vec![0.0; EDGE * EDGE]);
        Box::new(move || {
            let layer = &layout.layers()[0];
            merger.block(layer, &layer.blocks()[0], wave, &coefficients, &mut out);
            black_box(&mut out);
        })
    };
    Race {
        name: format!("merged 64×64 block, K = {residual} and its wave"),
        beside: BESIDE,
        bytes: None,
        goal: Goal::TimeShare(1.0),
        ours: Box::new(ours),
        theirs: Box::new(|| plain_inverse(EDGE)),
    }
}

/// Noise, whose largest coefficients lie anywhere: the worst case for a decoder that uses sparsity.
fn hybrid(transform: Transform) -> Race {
    const EDGE: usize = 128;
    let spec = HybridSpec::new(EDGE, EDGE, transform, HybridFormat::Plain).expect("128 is within bounds");
    let encoded = HybridEncoder::new(spec).encode(&noise(EDGE * EDGE, 9), Selection::Count(50));
    let bytes = encoded.expect("finite values").block.to_bytes();
    let ours = move || -> Work {
        let (mut decoder, bytes, mut out) = (HybridDecoder::new(spec), bytes.clone(), vec![0.0; EDGE * EDGE]);
        Box::new(move || {
            decoder.decode_into(&bytes, &mut out).expect("bytes of this block");
            black_box(&mut out);
        })
    };
    Race {
        name: format!("hybrid 128×128 block from bytes, K = 50, {transform:?}"),
        beside: BESIDE,
        bytes: None,
        goal: Goal::Within(Duration::from_micros(25)),
        ours: Box::new(ours),
        theirs: Box::new(|| plain_inverse(EDGE)),
    }
}

fn cordic() -> Race {
    const PHASES: usize = 4_096;
    let phases: Vec<u32> = {
        let mut stream = Seed::from_number(10).stream();
        (0..PHASES).map(|_| stream.bits_32() >> 8).collect()
    };
    let same = phases.clone();
    Race {
        name: "cosine and sine of 4,096 phases by CORDIC, 24 steps".into(),
        beside: "the vectorised polynomial",
        bytes: None,
        goal: Goal::None,
        ours: Box::new(move || {
            let (phases, mut out) = (phases.clone(), vec![(0, 0); PHASES]);
            Box::new(move || {
                rotate_each(Steps::TwentyFour.unit(), &phases, Steps::TwentyFour, &mut out);
                black_box(&mut out);
            })
        }),
        theirs: Box::new(move || {
            let (phases, mut cos, mut sin) = (same.clone(), vec![0.0; PHASES], vec![0.0; PHASES]);
            Box::new(move || {
                sin_cos_turns(&phases, &mut sin, &mut cos);
                black_box((&mut cos, &mut sin));
            })
        }),
    }
}
