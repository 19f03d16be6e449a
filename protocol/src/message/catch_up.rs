//! What takes a replica from the state it has to the one it needs.
//!
//! ```text
//!  body of a CatchUp frame                                              payload
//!      ┌──────────┬────────┬────────────┬────────────────┬────────────┐ ┌ ─ ─ ─ ─ ─ ─ ┐
//!      │ from, u64│ to, u64│ digest, 32 │ its digest, 32 │ bytes, u64 │   fetched
//!      └──────────┴────────┴────────────┴────────────────┴────────────┘ └ ─ ─ ─ ─ ─ ─ ┘
//! ```

use serde::{Deserialize, Serialize};

use crate::id::{Digest, Version};
use crate::payload::{Payload, PayloadId};

/// Deltas, or a checkpoint when that is smaller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatchUp {
    /// The version it starts from.
    pub from: Version,
    /// The version it leads to.
    pub to: Version,
    /// The digest of the state after.
    pub digest: Digest,
    /// The codec's business.
    pub body: Payload,
}

/// A catch-up as it is announced: everything but its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatchUpOffer {
    /// The version it starts from.
    pub from: Version,
    /// The version it leads to.
    pub to: Version,
    /// The digest of the state after.
    pub digest: Digest,
    /// What its body is known by.
    pub body: PayloadId,
}

impl CatchUp {
    /// What is said of it beforehand.
    pub fn offer(&self) -> CatchUpOffer {
        let (from, to, digest, body) = (self.from, self.to, self.digest, self.body.id());
        CatchUpOffer { from, to, digest, body }
    }
}

impl CatchUpOffer {
    /// The catch-up, now that its body is there; `None` if this is another's body.
    pub fn complete(self, body: Payload) -> Option<CatchUp> {
        let CatchUpOffer { from, to, digest, .. } = self;
        (body.id() == self.body).then_some(CatchUp { from, to, digest, body })
    }
}
