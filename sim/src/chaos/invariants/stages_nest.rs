//! Stages nest: within a rollout nobody who was in a stage falls out of a later one, and nobody moves between releases
//! but by a verb, a gate or a label.

use std::collections::BTreeSet;

use packfed_coordinator::engine::Engine;
use packfed_coordinator::event::Write;
use packfed_coordinator::ledger::Note;
use packfed_coordinator::rollout::{Record, Verb};
use packfed_protocol::{Timestamp, WorkerId};

use super::kept::{Kept, name, takes};
use super::{Invariant, Seen};

/// See the module.
#[derive(Debug)]
pub(super) struct StagesNest {
    kept: Kept,
}

impl StagesNest {
    pub(super) const fn of(fleet: Vec<WorkerId>) -> Self {
        Self { kept: Kept::of(fleet) }
    }

    fn goes_on(&self, record: &Record) -> Result<(), String> {
        let Some(before) = self.kept.rollouts.get(&record.number) else { return Ok(()) };
        let number = record.number;
        let taken = |record: &Record| -> BTreeSet<WorkerId> {
            self.kept.fleet.iter().filter(|worker| takes(record, worker)).copied().collect()
        };
        let (was, is) = (taken(before), taken(record));
        if record.history.len() == before.history.len() && was != is {
            return Err(format!("rollout {number} had taken in {}, has {} and nobody said why", was.len(), is.len()));
        }
        let undone = record.history.last().is_some_and(|change| change.what == Verb::Undo.name());
        let ended = !record.phase.is_active() && is.is_empty();
        match was.difference(&is).next().filter(|_| !undone && !ended) {
            None => Ok(()),
            Some(worker) => Err(format!("{worker} fell out of rollout {number}, which is {}", record.phase.name())),
        }
    }

    /// What the engine wants of every worker follows from what is durable.
    fn settled(&self, engine: &Engine) -> Result<(), String> {
        for worker in &self.kept.fleet {
            let labels = engine.registry().followers().get(worker);
            let desired = labels.and_then(|labels| engine.rollouts().desired(worker, labels));
            let durable = self.kept.desired(worker);
            if desired != durable {
                return Err(format!("{worker} is to run {}, by what is durable {}", name(desired), name(durable)));
            }
        }
        Ok(())
    }
}

impl Invariant for StagesNest {
    fn name(&self) -> &'static str {
        "stages nest"
    }

    fn see(&mut self, seen: &Seen<'_>, _: Timestamp) -> Result<(), String> {
        match seen {
            Seen::Durable(Write::Note(note)) => {
                let result = match note {
                    Note::Rollout(record) => self.goes_on(record),
                    _ => Ok(()),
                };
                self.kept.note(note);
                result
            }
            Seen::Started { engine, .. } | Seen::Settled { engine } => self.settled(engine),
            _ => Ok(()),
        }
    }
}
