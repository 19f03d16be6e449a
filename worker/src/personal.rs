//! A model of this device's own: private lanes over the global model, trained here and kept here.
//!
//! Private lanes stand in a layout of their own, drawn from a seed of their own. No plan names that layout, a session never
//! sees it, and an update speaks of the plan's layout alone, so a payload cannot name them.

use std::sync::Arc;

use packfed_codec::{Layout, LayoutError, QUANTUM_EXPONENT, Seed, State, Window};
use thiserror::Error;

use crate::data::Dataset;
use crate::local::host::Host;
use crate::local::{LocalSteps, flat_values};
use crate::patterns::Blocks;
use crate::pretrained::{AdaptError, Pretrained};
use crate::task::{Job, LocalTask, TaskError};
use crate::text_task::TextTask;

/// Which private lanes there are, and how they are trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Personalization {
    /// Blocks of the private lanes.
    pub blocks: Blocks,
    /// Training, at a rate in orthonormal-coefficient units.
    pub local: LocalSteps,
}

/// Private lanes that cannot be.
#[derive(Debug, Error)]
pub enum PersonalError {
    /// They are no layout.
    #[error("the private lanes are no layout: {0}")]
    Layout(#[from] LayoutError),
    /// They are not of this model.
    #[error(transparent)]
    Adapt(#[from] AdaptError),
    /// They could not be trained.
    #[error(transparent)]
    Task(#[from] TaskError),
}

impl Personalization {
    /// Trains private lanes over the global model, from zero.
    ///
    /// # Errors
    /// If the sizes make no layout, or training fails.
    pub fn train(
        &self,
        model: &Arc<Pretrained>,
        global: &State,
        dataset: &Arc<Dataset>,
        seed: &Seed,
        host: &mut dyn Host,
    ) -> Result<State, PersonalError> {
        let private = Self::seed(seed);
        let Blocks { residual, head_block, .. } = self.blocks;
        let window = Window::first(residual.max(head_block * head_block));
        let zero = Arc::new(State::zero(Arc::new(Layout::new(&private, self.blocks.layers(model.matrices()))?)));
        let (linears, deltas) = model.personal(global, &zero, window)?;
        let task = TextTask::new(model.clone(), dataset.clone());
        // The global model is frozen beneath, and yet what is trained follows from it.
        let seed = private.derive_for_key("packfed/personal-job/1", &global.digest().0);
        let job = Job { state: zero.clone(), window, local: self.local, factors: [].into(), seed };
        let place = (job.digest(task.examples()), &*job.factors, host);
        task.steps(&job.local, (&linears, &deltas), &private, place)?;
        let delta = flat_values(&deltas).map_err(TaskError::from)?;
        Ok(moved(&zero, window, &delta))
    }

    /// Where the layout of private lanes comes from.
    #[must_use]
    pub fn seed(seed: &Seed) -> Seed {
        seed.derive("packfed/personal/1", &[])
    }
}

/// A state moved by a delta, to the nearest quantum.
fn moved(state: &State, window: Window, delta: &[f32]) -> State {
    let mut lanes = state.lanes().to_vec();
    window.for_each_slot(state.layout(), |slot| {
        let steps = f64::from(delta[slot.index]) * 2f64.powi((-QUANTUM_EXPONENT).into());
        #[expect(clippy::cast_possible_truncation, reason = "a float beyond an integer's range becomes its end")]
        let steps = steps.round() as i32;
        lanes[slot.lane] = lanes[slot.lane].saturating_add(steps);
    });
    let bytes: Vec<u8> = lanes.into_iter().flat_map(i32::to_le_bytes).collect();
    State::from_bytes(state.layout().clone(), &bytes).expect("as many lanes as before")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::TokenExample;
    use crate::files::ModelFiles;
    use crate::local::snapshot::{JobDigest, Snapshot};
    use crate::tiny;

    /// Remembers what it was asked to go on with.
    #[derive(Default)]
    struct Asked(Vec<JobDigest>);

    impl Host for Asked {
        fn resume(&mut self, job: &JobDigest) -> Option<Snapshot> {
            self.0.push(*job);
            None
        }
    }

    #[test]
    fn a_snapshot_is_of_one_training_over_one_global_model() {
        let folder = tempfile::tempdir().unwrap();
        tiny::write_llama(folder.path(), &Seed::from_number(1)).unwrap();
        let model = Arc::new(Pretrained::open(&ModelFiles::open(folder.path()).unwrap(), None).unwrap());
        let dataset =
            Arc::new(Dataset { examples: vec![TokenExample { ids: vec![5, 6, 7], label: None }], skipped: 0 });
        let blocks = Blocks { block: 16, residual: 3, head_block: 4 };
        let layout = Layout::new(&Seed::from_number(9), blocks.layers(model.matrices())).unwrap();
        let zero = State::zero(Arc::new(layout));
        let first = Window::first(0);
        let mut delta = vec![0.0; zero.layout().blocks() * first.width()];
        delta[0] = 0.5;
        let mut asked = Asked::default();
        let mut train = |global: &State, steps, rate, seed| {
            let plan = Personalization { blocks, local: LocalSteps::adam(steps, 1, rate) };
            plan.train(&model, global, &dataset, &Seed::from_number(seed), &mut asked).unwrap();
        };
        train(&zero, 1, 0.01, 1);
        train(&zero, 1, 0.01, 1);
        train(&zero, 2, 0.01, 1);
        train(&zero, 1, 0.02, 1);
        train(&zero, 1, 0.01, 2);
        train(&moved(&zero, first, &delta), 1, 0.01, 1);
        let Asked(asked) = asked;
        assert_eq!(asked[0], asked[1], "the same training");
        assert!(asked[2..].iter().all(|job| *job != asked[0]), "other steps, rate, seed, global model");
    }
}
