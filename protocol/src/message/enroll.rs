//! Getting a place in the registry.
//!
//! The key is not in the message: it is whichever key the connection proved.

use serde::{Deserialize, Serialize};

use crate::id::{RunId, WorkerId};
use crate::limits::{self, NAME_CHARS_MAX};
use crate::token::Token;
use crate::wire::{self, DecodeError};

/// Asks to be enrolled under the connection's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enroll {
    /// The one-time token that the operator handed out.
    pub token: Token,
    /// A name for people, of at most [`NAME_CHARS_MAX`] characters, none a control character.
    pub name: String,
}

impl Enroll {
    pub(super) fn decode(body: &[u8]) -> Result<Enroll, DecodeError> {
        let enroll: Enroll = wire::from_bytes(body)?;
        limits::check_length("worker name", enroll.name.chars().count(), NAME_CHARS_MAX)?;
        limits::check_printable("worker name", &enroll.name)?;
        Ok(enroll)
    }
}

/// Says that the key stands in the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The run that the worker may take part in.
    pub run: RunId,
    /// The key as the coordinator saw it.
    pub worker: WorkerId,
}
