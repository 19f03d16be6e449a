//! What one entry of the log says, and its bytes. It knows no files.
//!
//! ```text
//!   0 begin     time │ run, 16 B │ group, u64
//!   1 group     time │ group, u64 │ version, u64 │ digest, 32 B
//!   2 end       time │ group, u64
//!   3 enroll    time │ worker, 32 B │ frame
//!   4 check-in  time │ worker, 32 B │ frame
//!   5 update    time │ ticket, u64 │ frame
//!   6 bad update without its worker; gone
//!   7 bad message   time │ worker, 32 B │ rejection
//!   8 gone      time │ worker, 32 B
//!   9 tick      time
//!  10 aggregated      time │ round, u64
//!  11 bad update      time │ ticket, u64 │ worker, 32 B │ rejection
//!  12 stand without who and why; gone
//!  13 ordered         time │ ticket, u64 │ by, why, change
//!  14 release state   time │ worker, 32 B │ frame
//! ```
//!
//! Frames and rejections are the protocol's own bytes, so they are bounded and checked there; an update's
//! signature is verified again when it is read. What an aggregation came to follows from updates that stand
//! here already, so only its moment is noted. Numbers are never reused.

use std::fmt;

use packfed_protocol::{
    Digest, FrameType, Limits, Message, Rejection, Round, RunId, Timestamp, Verified, WorkerId, wire,
};
use thiserror::Error;

use crate::event::{Event, Ticket};

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A process took the run up from the store; what the log says after `group` never was.
    Begin {
        /// The run.
        run: RunId,
        /// The last group that the store held.
        group: u64,
    },
    /// What the engine asked for until here goes to the store as one group.
    Group {
        /// Its number.
        group: u64,
        /// The engine's version then.
        version: u64,
        /// The digest of that version.
        digest: Digest,
    },
    /// The process stopped in order.
    End {
        /// The last group that the store holds.
        group: u64,
    },
    /// The engine was told something else than what follows.
    Told(Box<Event>),
    /// The engine was told what an aggregation over the journal came to.
    Aggregated {
        /// The round that it was of.
        round: Round,
    },
}

/// Why a body is no entry.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EntryError {
    /// No kind has this number.
    #[error("no entry has kind {0}")]
    Kind(u8),
    /// The body is shorter than its kind.
    #[error("its body ends too early")]
    Short,
    /// The body is longer than its kind.
    #[error("its body goes on after its end")]
    Long,
    /// What a peer said does not hold.
    #[error("what it holds does not hold: {0}")]
    Content(String),
}

impl Entry {
    /// The body of an entry at a moment.
    #[must_use]
    pub fn to_bytes(&self, now: Timestamp) -> Vec<u8> {
        let body = |kind, parts: &[&[u8]]| body(kind, now, parts);
        match self {
            Self::Begin { run, group } => body(0, &[&run.0, &group.to_le_bytes()]),
            Self::Group { group, version, digest } => {
                body(1, &[&group.to_le_bytes(), &version.to_le_bytes(), &digest.0])
            }
            Self::End { group } => body(2, &[&group.to_le_bytes()]),
            Self::Told(event) => told(event, now),
            Self::Aggregated { round } => body(10, &[&round.0.to_le_bytes()]),
        }
    }

    /// The entry of a body, and its moment.
    ///
    /// # Errors
    /// If the bytes are no entry, or a signature in it does not hold.
    pub fn from_bytes(body: &[u8]) -> Result<(Timestamp, Self), EntryError> {
        let mut rest = Rest(body);
        let [kind] = rest.take()?;
        let now = Timestamp(rest.number()?);
        let entry = match kind {
            0 => Self::Begin { run: RunId(rest.take()?), group: rest.number()? },
            1 => Self::Group { group: rest.number()?, version: rest.number()?, digest: Digest(rest.take()?) },
            2 => Self::End { group: rest.number()? },
            10 => Self::Aggregated { round: Round(rest.number()?) },
            3..=5 | 7..=9 | 11 | 13 | 14 => Self::Told(Box::new(event(kind, &mut rest)?)),
            kind => return Err(EntryError::Kind(kind)),
        };
        if rest.0.is_empty() { Ok((now, entry)) } else { Err(EntryError::Long) }
    }
}

/// The body of an entry for something that the engine was told.
pub(super) fn told(event: &Event, now: Timestamp) -> Vec<u8> {
    let body = |kind, parts: &[&[u8]]| body(kind, now, parts);
    match event {
        Event::Enroll { worker, enroll } => body(3, &[&worker.0, &Message::Enroll(enroll.clone()).encode()]),
        Event::CheckIn { worker, check_in } => body(4, &[&worker.0, &Message::CheckIn(check_in.clone()).encode()]),
        Event::Update { ticket, update } => {
            let frame = update.frame();
            let [head, words] = frame.parts();
            body(5, &[&ticket.0.to_le_bytes(), head, words])
        }
        Event::BadUpdate { ticket, worker, rejection } => {
            body(11, &[&ticket.0.to_le_bytes(), &worker.0, &wire::to_bytes(rejection)])
        }
        Event::BadMessage { worker, rejection } => body(7, &[&worker.0, &wire::to_bytes(rejection)]),
        Event::Disconnected { worker } => body(8, &[&worker.0]),
        Event::Tick => body(9, &[]),
        Event::Ordered { ticket, by, why, change } => {
            body(13, &[&ticket.0.to_le_bytes(), &wire::to_bytes(&(by, why, &**change))])
        }
        Event::ReleaseState { worker, state } => body(14, &[&worker.0, &Message::ReleaseState(*state).encode()]),
        Event::Aggregated { round, result: _ } => body(10, &[&round.0.to_le_bytes()]),
    }
}

fn body(kind: u8, now: Timestamp, parts: &[&[u8]]) -> Vec<u8> {
    [&[[kind].as_slice(), &now.0.to_le_bytes()], parts].concat().concat()
}

fn event(kind: u8, rest: &mut Rest<'_>) -> Result<Event, EntryError> {
    Ok(match kind {
        3 => {
            let (worker, message) = (WorkerId(rest.take()?), rest.message()?);
            let Message::Enroll(enroll) = message else { return Err(other(&message, FrameType::Enroll)) };
            Event::Enroll { worker, enroll }
        }
        4 => {
            let (worker, message) = (WorkerId(rest.take()?), rest.message()?);
            let Message::CheckIn(check_in) = message else { return Err(other(&message, FrameType::CheckIn)) };
            Event::CheckIn { worker, check_in }
        }
        5 => {
            let ticket = Ticket(rest.number()?);
            Event::Update { ticket, update: verified(rest.message()?)? }
        }
        7 => Event::BadMessage { worker: WorkerId(rest.take()?), rejection: rest.rejection()? },
        8 => Event::Disconnected { worker: WorkerId(rest.take()?) },
        9 => Event::Tick,
        11 => {
            let (ticket, worker) = (Ticket(rest.number()?), WorkerId(rest.take()?));
            Event::BadUpdate { ticket, worker, rejection: rest.rejection()? }
        }
        13 => {
            let ticket = Ticket(rest.number()?);
            let (by, why, change) = wire::from_bytes(std::mem::take(&mut rest.0)).map_err(content)?;
            Event::Ordered { ticket, by, why, change: Box::new(change) }
        }
        14 => {
            let (worker, message) = (WorkerId(rest.take()?), rest.message()?);
            let Message::ReleaseState(state) = message else { return Err(other(&message, FrameType::ReleaseState)) };
            Event::ReleaseState { worker, state }
        }
        kind => return Err(EntryError::Kind(kind)),
    })
}

fn verified(message: Message) -> Result<Verified, EntryError> {
    let Message::Update(signed) = message else { return Err(other(&message, FrameType::Update)) };
    let worker = signed.header.worker;
    signed.verify(&worker).map_err(content)
}

fn other(found: &Message, expected: FrameType) -> EntryError {
    EntryError::Content(format!("a {} where a {expected} belongs", found.frame_type()))
}

fn content(error: impl fmt::Display) -> EntryError {
    EntryError::Content(error.to_string())
}

/// What of a body is still to be read.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], EntryError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(EntryError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn number(&mut self) -> Result<u64, EntryError> {
        self.take().map(u64::from_le_bytes)
    }

    fn message(&mut self) -> Result<Message, EntryError> {
        Message::from_frame(std::mem::take(&mut self.0), &Limits::default()).map_err(content)
    }

    fn rejection(&mut self) -> Result<Rejection, EntryError> {
        wire::from_bytes(std::mem::take(&mut self.0)).map_err(content)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin { run, group } => write!(f, "begin run {run} at write {group}"),
            Self::Group { group, version, digest } => write!(f, "write {group} version {version} digest {digest}"),
            Self::End { group } => write!(f, "end at write {group}"),
            Self::Told(event) => match event.as_ref() {
                Event::Enroll { worker, enroll } => write!(f, "enroll {worker} as {:?}", enroll.name),
                Event::CheckIn { worker, check_in } => write!(f, "check-in {worker} version {}", check_in.version.0),
                Event::Update { update, .. } => {
                    let header = update.header();
                    let (round, payload) = (header.round.0, header.payload);
                    write!(f, "update {} round {round} examples {} payload {payload}", header.worker, header.examples)
                }
                Event::BadUpdate { worker, rejection, .. } => write!(f, "bad update of {worker}: {rejection}"),
                Event::BadMessage { worker, rejection } => write!(f, "bad message of {worker}: {rejection}"),
                Event::Disconnected { worker } => write!(f, "gone {worker}"),
                Event::Ordered { by, why, change, .. } => {
                    write!(f, "{} by {by}", change.name())?;
                    write!(f, " because {why:?}: {change:?}")
                }
                Event::ReleaseState { worker, state } => {
                    let runs = state.runs.map_or("base".to_owned(), |runs| format!("release {}", runs.number));
                    write!(f, "{worker} runs {runs}")
                }
                Event::Tick => write!(f, "tick"),
                Event::Aggregated { round, .. } => write!(f, "aggregated round {}", round.0),
            },
            Self::Aggregated { round } => write!(f, "aggregated round {}", round.0),
        }
    }
}
