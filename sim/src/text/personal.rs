//! Personal models beside the global one, each on its own worker's held-out texts.

use packfed_codec::{Seed, State, Window};
use packfed_worker::local::LocalSteps;
use packfed_worker::local::host::Unattended;
use packfed_worker::personal::{PersonalError, Personalization};
use packfed_worker::pretrained::Evaluation;
use packfed_worker::task::TaskError;

use super::Texts;
use super::run::BLOCKS;
use crate::parallel;
use crate::results::{Metric, PersonalResult, Score};

/// How private lanes are trained after a run: about as long as a worker trains in three rounds, at a fifth of its rate. A
/// character has a few pages, and at the run's own rate its model learns them by heart.
pub const PERSONAL: Personalization = Personalization { blocks: BLOCKS, local: LocalSteps::adam(24, 2, 0.001) };

impl Texts {
    /// Trains every worker's private lanes over a global model, and compares both on what that worker holds out. Workers
    /// that hold nothing out are left out.
    ///
    /// # Errors
    /// If training or testing fails.
    pub fn personalize(
        &self,
        global: &State,
        plan: &Personalization,
        seed: &Seed,
    ) -> Result<PersonalResult, PersonalError> {
        let workers: Vec<usize> = (0..self.shards.len()).filter(|&n| !self.held_out[n].is_empty()).collect();
        // Made once, before threads ask for it.
        let below = self.model.global(global)?;
        let both = parallel::map(&workers, self.threads, |&n| {
            let own = seed.derive("packfed/personal-worker/1", &[n as u64]);
            let private = plan.train(&self.model, global, &self.shards[n], &own, &mut Unattended)?;
            let (above, _) = self.model.personal(global, &private, Window::first(0))?;
            let score = |linears| self.model.evaluate_all(linears, &self.held_out[n]).map_err(TaskError::from);
            Ok((score(&below)?, score(&above)?))
        });
        let both = both.into_iter().collect::<Result<Vec<(Evaluation, Evaluation)>, PersonalError>>()?;
        let better = both.iter().filter(|(global, personal)| personal.mean_loss() < global.mean_loss()).count();
        Ok(PersonalResult {
            workers: both.len() as u64,
            better: better as u64,
            global: whole(both.iter().map(|(global, _)| *global)),
            personal: whole(both.iter().map(|(_, personal)| *personal)),
        })
    }
}

fn whole(parts: impl Iterator<Item = Evaluation>) -> Score {
    let whole: Evaluation = parts.sum();
    Score { accuracy: whole.accuracy(), loss: whole.mean_loss() }
}

impl PersonalResult {
    /// What a person reads.
    #[must_use]
    pub fn line(&self, metric: Metric) -> String {
        let (global, personal) = (metric.written(&self.global), metric.written(&self.personal));
        format!(
            "personal models on their own held-out texts: {} {personal}, the global one {global}; better for {} of {} workers",
            metric.name(),
            self.better,
            self.workers
        )
    }
}
