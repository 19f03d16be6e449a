//! Where a tensor lies in its file, checked against the file before anything is read or allocated.

use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;

use super::error::{ModelFileError, Problem};

/// How a file stores a tensor's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of a 32-bit float.
    Bf16,
    /// GGUF blocks.
    Quantized(GgmlDType),
    /// Anything else, such as integers: listed, but not readable as a weight.
    Other(safetensors::Dtype),
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::F32 => f.write_str("F32"),
            Self::F16 => f.write_str("F16"),
            Self::Bf16 => f.write_str("BF16"),
            Self::Quantized(format) => write!(f, "{format:?}"),
            Self::Other(format) => write!(f, "{format:?}"),
        }
    }
}

impl Format {
    /// Bytes that a shape takes; `None` if that is no whole number of blocks, or more than 2⁶⁴.
    pub(super) fn bytes(self, shape: &[u64]) -> Option<u64> {
        let values = shape.iter().try_fold(1u64, |product, &edge| product.checked_mul(edge))?;
        let whole = |value: u64, block: u64, bytes: u64| {
            (value.is_multiple_of(block)).then(|| (value / block).checked_mul(bytes)).flatten()
        };
        match self {
            Self::F32 => values.checked_mul(4),
            Self::F16 | Self::Bf16 => values.checked_mul(2),
            Self::Quantized(format) => {
                let block = format.block_size() as u64;
                let rows_are_whole = shape.last().is_some_and(|cols| cols.is_multiple_of(block));
                if rows_are_whole { whole(values, block, format.type_size() as u64) } else { None }
            }
            Self::Other(format) => whole(values.checked_mul(format.bitsize() as u64)?, 8, 1),
        }
    }
}

/// One tensor of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Its name in the Hugging Face layout of its family.
    pub name: String,
    /// Its dimensions; a matrix is outputs × inputs.
    pub shape: Vec<usize>,
    /// How it is stored.
    pub format: Format,
    /// Bytes that it takes in the file, and about as many in memory.
    pub bytes: u64,
    /// The file that it is in.
    pub path: PathBuf,
    /// Its first byte there.
    pub(super) start: u64,
}

/// A tensor as a header describes it, not yet believed.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) name: String,
    pub(super) shape: Vec<u64>,
    pub(super) format: Format,
    pub(super) start: u64,
    /// `None` where the header gives no end of its own.
    pub(super) bytes: Option<u64>,
}

impl Claim {
    /// The tensor, if its shape, its bytes and the file's `length` agree.
    fn check(self, path: &Path, length: u64) -> Result<TensorInfo, ModelFileError> {
        let Some(expected) = self.format.bytes(&self.shape) else {
            let shape = self.shape.iter().map(|&edge| usize::try_from(edge).unwrap_or(usize::MAX)).collect();
            let expected = "rows of whole blocks, and fewer than 2^64 bytes";
            let (found, tensor) = (self.format.to_string(), self.name);
            return Err(Problem::Format { tensor, shape, found, expected }.at(path));
        };
        if let Some(found) = self.bytes.filter(|&found| found != expected) {
            let (tensor, shape) = (self.name, self.shape);
            return Err(Problem::Length { tensor, shape, found, expected }.at(path));
        }
        let end = self.start.saturating_add(expected);
        if end > length {
            let what = format!("the file has {length}");
            return Err(bounds(path, self.name, self.start, end, what));
        }
        // Every edge divides a number of bytes that the file has, unless the tensor is empty.
        let edge = |&edge: &u64| usize::try_from(edge).unwrap_or(usize::MAX);
        Ok(TensorInfo {
            name: self.name,
            shape: self.shape.iter().map(edge).collect(),
            format: self.format,
            bytes: expected,
            path: path.to_owned(),
            start: self.start,
        })
    }
}

/// All tensors of one file of `length` bytes, none outside it and none on another: together they are no
/// larger than the file.
pub(super) fn check(path: &Path, length: u64, claims: Vec<Claim>) -> Result<Vec<TensorInfo>, ModelFileError> {
    let mut tensors = claims.into_iter().map(|claim| claim.check(path, length)).collect::<Result<Vec<_>, _>>()?;
    tensors.sort_by_key(|tensor| (tensor.start, tensor.bytes));
    for pair in tensors.windows(2) {
        let [before, after] = pair else { continue };
        if before.start + before.bytes > after.start {
            let end = after.start + after.bytes;
            let what = format!("tensor {} ends at {}", before.name, before.start + before.bytes);
            return Err(bounds(path, after.name.clone(), after.start, end, what));
        }
    }
    Ok(tensors)
}

fn bounds(path: &Path, tensor: String, start: u64, end: u64, what: String) -> ModelFileError {
    Problem::Bounds { tensor, start, end, what }.at(path)
}
