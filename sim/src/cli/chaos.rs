//! `sim chaos`: many seeds in a world that breaks things, or one of them with its trace.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use packfed_sim::chaos::{StoreKind, Sweep, Wish, run, sweep};
use packfed_sim::parallel;
use packfed_sim::progress::Count;

/// What `sim chaos` is asked for.
#[derive(Debug, Args)]
pub(super) struct ChaosArgs {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=i64::MAX as u64))]
    first: u64,
    /// Run this one seed and print its trace.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    replay: Option<u64>,
    /// Where the coordinator keeps its run; the seed chooses unless told.
    #[arg(long, value_enum, default_value_t = Kept::Seed)]
    store: Kept,
    /// Threads to compute on; the results do not depend on it [default: as many as the machine has].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    threads: Option<u16>,
    /// Print the results alone, as one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kept {
    /// As the seed says: one in four on redb.
    Seed,
    /// In plain values.
    Memory,
    /// In the store that ships, on a disk that forgets what was not synced.
    Redb,
}

/// What a shell expects of a program that was broken off.
const INTERRUPTED: u8 = 130;

impl ChaosArgs {
    /// Runs; the exit code is 1 if a promise was broken.
    pub(super) fn run(self) -> Result<ExitCode> {
        match self.replay {
            Some(seed) => self.replay(seed),
            None => self.sweep(),
        }
    }

    fn wish(&self, readable: bool) -> Wish {
        let store = match self.store {
            Kept::Seed => None,
            Kept::Memory => Some(StoreKind::Memory),
            Kept::Redb => Some(StoreKind::Redb),
        };
        Wish { store, readable, ..Wish::default() }
    }

    fn replay(&self, seed: u64) -> Result<ExitCode> {
        let outcome = run(seed, &self.wish(!self.json));
        if self.json {
            println!("{}", serde_json::to_string(&outcome)?);
        } else {
            for line in &outcome.trace {
                println!("{line}");
            }
            println!("seed {seed}: {} events, digest {}", outcome.counts.events, outcome.digest);
            for violation in &outcome.violations {
                println!("seed {seed} breaks: {violation}");
            }
        }
        Ok(code(outcome.violations.is_empty()))
    }

    fn sweep(self) -> Result<ExitCode> {
        let goes_on = Arc::new(AtomicBool::new(true));
        let asked = goes_on.clone();
        ctrlc::set_handler(move || {
            // The seeds under way are run to their end; whoever asks twice does not want to wait for them.
            if !asked.swap(false, Ordering::SeqCst) {
                std::process::exit(i32::from(INTERRUPTED));
            }
        })?;
        let last = self.first.checked_add(self.seeds).context("the last seed does not fit 64 bits; lower --first")?;
        let threads = self.threads.map_or_else(parallel::threads, usize::from);
        let bar = Count::new("seeds", self.seeds, self.json);
        let found = sweep(
            self.first..last,
            &self.wish(false),
            threads,
            || goes_on.load(Ordering::SeqCst),
            |outcome| {
                for violation in &outcome.violations {
                    bar.note(&format!("seed {} breaks: {violation}", outcome.seed));
                }
                bar.one_more();
            },
        );
        bar.done();
        if self.json {
            println!("{}", found.to_json());
        } else {
            print!("{}", words(&found));
        }
        if !goes_on.load(Ordering::SeqCst) {
            eprintln!("interrupted after {} of {} seeds", found.seeds, self.seeds);
            return Ok(ExitCode::from(INTERRUPTED));
        }
        Ok(code(found.broken.is_empty()))
    }
}

fn code(held: bool) -> ExitCode {
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A sweep for a person.
fn words(found: &Sweep) -> String {
    let counts = &found.counts;
    let rejected: u64 = counts.rejected.values().sum();
    let mut lines = vec![
        format!("{} of {} seeds kept every promise", found.held, found.seeds),
        format!(
            "rounds: {} opened, {} committed ({} after the faults), {} abandoned",
            counts.rounds, counts.commits, counts.commits_after_faults, counts.abandoned
        ),
        format!(
            "updates: {} arrived, {} accepted, {rejected} rejected, {} discarded; {} read late",
            counts.arrived, counts.accepted, counts.discarded, counts.late_updates
        ),
        format!(
            "faults: {} crashes of the coordinator ({} in a round), {} of workers, {} broken connections, {} partitions",
            counts.coordinator_crashes,
            counts.crashes_in_a_round,
            counts.worker_crashes,
            counts.broken_connections,
            counts.partitions
        ),
        format!(
            "        {} frames lost, {} failed writes, {} sectors forgotten, {} clocks set, {} lies, {} failed trainings",
            counts.lost_frames,
            counts.failed_writes,
            counts.forgotten_sectors,
            counts.clocks_set,
            counts.lies,
            counts.training_faults
        ),
        format!(
            "rollouts: {} started, {} completed, {} rolled back ({} by a gate), {} aborted; {} stages begun",
            counts.rollouts_started,
            counts.rollouts_completed,
            counts.rollouts_rolled_back,
            counts.gates_failed,
            counts.rollouts_aborted,
            counts.stages_begun
        ),
        format!(
            "          {} orders done, {} refused, {} not answered; {} crashes of the coordinator in a rollout",
            counts.orders, counts.orders_refused, counts.orders_unanswered, counts.crashes_in_a_rollout
        ),
        format!(
            "releases: {} swapped, {} failed on a worker; {} crashes of workers over a swap",
            counts.releases_swapped, counts.releases_failed, counts.crashes_in_a_swap
        ),
        format!("digest: {}", found.digest),
    ];
    lines.extend(found.broken.iter().map(|broken| {
        let promises: Vec<_> = broken.violations.iter().map(|violation| violation.invariant.as_str()).collect();
        format!("seed {} broke: {}; see it with `sim chaos --replay {0}`", broken.seed, promises.join(", "))
    }));
    lines.join("\n") + "\n"
}
