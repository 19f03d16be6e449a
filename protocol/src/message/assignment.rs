//! A round's work for one worker.

use serde::{Deserialize, Serialize};

use crate::id::{Round, Version};
use crate::limits::{self, LAYERS_MAX};
use crate::wire::{self, DecodeError};

/// Train this round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// Which round.
    pub round: Round,
    /// The state to train from.
    pub base: Version,
    /// Which turn of the residual window is trained.
    pub turn: u32,
    /// Local optimizer steps.
    pub steps: u32,
    /// Examples per step.
    pub batch: u32,
    /// Local learning rate, in orthonormal-coefficient units.
    pub learning_rate: f32,
    /// How a gradient becomes a step.
    pub optimizer: LocalOptimizer,
    /// Share of a trained value that the optimizer takes away at each step, in units of the rate.
    pub weight_decay: f32,
    /// Steps over which the rate rises to its place.
    pub warmup: u32,
    /// The longest that a gradient may be; 0 leaves every gradient as it is.
    pub clip_norm: f32,
    /// How strongly the loss pulls what is trained back to where the round began; 0 lets it go.
    pub proximal: f32,
    /// Milliseconds from now in which the update has to arrive.
    pub deadline_ms: u64,
    /// The scales to quantize with, one pair per layer, at most [`LAYERS_MAX`].
    pub scales: Vec<LaneScales>,
}

/// A local optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum LocalOptimizer {
    /// Adam, with decay decoupled from the gradient.
    AdamW,
    /// Gradient descent.
    Sgd {
        /// Share of the velocity that stays from step to step.
        momentum: f32,
    },
}

/// A layer's two scales. Each is the exponent of a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneScales {
    /// Of the wave's lanes, x and y.
    pub wave: i8,
    /// Of the residual's lanes.
    pub residual: i8,
}

impl Assignment {
    pub(super) fn decode(body: &[u8]) -> Result<Assignment, DecodeError> {
        let assignment: Assignment = wire::from_bytes(body)?;
        limits::check_length("scales", assignment.scales.len(), LAYERS_MAX)?;
        Ok(assignment)
    }
}
