//! A worker in order does not give up, whatever the network and the coordinator do to it.

use packfed_protocol::Timestamp;

use super::{Invariant, Seen};

/// See the module.
#[derive(Debug)]
pub(super) struct HonestWorkersStay;

impl Invariant for HonestWorkersStay {
    fn name(&self) -> &'static str {
        "a worker in order does not give up"
    }

    fn see(&mut self, seen: &Seen<'_>, _: Timestamp) -> Result<(), String> {
        match seen {
            Seen::GaveUp { worker, why } => Err(format!("w{worker} gave up: {why}")),
            _ => Ok(()),
        }
    }
}
