//! Local training of a transformer on this worker's texts.

use std::sync::Arc;

use candle_core::Var;
use packfed_codec::{Layout, Seed, State};

use crate::data::{Batches, Dataset, TokenExample};
use crate::evaluation::{Found, Side, Watch, measure, side_by_side};
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
    held_out: Option<Arc<Dataset>>,
}

impl TextTask {
    /// Training on these examples.
    #[must_use]
    pub const fn new(model: Arc<Pretrained>, dataset: Arc<Dataset>) -> Self {
        Self { model, dataset, held_out: None }
    }

    /// The same, measured on examples that it is not trained on; none if there is not one.
    #[must_use]
    pub fn holding_out(self, held_out: Arc<Dataset>) -> Self {
        Self { held_out: (!held_out.examples.is_empty()).then_some(held_out), ..self }
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

    fn fits(&self, layout: &Arc<Layout>) -> Result<(), TaskError> {
        Ok(self.model.adapter(layout).map(|_| ())?)
    }

    fn evaluate(&mut self, states: [&State; 2], examples_max: u32, watch: &mut dyn Watch) -> Result<Found, TaskError> {
        let [before, after] = states.map(|state| self.model.global(state));
        let (before, after) = (before?, after?);
        let examples = &self.held_out.as_ref().unwrap_or(&self.dataset).examples;
        let mut score = |side, n: usize| {
            let linears = match side {
                Side::Before => &before,
                Side::After => &after,
            };
            let found = self.model.evaluate(linears, &[&examples[n]])?;
            Ok((found.mean_loss(), found.accuracy()))
        };
        if self.held_out.is_none() {
            return Ok(Found::Healthy(measure(watch, &mut score, Side::After, 0)?));
        }
        let count = examples.len().min(usize::try_from(examples_max).unwrap_or(usize::MAX));
        Ok(Found::HeldOut(side_by_side(count, watch, &mut score)?))
    }
}
