//! Local training of a transformer on this worker's texts.

use std::sync::Arc;

use crate::data::{Batches, Dataset, TokenExample};
use crate::local::flat_values;
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
        let mut batches = Batches::new(&job.seed, self.dataset.lengths(), job.local.batch as usize);
        let loss = |indices: &[usize]| {
            let examples: Vec<&TokenExample> = indices.iter().map(|&n| &self.dataset.examples[n]).collect();
            self.model.loss(&linears, &examples, Activations::Kept)
        };
        let outcome = job.local.run(&deltas, |_| batches.next_indices(), loss, usize::MAX)?;
        Ok(Trained { delta: flat_values(&deltas)?, loss: outcome.loss })
    }
}
