//! Many seeds, on as many threads as there are: how often what happened in all, and the seeds that broke a promise.

use std::ops::Range;

use packfed_protocol::Digest;
use serde::Serialize;

use super::counts::Counts;
use super::run::{Outcome, Wish, run};
use crate::parallel;

/// What became of many seeds.
#[derive(Clone, Debug, Serialize)]
pub struct Sweep {
    /// The first seed.
    pub first: u64,
    /// Seeds that were run.
    pub seeds: u64,
    /// Seeds whose run was committed to its end and broke no promise.
    pub held: u64,
    /// Those that broke one, and which.
    pub broken: Vec<Broken>,
    /// How often what happened.
    pub counts: Counts,
    /// Digest of the digests of all traces, in the order of the seeds.
    pub digest: String,
}

/// A seed that broke a promise.
#[derive(Clone, Debug, Serialize)]
pub struct Broken {
    /// The seed; `sim chaos --replay` shows its trace.
    pub seed: u64,
    /// The promises.
    pub violations: Vec<super::Violation>,
}

/// Runs seeds; `goes_on` is asked before each, and seeds that are not run are not counted. `done` is told of each.
pub fn sweep(
    seeds: Range<u64>,
    wish: &Wish,
    threads: usize,
    goes_on: impl Fn() -> bool + Sync,
    done: impl Fn(&Outcome) + Sync,
) -> Sweep {
    let first = seeds.start;
    let seeds: Vec<u64> = seeds.collect();
    let outcomes = parallel::map(&seeds, threads, |&seed| {
        goes_on().then(|| {
            let outcome = run(seed, wish);
            done(&outcome);
            outcome
        })
    });
    summary(first, outcomes.into_iter().flatten())
}

fn summary(first: u64, outcomes: impl Iterator<Item = Outcome>) -> Sweep {
    let mut sweep =
        Sweep { first, seeds: 0, held: 0, broken: Vec::new(), counts: Counts::default(), digest: String::new() };
    let mut digests = Vec::new();
    for Outcome { seed, digest, counts, violations, .. } in outcomes {
        sweep.seeds += 1;
        sweep.counts.add(&counts);
        digests.extend_from_slice(&digest.0);
        if violations.is_empty() {
            sweep.held += 1;
        } else {
            sweep.broken.push(Broken { seed, violations });
        }
    }
    sweep.digest = Digest::of(&digests).to_string();
    sweep
}

impl Sweep {
    /// The object that `--json` prints, on one line.
    ///
    /// # Panics
    /// Never: the record holds nothing that JSON cannot.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers, strings and lists are JSON")
    }
}
