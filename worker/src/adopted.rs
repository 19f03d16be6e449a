//! The coordinator's plan as this worker took it over: checked against the layout that follows from it
//! and the base model that lies here.

use std::sync::Arc;

use packfed_codec::{LayerSpec, Layout, LayoutError, Profile, Seed, UnknownProfile};
use packfed_protocol::{Digest, LayerPlan, Plan, RunId};
use thiserror::Error;

/// A plan that this worker can follow.
#[derive(Clone, Debug, PartialEq)]
pub struct Adopted {
    /// The run.
    pub run: RunId,
    /// Where all of the run's randomness comes from.
    pub seed: Seed,
    /// The model's blocks.
    pub layout: Arc<Layout>,
    /// Packing of the words.
    pub profile: Profile,
    /// Most examples that an update may claim.
    pub examples_max: u32,
    /// How fast each layer learns, as a multiple of an assignment's rate.
    pub factors: Arc<[f32]>,
}

/// Why a plan cannot be followed here.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AdoptError {
    /// The plan is for another run than this worker enrolled in.
    #[error("the plan is for run {found}, this worker enrolled in run {expected}")]
    Run {
        /// Run of the plan.
        found: RunId,
        /// Run of the enrolment.
        expected: RunId,
    },
    /// The plan is for another base model.
    #[error("the plan is for a base model with digest {expected}, the one here has {found}; fetch the right file")]
    Base {
        /// Digest of the file here.
        found: Digest,
        /// Digest that the plan names.
        expected: Digest,
    },
    /// The layer list is not a layout.
    #[error("the plan's layers are not a layout: {0}")]
    Layers(#[from] LayoutError),
    /// The layout that follows from the plan is another than the coordinator's.
    #[error(
        "the plan's layout comes to {found} here and {expected} at the coordinator; run the same version of packfed"
    )]
    Layout {
        /// Digest found here.
        found: Digest,
        /// Digest in the plan.
        expected: Digest,
    },
    /// The words are packed in a way that this version does not know.
    #[error(transparent)]
    Profile(#[from] UnknownProfile),
}

impl Adopted {
    /// Takes a plan over, for the run that this worker enrolled in and the base model that it has.
    ///
    /// # Errors
    /// If the plan is for something else, or cannot be followed by this version.
    pub fn new(plan: &Plan, run: RunId, base: Digest) -> Result<Self, AdoptError> {
        if plan.run != run {
            return Err(AdoptError::Run { found: plan.run, expected: run });
        }
        if plan.base != base {
            return Err(AdoptError::Base { found: base, expected: plan.base });
        }
        let profile = Profile::from_number(plan.profile)?;
        let seed = Seed::from_bytes(plan.seed);
        let layout = Layout::new(&seed, plan.layers.iter().map(spec).collect())?;
        let found = Digest(layout.digest().0);
        if found != plan.layout {
            return Err(AdoptError::Layout { found, expected: plan.layout });
        }
        let factors = plan.layers.iter().map(|layer| 2f32.powi(layer.rate_exponent.into())).collect();
        Ok(Self { run, seed, layout: Arc::new(layout), profile, examples_max: plan.examples_max, factors })
    }
}

fn spec(layer: &LayerPlan) -> LayerSpec {
    let wide = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    LayerSpec {
        name: layer.name.clone(),
        rows: wide(layer.rows),
        cols: wide(layer.cols),
        block: layer.block.into(),
        residual: layer.residual.into(),
        gain_exponent: layer.gain_exponent,
    }
}
