//! Why model files cannot be used: always the file, and where there is one the tensor and both shapes.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a path is not a model that packfed can load.
#[derive(Debug, Error)]
#[error("{}: {problem}", path.display())]
pub struct ModelFileError {
    /// The file, or a directory of several.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Box<Problem>,
}

/// What can be wrong with a model's file.
#[derive(Debug, Error)]
pub enum Problem {
    /// The system refused.
    #[error("{0}")]
    Io(std::io::Error),
    /// The path holds no model in a known form; what was looked for.
    #[error("{0}")]
    Unrecognized(String),
    /// A model of an architecture that is not built here.
    #[error("architecture {found:?} is not supported; supported are {supported}")]
    Architecture {
        /// The name found.
        found: String,
        /// The names that can be loaded.
        supported: &'static str,
    },
    /// The configuration lacks a value, or has one that cannot be honoured: the key, the value found and the bound.
    #[error("{0}")]
    Config(String),
    /// A weight file's header is damaged.
    #[error("header, byte {offset}: {why}")]
    Header {
        /// Where reading stopped.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// A tensor of this name is not in the file.
    #[error("tensor {0} is missing")]
    Missing(String),
    /// Two tensors have this name.
    #[error("tensor {0} is there twice")]
    Twice(String),
    /// A tensor has another shape than the model needs.
    #[error("tensor {tensor} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Its name.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that fits.
        expected: Vec<usize>,
    },
    /// A tensor is stored in a way that cannot be read.
    #[error("tensor {tensor} of shape {shape:?} is stored as {found}, expected {expected}")]
    Format {
        /// Its name.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// How it is stored.
        found: String,
        /// What can be read.
        expected: &'static str,
    },
    /// A tensor's bytes are not as many as its shape takes.
    #[error("tensor {tensor} of shape {shape:?} takes {expected} bytes, the header gives it {found}")]
    Length {
        /// Its name.
        tensor: String,
        /// Its shape.
        shape: Vec<u64>,
        /// Bytes that the header gives it.
        found: u64,
        /// Bytes that the shape takes.
        expected: u64,
    },
    /// A tensor lies outside its file, as in a truncated one, or on another tensor.
    #[error("tensor {tensor} lies at bytes {start}..{end}, {what}")]
    Bounds {
        /// Its name.
        tensor: String,
        /// Its first byte in the file.
        start: u64,
        /// One past its last byte.
        end: u64,
        /// What it collides with.
        what: String,
    },
    /// The tensor library refused bytes that passed every check.
    #[error("tensor {tensor}: {source}")]
    Tensor {
        /// Its name.
        tensor: String,
        /// What it said.
        source: candle_core::Error,
    },
}

impl Problem {
    pub(super) fn at(self, path: &Path) -> ModelFileError {
        ModelFileError { path: path.to_owned(), problem: Box::new(self) }
    }
}

impl ModelFileError {
    /// For `map_err` on what the system does with a file.
    pub(super) fn io(path: &Path) -> impl Fn(std::io::Error) -> Self {
        move |source| Problem::Io(source).at(path)
    }

    pub(super) fn config(path: &Path, why: impl Into<String>) -> Self {
        Problem::Config(why.into()).at(path)
    }
}
