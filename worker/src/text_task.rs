//! Local training of a transformer on this worker's texts.

use std::sync::Arc;

use crate::data::{Batches, Dataset, TokenExample};
use crate::local::host::Host;
use crate::local::{Place, flat_values};
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

    fn train(&mut self, job: &Job, host: &mut dyn Host) -> Result<Trained, TaskError> {
        let adapter = self.model.adapter(job.state.layout())?;
        let (linears, deltas) = adapter.packed(&job.state, job.window)?;
        let trained = deltas.iter().map(|delta| delta.elem_count()).sum();
        let longest = self.dataset.lengths().into_iter().max().unwrap_or(0);
        let fit = self.model.memory_need(trained, longest).fit(job.local.batch, host.memory_budget())?;
        let place = Place {
            job: job.digest(self.examples()),
            micro_batch: fit.micro_batch as usize,
            factors: &job.factors,
            host,
        };
        let mut batches = Batches::new(&job.seed, self.dataset.lengths(), job.local.batch as usize);
        let loss = |indices: &[usize]| {
            let examples: Vec<&TokenExample> = indices.iter().map(|&n| &self.dataset.examples[n]).collect();
            self.model.loss(&linears, &examples, fit.activations)
        };
        let outcome = job.local.run_at(place, &deltas, |_| batches.next_indices(), loss)?;
        Ok(Trained { delta: flat_values(&deltas)?, loss: outcome.loss })
    }
}
