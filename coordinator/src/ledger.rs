//! What is kept beside the run itself: labels, settings, rounds that are over, rollouts and who has reported of them.
//!
//! The engine asks for [`Note`]s to be stored; a store gives them back as one [`Ledger`]. A store in memory and tests
//! keep a ledger as it is, a store in a file keeps its entries. It decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use packfed_protocol::{Digest, Round, Settings, Timestamp, WorkerId};
use serde::{Deserialize, Serialize};

use crate::event::Summary;
use crate::rollout::{Labels, Record};

/// One entry, as it is to be stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// What a worker is called by now.
    Labels {
        /// Whose.
        worker: WorkerId,
        /// All of them.
        labels: Labels,
    },
    /// Tokens were added.
    Tokens(Vec<Digest>),
    /// What the operator changed of the run, all of it.
    Conduct(Conduct),
    /// A round is over.
    Past(PastRound),
    /// How a rollout stands.
    Rollout(Box<Record>),
    /// A worker has reported of a rollout's release.
    Reported {
        /// Which rollout.
        rollout: u64,
        /// Who.
        worker: WorkerId,
    },
    /// Who has reported of a rollout's release is forgotten.
    Forget {
        /// Which rollout.
        rollout: u64,
    },
}

/// What an operator has changed of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Conduct {
    /// No further round is opened.
    pub paused: bool,
    /// What is otherwise than in the plan.
    pub settings: Settings,
}

/// A round that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PastRound {
    /// Its number.
    pub round: Round,
    /// When it was over.
    pub ended: Timestamp,
    /// Workers drawn.
    pub cohort: u32,
    /// Updates accepted.
    pub reports: u32,
    /// What it came to.
    pub outcome: RoundOutcome,
}

/// What a round came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RoundOutcome {
    /// A new version.
    Committed(Summary),
    /// None, and why.
    Abandoned(String),
}

/// All entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// What workers are called by.
    pub labels: BTreeMap<WorkerId, Labels>,
    /// What the operator changed of the run.
    pub conduct: Conduct,
    /// The last rounds that are over.
    pub past: BTreeMap<Round, PastRound>,
    /// Every rollout.
    pub rollouts: BTreeMap<u64, Record>,
    /// Who has reported of the release of a rollout that can still be judged.
    pub reported: BTreeMap<u64, BTreeSet<WorkerId>>,
}

impl Ledger {
    /// Takes an entry for what stood there. Tokens are the registry's.
    pub fn note(&mut self, note: &Note) {
        match note {
            Note::Labels { worker, labels } => drop(self.labels.insert(*worker, labels.clone())),
            Note::Tokens(_) => {}
            Note::Conduct(conduct) => self.conduct = *conduct,
            Note::Past(past) => keep(&mut self.past, past.clone()),
            Note::Rollout(record) => drop(self.rollouts.insert(record.number, (**record).clone())),
            Note::Reported { rollout, worker } => drop(self.reported.entry(*rollout).or_default().insert(*worker)),
            Note::Forget { rollout } => drop(self.reported.remove(rollout)),
        }
    }
}

/// Keeps a round, and forgets those that are too old.
pub fn keep(kept: &mut BTreeMap<Round, PastRound>, past: PastRound) {
    let oldest = oldest_kept(past.round);
    kept.insert(past.round, past);
    *kept = kept.split_off(&oldest);
}

/// The oldest round that is kept beside this one.
#[must_use]
pub const fn oldest_kept(latest: Round) -> Round {
    Round(latest.0.saturating_sub(PAST_MAX - 1))
}

/// Rounds that are kept.
const PAST_MAX: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_thousand_rounds_are_kept() {
        let mut ledger = Ledger::default();
        for round in (1..=1_500).map(Round) {
            let outcome = RoundOutcome::Abandoned("too-few-updates".to_owned());
            ledger.note(&Note::Past(PastRound { round, ended: Timestamp(round.0), cohort: 2, reports: 1, outcome }));
        }
        assert_eq!((ledger.past.len(), ledger.past.first_key_value().unwrap().0), (1_000, &Round(501)));
    }
}
