//! Every commit came from at least the minimum of verified updates, each from a member of its round's cohort and against
//! its round's base; and what it sums up is what was journalled.

use std::collections::BTreeMap;

use packfed_coordinator::event::{Commit, OpenRound, Write};
use packfed_coordinator::plan::RunPlan;
use packfed_protocol::{Limits, Message, Round, Timestamp, UpdateHeader, WorkerId};

use super::{Invariant, Seen};

/// See the module.
#[derive(Debug)]
pub(super) struct CommitHasEnough {
    min: usize,
    open: BTreeMap<Round, OpenRound>,
    journal: BTreeMap<(Round, WorkerId), UpdateHeader>,
}

impl CommitHasEnough {
    pub(super) fn of(plan: &RunPlan) -> Self {
        let min = usize::try_from(plan.raw().reporting.min).unwrap_or(usize::MAX);
        Self { min, open: BTreeMap::new(), journal: BTreeMap::new() }
    }

    fn accepted(&mut self, round: Round, worker: WorkerId, frame: &[u8]) -> Result<(), String> {
        let header = verified(worker, frame)?;
        let Some(open) = self.open.get(&round) else {
            return Err(format!("round {round} took an update, and is not open"));
        };
        if header.round != round || header.base.0 != open.base || !open.cohort.contains(&worker) {
            let (of, base) = (header.round, header.base);
            return Err(format!("round {round} took an update of round {of} against version {base}"));
        }
        self.journal.insert((round, worker), header);
        Ok(())
    }

    fn committed(&mut self, commit: &Commit) -> Result<(), String> {
        let journal = std::mem::take(&mut self.journal);
        self.open = commit.open.iter().map(|open| (open.round, open.clone())).collect();
        let (round, found) = (commit.round, journal.len());
        if found < self.min {
            return Err(format!("round {round} was committed with {found} updates, the minimum is {}", self.min));
        }
        let examples: u64 = journal.values().map(|header| u64::from(header.examples)).sum();
        let (updates, summed) = (commit.summary.updates as usize, commit.summary.examples);
        if (updates, summed) != (found, examples) {
            return Err(format!(
                "round {round} sums {updates} updates of {summed} examples, journalled are {found} of {examples}"
            ));
        }
        Ok(())
    }
}

/// The header of a journalled frame, if the frame is what the worker signed.
fn verified(worker: WorkerId, frame: &[u8]) -> Result<UpdateHeader, String> {
    match Message::from_frame(frame, &Limits::default()) {
        Ok(Message::Update(signed)) => match signed.verify(&worker) {
            Ok(update) => Ok(update.header().clone()),
            Err(rejection) => Err(format!("a journalled update does not verify: {rejection}")),
        },
        other => Err(format!("a journalled update is {other:?}")),
    }
}

impl Invariant for CommitHasEnough {
    fn name(&self) -> &'static str {
        "a commit has enough verified updates"
    }

    fn see(&mut self, seen: &Seen<'_>, _: Timestamp) -> Result<(), String> {
        let Seen::Durable(write) = seen else { return Ok(()) };
        match write {
            Write::Open(open) => {
                self.open.insert(open.round, open.clone());
                Ok(())
            }
            Write::Accept { round, worker, frame } => self.accepted(*round, *worker, &frame.to_vec()),
            Write::Commit(commit) => self.committed(commit),
            Write::Abandon { round } => {
                self.open.remove(round);
                self.journal.retain(|(of, _), _| of != round);
                Ok(())
            }
            Write::Enroll { .. } | Write::Members(_) | Write::Note(_) => Ok(()),
        }
    }
}
