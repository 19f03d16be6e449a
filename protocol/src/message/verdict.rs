//! How things ended: an update, a request, a run, or for now.

use serde::{Deserialize, Serialize};

use crate::id::{Digest, Round, Version};
use crate::rejection::Rejection;
use crate::wire::{self, DecodeError};

/// What became of an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The round that the update was for.
    pub round: Round,
    /// What became of it.
    pub outcome: Outcome,
}

/// The three ways in which an update ends. Each ends in exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Journalled, and counted into the round.
    Accepted,
    /// In order, but late: its round has enough.
    Discarded,
    /// Not in order.
    Rejected(Rejection),
}

impl Verdict {
    pub(super) fn decode(body: &[u8]) -> Result<Verdict, DecodeError> {
        let verdict: Verdict = wire::from_bytes(body)?;
        match &verdict.outcome {
            Outcome::Accepted | Outcome::Discarded => {}
            Outcome::Rejected(rejection) => rejection.check_bounds()?,
        }
        Ok(verdict)
    }
}

/// The run is over; this is where the replica has to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// The last version.
    pub version: Version,
    /// The digest of its state.
    pub digest: Digest,
}

/// The answer to a check-in that leads to nothing now: come again then, on another connection. It is over for this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComeBack {
    /// Milliseconds until then.
    pub after_ms: u64,
    /// Milliseconds that it waits then if it finds nobody, so that a large fleet stays spread while its coordinator is
    /// away; 0 in a small fleet, where each may try as it likes.
    pub again_ms: u64,
    /// Why not now.
    pub why: Rejection,
}

impl ComeBack {
    pub(super) fn decode(body: &[u8]) -> Result<ComeBack, DecodeError> {
        let come_back: ComeBack = wire::from_bytes(body)?;
        come_back.why.check_bounds()?;
        Ok(come_back)
    }
}

/// The answer to anything but an update that is not in order, for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why.
    pub rejection: Rejection,
}

impl Refused {
    pub(super) fn decode(body: &[u8]) -> Result<Refused, DecodeError> {
        let refused: Refused = wire::from_bytes(body)?;
        refused.rejection.check_bounds()?;
        Ok(refused)
    }
}
