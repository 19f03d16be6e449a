//! Local training of a transformer on this worker's texts.

use std::sync::Arc;

use candle_core::Var;
use packfed_codec::Seed;

use crate::data::{Batches, Dataset, TokenExample};
use crate::local::host::Host;
use crate::local::snapshot::JobDigest;
use crate::local::{LocalOutcome, LocalSteps, Place, flat_values};
use crate::model::linears::Linears;
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

    /// Trains `deltas`, which `linears` apply, on the examples in the order of a seed.
    ///
    /// # Errors
    /// As [`LocalTask::train`].
    pub(crate) fn steps(
        &self,
        local: &LocalSteps,
        (linears, deltas): (&Arc<dyn Linears>, &[Var]),
        order: &Seed,
        (job, factors, host): (JobDigest, &[f32], &mut dyn Host),
    ) -> Result<LocalOutcome, TaskError> {
        let trained = deltas.iter().map(|delta| delta.elem_count()).sum();
        let longest = self.dataset.lengths().into_iter().max().unwrap_or(0);
        let fit = self.model.memory_need(trained, longest).fit(local.batch, host.memory_budget())?;
        let place = Place { job, micro_batch: fit.micro_batch as usize, factors, host };
        let mut batches = Batches::new(order, self.dataset.lengths(), local.batch as usize);
        let loss = |indices: &[usize]| {
            let examples: Vec<&TokenExample> = indices.iter().map(|&n| &self.dataset.examples[n]).collect();
            self.model.loss(linears, &examples, fit.activations)
        };
        local.run_at(place, deltas, |_| batches.next_indices(), loss)
    }
}

impl LocalTask for TextTask {
    fn examples(&self) -> u32 {
        u32::try_from(self.dataset.examples.len()).unwrap_or(u32::MAX)
    }

    fn train(&mut self, job: &Job, host: &mut dyn Host) -> Result<Trained, TaskError> {
        let adapter = self.model.adapter(job.state.layout())?;
        let (linears, deltas) = adapter.packed(&job.state, job.window)?;
        let place = (job.digest(self.examples()), &*job.factors, host);
        let outcome = self.steps(&job.local, (&linears, &deltas), &job.seed, place)?;
        Ok(Trained { delta: flat_values(&deltas)?, loss: outcome.loss })
    }
}
