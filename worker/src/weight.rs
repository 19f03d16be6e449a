//! A frozen tensor as its file stores it: 32-bit or 16-bit floats, or quantized blocks kept quantized.
//!
//! A quantized matrix is cut into chunks of whole rows, so that widening it never needs more than one chunk's
//! floats at a time. It knows neither files nor models.

use std::sync::Arc;

use candle_core::quantized::QTensor;
use half::{bf16, f16};

/// Values in the order of rows.
#[derive(Clone, Debug)]
pub enum Stored {
    /// 32-bit floats.
    F32(Arc<Vec<f32>>),
    /// IEEE 754 half precision.
    F16(Arc<Vec<f16>>),
    /// The upper half of a 32-bit float.
    Bf16(Arc<Vec<bf16>>),
    /// GGUF blocks: chunks of whole rows, first to last, each a matrix of its own with the same number of columns.
    Quantized(Arc<Vec<QTensor>>),
}

/// A frozen tensor.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Its name in the Hugging Face layout of its family.
    pub name: String,
    /// Its dimensions; a matrix is outputs × inputs.
    pub shape: Vec<usize>,
    /// Its values.
    pub stored: Stored,
}

impl Stored {
    /// What it takes in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let bytes = match self {
            Self::F32(values) => size_of_val(values.as_slice()),
            Self::F16(values) => size_of_val(values.as_slice()),
            Self::Bf16(values) => size_of_val(values.as_slice()),
            Self::Quantized(chunks) => chunks.iter().map(QTensor::storage_size_in_bytes).sum(),
        };
        bytes as u64
    }
}
