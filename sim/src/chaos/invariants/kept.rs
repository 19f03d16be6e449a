//! What the invariants of rollouts keep of durable notes, and what follows from it: worked out again from a record's
//! phase and threshold, and not asked of the book.

use std::collections::{BTreeMap, BTreeSet};

use packfed_coordinator::ledger::Note;
use packfed_coordinator::rollout::{Labels, Phase, Record, Spec, channel, place};
use packfed_protocol::{ReleaseRef, WorkerId};

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) fleet: Vec<WorkerId>,
    pub(super) rollouts: BTreeMap<u64, Record>,
    labels: BTreeMap<WorkerId, Labels>,
}

impl Kept {
    /// Of a fleet in which everybody is enrolled, and nothing was noted.
    pub(super) const fn of(fleet: Vec<WorkerId>) -> Self {
        Self { fleet, rollouts: BTreeMap::new(), labels: BTreeMap::new() }
    }

    /// Takes a durable note.
    pub(super) fn note(&mut self, note: &Note) {
        match note {
            Note::Labels { worker, labels } => drop(self.labels.insert(*worker, labels.clone())),
            Note::Rollout(record) => drop(self.rollouts.insert(record.number, (**record).clone())),
            Note::Tokens(_) | Note::Conduct(_) | Note::Past(_) | Note::Reported { .. } | Note::Forget { .. } => {}
        }
    }

    /// Workers that a rollout is meant for, by their labels.
    pub(super) fn meant(&self, spec: &Spec) -> BTreeSet<WorkerId> {
        let none = Labels::new();
        let is_meant = |worker: &&WorkerId| {
            let labels = self.labels.get(*worker).unwrap_or(&none);
            channel(labels) == spec.channel && spec.target.takes(labels)
        };
        self.fleet.iter().filter(is_meant).copied().collect()
    }

    /// Those of them that a rollout has taken in.
    pub(super) fn within(&self, record: &Record) -> BTreeSet<WorkerId> {
        self.meant(&record.spec).into_iter().filter(|worker| takes(record, worker)).collect()
    }

    /// What a worker is to run: the release of the latest rollout that has taken it in.
    pub(super) fn desired(&self, worker: &WorkerId) -> Option<ReleaseRef> {
        let none = Labels::new();
        let labels = self.labels.get(worker).unwrap_or(&none);
        let takes_it = |record: &&Record| {
            let spec = &record.spec;
            channel(labels) == spec.channel && spec.target.takes(labels) && takes(record, worker)
        };
        self.rollouts.values().rev().find(takes_it).map(|record| record.release)
    }
}

/// Whether a rollout has taken in a worker that it is meant for.
pub(super) fn takes(record: &Record, worker: &WorkerId) -> bool {
    match record.phase {
        Phase::Soaking { .. } | Phase::Paused { .. } => place(&record.release.digest, worker) <= record.threshold,
        Phase::Completed => true,
        Phase::Aborted | Phase::RolledBack => false,
    }
}

/// A release for a message; none is the base model.
pub(super) fn name(release: Option<ReleaseRef>) -> String {
    release.map_or_else(|| "the base".to_owned(), |release| format!("release {}", release.number))
}
