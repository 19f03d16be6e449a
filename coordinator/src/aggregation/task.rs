//! What a rule is to compute when a round's reporting ends: asked for by the engine, carried out by its shell, which
//! has the journal.
//!
//! It is pure but for what it reads, so every shell gets the same result, and so does a process that was killed over
//! it and started again.

use std::sync::Arc;

use packfed_codec::robust::{Robust, RobustError};
use packfed_codec::{Scales, Tally};
use packfed_protocol::{Digest, Round, WorkerId};
use thiserror::Error;

use super::RobustRule;
use super::journal::{Journal, JournalError};
use crate::event::Event;
use crate::plan::RunPlan;
use crate::store::Store;

/// One accepted update, as far as a rule needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Whose.
    pub worker: WorkerId,
    /// Digest of its words.
    pub payload: Digest,
    /// What of it is kept, in units of `1 /` [`WHOLE`](packfed_codec::robust::WHOLE).
    pub share: u32,
}

/// Everything that the result follows from, but the words.
#[derive(Clone, Debug)]
pub struct AggregationTask {
    /// The plan.
    pub plan: Arc<RunPlan>,
    /// The rule.
    pub rule: RobustRule,
    /// The round whose updates they are.
    pub round: Round,
    /// Scales of their words.
    pub scales: Vec<Scales>,
    /// They, ascending by worker: of two that a rule cannot tell apart the first is preferred.
    pub updates: Vec<Counted>,
}

/// What a rule came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aggregated {
    /// The sum of what was kept.
    pub tally: Tally,
    /// Whose updates are in it; of a rule by lanes, everybody's.
    pub kept: Vec<WorkerId>,
}

/// Why there is no result. It is the coordinator's fault, not a worker's.
#[derive(Debug, Error)]
#[error("aggregation of round {}: {why}", round.0)]
pub struct AggregationError {
    round: Round,
    why: RobustError<JournalError>,
}

impl AggregationTask {
    /// Applies the rule to the journalled words.
    ///
    /// # Errors
    /// If the words cannot be read, are not those that were accepted, or are too few.
    pub fn run<S: Store + ?Sized>(&self, store: &S) -> Result<Aggregated, AggregationError> {
        self.apply(store).map_err(|why| AggregationError { round: self.round, why })
    }

    /// Applies the rule, and says how that went as the engine wants to be told.
    pub fn answer<S: Store + ?Sized>(&self, store: &S) -> Event {
        Event::Aggregated { round: self.round, result: Box::new(self.run(store).map_err(|error| error.to_string())) }
    }

    fn apply<S: Store + ?Sized>(&self, store: &S) -> Result<Aggregated, RobustError<JournalError>> {
        let (layout, profile) = (self.plan.layout(), self.plan.raw().profile);
        let mut journal = Journal::new(store, self.round, &self.updates, layout.blocks());
        let shares: Vec<u32> = self.updates.iter().map(|update| update.share).collect();
        let robust = Robust::new(layout, profile).shrunk(&shares);
        let all = || self.updates.iter().map(|update| update.worker).collect();
        match self.rule {
            RobustRule::Median => Ok(Aggregated { tally: robust.median(&mut journal)?, kept: all() }),
            RobustRule::TrimmedMean { .. } => {
                let trim = self.rule.bears(self.updates.len());
                Ok(Aggregated { tally: robust.trimmed_mean(&mut journal, trim)?, kept: all() })
            }
            RobustRule::MultiKrum { malicious_max, selected } => {
                let malicious = malicious_max as usize;
                let rest = self.updates.len().saturating_sub(malicious);
                let selected = selected.map_or(rest, |selected| selected as usize);
                let (tally, chosen) = robust.multi_krum(&mut journal, &self.scales, malicious, selected)?;
                Ok(Aggregated { tally, kept: chosen.into_iter().map(|n| self.updates[n].worker).collect() })
            }
        }
    }
}
