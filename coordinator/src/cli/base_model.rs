//! What `init` needs of a base model: its digest and its matrices, from the header of a safetensors file.
//!
//! ```text
//!   ┌─────────────┬──────────────────────────────────────────┬──────────┐
//!   │ n, u64 LE   │ JSON: name → { dtype, shape, … }, n bytes │ tensors  │
//!   └─────────────┴──────────────────────────────────────────┴──────────┘
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use packfed_coordinator::config::LayerTable;
use packfed_protocol::Digest;
use serde::Deserialize;
use serde_json::Value;

use super::layers_file::LayersFile;

/// A base model's identity and what of it can be adapted.
#[derive(Debug)]
pub(super) struct BaseModel {
    /// BLAKE3 of the file.
    pub(super) digest: Digest,
    /// Its two-dimensional F32 tensors, by name.
    pub(super) matrices: Vec<Matrix>,
}

/// A tensor of two dimensions.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Matrix {
    pub(super) name: String,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

#[derive(Deserialize)]
struct Tensor {
    dtype: String,
    shape: Vec<usize>,
}

impl BaseModel {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("read base model {}", path.display()))?;
        let matrices = matrices(&bytes).with_context(|| format!("base model {}", path.display()))?;
        Ok(Self { digest: Digest::of(&bytes), matrices })
    }
}

impl BaseModel {
    /// Every matrix in blocks that suit its size.
    pub(super) fn layers(&self) -> LayersFile {
        let layer = |matrix: &Matrix| {
            let (block, residual) = if matrix.rows.min(matrix.cols) <= SMALL_EDGE { (4, 16) } else { (64, 48) };
            let (rows, cols) = (matrix.rows, matrix.cols);
            let (name, gain_exponent, rate_exponent) = (matrix.name.clone(), GAIN_EXPONENT, 0);
            LayerTable { name, rows, cols, block, residual, gain_exponent, rate_exponent }
        };
        LayersFile { base: self.digest, layers: self.matrices.iter().map(layer).collect() }
    }
}

/// A matrix with an edge up to this gets small blocks, all of whose 16 coefficients are kept.
const SMALL_EDGE: usize = 16;
/// A wave stays below two to this.
const GAIN_EXPONENT: i8 = 6;

fn matrices(file: &[u8]) -> Result<Vec<Matrix>> {
    let (length, rest) = file.split_first_chunk().context("it is no safetensors file: it has no 8-byte length")?;
    let length = u64::from_le_bytes(*length);
    ensure!(length <= HEADER_BYTES_MAX, "its header claims {length} bytes, allowed are {HEADER_BYTES_MAX}");
    let header = usize::try_from(length).ok().and_then(|length| rest.get(..length));
    let header = header.with_context(|| format!("its header claims {length} bytes, {} are there", rest.len()))?;
    let entries: BTreeMap<String, Value> = serde_json::from_slice(header).context("its header is not JSON")?;
    let mut matrices = Vec::new();
    for (name, entry) in entries.into_iter().filter(|(name, _)| name != "__metadata__") {
        let tensor = Tensor::deserialize(entry).with_context(|| format!("tensor {name:?}"))?;
        if let ("F32", [rows, cols]) = (tensor.dtype.as_str(), tensor.shape.as_slice()) {
            matrices.push(Matrix { name, rows: *rows, cols: *cols });
        }
    }
    if matrices.is_empty() {
        bail!("it has no two-dimensional F32 tensor; convert its weights to F32 first");
    }
    Ok(matrices)
}

/// The bound that the format's own reader has.
const HEADER_BYTES_MAX: u64 = 100_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 16]].concat()
    }

    #[test]
    fn matrices_are_taken_and_the_rest_is_left() {
        let header = r#"{"__metadata__":{"format":"pt"},
            "b":{"dtype":"F32","shape":[3,4],"data_offsets":[0,48]},"a":{"dtype":"F32","shape":[2,1]},
            "bias":{"dtype":"F32","shape":[3]},"half":{"dtype":"F16","shape":[3,4]}}"#;
        let matrix = |name: &str, rows, cols| Matrix { name: name.to_owned(), rows, cols };
        assert_eq!(matrices(&file(header)).unwrap(), [matrix("a", 2, 1), matrix("b", 3, 4)]);
    }

    #[test]
    fn a_header_that_lies_is_an_error() {
        let error = |file: &[u8]| matrices(file).unwrap_err().to_string();
        assert!(error(&[1, 2]).contains("no 8-byte length"));
        assert!(error(&[9, 0, 0, 0, 0, 0, 0, 0, 1]).contains("claims 9 bytes, 1 are there"));
        assert!(error(&[0xff; 64]).contains("allowed are 100000000"));
        assert!(error(&file("[1]")).contains("not JSON"));
        assert!(error(&file(r#"{"a":{"dtype":"F32","shape":[-1,2]}}"#)).contains("tensor \"a\""));
        assert!(error(&file("{}")).contains("no two-dimensional F32 tensor"));
    }
}
