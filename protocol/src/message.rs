//! Everything that worker and coordinator say to each other.
//!
//! One enum, one frame each. A message that was decoded keeps every bound of the protocol; what
//! it says may still be wrong. Nothing here knows who may say what, or when.

mod assignment;
mod catch_up;
mod check_in;
mod enroll;
mod plan;
mod status;
mod verdict;

pub use assignment::{Assignment, LaneScales, LocalOptimizer};
pub use catch_up::CatchUp;
pub use check_in::CheckIn;
pub use enroll::{Enroll, Enrolled};
pub use plan::{LayerPlan, Plan};
pub use status::Status;
pub use verdict::{Finished, Outcome, Refused, Verdict};

use crate::frame::{self, FrameError, FrameHeader, FrameType, HEADER_BYTES};
use crate::limits::Limits;
use crate::update::Signed;
use crate::wire::{self, DecodeError};

/// One message, either way.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Worker to coordinator: a token for a place in the registry.
    Enroll(Enroll),
    /// Worker to coordinator: ready for work, with this replica.
    CheckIn(CheckIn),
    /// Worker to coordinator: what a round's training gave.
    Update(Signed),
    /// Anyone admitted to coordinator: how are things?
    StatusRequest,
    /// Coordinator to worker: the key stands in the registry.
    Enrolled(Enrolled),
    /// Coordinator to worker: what stays the same for a whole run.
    Plan(Plan),
    /// Coordinator to worker: train this round.
    Assignment(Assignment),
    /// Coordinator to worker: what the replica missed.
    CatchUp(CatchUp),
    /// Coordinator to worker: what became of an update.
    Verdict(Verdict),
    /// Coordinator to worker: the run is over.
    Finished(Finished),
    /// Coordinator to worker: no, for anything but an update.
    Refused(Refused),
    /// Coordinator to its own operator: the answer to a status request.
    Status(Status),
}

impl Message {
    /// The type of the frame that carries it.
    pub fn frame_type(&self) -> FrameType {
        match self {
            Message::Enroll(_) => FrameType::Enroll,
            Message::CheckIn(_) => FrameType::CheckIn,
            Message::Update(_) => FrameType::Update,
            Message::StatusRequest => FrameType::StatusRequest,
            Message::Enrolled(_) => FrameType::Enrolled,
            Message::Plan(_) => FrameType::Plan,
            Message::Assignment(_) => FrameType::Assignment,
            Message::CatchUp(_) => FrameType::CatchUp,
            Message::Verdict(_) => FrameType::Verdict,
            Message::Finished(_) => FrameType::Finished,
            Message::Refused(_) => FrameType::Refused,
            Message::Status(_) => FrameType::Status,
        }
    }

    /// The whole frame, header included. Bounds are checked by the receiver, not here.
    ///
    /// # Panics
    /// If the body is longer than a u32 says, which no receiver accepts.
    pub fn encode(&self) -> Vec<u8> {
        frame::build(self.frame_type(), |body| match self {
            Message::Enroll(enroll) => wire::append(enroll, body),
            Message::CheckIn(check_in) => wire::append(check_in, body),
            Message::Update(signed) => signed.append_to(body),
            Message::StatusRequest => {}
            Message::Enrolled(enrolled) => wire::append(enrolled, body),
            Message::Plan(plan) => wire::append(plan, body),
            Message::Assignment(assignment) => wire::append(assignment, body),
            Message::CatchUp(catch_up) => catch_up.append_to(body),
            Message::Verdict(verdict) => wire::append(verdict, body),
            Message::Finished(finished) => wire::append(finished, body),
            Message::Refused(refused) => wire::append(refused, body),
            Message::Status(status) => wire::append(status, body),
        })
    }

    /// The message in the body of a frame.
    ///
    /// # Errors
    /// [`DecodeError`] if the body has not the header's length, is not one message exactly, or a
    /// field breaks its bound.
    pub fn decode(header: FrameHeader, body: &[u8]) -> Result<Message, DecodeError> {
        header.check_body(body.len())?;
        Ok(match header.frame_type {
            FrameType::Enroll => Message::Enroll(Enroll::decode(body)?),
            FrameType::CheckIn => Message::CheckIn(wire::from_bytes(body)?),
            FrameType::Update => Message::Update(Signed::decode(body)?),
            FrameType::StatusRequest => {
                wire::from_bytes::<()>(body)?;
                Message::StatusRequest
            }
            FrameType::Enrolled => Message::Enrolled(wire::from_bytes(body)?),
            FrameType::Plan => Message::Plan(Plan::decode(body)?),
            FrameType::Assignment => Message::Assignment(Assignment::decode(body)?),
            FrameType::CatchUp => Message::CatchUp(CatchUp::decode(body)?),
            FrameType::Verdict => Message::Verdict(Verdict::decode(body)?),
            FrameType::Finished => Message::Finished(wire::from_bytes(body)?),
            FrameType::Refused => Message::Refused(Refused::decode(body)?),
            FrameType::Status => Message::Status(wire::from_bytes(body)?),
        })
    }

    /// The message in a whole frame, header included.
    ///
    /// # Errors
    /// [`DecodeError`], for the header or for the body.
    pub fn from_frame(bytes: &[u8], limits: &Limits) -> Result<Message, DecodeError> {
        let (header, body) =
            bytes.split_first_chunk::<HEADER_BYTES>().ok_or(FrameError::Truncated { found: bytes.len() })?;
        Message::decode(FrameHeader::decode(header, limits)?, body)
    }
}
