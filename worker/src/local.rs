//! The local loop that every method shares: gradients of every step's examples, and an optimizer.
//!
//! packfed's trainers and the simulator's baselines differ in what they track and how they run a
//! model forward, and in nothing else. What an example is, is its caller's business.

pub mod budget;
mod gradients;
pub mod host;
mod optimizer;
pub mod snapshot;
mod training;

use std::ops::ControlFlow;

use candle_core::{Device, Result as TensorResult, Tensor, Var};

pub use optimizer::{LocalOptimizer, Optimizer};

use crate::task::TaskError;
use host::{Host, Step, Unattended};
use snapshot::JobDigest;
use training::Training;

/// How a round trains; the same on every machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LocalSteps {
    /// Optimizer steps.
    pub steps: u32,
    /// Examples of one step.
    pub batch: u32,
    /// The optimizer's rate.
    pub learning_rate: f32,
    /// How a gradient becomes a step.
    pub optimizer: LocalOptimizer,
    /// Step n of the first so many, from 1, has n/`warmup` of the rate.
    pub warmup: u32,
    /// The longest that a step's gradient may be in Euclidean norm, over all variables; a longer one is shortened.
    pub clip_norm: Option<f32>,
    /// μ of a term `μ/2·‖w − w₀‖²` in the loss, w₀ the variables before the first step (FedProx: Li et al., MLSys
    /// 2020). It is no part of the loss that is reported.
    pub proximal: f32,
}

/// The loss of some examples, which may be summed up with that of others.
#[derive(Clone, Debug)]
pub struct MeanLoss {
    /// The mean over its terms: a scalar, tracked back to what is trained.
    pub mean: Tensor,
    /// How many terms it is the mean of: examples where each has one, predicted tokens of a language model.
    pub terms: usize,
}

/// Where a job is trained, and cut how.
pub struct Place<'a> {
    /// What the training follows from; a snapshot is taken up only by the job that it was taken of.
    pub job: JobDigest,
    /// Most examples that go through the model at once, if not one at least: a step is that of its whole batch, to
    /// rounding, and its examples do not depend on how it is cut.
    pub micro_batch: usize,
    /// How fast each variable learns, as a multiple of the rate; none for all at the rate itself.
    pub factors: &'a [f32],
    /// The machine.
    pub host: &'a mut dyn Host,
}

/// What local training came to, beside the variables' values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LocalOutcome {
    /// Steps done.
    pub steps: u32,
    /// Mean loss over them.
    pub loss: f32,
}

impl LocalSteps {
    /// Adam at one rate from the first step to the last.
    #[must_use]
    pub const fn adam(steps: u32, batch: u32, learning_rate: f32) -> Self {
        Self { steps, batch, learning_rate, optimizer: LocalOptimizer::ADAM, warmup: 0, clip_norm: None, proximal: 0.0 }
    }

    /// The rate of a step, from 0.
    #[must_use]
    pub fn rate(&self, step: u32) -> f32 {
        let number = step.saturating_add(1);
        if number >= self.warmup {
            return self.learning_rate;
        }
        #[expect(clippy::cast_precision_loss, reason = "a few steps")]
        let share = number as f32 / self.warmup as f32;
        self.learning_rate * share
    }

    /// Runs the steps on `variables`, with nobody watching and whole batches. `order` gives a step's examples, given
    /// how many; `loss` maps examples to their loss.
    ///
    /// # Errors
    /// If a tensor operation fails, or a loss, a gradient or a variable is not finite; the variables are then not to
    /// be used.
    pub fn run(
        &self,
        variables: &[Var],
        order: impl FnMut(usize) -> Vec<usize>,
        loss: impl Fn(&[usize]) -> TensorResult<MeanLoss>,
    ) -> Result<LocalOutcome, TaskError> {
        let place = Place { job: JobDigest([0; 32]), micro_batch: usize::MAX, factors: &[], host: &mut Unattended };
        self.run_at(place, variables, order, loss)
    }

    /// The same at a place, which may end it early, or have it go on from where it was interrupted: from there it ends
    /// in the bits of an undisturbed run. `order` must give what it gave the first time; the steps done are drawn again.
    ///
    /// # Errors
    /// As [`LocalSteps::run`].
    pub fn run_at(
        &self,
        place: Place<'_>,
        variables: &[Var],
        mut order: impl FnMut(usize) -> Vec<usize>,
        loss: impl Fn(&[usize]) -> TensorResult<MeanLoss>,
    ) -> Result<LocalOutcome, TaskError> {
        let Place { job, micro_batch, factors, host } = place;
        let mut training = Training::new(*self, variables, factors)?;
        if let Some(snapshot) = host.resume(&job) {
            if snapshot.job == job && training.restore(&snapshot)? {
                tracing::info!(step = snapshot.steps, "going on with interrupted training");
            } else {
                tracing::warn!("a snapshot of other training is ignored");
            }
        }
        for _ in 0..training.done() {
            order(self.batch as usize);
        }
        while training.done() < self.steps {
            let loss = training.step(&order(self.batch as usize), &loss, micro_batch)?;
            let step = Step { done: training.done(), of: self.steps, loss, job, training: &training };
            if let ControlFlow::Break(()) = host.stepped(&step) {
                break;
            }
        }
        Ok(training.outcome())
    }
}

/// The values of variables, one after another.
///
/// # Errors
/// If one is not `f32`.
pub fn flat_values(variables: &[Var]) -> TensorResult<Vec<f32>> {
    let mut values = Vec::new();
    for variable in variables {
        values.extend(variable.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(values)
}

/// The inverse of [`flat_values`] for variables of these shapes.
///
/// # Errors
/// If a variable cannot be made.
///
/// # Panics
/// If there are fewer values than the shapes take.
pub fn variables(shapes: &[(usize, usize)], mut values: &[f32]) -> TensorResult<Vec<Var>> {
    let mut variables = Vec::with_capacity(shapes.len());
    for &(rows, cols) in shapes {
        let (own, rest) = values.split_at(rows * cols);
        variables.push(Var::from_slice(own, (rows, cols), &Device::Cpu)?);
        values = rest;
    }
    Ok(variables)
}

#[cfg(test)]
mod tests;
