//! What a round asks of a worker's data: a job in, a delta out.
//!
//! The session hands jobs out and takes results in; it does not know how training works. The task
//! knows neither rounds nor wires.

use std::sync::Arc;

use packfed_codec::{Seed, State, Window};
use thiserror::Error;

/// One round's local training.
#[derive(Clone, Debug)]
pub struct Job {
    /// The global model to start from.
    pub state: Arc<State>,
    /// The lanes to train.
    pub window: Window,
    /// Optimizer steps.
    pub steps: u32,
    /// Examples of one step.
    pub batch: u32,
    /// Adam's rate, in orthonormal-coefficient units.
    pub learning_rate: f32,
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

/// Why local training ended without a delta.
#[derive(Debug, Error)]
pub enum TaskError {
    /// The loss left the real numbers; nothing is shipped.
    #[error("the loss of step {step} is {loss}; lower the learning rate or check the data")]
    NotFinite {
        /// Step, from 0.
        step: u32,
        /// The loss.
        loss: f32,
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
