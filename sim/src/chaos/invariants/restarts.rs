//! A coordinator that died starts again from its store, whatever it was doing.

use packfed_protocol::Timestamp;

use super::{Invariant, Seen};

/// See the module.
#[derive(Debug)]
pub(super) struct Restarts;

impl Invariant for Restarts {
    fn name(&self) -> &'static str {
        "a coordinator starts again from its store"
    }

    fn see(&mut self, seen: &Seen<'_>, _: Timestamp) -> Result<(), String> {
        match seen {
            Seen::CannotStart { error } => Err((*error).to_owned()),
            _ => Ok(()),
        }
    }
}
