//! What the operator asks for: a release, its stages and gates, and for whom.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::gate::Gates;
use super::member::WHOLE;
use super::target::Target;

/// A rollout as it was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Which workers follow it, by their label `channel`.
    pub channel: String,
    /// Which of them.
    #[serde(default)]
    pub target: Target,
    /// Stages, by rising share; the last is everybody.
    pub stages: Vec<Stage>,
    /// What has to hold before the next stage.
    #[serde(default)]
    pub gates: Gates,
    /// What a failed gate leads to.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Milliseconds after the soak time in which reports must have decided; then the rollout is paused.
    pub patience_ms: u64,
}

/// One stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Share of the targeted workers, in millionths.
    pub share: u32,
    /// Milliseconds that it lasts at least.
    pub soak_ms: u64,
    /// Workers that must have reported since it began.
    pub reports_min: u32,
}

/// What a failed gate leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Everybody goes back to the release before.
    #[default]
    RollBack,
    /// Nobody else gets it until the operator decides.
    Pause,
}

/// Why a rollout cannot be as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpecError {
    /// Too few or too many stages.
    #[error("a rollout has {found} stages, allowed are 1 to {STAGES_MAX}")]
    Stages {
        /// How many there are.
        found: usize,
    },
    /// A share that is nobody, more than everybody, or not above the one before.
    #[error("stage {stage} has a share of {found} millionths, it must be above {above} and at most {WHOLE}")]
    Share {
        /// The stage, from 1.
        stage: usize,
        /// Its share.
        found: u32,
        /// The share before.
        above: u32,
    },
    /// The last stage leaves somebody out.
    #[error("the last stage has a share of {0} millionths, it must be {WHOLE}: everybody")]
    Last(u32),
    /// A channel without a name, or with one that is too long.
    #[error("the channel's name has {0} characters, allowed are 1 to {CHANNEL_CHARS_MAX}")]
    Channel(usize),
    /// A gate that cannot be judged.
    #[error("{0}")]
    Gates(String),
}

/// Most stages of a rollout.
pub(super) const STAGES_MAX: usize = 32;
/// Most characters of a channel's name.
pub(super) const CHANNEL_CHARS_MAX: usize = 64;

impl Spec {
    /// Checks what was asked for.
    ///
    /// # Errors
    /// What is wrong first.
    pub fn check(&self) -> Result<(), SpecError> {
        let characters = self.channel.chars().count();
        if !(1..=CHANNEL_CHARS_MAX).contains(&characters) {
            return Err(SpecError::Channel(characters));
        }
        if !(1..=STAGES_MAX).contains(&self.stages.len()) {
            return Err(SpecError::Stages { found: self.stages.len() });
        }
        let mut above = 0;
        for (stage, &Stage { share: found, .. }) in (1..).zip(&self.stages) {
            if found <= above || found > WHOLE {
                return Err(SpecError::Share { stage, found, above });
            }
            above = found;
        }
        if above != WHOLE {
            return Err(SpecError::Last(above));
        }
        self.gates.check().map_err(SpecError::Gates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(shares: &[u32]) -> Spec {
        let stage = |&share| Stage { share, soak_ms: 10, reports_min: 1 };
        Spec {
            channel: "stable".to_owned(),
            target: Target::default(),
            stages: shares.iter().map(stage).collect(),
            gates: Gates::default(),
            on_failure: OnFailure::RollBack,
            patience_ms: 100,
        }
    }

    #[test]
    fn stages_rise_to_everybody() {
        assert_eq!(spec(&[50_000, 250_000, WHOLE]).check(), Ok(()));
        assert_eq!(spec(&[]).check(), Err(SpecError::Stages { found: 0 }));
        assert_eq!(spec(&[50_000]).check(), Err(SpecError::Last(50_000)));
        let falls = SpecError::Share { stage: 2, found: 50_000, above: 50_000 };
        assert_eq!(spec(&[50_000, 50_000, WHOLE]).check(), Err(falls));
        assert_eq!(spec(&[WHOLE + 1]).check(), Err(SpecError::Share { stage: 1, found: WHOLE + 1, above: 0 }));
        let unnamed = Spec { channel: String::new(), ..spec(&[WHOLE]) };
        assert_eq!(unnamed.check(), Err(SpecError::Channel(0)));
    }
}
