//! Once nothing goes wrong any more, every rollout that is not paused ends within a bound, and every worker that
//! follows releases comes to run the one that it is to run, unless that has failed there.

use packfed_coordinator::event::Write;
use packfed_coordinator::ledger::Note;
use packfed_coordinator::rollout::Phase;
use packfed_protocol::Timestamp;

use super::faults_off_is_progress::{SETTLING_MS, finished_within_ms};
use super::kept::Kept;
use super::{Invariant, Seen};
use crate::chaos::scenario::Scenario;

/// See the module.
#[derive(Debug)]
pub(super) struct FaultsOffEndsRollouts {
    kept: Kept,
    within_ms: u64,
    due: Option<Timestamp>,
}

/// How long after the faults end the run has to be over, and every rollout of it.
#[must_use]
pub fn over_within_ms(scenario: &Scenario) -> u64 {
    finished_within_ms(&scenario.plan).max(rollouts_over_within_ms(scenario))
}

/// A worker that could not write down what runs tries again after half a minute, and one that gave a fetch up as often
/// as it may has waited about as long.
const AGAIN_MS: u64 = 60_000;

fn rollouts_over_within_ms(scenario: &Scenario) -> u64 {
    SETTLING_MS + AGAIN_MS + scenario.rollouts.over_within_ms()
}

impl FaultsOffEndsRollouts {
    pub(super) fn of(scenario: &Scenario) -> Self {
        let within_ms = rollouts_over_within_ms(scenario);
        Self { kept: Kept::of(Vec::new()), within_ms, due: None }
    }
}

impl Invariant for FaultsOffEndsRollouts {
    fn name(&self) -> &'static str {
        "faults off ends rollouts"
    }

    fn see(&mut self, seen: &Seen<'_>, now: Timestamp) -> Result<(), String> {
        match seen {
            Seen::Durable(Write::Note(note @ Note::Rollout(_))) => self.kept.note(note),
            Seen::Healed => self.due = Some(now.plus(self.within_ms)),
            Seen::Ended { soaking: Some(rollout), .. } => return Err(format!("rollout {rollout} goes on at the end")),
            Seen::Ended { astray, .. } if *astray > 0 => {
                return Err(format!("{astray} workers do not run at the end what they are to run"));
            }
            _ => {}
        }
        if self.due.is_some_and(|due| now > due) {
            self.due = None;
            let mut records = self.kept.rollouts.values();
            if let Some(record) = records.find(|record| matches!(record.phase, Phase::Soaking { .. })) {
                let (number, ms) = (record.number, self.within_ms);
                return Err(format!("rollout {number} goes on {ms} ms after the last fault"));
            }
        }
        Ok(())
    }
}
