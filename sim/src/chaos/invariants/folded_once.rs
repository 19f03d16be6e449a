//! No update is folded twice: a worker has one update in a round, and no update is in two rounds.

use std::collections::{BTreeMap, BTreeSet};

use packfed_coordinator::event::{Stored, Write};
use packfed_protocol::{Digest, Round, Timestamp, WorkerId};

use super::{Invariant, Seen};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct FoldedOnce {
    reported: BTreeSet<(Round, WorkerId)>,
    frames: BTreeMap<Digest, Round>,
}

impl FoldedOnce {
    fn accepted(&mut self, round: Round, worker: WorkerId, frame: &[u8]) -> Result<(), String> {
        if !self.reported.insert((round, worker)) {
            return Err(format!("round {round} took a second update of worker {worker}"));
        }
        match self.frames.insert(Digest::of(frame), round) {
            None => Ok(()),
            Some(before) => Err(format!("round {round} took an update that round {before} has")),
        }
    }
}

/// Whether a stored journal has a frame twice.
fn repeated(stored: &Stored) -> bool {
    let frames: Vec<&Vec<u8>> = stored.open.iter().flat_map(|(_, frames)| frames).collect();
    frames.iter().collect::<BTreeSet<_>>().len() != frames.len()
}

impl Invariant for FoldedOnce {
    fn name(&self) -> &'static str {
        "no update is folded twice"
    }

    fn see(&mut self, seen: &Seen<'_>, _: Timestamp) -> Result<(), String> {
        match seen {
            Seen::Durable(Write::Accept { round, worker, frame }) => self.accepted(*round, *worker, &frame.to_vec()),
            Seen::Started { stored: Some(stored), .. } if repeated(stored) => {
                Err("the store gave back an update twice".to_owned())
            }
            _ => Ok(()),
        }
    }
}
