//! Transformers that train: what they compute, not what their matrices are.
//!
//! A model owns its embeddings and norms and lists its matrices ([`MatrixSpec`]); how one of them is applied is
//! [`linears::Linears`]' business, so the same model runs frozen, packed, or however a simulation compares it. It knows no
//! files: weights come by their Hugging Face names through a function of the caller's.

pub mod bert;
pub mod linears;
pub mod llama;
pub mod tokens;

use thiserror::Error;

use crate::adapted::Element;
use crate::nn::embedding::Embedding;
use crate::nn::widen::whole;
use crate::weight::Weight;

/// What a matrix is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A projection of attention.
    Attention,
    /// Of a feed-forward layer.
    Mlp,
    /// A classifier, new with every task.
    Head,
}

/// One matrix of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatrixSpec {
    /// Its name in the Hugging Face layout of the family.
    pub name: String,
    /// Number of outputs, its rows.
    pub outputs: usize,
    /// Number of inputs, its columns.
    pub inputs: usize,
    /// What it is for.
    pub kind: Kind,
    /// The name of its bias, if the family has one.
    pub bias: Option<String>,
}

/// Whether a layer's intermediate tensors are kept for the backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activations {
    /// They are kept.
    Kept,
    /// Only the layer's input is; the rest is computed again. One more forward pass, a fraction of the memory, the
    /// same bits.
    Recomputed,
}

/// Dimensions that make no model.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A dimension is 0.
    #[error("{0} is 0")]
    Zero(&'static str),
    /// The features of a layer are no whole heads.
    #[error("hidden size {hidden} in {heads} heads")]
    Heads {
        /// Features of a token.
        hidden: usize,
        /// Attention heads.
        heads: usize,
    },
    /// Query heads cannot share the key heads evenly.
    #[error("{heads} query heads over {kv_heads} key heads")]
    KeyHeads {
        /// Query heads.
        heads: usize,
        /// Key and value heads.
        kv_heads: usize,
    },
    /// Rotary embedding turns halves of a head.
    #[error("heads of {0} features have no halves")]
    OddHead(usize),
}

/// Why a model cannot be put together from its weights; `S` is the error of where they come from.
#[derive(Debug, Error)]
pub enum LoadError<S: std::error::Error + 'static> {
    /// The configuration makes no sense.
    #[error("the configuration makes no model: {0}")]
    Config(#[from] ConfigError),
    /// The weights' source failed.
    #[error(transparent)]
    Source(S),
    /// The source gave a tensor of another shape.
    #[error("tensor {name} has shape {found:?}, expected {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that was asked for.
        expected: Vec<usize>,
    },
    /// A tensor does not hold what its shape says.
    #[error("a tensor cannot be used: {0}")]
    Tensor(candle_core::Error),
}

/// Where weights come from: a name and the shape that is expected, to a tensor.
pub type Source<'a, S> = &'a mut dyn FnMut(&str, &[usize]) -> Result<Weight, S>;

fn weight<S: std::error::Error>(source: Source<'_, S>, name: &str, shape: &[usize]) -> Result<Weight, LoadError<S>> {
    let weight = source(name, shape).map_err(LoadError::Source)?;
    if weight.shape != shape {
        return Err(LoadError::Shape { name: name.into(), found: weight.shape, expected: shape.to_vec() });
    }
    Ok(weight)
}

fn vector<E: Element, S: std::error::Error>(
    source: Source<'_, S>,
    name: &str,
    length: usize,
) -> Result<Vec<E>, LoadError<S>> {
    let weight = weight(source, name, &[length])?;
    let values: Vec<E> = whole(&weight.stored).map_err(LoadError::Tensor)?;
    if values.len() != length {
        return Err(LoadError::Shape { name: name.into(), found: vec![values.len()], expected: vec![length] });
    }
    Ok(values)
}

fn embedding<S: std::error::Error>(
    source: Source<'_, S>,
    name: &str,
    shape: [usize; 2],
) -> Result<Embedding, LoadError<S>> {
    Embedding::new(weight(source, name, &shape)?).map_err(LoadError::Tensor)
}

fn not_zero(dimensions: &[(&'static str, usize)]) -> Result<(), ConfigError> {
    match dimensions.iter().find(|(_, size)| *size == 0) {
        Some((name, _)) => Err(ConfigError::Zero(name)),
        None => Ok(()),
    }
}
