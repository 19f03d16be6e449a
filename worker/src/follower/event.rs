//! What a follower is told, and what it says is to be done.

use packfed_protocol::{
    CoordinatorId, Digest, Message, Payload, PayloadId, ReleaseRef, RunId, SignedRelease, Target, Timestamp,
};

use super::{Held, Refusal, Standing};
use crate::evaluation::Found;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A connection stands.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// This worker gave the connection up itself, to come back later: what that breaks off is not a failure.
    Left,
    /// The run's plan is known.
    Planned(Planned),
    /// The coordinator says what is to run.
    Target(Target),
    /// A payload is there, or its fetch was broken off.
    Fetched {
        /// Of the effect.
        turn: u64,
        /// The payload.
        result: Result<Payload, Broken>,
    },
    /// A release lies in the folder, or does not.
    Stored {
        /// Of the effect.
        turn: u64,
        /// What lies there.
        result: Result<Held, NotStored>,
    },
    /// An evaluation is done; a fault is told in words.
    Evaluated {
        /// Of the effect.
        turn: u64,
        /// What came of it.
        result: Result<Found, String>,
    },
    /// The last [`Effect::Save`] is done, or was not possible.
    Saved(Result<(), String>),
    /// Time has passed.
    Tick,
    /// The process is about to end, because somebody wants it to.
    Stopping,
}

/// What a plan says that matters to a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Digest of the run's layout.
    pub layout: Digest,
    /// Most examples that a report may claim.
    pub examples_max: u32,
}

/// Why a payload did not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Bytes that came, to be gone on with.
    pub gained: u64,
    /// What happened.
    pub why: String,
}

/// Why a release does not lie in the folder.
#[derive(Clone, Debug, PartialEq)]
pub enum NotStored {
    /// It is not what was signed, or fits nothing here.
    Refused(Refusal),
    /// It was to lie there already, and does not, or not whole.
    Missing(String),
    /// The system refuses.
    Failed(String),
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send on the control stream.
    Send(Message),
    /// Fetch a payload, and report as [`Event::Fetched`].
    Fetch {
        /// To be given back.
        turn: u64,
        /// Which.
        payload: PayloadId,
    },
    /// See to it that a release lies in the folder, and report as [`Event::Stored`].
    Store {
        /// To be given back.
        turn: u64,
        /// The release.
        signed: Box<SignedRelease>,
        /// Where its model is.
        source: Source,
    },
    /// Evaluate a release beside another one, and report as [`Event::Evaluated`].
    Evaluate {
        /// To be given back.
        turn: u64,
        /// What runs; none is the base model.
        before: Option<ReleaseRef>,
        /// What is to run.
        after: ReleaseRef,
        /// Most examples.
        examples_max: u32,
    },
    /// What was begun with this turn, or an earlier one, is of no more use.
    Cancel(u64),
    /// Keep this standing, whole or not at all, and report at once as [`Event::Saved`].
    Save(Box<Standing>),
    /// Give the follower an [`Event::Tick`] at this time, or soon after.
    Wake(Timestamp),
}

/// Where a release's model is.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// In the folder.
    Folder,
    /// In a payload, whole.
    Whole(Payload),
    /// In a payload, as the difference from another release that lies in the folder.
    From(ReleaseRef, Payload),
}

/// What a worker is sure of: its enrolment, and its base model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// Whose releases are taken.
    pub coordinator: CoordinatorId,
    /// Of which run.
    pub run: RunId,
    /// Over which base model.
    pub base: Digest,
}
