//! A model of this device's own: private lanes over the global model, trained here and kept here.
//!
//! Private lanes stand in a layout of their own, drawn from a seed of their own. No plan names that layout, a session never
//! sees it, and an update speaks of the plan's layout alone, so a payload cannot name them.

use std::sync::Arc;

use packfed_codec::{LayerSpec, Layout, LayoutError, QUANTUM_EXPONENT, Seed, State, Window};
use thiserror::Error;

use crate::data::Dataset;
use crate::local::host::Host;
use crate::local::snapshot::JobDigest;
use crate::local::{LocalSteps, flat_values};
use crate::model::{Kind, MatrixSpec};
use crate::pretrained::{AdaptError, Pretrained};
use crate::task::TaskError;
use crate::text_task::TextTask;

/// Which private lanes there are, and how they are trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Personalization {
    /// Edge of the blocks of attention and feed-forward matrices.
    pub block: usize,
    /// Private residual lanes of a block.
    pub residual: usize,
    /// Edge of the classifier's blocks, all of whose lanes are private.
    pub head_block: usize,
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

/// A wave of a private block stays below two to this.
const GAIN_EXPONENT: i8 = 6;

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
        let layers = model.matrices().iter().map(|matrix| self.layer(matrix)).collect();
        let zero = State::zero(Arc::new(Layout::new(&private, layers)?));
        let residual = self.residual.max(self.head_block * self.head_block);
        let window = Window::first(residual);
        let (linears, deltas) = model.personal(global, &zero, window)?;
        let place = (JobDigest([0; 32]), &[][..], host);
        TextTask::new(model.clone(), dataset.clone()).steps(&self.local, (&linears, &deltas), &private, place)?;
        let delta = flat_values(&deltas).map_err(TaskError::from)?;
        Ok(moved(&zero, window, &delta))
    }

    /// Where the layout of private lanes comes from.
    #[must_use]
    pub fn seed(seed: &Seed) -> Seed {
        seed.derive("packfed/personal/1", &[])
    }

    fn layer(&self, matrix: &MatrixSpec) -> LayerSpec {
        let head = matrix.kind == Kind::Head;
        LayerSpec {
            name: matrix.name.clone(),
            rows: matrix.outputs,
            cols: matrix.inputs,
            block: if head { self.head_block } else { self.block },
            residual: if head { self.head_block * self.head_block } else { self.residual },
            gain_exponent: GAIN_EXPONENT,
        }
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
