//! What the engine is told, and what it asks for. Plain data: no handle, socket or clock in it.

use packfed_protocol::{
    Assignment, CheckIn, Digest, Enroll, LaneScales, Message, Rejection, ReleaseRef, ReleaseState, Round, Timestamp,
    UpdateFrame, Verdict, Verified, Version, WorkerId,
};
use serde::{Deserialize, Serialize};

use crate::aggregation::{Aggregated, AggregationTask};
use crate::change::Change;
use crate::head::HeadRecord;
use crate::ledger::Note;
use crate::plan::Training;
use crate::registry::{self, Member};

/// Names the stream on which an update came, so that its verdict finds the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A key asks to be enrolled.
    Enroll {
        /// The key, as the transport proved it.
        worker: WorkerId,
        /// What it says.
        enroll: Enroll,
    },
    /// A worker is there and free.
    CheckIn {
        /// Its key, as the transport proved it.
        worker: WorkerId,
        /// What it says.
        check_in: CheckIn,
    },
    /// An update arrived whose signature holds.
    Update {
        /// Where its verdict goes.
        ticket: Ticket,
        /// The update.
        update: Verified,
    },
    /// An update arrived that could not be read, or whose signature does not hold.
    BadUpdate {
        /// Where its verdict goes.
        ticket: Ticket,
        /// Who sent it, as the transport proved it.
        worker: WorkerId,
        /// Why.
        rejection: Rejection,
    },
    /// A message other than an update could not be read or has no place here.
    BadMessage {
        /// Who sent it.
        worker: WorkerId,
        /// Why.
        rejection: Rejection,
    },
    /// A worker's connection is gone.
    Disconnected {
        /// Whose.
        worker: WorkerId,
    },
    /// An [`Effect::Aggregate`] was carried out.
    Aggregated {
        /// The round that it was of.
        round: Round,
        /// What it came to; a fault is told in words.
        result: Box<Result<Aggregated, String>>,
    },
    /// An operator changes something.
    Ordered {
        /// Where the answer goes.
        ticket: Ticket,
        /// The operator's name.
        by: String,
        /// Why.
        why: String,
        /// What.
        change: Box<Change>,
    },
    /// A worker says which release it runs.
    ReleaseState {
        /// Its key, as the transport proved it.
        worker: WorkerId,
        /// What it says.
        state: ReleaseState,
    },
    /// Time has passed.
    Tick,
}

/// Something to be done. Effects are carried out in order, and none after one that failed: what is
/// sent after a [`Write`] is sent because it is stored.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Make this durable.
    Store(Write),
    /// Send a message over a worker's control stream, if it is connected.
    Send {
        /// To whom.
        worker: WorkerId,
        /// What.
        message: Message,
    },
    /// Answer an update on its own stream.
    Verdict {
        /// Whose stream.
        ticket: Ticket,
        /// The answer.
        verdict: Verdict,
    },
    /// Apply the rule to the journalled words, and report it as [`Event::Aggregated`]: see
    /// [`AggregationTask::answer`].
    Aggregate(Box<AggregationTask>),
    /// Answer an operator.
    Ordered {
        /// Whose question.
        ticket: Ticket,
        /// The number of the rollout or round that the order was of, 0 if of none; or why it was not done.
        result: Result<u64, Rejection>,
    },
    /// Tell a worker, if it is connected, which release to run.
    Offer {
        /// To whom.
        worker: WorkerId,
        /// Which; none is the base model.
        target: Option<ReleaseRef>,
        /// What it runs now.
        runs: Option<ReleaseRef>,
    },
    /// Give the engine a [`Event::Tick`] at this time, or soon after.
    Wake(Timestamp),
}

/// A change that has to survive the process. Each is stored whole or not at all.
#[derive(Clone, Debug)]
pub enum Write {
    /// A key was enrolled with this token.
    Enroll {
        /// The key.
        worker: WorkerId,
        /// Its entry.
        member: Member,
        /// The token that is used up.
        token: Digest,
    },
    /// What is known of enrolled workers changed.
    Members(Vec<registry::Entry>),
    /// A round was opened, or an open one has another cohort or deadline.
    Open(OpenRound),
    /// An update was accepted.
    Accept {
        /// Into which round.
        round: Round,
        /// Whose.
        worker: WorkerId,
        /// The whole signed frame, to be verified again when it is loaded.
        frame: UpdateFrame,
    },
    /// An open round ended without a commit; its accepted updates may be forgotten.
    Abandon {
        /// Which.
        round: Round,
    },
    /// Every accepted update of the open rounds is in a new head, and may be forgotten.
    Commit(Box<Commit>),
    /// Something beside the run changed.
    Note(Note),
}

/// An open round: all that a restart needs to go on with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRound {
    /// Its number.
    pub round: Round,
    /// Version that it trains from.
    pub base: u64,
    /// Turn of the residual window.
    pub turn: u32,
    /// Who was drawn, ascending.
    pub cohort: Vec<WorkerId>,
    /// When it stops waiting.
    pub deadline: Timestamp,
    /// Scales of the way up.
    pub scales: Vec<LaneScales>,
}

impl OpenRound {
    /// What a member of its cohort is told.
    #[must_use]
    pub fn assignment(&self, training: &Training, now: Timestamp) -> Assignment {
        Assignment {
            round: self.round,
            base: Version(self.base),
            turn: self.turn,
            steps: training.steps,
            batch: training.batch,
            learning_rate: training.learning_rate,
            optimizer: training.optimizer,
            weight_decay: training.weight_decay,
            warmup: training.warmup,
            clip_norm: training.clip_norm,
            proximal: training.proximal,
            deadline_ms: self.deadline.since(now),
            scales: self.scales.clone(),
        }
    }
}

/// A new head, and what the next round begins with.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// The round; of several, the latest.
    pub round: Round,
    /// The new head.
    pub head: HeadRecord,
    /// Scales of the next round's way up.
    pub scales: Vec<LaneScales>,
    /// Rounds that stay open, with cohorts of those who have not reported; of a plan that is not buffered, none.
    pub open: Vec<OpenRound>,
    /// How the round went.
    pub summary: Summary,
}

/// How a committed round went.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The round.
    pub round: Round,
    /// The version that it led to.
    pub version: u64,
    /// Digest of that version.
    pub digest: Digest,
    /// Updates in it.
    pub updates: u32,
    /// Examples behind them.
    pub examples: u64,
    /// Mean of the workers' training losses, weighted by examples.
    pub train_loss: f64,
    /// Share of the lanes that were clipped on the way up.
    pub clipped: f64,
}

/// An open round, and the frames of its accepted updates.
pub type StoredRound = (OpenRound, Vec<Vec<u8>>);

/// Everything that a store gives back at a start.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The head.
    pub head: HeadRecord,
    /// Scales of the next round's way up.
    pub scales: Vec<LaneScales>,
    /// Number of the next round to be opened.
    pub next_round: Round,
    /// The open rounds in their order; at most one if the plan is not buffered.
    pub open: Vec<StoredRound>,
    /// The last committed round.
    pub last: Option<Summary>,
}
