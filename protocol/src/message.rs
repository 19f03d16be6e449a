//! Everything that worker and coordinator say to each other.
//!
//! One enum, one frame each; two of them go on with a payload after their frame, and what such a frame
//! alone says is an [`Offer`]. A message that was decoded keeps every bound of the protocol; what it says
//! may still be wrong. Nothing here knows who may say what, or when.

mod assignment;
mod catch_up;
mod check_in;
mod enroll;
mod order;
mod plan;
mod status;
mod target;
mod transfer;
mod verdict;

pub use assignment::{Assignment, LaneScales, LocalOptimizer};
pub use catch_up::{CatchUp, CatchUpOffer};
pub use check_in::{CheckIn, Conditions};
pub use enroll::{Enroll, Enrolled};
pub use order::{LABELS_MAX, Order, Request, RolloutVerb, SPEC_BYTES_MAX, Settings, TOKENS_MAX, WHY_BYTES_MAX};
pub use plan::{LayerPlan, Plan};
pub use status::Status;
pub use target::{ReleaseBody, ReleaseRef, ReleaseState, SIGNED_RELEASE_BYTES_MAX, Target, Tried};
pub use transfer::{Fetch, Resume};
pub use verdict::{ComeBack, Finished, Outcome, Refused, Verdict};

use crate::frame::{self, FrameError, FrameHeader, FrameType, HEADER_BYTES};
use crate::limits::Limits;
use crate::payload::{self, Payload, PayloadId};
use crate::update::{Signed, UpdateOffer};
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
    /// Worker to coordinator: send an announced payload from here.
    Fetch(Fetch),
    /// Worker to coordinator: which release runs here, and what became of the last one.
    ReleaseState(ReleaseState),
    /// Operator to coordinator: a question, or something to be done.
    Order(Box<Request>),
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
    /// Coordinator to its own operator: the answer to a status request or an order.
    Status(Status),
    /// Coordinator to worker: a payload goes on from here.
    Resume(Resume),
    /// Coordinator to worker: nothing for now, come back then.
    ComeBack(ComeBack),
    /// Coordinator to worker: which release to run.
    Target(Target),
}

/// What a message with a payload says beforehand.
#[derive(Clone, Debug, PartialEq)]
pub enum Offer {
    /// Of an update.
    Update(UpdateOffer),
    /// Of a catch-up.
    CatchUp(CatchUpOffer),
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// All of a message.
    Message(Message),
    /// What comes if it is wanted.
    Offer(Offer),
}

impl Frame {
    /// What kind of frame it is.
    pub fn frame_type(&self) -> FrameType {
        match self {
            Frame::Message(message) => message.frame_type(),
            Frame::Offer(offer) => offer.frame_type(),
        }
    }

    /// What is in the body of a frame.
    ///
    /// # Errors
    /// [`DecodeError`] if the body has not the header's length, is not one message exactly, or a
    /// field breaks its bound.
    pub fn decode(header: FrameHeader, body: &[u8]) -> Result<Frame, DecodeError> {
        header.check_body(body.len())?;
        Ok(Frame::Message(match header.frame_type {
            FrameType::Update => return Ok(Frame::Offer(Offer::Update(UpdateOffer::decode(body)?))),
            FrameType::CatchUp => return Ok(Frame::Offer(Offer::CatchUp(wire::from_bytes(body)?))),
            FrameType::Enroll => Message::Enroll(Enroll::decode(body)?),
            FrameType::CheckIn => Message::CheckIn(wire::from_bytes(body)?),
            FrameType::StatusRequest => {
                wire::from_bytes::<()>(body)?;
                Message::StatusRequest
            }
            FrameType::Fetch => Message::Fetch(wire::from_bytes(body)?),
            FrameType::ReleaseState => Message::ReleaseState(wire::from_bytes(body)?),
            FrameType::Order => Message::Order(Box::new(Request::decode(body)?)),
            FrameType::Enrolled => Message::Enrolled(wire::from_bytes(body)?),
            FrameType::Plan => Message::Plan(Plan::decode(body)?),
            FrameType::Assignment => Message::Assignment(Assignment::decode(body)?),
            FrameType::Verdict => Message::Verdict(Verdict::decode(body)?),
            FrameType::Finished => Message::Finished(wire::from_bytes(body)?),
            FrameType::Refused => Message::Refused(Refused::decode(body)?),
            FrameType::Status => Message::Status(wire::from_bytes(body)?),
            FrameType::Resume => Message::Resume(wire::from_bytes(body)?),
            FrameType::ComeBack => Message::ComeBack(ComeBack::decode(body)?),
            FrameType::Target => Message::Target(Target::decode(body)?),
        }))
    }
}

impl Offer {
    /// What kind of message it announces.
    pub fn frame_type(&self) -> FrameType {
        match self {
            Offer::Update(_) => FrameType::Update,
            Offer::CatchUp(_) => FrameType::CatchUp,
        }
    }

    /// What its payload is known by.
    pub fn payload(&self) -> PayloadId {
        match self {
            Offer::Update(offer) => offer.payload(),
            Offer::CatchUp(offer) => offer.body,
        }
    }

    /// The message, with what follows its frame.
    fn with_payload(self, bytes: &[u8]) -> Result<Message, DecodeError> {
        self.payload().check_length(bytes.len())?;
        Ok(match self {
            // Whether these are the words that were signed is for `Signed::verify` to say.
            Offer::Update(UpdateOffer { header, signature }) => {
                Message::Update(Signed { header, signature, payload: bytes.to_vec() })
            }
            Offer::CatchUp(CatchUpOffer { from, to, digest, body }) => {
                let payload = Payload::new(bytes.to_vec());
                payload::check_digest(payload.id().digest, body.digest)?;
                Message::CatchUp(CatchUp { from, to, digest, body: payload })
            }
        })
    }
}

impl Message {
    /// The type of the frame that carries it.
    pub fn frame_type(&self) -> FrameType {
        match self {
            Message::Enroll(_) => FrameType::Enroll,
            Message::CheckIn(_) => FrameType::CheckIn,
            Message::Update(_) => FrameType::Update,
            Message::StatusRequest => FrameType::StatusRequest,
            Message::Fetch(_) => FrameType::Fetch,
            Message::ReleaseState(_) => FrameType::ReleaseState,
            Message::Order(_) => FrameType::Order,
            Message::Enrolled(_) => FrameType::Enrolled,
            Message::Plan(_) => FrameType::Plan,
            Message::Assignment(_) => FrameType::Assignment,
            Message::CatchUp(_) => FrameType::CatchUp,
            Message::Verdict(_) => FrameType::Verdict,
            Message::Finished(_) => FrameType::Finished,
            Message::Refused(_) => FrameType::Refused,
            Message::Status(_) => FrameType::Status,
            Message::Resume(_) => FrameType::Resume,
            Message::ComeBack(_) => FrameType::ComeBack,
            Message::Target(_) => FrameType::Target,
        }
    }

    /// Its frame, header included, without the payload. Bounds are checked by the receiver, not here.
    ///
    /// # Panics
    /// If the body is longer than a u32 says, which no receiver accepts.
    pub fn frame(&self) -> Vec<u8> {
        frame::build(self.frame_type(), |body| match self {
            Message::Enroll(enroll) => wire::append(enroll, body),
            Message::CheckIn(check_in) => wire::append(check_in, body),
            Message::Update(signed) => signed.append_offer_to(body),
            Message::StatusRequest => {}
            Message::Fetch(fetch) => wire::append(fetch, body),
            Message::ReleaseState(state) => wire::append(state, body),
            Message::Order(request) => wire::append(request, body),
            Message::Enrolled(enrolled) => wire::append(enrolled, body),
            Message::Plan(plan) => wire::append(plan, body),
            Message::Assignment(assignment) => wire::append(assignment, body),
            Message::CatchUp(catch_up) => wire::append(&catch_up.offer(), body),
            Message::Verdict(verdict) => wire::append(verdict, body),
            Message::Finished(finished) => wire::append(finished, body),
            Message::Refused(refused) => wire::append(refused, body),
            Message::Status(status) => wire::append(status, body),
            Message::Resume(resume) => wire::append(resume, body),
            Message::ComeBack(come_back) => wire::append(come_back, body),
            Message::Target(target) => wire::append(target, body),
        })
    }

    /// What follows its frame.
    pub fn payload(&self) -> &[u8] {
        match self {
            Message::Update(signed) => &signed.payload,
            Message::CatchUp(catch_up) => catch_up.body.bytes(),
            Message::Enroll(_)
            | Message::CheckIn(_)
            | Message::StatusRequest
            | Message::Fetch(_)
            | Message::ReleaseState(_)
            | Message::Order(_)
            | Message::Enrolled(_)
            | Message::Plan(_)
            | Message::Assignment(_)
            | Message::Verdict(_)
            | Message::Finished(_)
            | Message::Refused(_)
            | Message::Status(_)
            | Message::Resume(_)
            | Message::ComeBack(_)
            | Message::Target(_) => &[],
        }
    }

    /// Frame and payload: all of it in one piece.
    ///
    /// # Panics
    /// As [`Message::frame`].
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.frame();
        bytes.reserve_exact(self.payload().len());
        bytes.extend_from_slice(self.payload());
        bytes
    }

    /// The message in a whole frame with its payload.
    ///
    /// # Errors
    /// [`DecodeError`], for the header, the body or the payload.
    pub fn from_frame(bytes: &[u8], limits: &Limits) -> Result<Message, DecodeError> {
        let (header, rest) =
            bytes.split_first_chunk::<HEADER_BYTES>().ok_or(FrameError::Truncated { found: bytes.len() })?;
        let header = FrameHeader::decode(header, limits)?;
        let (body, payload) = rest.split_at(header.body_bytes().min(rest.len()));
        match Frame::decode(header, body)? {
            Frame::Offer(offer) => offer.with_payload(payload),
            Frame::Message(message) if payload.is_empty() => Ok(message),
            Frame::Message(_) => Err(wire::left_over("body", rest.len(), body.len())),
        }
    }
}
