//! How things ended: an update, a request, a run.

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

/// The answer to anything but an update that is not in order.
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
