//! One rollout as it stands, and all that led there.

use packfed_protocol::{ReleaseRef, Timestamp};
use serde::{Deserialize, Serialize};

use super::Judgement;
use super::gate::Measure;
use super::spec::{Spec, Stage};

/// One rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its number; a later one has a larger one.
    pub number: u64,
    /// What is rolled out.
    pub release: ReleaseRef,
    /// What was asked for.
    pub spec: Spec,
    /// Where it stands.
    pub phase: Phase,
    /// The last place that is in its stage; see [`super::place`].
    pub threshold: u64,
    /// What was reported since it began, or was resumed.
    pub found: Measure,
    /// Workers that have reported since its stage began.
    pub in_stage: u32,
    /// Where it stood before the operator's last word, to which it can be taken back.
    pub before: Option<Box<Before>>,
    /// What was done to it, the oldest first.
    pub history: Vec<Change>,
}

/// Where a rollout stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// A stage runs.
    Soaking {
        /// Which, from 0.
        stage: usize,
        /// Since when.
        since: Timestamp,
    },
    /// Who has the release keeps it, nobody else gets it.
    Paused {
        /// In which stage, from 0.
        stage: usize,
    },
    /// Everybody has it or gets it.
    Completed,
    /// It was stopped, and nobody has it any more.
    Aborted,
    /// It was taken back.
    RolledBack,
}

/// What [`super::Verb::Undo`] goes back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// The phase.
    pub phase: Phase,
    /// The threshold.
    pub threshold: u64,
}

/// Something that was done to a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// By whom: an operator's name, or [`BY_ITSELF`].
    pub by: String,
    /// What: a verb, or what a stage came to.
    pub what: String,
    /// Why.
    pub why: String,
    /// Where it led.
    pub phase: Phase,
}

/// Who does what nobody said.
pub const BY_ITSELF: &str = "packfed";

impl Phase {
    /// Whether it may still change by itself or be resumed.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        matches!(self, Self::Soaking { .. } | Self::Paused { .. })
    }

    /// The stage, from 0, if it is in one.
    #[must_use]
    pub const fn stage(&self) -> Option<usize> {
        match self {
            Self::Soaking { stage, .. } | Self::Paused { stage } => Some(*stage),
            Self::Completed | Self::Aborted | Self::RolledBack => None,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Soaking { .. } => "soaking",
            Self::Paused { .. } => "paused",
            Self::Completed => "completed",
            Self::Aborted => "aborted",
            Self::RolledBack => "rolled back",
        }
    }
}

impl Record {
    /// The stage that it is in.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        self.phase.stage().and_then(|stage| self.spec.stages.get(stage)).copied()
    }

    /// How every gate stands.
    #[must_use]
    pub fn judgements(&self) -> Vec<Judgement> {
        self.spec.gates.judge(&self.found)
    }

    /// Whether a worker with this place runs its release.
    #[must_use]
    pub const fn takes(&self, place: u64) -> bool {
        match self.phase {
            Phase::Soaking { .. } | Phase::Paused { .. } => place <= self.threshold,
            Phase::Completed => true,
            Phase::Aborted | Phase::RolledBack => false,
        }
    }

    /// Goes to a phase, and notes why.
    pub(super) fn change(&mut self, phase: Phase, at: Timestamp, by: &str, what: &str, why: String) {
        tracing::info!(
            rollout = self.number,
            release = self.release.number,
            by,
            what,
            why,
            to = phase.name(),
            "rollout"
        );
        self.phase = phase.clone();
        self.history.push(Change { at, by: by.to_owned(), what: what.to_owned(), why, phase });
    }
}
