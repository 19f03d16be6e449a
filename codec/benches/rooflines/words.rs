//! Words: folding many updates into the integer sum, packing and unpacking.

use std::hint::black_box;
use std::sync::Arc;

use packfed_codec::{Encoder, LayerSpec, Layout, Profile, Scales, Seed, Tally, Update};

use crate::race::{Goal, Race, Work};

const PROFILES: [(Profile, &str); 2] = [(Profile::Plain, "plain"), (Profile::Nibble, "nibble")];
const SCALES: [Scales; 1] = [Scales { wave: -12, residual: -6 }];

/// All races of this file.
pub(crate) fn races() -> Vec<Race> {
    let mut races = Vec::new();
    for (profile, name) in PROFILES {
        // 16 updates of 2,048 blocks: half a megabyte; 64 of 65,536: 64 MiB, more than the cache.
        races.push(fold(format!("fold {name} words, in cache"), profile, 16, 2_048));
        races.push(fold(format!("fold {name} words, from memory"), profile, 64, 65_536));
        races.push(pack(format!("pack {name}, nearest"), profile, None));
        races.push(pack(format!("pack {name}, stochastic"), profile, Some(Seed::from_number(3))));
        races.push(unpack(format!("unpack {name}"), profile));
    }
    races
}

fn layout(blocks: usize) -> Arc<Layout> {
    let spec = LayerSpec { name: "w".into(), rows: 64, cols: 8 * blocks / 8, block: 8, residual: 30, gain_exponent: 4 };
    Arc::new(Layout::new(&Seed::from_number(1), vec![spec]).expect("the specification is within bounds"))
}

fn random_words(bytes: usize, seed: u64) -> Vec<u8> {
    let mut stream = Seed::from_number(seed).stream();
    (0..bytes / 4).flat_map(|_| stream.bits_32().to_le_bytes()).collect()
}

fn fold(name: String, profile: Profile, updates: usize, blocks: usize) -> Race {
    let layout = layout(blocks);
    let bytes = updates * layout.blocks() * 16;
    let words = Arc::new(random_words(bytes, 2));
    let shared = words.clone();
    let ours = move || -> Work {
        let (mut tally, words) = (Tally::new(&layout, profile), shared.clone());
        let size = words.len() / updates;
        Box::new(move || {
            let weights = (1..).step_by(17);
            let updates: Vec<_> =
                words.chunks_exact(size).zip(weights).map(|(words, weight)| Update { words, weight }).collect();
            tally.add_all(&updates).expect("words of this layout");
        })
    };
    let theirs = move || -> Work {
        let words = words.clone();
        Box::new(move || {
            let words = words.as_chunks().0.iter();
            black_box(words.fold(0u64, |sum, &word| sum.wrapping_add(u64::from_le_bytes(word))));
        })
    };
    let beside = "adding the same bytes up as u64";
    Race {
        name,
        beside,
        bytes: Some(bytes),
        goal: Goal::SpeedShare(0.5),
        ours: Box::new(ours),
        theirs: Box::new(theirs),
    }
}

fn values(layout: &Layout, profile: Profile) -> Vec<f32> {
    let mut stream = Seed::from_number(5).stream();
    #[expect(clippy::cast_possible_truncation, reason = "a random value is as good rounded")]
    let value = |_| (stream.unit() * 0.1) as f32;
    (0..layout.blocks() * profile.width()).map(value).collect()
}

/// A copy of the lanes: the least that moving them can take.
fn copy(lanes: Vec<f32>) -> Work {
    let mut to = lanes.clone();
    Box::new(move || black_box(&mut to).copy_from_slice(black_box(&lanes)))
}

fn pack(name: String, profile: Profile, seed: Option<Seed>) -> Race {
    let layout = layout(4_096);
    let lanes = values(&layout, profile);
    let (bytes, copied) = (lanes.len() * 4, lanes.clone());
    let ours = move || -> Work {
        let (layout, lanes) = (layout.clone(), lanes.clone());
        Box::new(move || {
            let encoder = Encoder::new(&layout, profile, 0, &SCALES).expect("scales within bounds");
            let encoded = match &seed {
                Some(seed) => encoder.stochastic(&lanes, seed),
                None => encoder.nearest(&lanes),
            };
            black_box(encoded.expect("finite values"));
        })
    };
    let theirs = move || copy(copied.clone());
    let beside = "copying the lanes";
    Race { name, beside, bytes: Some(bytes), goal: Goal::Rate(1.0), ours: Box::new(ours), theirs: Box::new(theirs) }
}

fn unpack(name: String, profile: Profile) -> Race {
    let layout = layout(4_096);
    let lanes = values(&layout, profile);
    let (bytes, copied) = (lanes.len() * 4, lanes.clone());
    let words = random_words(layout.blocks() * 16, 6);
    let ours = move || -> Work {
        let (layout, words, mut lanes) = (layout.clone(), words.clone(), lanes.clone());
        Box::new(move || {
            let encoder = Encoder::new(&layout, profile, 0, &SCALES).expect("scales within bounds");
            encoder.decode(&words, &mut lanes).expect("words of this layout");
            black_box(&mut lanes);
        })
    };
    let theirs = move || copy(copied.clone());
    let beside = "copying the lanes";
    Race { name, beside, bytes: Some(bytes), goal: Goal::Rate(1.0), ours: Box::new(ours), theirs: Box::new(theirs) }
}
