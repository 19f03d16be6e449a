//! Reports count once: what was found of a rollout's release is of as many reports as workers are noted to have made
//! one, since it began or was resumed.

use std::collections::{BTreeMap, BTreeSet};

use packfed_coordinator::event::Write;
use packfed_coordinator::ledger::Note;
use packfed_coordinator::rollout::Record;
use packfed_protocol::{Timestamp, WorkerId};

use super::{Invariant, Seen};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ReportsCountOnce {
    reported: BTreeMap<u64, BTreeSet<WorkerId>>,
}

impl ReportsCountOnce {
    fn reported(&mut self, rollout: u64, worker: WorkerId) -> Result<(), String> {
        match self.reported.entry(rollout).or_default().insert(worker) {
            true => Ok(()),
            false => Err(format!("{worker} is noted twice to have reported of rollout {rollout}")),
        }
    }

    fn counted(&self, record: &Record) -> Result<(), String> {
        // What is over is not judged any more, and who reported may be forgotten.
        if !record.phase.is_active() {
            return Ok(());
        }
        let workers = self.reported.get(&record.number).map_or(0, BTreeSet::len);
        let (found, in_stage) = (record.found.reports() as usize, record.in_stage as usize);
        if found == workers && in_stage <= found {
            return Ok(());
        }
        let number = record.number;
        Err(format!(
            "rollout {number} counts {found} reports, {in_stage} of them in its stage, {workers} workers made one"
        ))
    }
}

impl Invariant for ReportsCountOnce {
    fn name(&self) -> &'static str {
        "reports count once"
    }

    fn see(&mut self, seen: &Seen<'_>, _: Timestamp) -> Result<(), String> {
        match seen {
            Seen::Durable(Write::Note(Note::Reported { rollout, worker })) => self.reported(*rollout, *worker),
            Seen::Durable(Write::Note(Note::Forget { rollout })) => {
                self.reported.remove(rollout);
                Ok(())
            }
            Seen::Durable(Write::Note(Note::Rollout(record))) => self.counted(record),
            _ => Ok(()),
        }
    }
}
