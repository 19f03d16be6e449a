//! What happened to everything that arrived: accepted, rejected by reason, or discarded.

use std::collections::BTreeMap;

use packfed_protocol::{Outcome, RejectionCode};
use serde::Serialize;

/// Counts since this process began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Updates that arrived, whatever became of them.
    pub arrived: u64,
    /// Updates that were counted into a round.
    pub accepted: u64,
    /// Updates that came too late for their round.
    pub discarded: u64,
    /// Updates that were not in order, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Other messages that were refused, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Workers suspended for what they sent.
    pub suspended: u64,
    /// Rounds committed.
    pub committed: u64,
    /// Rounds abandoned, by reason.
    pub abandoned: BTreeMap<String, u64>,
}

impl Counters {
    /// Counts an update and what became of it.
    pub(crate) fn update(&mut self, outcome: &Outcome) {
        self.arrived += 1;
        match outcome {
            Outcome::Accepted => self.accepted += 1,
            Outcome::Discarded => self.discarded += 1,
            Outcome::Rejected(rejection) => count(&mut self.rejected, rejection.code),
        }
    }

    /// Counts a refused message that was no update.
    pub(crate) fn refusal(&mut self, code: RejectionCode) {
        count(&mut self.refused, code);
    }

    /// Rejected updates, whatever the reason.
    #[must_use]
    pub fn rejected_in_all(&self) -> u64 {
        self.rejected.values().sum()
    }
}

fn count(reasons: &mut BTreeMap<String, u64>, code: RejectionCode) {
    *reasons.entry(code.to_string()).or_default() += 1;
}
