//! Accepted, rejected and discarded add up to what arrived, by the engine's counters and by ours; and every update
//! that arrived is answered once.

use std::collections::BTreeSet;

use packfed_coordinator::counters::Counters;
use packfed_coordinator::event::Ticket;
use packfed_protocol::{Outcome, Timestamp};

use super::{Invariant, Seen};

/// Counts of this process of the coordinator.
#[derive(Debug, Default)]
pub(super) struct CountersAddUp {
    waiting: BTreeSet<Ticket>,
    arrived: u64,
    accepted: u64,
    rejected: u64,
    discarded: u64,
}

impl CountersAddUp {
    fn compare(&self, counters: &Counters) -> Result<(), String> {
        let ours = [self.arrived, self.accepted, self.rejected, self.discarded];
        let theirs = [counters.arrived, counters.accepted, counters.rejected_in_all(), counters.discarded];
        if ours != theirs {
            return Err(format!("arrived, accepted, rejected, discarded are {ours:?}, the counters say {theirs:?}"));
        }
        if let Some(ticket) = self.waiting.first() {
            return Err(format!("the update of ticket {} has no verdict", ticket.0));
        }
        Ok(())
    }
}

impl Invariant for CountersAddUp {
    fn name(&self) -> &'static str {
        "accepted, rejected and discarded add up to arrived"
    }

    fn see(&mut self, seen: &Seen<'_>, _: Timestamp) -> Result<(), String> {
        match seen {
            Seen::Started { .. } => *self = Self::default(),
            Seen::Arrived { ticket, .. } => {
                self.arrived += 1;
                self.waiting.insert(*ticket);
            }
            Seen::Answered { ticket, verdict } => {
                match verdict.outcome {
                    Outcome::Accepted => self.accepted += 1,
                    Outcome::Discarded => self.discarded += 1,
                    Outcome::Rejected(_) => self.rejected += 1,
                }
                if !self.waiting.remove(ticket) {
                    return Err(format!("ticket {} was answered, and nothing waits there", ticket.0));
                }
            }
            Seen::Settled { engine } => return self.compare(engine.counters()),
            _ => {}
        }
        Ok(())
    }
}
