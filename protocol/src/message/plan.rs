//! What stays the same for a whole run.
//!
//! Whether the numbers make sense together (a block larger than its layer, say) is for the codec
//! to say when it builds the layout; this only bounds how much there is of them.

use serde::{Deserialize, Serialize};

use crate::id::{Digest, RunId};
use crate::limits::{self, LAYER_NAME_BYTES_MAX, LAYERS_MAX};
use crate::wire::{self, DecodeError};

/// A run's constants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Which run.
    pub run: RunId,
    /// What every drawn position and rounding of the run derives from.
    pub seed: [u8; 32],
    /// The digest of the frozen base model.
    pub base: Digest,
    /// The digest of the layout of blocks and words.
    pub layout: Digest,
    /// The number of the word's profile; what it means is the codec's.
    pub profile: u8,
    /// How many rounds the run commits.
    pub rounds: u64,
    /// The most examples that one update may claim.
    pub examples_max: u32,
    /// The adapted layers in the order of the words, at most [`LAYERS_MAX`].
    pub layers: Vec<LayerPlan>,
}

/// One adapted layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerPlan {
    /// The path of its weight, of at most [`LAYER_NAME_BYTES_MAX`] bytes, no control characters.
    pub name: String,
    /// Rows of the weight: outputs.
    pub rows: u32,
    /// Columns of the weight: inputs.
    pub cols: u32,
    /// The edge of a block, B.
    pub block: u16,
    /// Residual coefficients per block, K.
    pub residual: u16,
    /// The gain g of the wave is 2 to this.
    pub gain_exponent: i8,
    /// Its lanes learn at 2 to this times the assignment's rate.
    pub rate_exponent: i8,
}

impl Plan {
    pub(super) fn decode(body: &[u8]) -> Result<Plan, DecodeError> {
        let plan: Plan = wire::from_bytes(body)?;
        limits::check_length("layers", plan.layers.len(), LAYERS_MAX)?;
        for layer in &plan.layers {
            limits::check_length("layer name", layer.name.len(), LAYER_NAME_BYTES_MAX)?;
            limits::check_printable("layer name", &layer.name)?;
        }
        Ok(plan)
    }
}
