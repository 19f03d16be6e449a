//! Which release a worker runs, and which it is to run.
//!
//! ```text
//!   worker ── ReleaseState ──►  on every connection, and whenever it changes: it may be said again at any time
//!   worker ◄── Target ──        if it is to run another one
//!   worker ── Fetch ──►         of the body, unless it has the release already
//! ```

use serde::{Deserialize, Serialize};

use crate::evaluation::ReleaseOutcome;
use crate::id::Digest;
use crate::limits::check_length;
use crate::payload::PayloadId;
use crate::wire::{self, DecodeError};

/// A release by its number, and by the digest that its manifest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReleaseRef {
    /// Its number.
    pub number: u64,
    /// Of its signed manifest.
    pub digest: Digest,
}

/// What a worker runs, and what became of the last release that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleaseState {
    /// The release that it runs; none is the base model.
    pub runs: Option<ReleaseRef>,
    /// The last one that it tried, and what became of it.
    pub tried: Option<Tried>,
}

/// A release that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// Which.
    pub release: ReleaseRef,
    /// What became of it.
    pub outcome: ReleaseOutcome,
}

/// What a worker is to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The base model.
    Base,
    /// A release.
    Release {
        /// A signed release's bytes; see [`SignedRelease::from_bytes`](crate::SignedRelease::from_bytes).
        signed: Vec<u8>,
        /// It is older than what the worker runs, and meant to be.
        back: bool,
        /// Where its lanes are.
        body: ReleaseBody,
    },
}

/// A release's lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReleaseBody {
    /// The packed adapter, whole: the manifest says which payload.
    Whole,
    /// What leads from the state with this digest to the release's own, in the codec's form of a catch-up.
    From {
        /// Digest of the state that it starts from.
        state: Digest,
        /// What is to be fetched.
        payload: PayloadId,
    },
}

/// Bytes of a signed release in a target: more than its bounded manifest may have.
pub const SIGNED_RELEASE_BYTES_MAX: usize = 16 << 10;

impl Target {
    pub(super) fn decode(body: &[u8]) -> Result<Target, DecodeError> {
        let target: Target = wire::from_bytes(body)?;
        match &target {
            Target::Base => {}
            Target::Release { signed, .. } => check_length("signed release", signed.len(), SIGNED_RELEASE_BYTES_MAX)?,
        }
        Ok(target)
    }
}
