//! Local training between two steps, and the step itself.

use candle_core::{Device, Result as TensorResult, Tensor, Var};

use super::gradients::Gradients;
use super::optimizer::Optimizer;
use super::snapshot::{JobDigest, Snapshot};
use super::{LocalOutcome, LocalSteps, MeanLoss};
use crate::nn::values::values;
use crate::task::{NotFinite, TaskError};

/// Everything that a step reads and changes.
#[derive(Debug)]
pub(crate) struct Training {
    steps: LocalSteps,
    optimizer: Optimizer,
    /// The variables before the first step, if they are pulled back to there.
    start: Vec<Tensor>,
    /// Sum of the steps' losses.
    loss: f32,
}

impl Training {
    /// Before the first step.
    ///
    /// # Errors
    /// If a variable cannot be copied.
    pub(crate) fn new(steps: LocalSteps, variables: &[Var], factors: &[f32]) -> TensorResult<Self> {
        let pulled = if steps.proximal == 0.0 { &[] } else { variables };
        let start = pulled.iter().map(|variable| variable.copy()).collect::<TensorResult<_>>()?;
        Ok(Self { steps, optimizer: Optimizer::with_factors(steps.optimizer, variables, factors), start, loss: 0.0 })
    }

    /// Steps done.
    pub(crate) const fn done(&self) -> u32 {
        self.optimizer.steps()
    }

    /// Everything that the steps to come depend on, beside the job.
    pub(crate) fn snapshot(&self, job: JobDigest) -> TensorResult<Snapshot> {
        let mut parameters = Vec::new();
        for variable in self.optimizer.variables() {
            parameters.extend_from_slice(&values::<f32>(variable)?);
        }
        Ok(Snapshot { job, steps: self.done(), loss: self.loss, parameters, state: self.optimizer.state() })
    }

    /// Goes on from a snapshot; `false` if it is of other variables, another optimizer or more steps, and nothing was
    /// changed.
    pub(crate) fn restore(&mut self, snapshot: &Snapshot) -> TensorResult<bool> {
        let parameters: usize = self.optimizer.variables().map(|variable| variable.elem_count()).sum();
        let lengths = (snapshot.parameters.len(), snapshot.state.len());
        if lengths != (parameters, self.optimizer.state_len()) || snapshot.steps > self.steps.steps {
            return Ok(false);
        }
        let mut rest = snapshot.parameters.as_slice();
        for variable in self.optimizer.variables() {
            let (own, after) = rest.split_at(variable.elem_count());
            variable.set(&Tensor::from_slice(own, variable.shape(), &Device::Cpu)?)?;
            rest = after;
        }
        self.optimizer.restore(snapshot.steps, &snapshot.state);
        self.loss = snapshot.loss;
        Ok(true)
    }

    /// Steps done, and their mean loss.
    pub(crate) fn outcome(&self) -> LocalOutcome {
        let steps = self.optimizer.steps();
        #[expect(clippy::cast_precision_loss, reason = "a few steps")]
        let loss = self.loss / steps.max(1) as f32;
        LocalOutcome { steps, loss }
    }

    /// One step on some examples, at most `micro_batch` of which go through the model at once; returns its loss.
    pub(crate) fn step(
        &mut self,
        examples: &[usize],
        loss: impl Fn(&[usize]) -> TensorResult<MeanLoss>,
        micro_batch: usize,
    ) -> Result<f32, TaskError> {
        let step = self.optimizer.steps();
        let not_finite = |fault| TaskError::NotFinite { step, fault };
        let (value, mut gradients) = self.gradients(examples, loss, micro_batch)?;
        if !value.is_finite() {
            return Err(not_finite(NotFinite::Loss(value)));
        }
        gradients.pull(self.optimizer.variables().map(Var::as_tensor).zip(&self.start), self.steps.proximal)?;
        let norm = gradients.norm()?;
        if !norm.is_finite() {
            return Err(not_finite(NotFinite::Gradient));
        }
        let scale = gradients.scale(norm, self.steps.clip_norm);
        if !self.optimizer.step(gradients.tensors(), scale, self.steps.rate(step))? {
            return Err(not_finite(NotFinite::Parameter));
        }
        self.loss += value;
        Ok(value)
    }

    /// Loss and gradients of some examples; without gradients if the loss is not finite.
    fn gradients(
        &self,
        examples: &[usize],
        loss: impl Fn(&[usize]) -> TensorResult<MeanLoss>,
        micro_batch: usize,
    ) -> TensorResult<(f32, Gradients)> {
        let mut sum = Gradients::none();
        let (mut total, mut terms_total) = (0.0, 0.0);
        for part in examples.chunks(micro_batch.max(1)) {
            let MeanLoss { mean, terms } = loss(part)?;
            let value: f32 = mean.to_scalar()?;
            let whole = part.len() == examples.len();
            if !value.is_finite() && (whole || terms > 0) {
                return Ok((value, Gradients::none()));
            }
            let gradients = || Gradients::of(self.optimizer.variables(), &mean.backward()?);
            if whole {
                return Ok((value, gradients()?));
            }
            if terms > 0 {
                sum.add(&gradients()?, terms as f32)?;
                total += f64::from(value) * terms as f64;
                terms_total += terms as f64;
            }
        }
        #[expect(clippy::cast_possible_truncation, reason = "losses are f32")]
        let mean = (total / terms_total) as f32;
        Ok((mean, sum))
    }
}
