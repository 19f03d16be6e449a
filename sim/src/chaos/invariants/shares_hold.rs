//! Shares hold: when a stage begins, as many of those whom the rollout is meant for are in it as its share comes to,
//! one at least; more only if they were in it before.

use packfed_coordinator::event::Write;
use packfed_coordinator::ledger::Note;
use packfed_coordinator::rollout::{Phase, Record, Verb, WHOLE, place};
use packfed_protocol::{Timestamp, WorkerId};

use super::kept::Kept;
use super::{Invariant, Seen};

/// See the module.
#[derive(Debug)]
pub(super) struct SharesHold {
    kept: Kept,
}

impl SharesHold {
    pub(super) const fn of(fleet: Vec<WorkerId>) -> Self {
        Self { kept: Kept::of(fleet) }
    }

    /// The stage that begins with a record, if one does.
    fn begins(&self, record: &Record) -> Option<usize> {
        let before = self.kept.rollouts.get(&record.number);
        let news = before.is_none_or(|before| before.history.len() < record.history.len());
        let Phase::Soaking { stage, .. } = record.phase else { return None };
        let resumed = record.history.last().is_some_and(|change| change.what == Verb::Resume.name());
        (news && !resumed).then_some(stage)
    }

    fn takes_in(&self, record: &Record, stage: usize) -> Result<(), String> {
        let number = record.number;
        let Some(share) = record.spec.stages.get(stage).map(|stage| u64::from(stage.share)) else {
            return Err(format!("rollout {number} is in stage {}, which it has not", stage + 1));
        };
        let meant = self.kept.meant(&record.spec);
        let before = self.kept.rollouts.get(&record.number).map_or(0, |before| {
            let inside = |worker: &&WorkerId| place(&before.release.digest, worker) <= before.threshold;
            meant.iter().filter(inside).count()
        });
        let all = meant.len() as u64;
        let asked = usize::try_from((all * share).div_ceil(u64::from(WHOLE))).unwrap_or(usize::MAX);
        let (expected, found) = (asked.max(before), self.kept.within(record).len());
        if found == expected && (found > 0 || all == 0) {
            return Ok(());
        }
        let stage = stage + 1;
        Err(format!(
            "stage {stage} of rollout {number} has {found} of {all} workers, {share} millionths are {expected}"
        ))
    }
}

impl Invariant for SharesHold {
    fn name(&self) -> &'static str {
        "shares hold"
    }

    fn see(&mut self, seen: &Seen<'_>, _: Timestamp) -> Result<(), String> {
        match seen {
            Seen::Durable(Write::Note(note)) => {
                let result = match note {
                    Note::Rollout(record) => self.begins(record).map_or(Ok(()), |stage| self.takes_in(record, stage)),
                    _ => Ok(()),
                };
                self.kept.note(note);
                result
            }
            _ => Ok(()),
        }
    }
}
