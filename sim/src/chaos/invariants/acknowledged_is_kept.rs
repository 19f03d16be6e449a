//! Nothing that was acknowledged is lost: an update is durable before its worker is told so, is there after every
//! restart while its round is open, and is in the round's commit.

use std::collections::{BTreeMap, BTreeSet};

use packfed_coordinator::event::{Stored, StoredRound, Ticket, Write};
use packfed_protocol::{Limits, Message, Outcome, Round, Timestamp, WorkerId};

use super::{Invariant, Seen};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct AcknowledgedIsKept {
    arrived: BTreeMap<Ticket, (Round, WorkerId)>,
    /// Journalled, and in no head yet.
    durable: BTreeSet<(Round, WorkerId)>,
    /// In a head.
    folded: BTreeSet<(Round, WorkerId)>,
    /// Of the durable ones.
    acknowledged: BTreeSet<(Round, WorkerId)>,
}

impl AcknowledgedIsKept {
    fn answered(&mut self, ticket: Ticket) -> Result<(), String> {
        let Some(&(round, worker)) = self.arrived.get(&ticket) else {
            return Err(format!("ticket {} was accepted, and was no verified update", ticket.0));
        };
        if self.durable.contains(&(round, worker)) {
            self.acknowledged.insert((round, worker));
            return Ok(());
        }
        if self.folded.contains(&(round, worker)) {
            return Ok(());
        }
        Err(format!("the update of {worker} for round {round} was acknowledged before it was durable"))
    }

    fn started(&self, stored: &Stored) -> Result<(), String> {
        let in_round = |(open, frames): &StoredRound| {
            let round = open.round;
            frames.iter().filter_map(move |frame| Some((round, sender(frame)?))).collect::<Vec<_>>()
        };
        let there: BTreeSet<(Round, WorkerId)> = stored.open.iter().flat_map(in_round).collect();
        match self.acknowledged.difference(&there).next() {
            None => Ok(()),
            Some((round, worker)) => {
                Err(format!("the update of {worker} for round {round} was acknowledged and is not in the store"))
            }
        }
    }

    fn committed(&mut self, round: Round, updates: u32) -> Result<(), String> {
        let acknowledged = std::mem::take(&mut self.acknowledged).len();
        self.folded.append(&mut self.durable);
        if acknowledged <= updates as usize {
            return Ok(());
        }
        Err(format!("round {round} was committed with {updates} updates, acknowledged were {acknowledged}"))
    }

    fn abandoned(&mut self, round: Round) {
        self.durable.retain(|(of, _)| *of != round);
        self.acknowledged.retain(|(of, _)| *of != round);
    }
}

/// Whose update a journalled frame is.
fn sender(frame: &[u8]) -> Option<WorkerId> {
    match Message::from_frame(frame, &Limits::default()) {
        Ok(Message::Update(signed)) => Some(signed.header.worker),
        _ => None,
    }
}

impl Invariant for AcknowledgedIsKept {
    fn name(&self) -> &'static str {
        "nothing acknowledged is lost"
    }

    fn see(&mut self, seen: &Seen<'_>, _: Timestamp) -> Result<(), String> {
        match seen {
            Seen::Arrived { ticket, header } => {
                if let Some(header) = header {
                    self.arrived.insert(*ticket, (header.round, header.worker));
                }
                Ok(())
            }
            Seen::Died => {
                self.arrived.clear();
                Ok(())
            }
            Seen::Durable(Write::Accept { round, worker, .. }) => {
                self.durable.insert((*round, *worker));
                Ok(())
            }
            Seen::Durable(Write::Abandon { round }) => {
                self.abandoned(*round);
                Ok(())
            }
            Seen::Durable(Write::Commit(commit)) => self.committed(commit.round, commit.summary.updates),
            Seen::Answered { ticket, verdict } if verdict.outcome == Outcome::Accepted => self.answered(*ticket),
            Seen::Started { stored: Some(stored), .. } => self.started(stored),
            _ => Ok(()),
        }
    }
}
