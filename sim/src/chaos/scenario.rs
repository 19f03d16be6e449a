//! What a seed stands for: the run's plan, its workers, and how often what goes wrong.
//!
//! Everything here is drawn before the run begins; nothing of it changes while it goes.

use std::sync::Arc;

use packfed_codec::{LayerSpec, Profile, Seed, Stream};
use packfed_coordinator::aggregation::{Aggregation, RobustRule, Rule};
use packfed_coordinator::eligibility::Eligibility;
use packfed_coordinator::optimizer::ServerOptimizer;
use packfed_coordinator::pace::Pace;
use packfed_coordinator::plan::{Buffered, Phase, PlanError, RawPlan, RunPlan, Training};
use packfed_coordinator::staleness::StalenessWeight;
use packfed_coordinator::strikes::Strikes;
use packfed_protocol::{Digest, Identity, RunId};
use serde::{Deserialize, Serialize};

use super::rollouts::{Follows, Rollouts};

/// Where the coordinator keeps the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// Plain values; a write is there whole or not at all.
    Memory,
    /// The store that ships, on a disk that forgets what was not synced.
    Redb,
}

/// One device of the fleet.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its key.
    pub identity: Identity,
    /// Its examples.
    pub examples: u32,
    /// Milliseconds of a local step.
    pub step_ms: u64,
    /// Whether it lies while faults are on.
    pub malicious: bool,
    /// How far its clock is off at first, in milliseconds.
    pub clock_ms: i64,
    /// How it takes part in rollouts, if it follows releases.
    pub follows: Option<Follows>,
}

/// How the network and the processes behave while faults are on. A mean of 0 is never.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Least and most latency of a message, one way.
    pub latency_ms: [u64; 2],
    /// Bytes per second of a worker's link, each way.
    pub bytes_per_s: u64,
    /// Mean time between two broken connections.
    pub break_ms: u64,
    /// Mean time between two partitions.
    pub partition_ms: u64,
    /// Longest partition.
    pub partition_ms_max: u64,
    /// Mean time between two crashes of workers.
    pub worker_crash_ms: u64,
    /// Mean time between two crashes of the coordinator.
    pub coordinator_crash_ms: u64,
    /// Longest time that a process stays down.
    pub down_ms_max: u64,
    /// Mean time between two clocks that are set anew.
    pub clock_ms: u64,
    /// Furthest that a clock is set off.
    pub clock_ms_max: u64,
    /// Chance that an update in flight on a connection that breaks is read all the same.
    pub late: f64,
    /// Chance that the disk refuses a write, which ends the coordinator's process.
    pub refused_write: f64,
    /// Chance that local training faults.
    pub training: f64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What is run.
    pub plan: Arc<RunPlan>,
    /// The fleet.
    pub members: Vec<Member>,
    /// What goes wrong.
    pub faults: Faults,
    /// True time at which nothing goes wrong any more.
    pub heals_at_ms: u64,
    /// Where the run is kept.
    pub store: StoreKind,
    /// How far the coordinator's clock is off at first, in milliseconds.
    pub clock_ms: i64,
    /// What the operator does, and how releases fare.
    pub rollouts: Rollouts,
}

/// The digest of a base model that nobody has.
pub const BASE: Digest = Digest([1; 32]);
/// Least time in which faults happen.
const FAULTY_MS_MIN: u64 = 60_000;
/// Most time in which faults happen.
const FAULTY_MS_MAX: u64 = 180_000;
/// Of so many seeds, one runs on the store that ships.
const REDB_EVERY: u64 = 4;

impl Scenario {
    /// What a seed stands for; the store is the seed's own choice unless it is named.
    ///
    /// # Errors
    /// If the plan that was drawn is out of bounds, which is a bug here.
    pub fn draw(seed: &Seed, store: Option<StoreKind>) -> Result<Self, PlanError> {
        let mut stream = seed.derive("packfed/chaos/scenario/1", &[]).stream();
        let honest = 3 + stream.below(4);
        let malicious = stream.below(3);
        let plan = Arc::new(RunPlan::new(raw_plan(seed, honest, malicious, &mut stream))?);
        let faults = faults(&mut stream);
        let members = members(seed, honest, malicious, &faults, &mut stream);
        let heals_at_ms = FAULTY_MS_MIN + stream.below(FAULTY_MS_MAX - FAULTY_MS_MIN);
        let clock_ms = offset(&mut stream, faults.clock_ms_max);
        let own = if stream.below(REDB_EVERY) == 0 { StoreKind::Redb } else { StoreKind::Memory };
        Ok(Self {
            plan,
            members,
            faults,
            heals_at_ms,
            store: store.unwrap_or(own),
            clock_ms,
            rollouts: Rollouts::draw(seed),
        })
    }
}

/// A tiny run: two layers of a few blocks, some rounds of a few workers.
fn raw_plan(seed: &Seed, honest: u64, malicious: u64, stream: &mut Stream) -> RawPlan {
    let spec =
        |name: &str, rows, cols| LayerSpec { name: name.into(), rows, cols, block: 4, residual: 16, gain_exponent: 4 };
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let all = honest + malicious;
    let cohort = 2 + stream.below(honest - 1);
    let buffered = (stream.below(3) == 0).then(|| Buffered {
        concurrency: narrow(1 + stream.below(all)),
        staleness_max: narrow(stream.below(4)),
        staleness_weight: StalenessWeight::InverseSqrt,
    });
    let over = if buffered.is_some() { 0 } else { stream.below(all - cohort + 1).min(2) };
    let min = 1 + stream.below(cohort.min(4));
    let selecting = cohort + over + stream.below(all - cohort - over + 1);
    // Apart from the rest, so that a seed means what it meant in all else.
    let mut own = seed.derive("packfed/chaos/pace/1", &[]).stream();
    let separations = [0, 0, 1_500];
    let held_min = buffered.map_or(selecting, |buffered| selecting.max(cohort + u64::from(buffered.concurrency)));
    let timeout = |stream: &mut Stream| [3_000, 6_000, 12_000][stream.index(3)];
    let optimizers = [
        ServerOptimizer::FedAvg { rate: 1.0 },
        ServerOptimizer::FedAvgM { rate: 0.5, momentum: 0.5 },
        ServerOptimizer::FedAdam { rate: 0.05, beta1: 0.9, beta2: 0.99, tau: 1e-3 },
    ];
    RawPlan {
        run: RunId([7; 16]),
        seed: seed.derive("packfed/chaos/plan/1", &[]),
        base: BASE,
        layers: vec![spec("a", 8, 6), spec("b", 5, 1)],
        rate_exponents: vec![0, 0],
        profile: [Profile::Plain, Profile::Nibble][stream.index(2)],
        rounds: 6 + stream.below(12),
        examples_max: 100,
        training: Training::adam(10, 8, 0.05),
        selection: Phase {
            goal: narrow(selecting),
            min: narrow(min + stream.below(selecting - min + 1)),
            timeout_ms: timeout(stream),
        },
        eligibility: Eligibility { separation_ms: separations[own.index(3)], ..Eligibility::ANYBODY },
        pace: Pace {
            per_second: 1 + narrow(own.below(20)),
            meeting_ms: 200 << own.below(5),
            held_max: narrow(held_min + own.below(all)),
            ..Pace::DEFAULT
        },
        strikes: Strikes { suspend_at: [0, 1, 3][own.index(3)], suspended_ms: 500 << own.below(5) },
        reporting: Phase { goal: narrow(cohort), min: narrow(min), timeout_ms: timeout(stream) },
        over_selection: narrow(over),
        aggregation: if buffered.is_some() { Aggregation::MEAN } else { aggregation(min, stream) },
        buffered,
        optimizer: optimizers[stream.index(optimizers.len())],
        levels: 2.0,
        history: [0, 1, 3, 64][stream.index(4)],
    }
}

/// A rule that so few updates suffice for.
fn aggregation(min: u64, stream: &mut Stream) -> Aggregation {
    let clipped = Aggregation { rule: Rule::Mean, clip_norm: Some(0.5) };
    let robust = |rule| Aggregation { rule: Rule::Robust(rule), clip_norm: None };
    let rules = [
        Aggregation::MEAN,
        Aggregation::MEAN,
        clipped,
        robust(RobustRule::Median),
        robust(RobustRule::TrimmedMean { trim: 0.2 }),
        robust(RobustRule::MultiKrum { malicious_max: 1, selected: None }),
    ];
    let drawn = rules[stream.index(rules.len())];
    if drawn.updates_min() as u64 <= min { drawn } else { Aggregation::MEAN }
}

/// Some kinds of fault not at all, the others often; so that some seeds are quiet enough to get far, and each kind is
/// seen without the others.
fn faults(stream: &mut Stream) -> Faults {
    let mut mean = |often: u64| if stream.below(3) == 0 { 0 } else { often + stream.below(4 * often) };
    let (break_ms, partition_ms, worker_crash_ms) = (mean(4_000), mean(10_000), mean(8_000));
    let (coordinator_crash_ms, clock_ms) = (mean(6_000), mean(10_000));
    let chance = |stream: &mut Stream, most: f64| if stream.below(2) == 0 { 0.0 } else { most * stream.unit() };
    let least = 1 + stream.below(100);
    Faults {
        latency_ms: [least, least + stream.below(500)],
        bytes_per_s: 2_000 << stream.below(8),
        break_ms,
        partition_ms,
        partition_ms_max: 1_000 << stream.below(6),
        worker_crash_ms,
        coordinator_crash_ms,
        down_ms_max: 500 << stream.below(6),
        clock_ms,
        clock_ms_max: [0, 100, 20_000][stream.index(3)],
        late: chance(stream, 1.0),
        refused_write: chance(stream, 0.03),
        training: chance(stream, 0.2),
    }
}

fn members(seed: &Seed, honest: u64, malicious: u64, faults: &Faults, stream: &mut Stream) -> Vec<Member> {
    let member = |number: u64| Member {
        identity: Identity::from_seed(*seed.derive("packfed/chaos/identity/1", &[number]).bytes()),
        examples: 1 + u32::try_from(stream.below(150)).unwrap_or(0),
        step_ms: if stream.below(5) == 0 { 200 + stream.below(2_000) } else { 5 + stream.below(100) },
        malicious: number >= honest,
        clock_ms: offset(stream, faults.clock_ms_max),
        follows: Follows::draw(seed, number),
    };
    (0..honest + malicious).map(member).collect()
}

/// A number of milliseconds before or after.
pub(super) fn offset(stream: &mut Stream, most: u64) -> i64 {
    let most = most.cast_signed();
    stream.below(2 * most.cast_unsigned() + 1).cast_signed() - most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_stands_for_a_plan_that_honest_workers_can_finish() {
        for number in 0..2_000 {
            let scenario = Scenario::draw(&Seed::from_number(number), None).unwrap();
            let honest = scenario.members.iter().filter(|member| !member.malicious).count();
            assert!(scenario.plan.raw().reporting.min as usize <= honest, "seed {number}");
        }
    }

    #[test]
    fn the_same_seed_stands_for_the_same() {
        let draw = |number| format!("{:?}", Scenario::draw(&Seed::from_number(number), None).unwrap());
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
    }
}
