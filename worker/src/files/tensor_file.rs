//! A single safetensors file of any tensors: an adapter's, or deltas. Their names are as they stand there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::{ModelFileError, Problem};
use super::place::TensorInfo;
use super::read::{self, Rows};
use super::safetensors;
use crate::weight::Weight;

/// An opened file: its header read and checked, its values still on disk.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    tensors: BTreeMap<String, TensorInfo>,
}

impl TensorFile {
    /// Reads a header.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub fn open(path: &Path) -> Result<Self, ModelFileError> {
        let tensors = safetensors::tensors(path)?.into_iter().map(|info| (info.name.clone(), info)).collect();
        Ok(Self { path: path.to_owned(), tensors })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tensors by name.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values()
    }

    /// Reads a tensor.
    ///
    /// # Errors
    /// If there is none of this name, it is not of floats, or the file has changed since it was opened.
    pub fn weight(&self, name: &str) -> Result<Weight, ModelFileError> {
        let info = self.tensors.get(name).ok_or_else(|| Problem::Missing(name.to_owned()).at(&self.path))?;
        read::weight(info, Rows::Plain)
    }
}
