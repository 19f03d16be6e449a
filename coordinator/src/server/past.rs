//! Rounds that were over since this process began, for the dashboard.

use std::collections::{BTreeMap, VecDeque};

use packfed_protocol::{Round, Timestamp};

use crate::event::Write;
use crate::picture::{HISTORY_MAX, PastRound, RoundOutcome};

/// The last rounds, as they were stored.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Workers drawn and updates accepted of rounds that are open.
    open: BTreeMap<Round, (u64, u64)>,
    rounds: VecDeque<PastRound>,
}

impl Past {
    /// Notes what was made durable.
    pub(super) fn note(&mut self, write: &Write, now: Timestamp) {
        match write {
            Write::Open(open) => self.open.entry(open.round).or_default().0 = open.cohort.len() as u64,
            Write::Accept { round, .. } => self.open.entry(*round).or_default().1 += 1,
            Write::Abandon { round } => {
                let (cohort, reports) = self.open.remove(round).unwrap_or_default();
                self.push(PastRound {
                    round: round.0,
                    ended_ms: now,
                    cohort,
                    reports,
                    outcome: RoundOutcome::Abandoned,
                    version: None,
                    digest: None,
                    examples: None,
                    train_loss: None,
                    clipped: None,
                    why: None,
                });
            }
            Write::Commit(commit) => {
                let summary = &commit.summary;
                let (cohort, _) = self.open.remove(&summary.round).unwrap_or_default();
                self.open.retain(|round, _| commit.open.iter().any(|open| open.round == *round));
                self.push(PastRound {
                    round: summary.round.0,
                    ended_ms: now,
                    cohort,
                    reports: summary.updates.into(),
                    outcome: RoundOutcome::Committed,
                    version: Some(summary.version),
                    digest: Some(summary.digest),
                    examples: Some(summary.examples),
                    train_loss: Some(summary.train_loss),
                    clipped: Some(summary.clipped),
                    why: None,
                });
            }
            Write::Enroll { .. } | Write::Members(_) => {}
        }
    }

    fn push(&mut self, round: PastRound) {
        self.rounds.push_back(round);
        let oldest = self.rounds.len().saturating_sub(HISTORY_MAX);
        self.rounds.drain(..oldest);
    }

    /// The oldest first.
    pub(super) fn rounds(&self) -> Vec<PastRound> {
        self.rounds.iter().cloned().collect()
    }
}
