//! Where a payload is gone on with.
//!
//! ```text
//!   up      worker ── Update ──►   ◄── Resume ──   ── the words from the offset, end ──►   ◄── Verdict ──
//!   down    worker ── Fetch ──►    ◄── Resume, the body from the offset, end ──
//! ```

use serde::{Deserialize, Serialize};

use crate::id::Digest;

/// Asks for a payload that was announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// Which.
    pub payload: Digest,
    /// Bytes of it that are there already.
    pub offset: u64,
}

/// From here a payload goes on, as raw bytes to its announced end and the end of the stream: what the
/// receiver of an update asks for, and what the sender of a catch-up does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Bytes of it that were there before.
    pub offset: u64,
}
