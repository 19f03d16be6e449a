//! The eight bytes before every body, and the one table of frame types.
//!
//! ```text
//!  byte  0     1     2         3      4     5     6     7     8 …
//!      ┌─────┬─────┬─────────┬──────┬───────────────────────┬───────────────┬ ─ ─ ─ ─ ┐
//!      │ 'P' │ 'F' │ version │ type │ length, u32 LE        │ length bytes  │ payload
//!      └─────┴─────┴─────────┴──────┴───────────────────────┴───────────────┴ ─ ─ ─ ─ ┘
//!        magic       1                bytes of the body       body
//! ```
//!
//! A header says what comes and how much of it, and is judged before anything is allocated for
//! the body. It does not know what a body means. Bodies are small; what may be large is a payload,
//! whose length and digest the body of an `Update` or a `CatchUp` says.

use std::cmp::Ordering;
use std::fmt;

use thiserror::Error;

use crate::limits::Limits;
use crate::wire::{self, DecodeError};

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 8;

/// The first two bytes of every frame.
pub const MAGIC: [u8; 2] = *b"PF";

/// The version of the protocol that this crate speaks: the third byte of every frame.
pub const PROTOCOL_VERSION: u8 = 6;

/// What a frame carries.
///
/// This is the only table of these numbers. A number is never used again: when a type goes, its
/// number stays here in a comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FrameType {
    /// Worker to coordinator: a token for a place in the registry.
    Enroll = 0x01,
    /// Worker to coordinator: ready for work, with this replica.
    CheckIn = 0x02,
    /// Worker to coordinator: what a round's training gave.
    Update = 0x03,
    /// Anyone admitted to coordinator: how are things?
    StatusRequest = 0x04,
    /// Worker to coordinator: send an announced payload from here.
    Fetch = 0x0a,
    /// Operator to coordinator: a question, or something to be done.
    Order = 0x0b,
    /// Worker to coordinator: which release runs here, and what became of the last one.
    ReleaseState = 0x0c,
    /// Coordinator to worker: the key stands in the registry.
    Enrolled = 0x11,
    /// Coordinator to worker: what stays the same for a whole run.
    Plan = 0x12,
    /// Coordinator to worker: train this round.
    Assignment = 0x13,
    /// Coordinator to worker: what the replica missed.
    CatchUp = 0x14,
    /// Coordinator to worker: what became of an update.
    Verdict = 0x15,
    /// Coordinator to worker: the run is over.
    Finished = 0x16,
    /// Coordinator to worker: no, for anything but an update.
    Refused = 0x17,
    /// Coordinator to its own operator: the answer to a status request or an order.
    Status = 0x18,
    /// Coordinator to worker: a payload goes on from here.
    Resume = 0x1a,
    /// Coordinator to worker: nothing for now, come back then.
    ComeBack = 0x1b,
    /// Coordinator to worker: which release to run.
    Target = 0x1c,
}

impl FrameType {
    /// Every type, in the order of the numbers.
    pub const ALL: [FrameType; 18] = [
        FrameType::Enroll,
        FrameType::CheckIn,
        FrameType::Update,
        FrameType::StatusRequest,
        FrameType::Fetch,
        FrameType::Order,
        FrameType::ReleaseState,
        FrameType::Enrolled,
        FrameType::Plan,
        FrameType::Assignment,
        FrameType::CatchUp,
        FrameType::Verdict,
        FrameType::Finished,
        FrameType::Refused,
        FrameType::Status,
        FrameType::Resume,
        FrameType::ComeBack,
        FrameType::Target,
    ];

    /// The number on the wire.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The type with this number, if there is one.
    pub fn from_number(number: u8) -> Option<FrameType> {
        FrameType::ALL.into_iter().find(|frame_type| frame_type.number() == number)
    }

    /// The kebab-case name, for people.
    pub fn name(self) -> &'static str {
        match self {
            FrameType::Enroll => "enroll",
            FrameType::CheckIn => "check-in",
            FrameType::Update => "update",
            FrameType::StatusRequest => "status-request",
            FrameType::Fetch => "fetch",
            FrameType::Order => "order",
            FrameType::ReleaseState => "release-state",
            FrameType::Enrolled => "enrolled",
            FrameType::Plan => "plan",
            FrameType::Assignment => "assignment",
            FrameType::CatchUp => "catch-up",
            FrameType::Verdict => "verdict",
            FrameType::Finished => "finished",
            FrameType::Refused => "refused",
            FrameType::Status => "status",
            FrameType::Resume => "resume",
            FrameType::ComeBack => "come-back",
            FrameType::Target => "target",
        }
    }
}

impl fmt::Display for FrameType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A header that was judged: a known type, and a length within the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the body is.
    pub frame_type: FrameType,
    /// Bytes of the body.
    pub length: u32,
}

impl FrameHeader {
    /// The header as it travels.
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let [p, f] = MAGIC;
        let [a, b, c, d] = self.length.to_le_bytes();
        let number = self.frame_type.number();
        [p, f, PROTOCOL_VERSION, number, a, b, c, d]
    }

    /// Judges a header.
    ///
    /// # Errors
    /// [`FrameError`] for another magic, version or type, or a length over the bound.
    pub fn decode(bytes: &[u8; HEADER_BYTES], limits: &Limits) -> Result<FrameHeader, FrameError> {
        let [p, f, version, number, a, b, c, d] = *bytes;
        if [p, f] != MAGIC {
            return Err(FrameError::Magic { found: [p, f] });
        }
        if version != PROTOCOL_VERSION {
            return Err(FrameError::Version { found: version });
        }
        let frame_type = FrameType::from_number(number).ok_or(FrameError::Type { found: number })?;
        let length = u32::from_le_bytes([a, b, c, d]);
        let bound = limits.control_bytes_max;
        if length > bound {
            return Err(FrameError::Oversized { frame_type, length, bound });
        }
        Ok(FrameHeader { frame_type, length })
    }

    /// Bytes of the body, as memory counts them.
    pub(crate) fn body_bytes(self) -> usize {
        usize::try_from(self.length).unwrap_or(usize::MAX)
    }

    /// Checks that the body has the length that the header promised.
    pub(crate) fn check_body(self, found: usize) -> Result<(), DecodeError> {
        let needed = self.body_bytes();
        match found.cmp(&needed) {
            Ordering::Less => Err(wire::truncated("body", found, needed)),
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(wire::left_over("body", found, needed)),
        }
    }
}

/// A whole frame whose body is what `append_body` appends.
///
/// # Panics
/// If the body is longer than a u32 says; no [`Limits`] admit one, so its sender has a bug.
pub(crate) fn build(frame_type: FrameType, append_body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = vec![0; HEADER_BYTES];
    append_body(&mut frame);
    let length = u32::try_from(frame.len() - HEADER_BYTES).expect("a body that any peer accepts is bounded by a u32");
    let header = FrameHeader { frame_type, length };
    frame[..HEADER_BYTES].copy_from_slice(&header.encode());
    frame
}

/// Why eight bytes are not a header that may be followed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The bytes end within the header.
    #[error("header has {found} bytes, needs {HEADER_BYTES}")]
    Truncated {
        /// Bytes found.
        found: usize,
    },
    /// The first two bytes are not `PF`: this is another protocol.
    #[error("frame begins with {:#04x} {:#04x}, needs {:#04x} {:#04x}", found[0], found[1], MAGIC[0], MAGIC[1])]
    Magic {
        /// The bytes found.
        found: [u8; 2],
    },
    /// The frame is of another version of the protocol.
    #[error("protocol version is {found}, needs {PROTOCOL_VERSION}")]
    Version {
        /// The version found.
        found: u8,
    },
    /// No frame has this type.
    #[error("frame type {found:#04x} is not in the table")]
    Type {
        /// The number found.
        found: u8,
    },
    /// The body would be larger than the reader allows.
    #[error("{frame_type} frame claims {length} bytes, bound is {bound}")]
    Oversized {
        /// The frame's type.
        frame_type: FrameType,
        /// Bytes claimed.
        length: u32,
        /// Bytes allowed.
        bound: u32,
    },
}
