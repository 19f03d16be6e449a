//! Robust rules over a round's words in memory, beside the mean of the same words.

use std::hint::black_box;
use std::sync::Arc;

use packfed_codec::robust::{Robust, WHOLE};
use packfed_codec::{LayerSpec, Layout, Profile, Scales, Seed, Tally, Update, Word};

use crate::race::{Goal, Race, Work};

const SCALES: [Scales; 1] = [Scales { wave: -12, residual: -6 }];
const BESIDE: &str = "the mean: folding the same words";

/// A rule, applied to a round.
type Rule = fn(&Layout, Profile, &[Vec<Word>]);

const RULES: [(&str, Rule); 4] = [
    ("median", |layout, profile, mut updates| {
        black_box(Robust::new(layout, profile).median(&mut updates)).expect("enough updates");
    }),
    ("trimmed mean 0.2", |layout, profile, mut updates| {
        let trim = updates.len() / 5;
        black_box(Robust::new(layout, profile).trimmed_mean(&mut updates, trim)).expect("enough updates");
    }),
    ("median of shrunk updates", |layout, profile, mut updates| {
        let shares = vec![WHOLE / 3; updates.len()];
        black_box(Robust::new(layout, profile).shrunk(&shares).median(&mut updates)).expect("enough updates");
    }),
    ("multi-Krum 0.2", |layout, profile, mut updates| {
        let malicious = updates.len() / 5;
        let selected = updates.len() - malicious;
        let rule = Robust::new(layout, profile);
        black_box(rule.multi_krum(&mut updates, &SCALES, malicious, selected)).expect("enough updates");
    }),
];

/// All races of this file.
pub(crate) fn races() -> Vec<Race> {
    let mut races = Vec::new();
    for (profile, name) in [(Profile::Plain, "plain"), (Profile::Nibble, "nibble")] {
        // Of 2,048 blocks each: 320 KiB, 3.1 MiB and 31 MiB.
        for updates in [10, 100, 1_000] {
            for (rule, apply) in RULES {
                if updates < 1_000 || profile == Profile::Plain {
                    races.push(race(format!("robust {rule} of {updates} updates, {name}"), profile, updates, apply));
                }
            }
        }
    }
    races
}

fn race(name: String, profile: Profile, updates: usize, apply: Rule) -> Race {
    let spec = LayerSpec { name: "w".into(), rows: 64, cols: 2_048, block: 8, residual: 30, gain_exponent: 4 };
    let layout = Layout::new(&Seed::from_number(1), vec![spec]).expect("the specification is within bounds");
    let (layout, mut stream) = (Arc::new(layout), Seed::from_number(2).stream());
    let mut word = || std::array::from_fn(|_| stream.bits_32().to_le_bytes()[0]);
    let words: Vec<Vec<Word>> = (0..updates).map(|_| (0..layout.blocks()).map(|_| word()).collect()).collect();
    let (words, bytes) = (Arc::new(words), updates * layout.blocks() * 16);
    let (of_theirs, shared) = (layout.clone(), words.clone());
    let ours = move || -> Work {
        let (layout, words) = (layout.clone(), words.clone());
        Box::new(move || apply(&layout, profile, &words))
    };
    let theirs = move || -> Work {
        let (layout, words) = (of_theirs.clone(), shared.clone());
        Box::new(move || {
            let updates: Vec<Update<'_>> =
                words.iter().map(|words| Update { words: words.as_flattened(), weight: 1 }).collect();
            let mut tally = Tally::new(&layout, profile);
            tally.add_all(&updates).expect("words of this layout");
            black_box(tally);
        })
    };
    Race { name, beside: BESIDE, bytes: Some(bytes), goal: Goal::None, ours: Box::new(ours), theirs: Box::new(theirs) }
}
