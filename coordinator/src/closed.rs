//! The rounds that ended last, so that a late update is told from a replayed one.
//!
//! They are forgotten with the process: after a restart, an update of an earlier round is called replayed.

use std::collections::{BTreeSet, VecDeque};

use packfed_protocol::{Round, WorkerId};

use crate::round::Reporting;

/// Ended rounds that are remembered.
const KEPT: usize = 8;

/// The last rounds that ended, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClosedRounds(VecDeque<Closed>);

#[derive(Clone, Debug)]
struct Closed {
    round: Round,
    /// Workers that were drawn and had not reported.
    missing: BTreeSet<WorkerId>,
}

impl ClosedRounds {
    /// Remembers a round that takes no more updates.
    pub(crate) fn push(&mut self, reporting: &Reporting) {
        let open = reporting.open();
        let missing = open.cohort.iter().filter(|worker| reporting.awaits(worker)).copied().collect();
        self.0.push_back(Closed { round: open.round, missing });
        if self.0.len() > KEPT {
            self.0.pop_front();
        }
    }

    /// Whether a worker's update was still missing when a round ended.
    pub(crate) fn awaited(&self, round: Round, worker: &WorkerId) -> bool {
        self.0.iter().any(|closed| closed.round == round && closed.missing.contains(worker))
    }
}
