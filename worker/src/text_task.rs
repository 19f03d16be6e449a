//! Local training of a transformer on this worker's texts.

use std::sync::Arc;

use crate::data::{Batches, Dataset, TokenExample};
use crate::local::{LocalSteps, flat_values};
use crate::model::Activations;
use crate::pretrained::Pretrained;
use crate::task::{Job, LocalTask, TaskError, Trained};

/// One worker's examples, to be trained on over a model that may be shared.
#[derive(Clone, Debug)]
pub struct TextTask {
    model: Arc<Pretrained>,
    dataset: Arc<Dataset>,
}

impl TextTask {
    /// Training on these examples.
    #[must_use]
    pub const fn new(model: Arc<Pretrained>, dataset: Arc<Dataset>) -> Self {
        Self { model, dataset }
    }
}

impl LocalTask for TextTask {
    fn examples(&self) -> u32 {
        u32::try_from(self.dataset.examples.len()).unwrap_or(u32::MAX)
    }

    fn train(&mut self, job: &Job) -> Result<Trained, TaskError> {
        let adapter = self.model.adapter(job.state.layout())?;
        let (linears, deltas) = adapter.packed(&job.state, job.window)?;
        let steps = LocalSteps { steps: job.steps, batch: job.batch, learning_rate: job.learning_rate };
        let examples = &self.dataset.examples;
        let mut batches = Batches::new(&job.seed, self.dataset.lengths(), job.batch as usize);
        let next = |_| Ok(batches.next_indices().into_iter().map(|n| &examples[n]).collect());
        let loss = |batch: &Vec<&TokenExample>| self.model.loss(&linears, batch, Activations::Kept);
        let loss = steps.run(deltas.clone(), next, loss)?;
        let delta = flat_values(&deltas)?;
        if delta.iter().any(|value| !value.is_finite()) {
            return Err(TaskError::NotFinite { step: job.steps, loss });
        }
        Ok(Trained { delta, loss })
    }
}
