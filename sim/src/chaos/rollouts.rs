//! What a seed stands for, of releases and rollouts: how often the operator acts, what the releases are worth, and how
//! they fare on their way to a worker. All of it is drawn apart from the rest, so that a seed means what it meant in
//! all else.

use packfed_codec::{Seed, Stream};
use packfed_coordinator::rollout::{CHANNEL, Gates, Labels, OnFailure, STABLE, Spec, Stage, Target, WHOLE};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Rollouts {
    /// Mean time between two orders; 0 is no operator.
    pub order_ms: u64,
    /// Chance that a release is much worse than the one before.
    pub bad: f64,
    /// Longest time that a release takes to be fetched.
    pub fetch_ms_max: u64,
    /// Longest time that a release takes to be evaluated.
    pub evaluate_ms_max: u64,
    /// Chance that a fetch is broken off.
    pub broken_fetch: f64,
    /// Chance that a release ends in a fault where it is evaluated.
    pub fault: f64,
    /// Chance that a worker's folder refuses a write.
    pub refused_save: f64,
    /// Chance that a worker's process dies over a write to its folder.
    pub death_in_save: f64,
}

/// How a worker takes part in rollouts.
#[derive(Clone, Copy, Debug)]
pub struct Follows {
    /// It holds examples out to compare releases on.
    pub holds_out: bool,
    /// Most that it lets the loss grow by.
    pub loss_increase_max: Option<f64>,
}

/// The second channel.
pub const BETA: &str = "beta";
/// A label by which a rollout may be for some workers alone.
pub const REGION: &str = "region";
/// The one region that is ever asked for.
pub const EU: &str = "eu";
/// Most stages.
const STAGES_MAX: usize = 4;
/// Longest soak time.
const SOAK_MS_MAX: u64 = 3_000;
/// Longest patience.
const PATIENCE_MS_MAX: u64 = 16_000;

impl Rollouts {
    /// What a seed stands for.
    #[must_use]
    pub fn draw(seed: &Seed) -> Self {
        let mut stream = seed.derive("packfed/chaos/rollouts/1", &[]).stream();
        let mut chance = |most: f64| if stream.below(3) == 0 { 0.0 } else { most * stream.unit() };
        let (bad, broken_fetch, fault) = (chance(0.6), chance(0.6), chance(0.2));
        let (refused_save, death_in_save) = (chance(0.2), chance(0.1));
        Self {
            order_ms: [0, 1_500, 3_000, 3_000, 6_000, 12_000][stream.index(6)],
            bad,
            fetch_ms_max: 50 << stream.below(7),
            evaluate_ms_max: 50 << stream.below(7),
            broken_fetch,
            fault,
            refused_save,
            death_in_save,
        }
    }

    /// Longest time, once faults are off, in which a rollout that nobody pauses is over.
    #[must_use]
    pub const fn over_within_ms(&self) -> u64 {
        // A rollout is left as it stands, and one more may be started over it.
        STAGES_MAX as u64 * (SOAK_MS_MAX + PATIENCE_MS_MAX)
    }
}

impl Follows {
    /// How a worker takes part, if it does.
    #[must_use]
    pub fn draw(seed: &Seed, number: u64) -> Option<Self> {
        let mut stream = seed.derive("packfed/chaos/follows/1", &[number]).stream();
        let (follows, holds_out) = (stream.below(8) > 0, stream.below(4) > 0);
        let loss_increase_max = (stream.below(3) == 0).then_some(0.3);
        follows.then_some(Self { holds_out, loss_increase_max })
    }
}

/// A rollout of two to four stages, as an operator may ask for it.
pub(super) fn spec(channel: &str, stream: &mut Stream) -> Spec {
    let mut shares = [50_000, 100_000, 250_000, 400_000, 500_000, 750_000];
    stream.shuffle(&mut shares);
    let mut shares = shares[..1 + stream.index(STAGES_MAX - 1)].to_vec();
    shares.sort_unstable();
    shares.push(WHOLE);
    let soak_ms = 100 + stream.below(SOAK_MS_MAX - 100);
    let reports_min = [0, 1, 1, 2][stream.index(4)];
    let eu = || Labels::from([(REGION.to_owned(), EU.to_owned())]);
    let target = match stream.below(8) {
        0 => Target { only: eu(), except: Labels::new() },
        1 => Target { only: Labels::new(), except: eu() },
        _ => Target::default(),
    };
    Spec {
        channel: channel.to_owned(),
        target,
        stages: shares.into_iter().map(|share| Stage { share, soak_ms, reports_min }).collect(),
        gates: Gates::default(),
        on_failure: [OnFailure::RollBack, OnFailure::RollBack, OnFailure::Pause][stream.index(3)],
        patience_ms: 1_000 + stream.below(PATIENCE_MS_MAX - 1_000),
    }
}

/// Labels that move a worker to another channel or region, or take a label away.
pub(super) fn labels(stream: &mut Stream) -> Vec<(String, String)> {
    let (name, value) =
        [(CHANNEL, BETA), (CHANNEL, BETA), (CHANNEL, STABLE), (CHANNEL, ""), (REGION, EU), (REGION, "")]
            [stream.index(6)];
    vec![(name.to_owned(), value.to_owned())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rollout_that_is_drawn_can_be_asked_for() {
        let mut stream = Seed::from_number(1).stream();
        for _ in 0..2_000 {
            let spec = spec(STABLE, &mut stream);
            assert_eq!(spec.check(), Ok(()));
            assert!((2..=STAGES_MAX).contains(&spec.stages.len()));
            let stage = spec.stages[0];
            assert!(stage.soak_ms < SOAK_MS_MAX && spec.patience_ms < PATIENCE_MS_MAX);
        }
    }
}
