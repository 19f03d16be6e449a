//! A replica at version v holds the digest that the head had at version v.

use packfed_codec::State;
use packfed_coordinator::event::Write;
use packfed_coordinator::plan::RunPlan;
use packfed_protocol::{Digest, Timestamp};

use super::{Invariant, Seen};

/// See the module.
#[derive(Debug)]
pub(super) struct ReplicasAgree {
    /// Digest of every version, from 0.
    heads: Vec<Digest>,
}

impl ReplicasAgree {
    pub(super) fn of(plan: &RunPlan) -> Self {
        Self { heads: vec![Digest(State::zero(plan.layout().clone()).digest().0)] }
    }
}

impl Invariant for ReplicasAgree {
    fn name(&self) -> &'static str {
        "replicas at a version hold the head's digest"
    }

    fn see(&mut self, seen: &Seen<'_>, _: Timestamp) -> Result<(), String> {
        match seen {
            Seen::Durable(Write::Commit(commit)) => self.heads.push(Digest(commit.head.state.digest().0)),
            Seen::Replica { worker, version, digest } => {
                let head = usize::try_from(*version).ok().and_then(|version| self.heads.get(version));
                match head {
                    Some(head) if head == digest => {}
                    Some(head) => return Err(format!("w{worker} has {digest} as version {version}, it is {head}")),
                    None => return Err(format!("w{worker} has version {version}, which was never committed")),
                }
            }
            _ => {}
        }
        Ok(())
    }
}
