//! What a round asks of a worker's data: a job in, a delta out.
//!
//! The session hands jobs out and takes results in; it does not know how training works. The task
//! knows neither rounds nor wires.

use std::sync::Arc;

use packfed_codec::{Layout, Seed, State, Window};
use thiserror::Error;

use crate::evaluation::{Found, Watch};
use crate::local::budget::MemoryError;
use crate::local::host::Host;
use crate::local::snapshot::JobDigest;
use crate::local::{LocalOptimizer, LocalSteps};

/// One round's local training.
#[derive(Clone, Debug)]
pub struct Job {
    /// The global model to start from.
    pub state: Arc<State>,
    /// The lanes to train.
    pub window: Window,
    /// How to train them; the rate is in orthonormal-coefficient units.
    pub local: LocalSteps,
    /// How fast each layer learns, as a multiple of the rate.
    pub factors: Arc<[f32]>,
    /// Where the order of the examples comes from; it names the round and the worker.
    pub seed: Seed,
}

impl Job {
    /// Digest of all that this job's training follows from on a worker with this many examples.
    #[must_use]
    pub fn digest(&self, examples: u32) -> JobDigest {
        let mut hasher = blake3::Hasher::new_derive_key("packfed/job/2");
        hasher.update(&self.state.layout().digest().0);
        hasher.update(&self.state.digest().0);
        hasher.update(self.seed.bytes());
        let LocalSteps { steps, batch, learning_rate, optimizer, warmup, clip_norm, proximal } = self.local;
        let (rule, momentum, weight_decay) = match optimizer {
            LocalOptimizer::AdamW { weight_decay } => (1, 0.0, weight_decay),
            LocalOptimizer::Sgd { momentum, weight_decay } => (2, momentum, weight_decay),
        };
        self.window.for_each_slot(self.state.layout(), |slot| {
            hasher.update(&(slot.lane as u64).to_le_bytes());
        });
        for number in [steps, batch, warmup, rule, examples] {
            hasher.update(&number.to_le_bytes());
        }
        let numbers = [learning_rate, momentum, weight_decay, clip_norm.unwrap_or(0.0), proximal];
        for number in numbers.iter().chain(&*self.factors) {
            hasher.update(&number.to_le_bytes());
        }
        JobDigest(*hasher.finalize().as_bytes())
    }
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
    /// Nobody wants the result of an evaluation any more.
    #[error("the evaluation was broken off: nobody wants its result any more")]
    NotWanted,
    /// Not one example fits into the worker's memory budget.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The tensor library refused.
    #[error("training failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// Local data and a way to train on it.
pub trait LocalTask: Send {
    /// Number of examples, which weighs this worker's updates.
    fn examples(&self) -> u32;

    /// Trains from the job's state on a machine; the same job gives the same delta on any that neither ends it early
    /// nor bounds its memory.
    ///
    /// # Errors
    /// If training cannot be done, does not fit into the host's memory budget, or leaves the real numbers.
    fn train(&mut self, job: &Job, host: &mut dyn Host) -> Result<Trained, TaskError>;

    /// Whether the base model has a place for every layer of a layout.
    ///
    /// # Errors
    /// What does not fit.
    fn fits(&self, layout: &Arc<Layout>) -> Result<(), TaskError>;

    /// Scores two states of one model on the first `examples_max` of the examples that are held out of training; where
    /// none are, the second one on an example that is trained on.
    ///
    /// # Errors
    /// If a state does not fit the base model, or `watch` says that nobody wants the result any more.
    fn evaluate(&mut self, states: [&State; 2], examples_max: u32, watch: &mut dyn Watch) -> Result<Found, TaskError>;
}
