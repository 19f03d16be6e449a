//! What travels between worker and coordinator: ids, frames, messages, signatures, endpoints.
//!
//! Bytes become a [`FrameHeader`], then a [`Message`] or the [`Offer`] of one; what an offer announces
//! comes as a [`Prefix`] that grows into a [`Payload`], however often it is broken off; and an update then
//! goes from [`Signed`] to [`Verified`]. Every step is another type, so none can be skipped. A failure at
//! any step is a [`Rejection`] with a number that never changes its meaning.
//!
//! This crate does not know what the words of a payload mean (that is the codec's), who is
//! admitted (the registry's), or what a round is (the coordinator's). It reads no clock; only
//! [`Identity::generate`] and [`Token::generate`] draw randomness. Sockets are behind the feature
//! `quic`; everything else is bytes in, values out.

mod evaluation;
mod frame;
mod id;
mod identity;
mod limits;
mod message;
mod payload;
mod rejection;
mod release;
mod timestamp;
mod token;
mod update;

pub mod wire;

#[cfg(feature = "quic")]
pub mod quic;

pub use evaluation::{Evaluation, EvaluationError, Failure, Paired, ReleaseOutcome};
pub use frame::{FrameError, FrameHeader, FrameType, HEADER_BYTES, MAGIC, PROTOCOL_VERSION};
pub use id::{CoordinatorId, Digest, Hasher, HexError, Round, RunId, Version, WorkerId};
pub use identity::{Identity, IdentityError};
pub use limits::{DETAIL_BYTES_MAX, LAYER_NAME_BYTES_MAX, LAYERS_MAX, Limits, NAME_CHARS_MAX, WORD_BYTES};
pub use message::{
    Assignment, CatchUp, CatchUpOffer, CheckIn, ComeBack, Conditions, Enroll, Enrolled, Fetch, Finished, Frame,
    LABELS_MAX, LaneScales, LayerPlan, LocalOptimizer, Message, Offer, Order, Outcome, Plan, Refused, ReleaseBody,
    ReleaseRef, ReleaseState, Request, Resume, RolloutVerb, SIGNED_RELEASE_BYTES_MAX, SPEC_BYTES_MAX, Settings, Status,
    TOKENS_MAX, Target, Tried, Verdict, WHY_BYTES_MAX,
};
pub use payload::{Payload, PayloadId, Prefix};
pub use rejection::{Rejection, RejectionCode};
pub use release::{
    METRIC_NAME_BYTES_MAX, METRICS_MAX, Manifest, NOTES_BYTES_MAX, RELEASE_DOMAIN, ReleaseError, SignedRelease,
};
pub use timestamp::Timestamp;
pub use token::Token;
pub use update::{
    LaneClips, ProvenOffer, SIGNATURE_BYTES, Signed, UPDATE_DOMAIN, UpdateFrame, UpdateHeader, UpdateOffer, Verified,
};
pub use wire::DecodeError;
