//! Nobody is told to run a release that ended: what a worker is told is what the durable decisions want of it.

use packfed_coordinator::event::Write;
use packfed_protocol::{Timestamp, WorkerId};

use super::kept::{Kept, name};
use super::{Invariant, Seen};

/// See the module.
#[derive(Debug)]
pub(super) struct ToldAsDecided {
    kept: Kept,
}

impl ToldAsDecided {
    pub(super) const fn of(fleet: Vec<WorkerId>) -> Self {
        Self { kept: Kept::of(fleet) }
    }
}

impl Invariant for ToldAsDecided {
    fn name(&self) -> &'static str {
        "nobody is told of a release that ended"
    }

    fn see(&mut self, seen: &Seen<'_>, _: Timestamp) -> Result<(), String> {
        match seen {
            Seen::Durable(Write::Note(note)) => {
                self.kept.note(note);
                Ok(())
            }
            Seen::Offered { worker, target } => {
                let desired = self.kept.desired(worker);
                if *target == desired {
                    return Ok(());
                }
                let of = self.kept.rollouts.values().rev().find(|record| Some(record.release) == *target);
                let phase = of.map_or("in no rollout", |record| record.phase.name());
                Err(format!(
                    "{worker} was told to run {}, which is {phase}; it is to run {}",
                    name(*target),
                    name(desired)
                ))
            }
            _ => Ok(()),
        }
    }
}
