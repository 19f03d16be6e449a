//! The rounds that a worker missed last, so that a late update is told from a replayed one.
//!
//! They are forgotten with the process: after a restart, an update of an earlier round is called replayed.

use std::collections::{BTreeMap, VecDeque};

use packfed_protocol::{Round, WorkerId};

/// Missed rounds that are remembered of each worker.
const KEPT: usize = 8;

/// By worker, the last rounds that ended without its update, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct MissedRounds(BTreeMap<WorkerId, VecDeque<Round>>);

impl MissedRounds {
    /// Remembers that a round takes no more updates of workers that had not reported.
    pub(crate) fn push(&mut self, round: Round, missing: impl IntoIterator<Item = WorkerId>) {
        for worker in missing {
            let rounds = self.0.entry(worker).or_default();
            rounds.push_back(round);
            if rounds.len() > KEPT {
                rounds.pop_front();
            }
        }
    }

    /// Whether a worker's update was still missing when a round ended.
    pub(crate) fn awaited(&self, round: Round, worker: &WorkerId) -> bool {
        self.0.get(worker).is_some_and(|rounds| rounds.contains(&round))
    }
}
