//! What an operator's order does to the engine: parsed, resolved and checked against nothing that only the engine knows.

use packfed_protocol::{Digest, ReleaseRef, RolloutVerb, Settings, WorkerId};
use serde::{Deserialize, Serialize};

use crate::registry::Standing;
use crate::rollout::Spec;

/// Something that an operator changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// A worker gets another standing.
    Stand {
        /// Whom.
        worker: WorkerId,
        /// Which.
        standing: Standing,
    },
    /// A worker gets labels, and loses those without a value.
    Label {
        /// Whose.
        worker: WorkerId,
        /// Names and values.
        labels: Vec<(String, String)>,
    },
    /// One-time tokens are added, by their hashes.
    Tokens(Vec<Digest>),
    /// The open round ends without a commit.
    Abandon,
    /// No further round is opened.
    Pause,
    /// Rounds are opened again.
    Unpause,
    /// The rounds to come are of another shape.
    Set(Settings),
    /// A release was made; it stands here for the audit log.
    Released(ReleaseRef),
    /// A rollout begins.
    Start {
        /// Of which release.
        release: ReleaseRef,
        /// How.
        spec: Spec,
    },
    /// A rollout is steered.
    Steer {
        /// Which.
        rollout: u64,
        /// How.
        verb: RolloutVerb,
    },
}

impl Change {
    /// What it is called in the audit log.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Stand { standing: Standing::Admitted, .. } => "worker admit",
            Self::Stand { standing: Standing::Suspended(_), .. } => "worker suspend",
            Self::Stand { standing: Standing::Revoked, .. } => "worker revoke",
            Self::Label { .. } => "worker label",
            Self::Tokens(_) => "worker token",
            Self::Abandon => "round abandon",
            Self::Pause => "run pause",
            Self::Unpause => "run resume",
            Self::Set(_) => "run set",
            Self::Released(_) => "release create",
            Self::Start { .. } => "rollout start",
            Self::Steer { verb, .. } => match verb {
                RolloutVerb::Promote => "rollout promote",
                RolloutVerb::Pause => "rollout pause",
                RolloutVerb::Resume => "rollout resume",
                RolloutVerb::Abort => "rollout abort",
                RolloutVerb::RollBack => "rollout rollback",
                RolloutVerb::Undo => "rollout undo",
            },
        }
    }
}
