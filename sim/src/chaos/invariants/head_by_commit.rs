//! A head changes by a commit alone: whenever the engine is at rest, its head is the last one that was made durable.

use packfed_codec::State;
use packfed_coordinator::event::Write;
use packfed_coordinator::plan::RunPlan;
use packfed_protocol::{Digest, Timestamp};

use super::{Invariant, Seen};

/// See the module.
#[derive(Debug)]
pub(super) struct HeadByCommit {
    committed: Digest,
}

impl HeadByCommit {
    pub(super) fn of(plan: &RunPlan) -> Self {
        Self { committed: Digest(State::zero(plan.layout().clone()).digest().0) }
    }
}

impl Invariant for HeadByCommit {
    fn name(&self) -> &'static str {
        "a head changes only by a commit"
    }

    fn see(&mut self, seen: &Seen<'_>, _: Timestamp) -> Result<(), String> {
        match seen {
            Seen::Durable(Write::Commit(commit)) => {
                self.committed = Digest(commit.head.state.digest().0);
                if commit.summary.digest == self.committed {
                    return Ok(());
                }
                Err(format!("the commit's summary says {}, its state is {}", commit.summary.digest, self.committed))
            }
            Seen::Started { engine, .. } | Seen::Settled { engine } => {
                let found = Digest(engine.head().digest().0);
                if found == self.committed && found == Digest(engine.head().state().digest().0) {
                    return Ok(());
                }
                Err(format!("the head is {found}, committed was {}", self.committed))
            }
            _ => Ok(()),
        }
    }
}
