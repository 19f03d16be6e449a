//! What takes a replica from the state it has to the one it needs.
//!
//! ```text
//!  body of a CatchUp frame
//!      ┌──────────┬────────┬────────────┬──────────────────────────────┐
//!      │ from, u64│ to, u64│ digest, 32 │ body: the rest of the frame  │
//!      └──────────┴────────┴────────────┴──────────────────────────────┘
//! ```

use std::fmt;

use crate::id::{Digest, Version};
use crate::wire::{self, DecodeError};

/// Deltas, or a checkpoint when that is smaller. `Debug` shows the size of the body, not the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct CatchUp {
    /// The version it starts from.
    pub from: Version,
    /// The version it leads to.
    pub to: Version,
    /// The digest of the state after.
    pub digest: Digest,
    /// The codec's business.
    pub body: Vec<u8>,
}

impl CatchUp {
    pub(super) fn append_to(&self, frame: &mut Vec<u8>) {
        wire::append(&(self.from, self.to, self.digest), frame);
        frame.reserve_exact(self.body.len());
        frame.extend_from_slice(&self.body);
    }

    pub(super) fn decode(frame_body: &[u8]) -> Result<CatchUp, DecodeError> {
        let ((from, to, digest), body) = wire::from_bytes_and_rest(frame_body)?;
        Ok(CatchUp { from, to, digest, body: body.to_vec() })
    }
}

impl fmt::Debug for CatchUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatchUp")
            .field("from", &self.from)
            .field("to", &self.to)
            .field("digest", &self.digest)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}
