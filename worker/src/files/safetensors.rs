//! The header of a safetensors file: a length, then JSON that says what lies where.
//!
//! ```text
//!  [n: u64][n bytes of JSON: name → {dtype, shape, data_offsets}][values, little-endian]
//! ```
//!
//! Source: huggingface/safetensors, "Format". Only the header is read here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ::safetensors::Dtype;
use serde::Deserialize;

use super::error::{ModelFileError, Problem};
use super::place::{self, Claim, Format, TensorInfo};

/// The format's own bound on its header.
const HEADER_BYTES_MAX: u64 = 100_000_000;

#[derive(Deserialize)]
struct Entry {
    dtype: Dtype,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The tensors of one file, by position.
pub(super) fn tensors(path: &Path) -> Result<Vec<TensorInfo>, ModelFileError> {
    let io = ModelFileError::io(path);
    let header = |offset: u64, why: String| Problem::Header { offset, why }.at(path);
    let mut file = File::open(path).map_err(&io)?;
    let length = file.metadata().map_err(&io)?.len();
    let Some(after) = length.checked_sub(8) else {
        return Err(header(0, format!("a safetensors file begins with 8 bytes, this one has {length}")));
    };
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix).map_err(&io)?;
    let size = u64::from_le_bytes(prefix);
    if size > after.min(HEADER_BYTES_MAX) {
        let why = format!("it claims {size} bytes, {after} are left and {HEADER_BYTES_MAX} are allowed");
        return Err(header(0, why));
    }
    let mut json = Vec::new();
    file.take(size).read_to_end(&mut json).map_err(&io)?;
    let syntax = |error: serde_json::Error| header(8 + error.column() as u64, error.to_string());
    let mut entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&json).map_err(syntax)?;
    entries.remove("__metadata__");
    let mut claims = Vec::new();
    for (name, entry) in entries {
        let entry: Entry =
            serde_json::from_value(entry).map_err(|error| header(8, format!("tensor {name}: {error}")))?;
        let (start, end) = entry.data_offsets;
        let Some(bytes) = end.checked_sub(start) else {
            return Err(header(8, format!("tensor {name} ends at {end}, before its start at {start}")));
        };
        let format = match entry.dtype {
            Dtype::F32 => Format::F32,
            Dtype::F16 => Format::F16,
            Dtype::BF16 => Format::Bf16,
            other => Format::Other(other),
        };
        let start = start.saturating_add(8 + size);
        claims.push(Claim { name, shape: entry.shape, format, start, bytes: Some(bytes) });
    }
    place::check(path, length, claims)
}

/// The weight files that an index names, in the order of their names, with the tensors that it puts in each.
pub(super) fn shards(index: &Path) -> Result<Vec<(PathBuf, Vec<String>)>, ModelFileError> {
    let text = std::fs::read(index).map_err(ModelFileError::io(index))?;
    let parsed: Index =
        serde_json::from_slice(&text).map_err(|error| ModelFileError::config(index, error.to_string()))?;
    let mut shards: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (tensor, file) in parsed.weight_map {
        // An index is data from elsewhere: it names files beside itself and no others.
        if Path::new(&file).file_name() != Some(file.as_ref()) {
            let why = format!("tensor {tensor} is said to be in {file:?}, which is not a file beside the index");
            return Err(ModelFileError::config(index, why));
        }
        shards.entry(file).or_default().push(tensor);
    }
    Ok(shards.into_iter().map(|(file, tensors)| (index.with_file_name(file), tensors)).collect())
}
