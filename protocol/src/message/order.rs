//! What an operator asks of the coordinator beside its status.

use serde::{Deserialize, Serialize};

use crate::id::{Digest, Round, Version, WorkerId};
use crate::limits::{NAME_CHARS_MAX, check_length, check_printable};
use crate::wire::{self, DecodeError};

/// An order with its reason; the answer is a JSON document, as to a status request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Why, for the audit log; of at most [`WHY_BYTES_MAX`] bytes to print.
    pub why: String,
    /// What.
    pub order: Order,
}

/// What is asked for or ordered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// Tell of enrolled workers, in the order of their keys: of the first that come after this key.
    List(WorkerId),
    /// A worker may take part.
    Admit(WorkerId),
    /// A worker may not take part until it is admitted again.
    Suspend(WorkerId),
    /// A key may never take part again, unless it is admitted.
    Revoke(WorkerId),
    /// Freeze the global model as a release.
    Release {
        /// Which version; none is the current one.
        version: Option<Version>,
        /// What is said of it.
        notes: String,
    },
    /// Set labels of a worker, each a name and a value; one without a value is taken away.
    Label {
        /// Whose.
        worker: WorkerId,
        /// Which, at most [`LABELS_MAX`].
        labels: Vec<(String, String)>,
    },
    /// Hashes of new one-time tokens, at most [`TOKENS_MAX`].
    Tokens(Vec<Digest>),
    /// Tell of rounds that are over, the latest first: of those before this one.
    Rounds(Round),
    /// End the open round without a commit.
    Abandon,
    /// Tell of the run: what shapes it, and whether it is paused.
    Run,
    /// Open no further round.
    Pause,
    /// Open rounds again.
    Unpause,
    /// Change what shapes the rounds to come.
    Set(Settings),
    /// Tell of releases.
    Releases,
    /// Tell of rollouts, the latest first: of those before this one.
    Rollouts(u64),
    /// Tell of one rollout.
    Rollout(u64),
    /// Roll a release out.
    Start {
        /// The release's number.
        release: u64,
        /// Its stages and gates, as JSON: the coordinator's business.
        spec: String,
    },
    /// Steer a rollout.
    Steer {
        /// Its number.
        rollout: u64,
        /// How.
        verb: RolloutVerb,
    },
    /// Tell of everything at once, as a dashboard shows it.
    Picture,
}

/// What an operator does to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RolloutVerb {
    /// Goes on to the next stage, whatever the gates say.
    Promote,
    /// Nobody else gets the release for now.
    Pause,
    /// The stage begins anew, and is judged by what is reported from then on.
    Resume,
    /// Ends it; nobody keeps the release.
    Abort,
    /// As abort, and of a completed one too: everybody goes back to the release before.
    RollBack,
    /// Takes the last promotion, abort or rollback back; the rollout is then paused, or completed again.
    Undo,
}

impl RolloutVerb {
    /// Every verb.
    pub const ALL: [RolloutVerb; 6] =
        [Self::Promote, Self::Pause, Self::Resume, Self::Abort, Self::RollBack, Self::Undo];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Abort => "abort",
            Self::RollBack => "rollback",
            Self::Undo => "undo",
        }
    }
}

/// What of a run may change between two rounds; none leaves what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Commits after which the run is finished.
    pub rounds: Option<u64>,
    /// Optimizer steps of a worker's round.
    pub steps: Option<u32>,
    /// Examples of a step.
    pub batch: Option<u32>,
    /// The local optimizer's rate, in orthonormal-coefficient units.
    pub learning_rate: Option<f32>,
    /// Workers to wait for before a cohort is drawn.
    pub selection_goal: Option<u32>,
    /// Workers that will do at the time-out.
    pub selection_min: Option<u32>,
    /// Milliseconds.
    pub selection_timeout_ms: Option<u64>,
    /// Updates to wait for.
    pub reporting_goal: Option<u32>,
    /// Updates that will do at the time-out.
    pub reporting_min: Option<u32>,
    /// Milliseconds.
    pub reporting_timeout_ms: Option<u64>,
    /// Workers drawn beyond the reporting goal.
    pub over_selection: Option<u32>,
}

impl Settings {
    /// These, and what `later` says otherwise.
    #[must_use]
    pub fn and(&self, later: &Settings) -> Settings {
        Settings {
            rounds: later.rounds.or(self.rounds),
            steps: later.steps.or(self.steps),
            batch: later.batch.or(self.batch),
            learning_rate: later.learning_rate.or(self.learning_rate),
            selection_goal: later.selection_goal.or(self.selection_goal),
            selection_min: later.selection_min.or(self.selection_min),
            selection_timeout_ms: later.selection_timeout_ms.or(self.selection_timeout_ms),
            reporting_goal: later.reporting_goal.or(self.reporting_goal),
            reporting_min: later.reporting_min.or(self.reporting_min),
            reporting_timeout_ms: later.reporting_timeout_ms.or(self.reporting_timeout_ms),
            over_selection: later.over_selection.or(self.over_selection),
        }
    }
}

/// Bytes of a reason.
pub const WHY_BYTES_MAX: usize = 1024;
/// Labels in one order, and of one worker.
pub const LABELS_MAX: usize = 32;
/// Tokens in one order.
pub const TOKENS_MAX: usize = 10_000;
/// Bytes of a rollout's stages and gates.
pub const SPEC_BYTES_MAX: usize = 64 << 10;

impl Request {
    pub(super) fn decode(body: &[u8]) -> Result<Request, DecodeError> {
        let request: Request = wire::from_bytes(body)?;
        check_length("reason", request.why.len(), WHY_BYTES_MAX)?;
        check_printable("reason", &request.why)?;
        match &request.order {
            Order::Label { labels, .. } => {
                check_length("labels", labels.len(), LABELS_MAX)?;
                for text in labels.iter().flat_map(|(name, value)| [name, value]) {
                    check_length("label", text.chars().count(), NAME_CHARS_MAX)?;
                    check_printable("label", text)?;
                }
            }
            Order::Tokens(tokens) => check_length("tokens", tokens.len(), TOKENS_MAX)?,
            Order::Start { spec, .. } => check_length("rollout", spec.len(), SPEC_BYTES_MAX)?,
            Order::List(_)
            | Order::Admit(_)
            | Order::Suspend(_)
            | Order::Revoke(_)
            // Notes are bounded where a release is made.
            | Order::Release { .. }
            | Order::Rounds(_)
            | Order::Abandon
            | Order::Run
            | Order::Pause
            | Order::Unpause
            | Order::Set(_)
            | Order::Releases
            | Order::Rollouts(_)
            | Order::Rollout(_)
            | Order::Steer { .. }
            | Order::Picture => {}
        }
        Ok(request)
    }
}
