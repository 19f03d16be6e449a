//! Once nothing goes wrong any more, the next round is committed within a bound, and within another the run is
//! finished and every worker in order holds the final model.

use packfed_coordinator::event::Write;
use packfed_coordinator::plan::RunPlan;
use packfed_protocol::{Timestamp, Version};

use super::{Invariant, Seen};

/// What may still be under way when faults end: a connection that nobody knows to be broken (20 s), one that cannot be
/// made (20 s), the longest back-off (30 s), a process that is down (16 s), a straggler's training (23 s), and a
/// deadline of a clock that was set back by as much as it was ahead (40 s).
pub(super) const SETTLING_MS: u64 = 150_000;
/// A round that is cut short by what is left of the faults is followed by one that is not.
const ROUNDS_LOST: u64 = 3;

/// Most workers of a scenario.
const FLEET_MAX: u64 = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct FaultsOffIsProgress {
    round_ms: u64,
    rounds: u64,
    version: Version,
    /// When the next commit is due.
    due: Option<Timestamp>,
}

impl FaultsOffIsProgress {
    pub(super) fn of(plan: &RunPlan) -> Self {
        Self { round_ms: round_ms(plan), rounds: plan.raw().rounds, version: Version(0), due: None }
    }
}

/// Longest that a round takes, both phases at their time-outs, once everybody is back who was told to come back.
fn round_ms(plan: &RunPlan) -> u64 {
    let raw = plan.raw();
    let away_ms = raw.eligibility.separation_ms.max(raw.strikes.suspended_ms) + 2 * raw.pace.window_ms(FLEET_MAX);
    raw.selection.timeout_ms + raw.reporting.timeout_ms + away_ms
}

/// How long after the faults end the run has to be over.
#[must_use]
pub(super) fn finished_within_ms(plan: &RunPlan) -> u64 {
    SETTLING_MS + (plan.raw().rounds + ROUNDS_LOST) * 2 * round_ms(plan)
}

impl Invariant for FaultsOffIsProgress {
    fn name(&self) -> &'static str {
        "faults off is progress"
    }

    fn see(&mut self, seen: &Seen<'_>, now: Timestamp) -> Result<(), String> {
        match seen {
            Seen::Durable(Write::Commit(commit)) => {
                self.version = Version(commit.head.version);
                self.due = None;
            }
            Seen::Healed if self.version.0 < self.rounds => {
                self.due = Some(now.plus(SETTLING_MS + ROUNDS_LOST * self.round_ms));
            }
            Seen::Ended { version, unfinished, .. } if *version < self.rounds || *unfinished > 0 => {
                let rounds = self.rounds;
                return Err(format!("the run ended at version {version} of {rounds}, {unfinished} workers not at it"));
            }
            _ => {}
        }
        if self.due.is_some_and(|due| now > due) {
            self.due = None;
            return Err(format!("no commit after version {} though nothing goes wrong any more", self.version));
        }
        Ok(())
    }
}
