//! What a round asks of a worker's data: a job in, a delta out.
//!
//! The session hands jobs out and takes results in; it does not know how training works. The task
//! knows neither rounds nor wires.

use std::sync::Arc;

use packfed_codec::{Seed, State, Window};
use thiserror::Error;

use crate::local::LocalSteps;

/// One round's local training.
#[derive(Clone, Debug)]
pub struct Job {
    /// The global model to start from.
    pub state: Arc<State>,
    /// The lanes to train.
    pub window: Window,
    /// How to train them; the rate is in orthonormal-coefficient units.
    pub local: LocalSteps,
    /// Where the order of the examples comes from; it names the round and the worker.
    pub seed: Seed,
}

/// What training yields.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// `local − global` by slot: blocks × lanes of the window, unused slots zero.
    pub delta: Vec<f32>,
    /// Mean loss over the steps.
    pub loss: f32,
}

/// What of a step is not finite; each is looked at before the next is made.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
pub enum NotFinite {
    /// The loss, before it is gone back through.
    #[error("the loss is {0}")]
    Loss(f32),
    /// A value of the gradient, before it moves anything.
    #[error("a gradient is not finite")]
    Gradient,
    /// A parameter, after it was moved.
    #[error("a parameter is not finite")]
    Parameter,
}

/// Why local training ended without a delta.
#[derive(Debug, Error)]
pub enum TaskError {
    /// Training left the real numbers; nothing is shipped.
    #[error("{fault} in step {step}; lower the learning rate or check the data")]
    NotFinite {
        /// Step, from 0.
        step: u32,
        /// What is not finite.
        fault: NotFinite,
    },
    /// The plan adapts something that this base is not.
    #[error("the base model does not fit the plan: {0}")]
    Model(#[from] crate::mlp::ModelError),
    /// The plan adapts something that this transformer is not.
    #[error(transparent)]
    Adapt(#[from] crate::pretrained::AdaptError),
    /// The tensor library refused.
    #[error("training failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// Local data and a way to train on it.
pub trait LocalTask: Send {
    /// Number of examples, which weighs this worker's updates.
    fn examples(&self) -> u32;

    /// Trains from the job's state; the same job gives the same delta.
    ///
    /// # Errors
    /// If training cannot be done or its loss is not finite.
    fn train(&mut self, job: &Job) -> Result<Trained, TaskError>;
}
