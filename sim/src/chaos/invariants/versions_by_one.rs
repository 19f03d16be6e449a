//! Versions grow by one, and never go back: not from one commit to the next, not over a restart.

use packfed_coordinator::event::Write;
use packfed_protocol::Timestamp;

use super::{Invariant, Seen};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct VersionsByOne {
    version: u64,
}

impl Invariant for VersionsByOne {
    fn name(&self) -> &'static str {
        "versions grow by one"
    }

    fn see(&mut self, seen: &Seen<'_>, _: Timestamp) -> Result<(), String> {
        let at = |found: u64, version: u64| match found == version {
            true => Ok(()),
            false => Err(format!("the head is at version {found}, the last commit was of version {version}")),
        };
        match seen {
            Seen::Durable(Write::Commit(commit)) => {
                let before = std::mem::replace(&mut self.version, commit.head.version);
                if commit.head.version == before + 1 && commit.summary.version == commit.head.version {
                    return Ok(());
                }
                let (head, summary) = (commit.head.version, commit.summary.version);
                Err(format!("after version {before} came {head}, which its summary calls {summary}"))
            }
            Seen::Started { engine, .. } | Seen::Settled { engine } => at(engine.head().version(), self.version),
            _ => Ok(()),
        }
    }
}
