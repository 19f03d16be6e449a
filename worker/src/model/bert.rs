//! BERT-family encoders (Devlin et al., 2018) with a classification head over the pooled last layer.
//!
//! ```text
//!  x = norm(word + position + segment 0)
//!  each layer:  x = norm(x + output(attention(query x, key x, value x)))
//!               x = norm(x + output(activation(intermediate x)))
//!  logits = classifier(pooled x)
//! ```
//!
//! Outputs are those of `transformers`' `BertModel`, without its pooler. Dropout is 0.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Result as TensorResult, Tensor};
use packfed_codec::Scalar;

use crate::adapted::Element;
use crate::model::linears::{Linears, layer};
use crate::model::tokens::Tokens;
use crate::model::{Activations, ConfigError, Kind, LoadError, MatrixSpec, Source, embedding, not_zero, vector};
use crate::nn::activation::Activation;
use crate::nn::attention::{Attention, Heads, Mask};
use crate::nn::embedding::Embedding;
use crate::nn::norm::Norm;
use crate::nn::pool::Pooling;

/// An encoder's dimensions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BertConfig {
    /// Features of a token between layers.
    pub hidden: usize,
    /// Encoder layers.
    pub layers: usize,
    /// Attention heads; they divide `hidden`.
    pub heads: usize,
    /// Features of a token inside a feed-forward layer.
    pub intermediate: usize,
    /// Rows of the word embedding.
    pub vocabulary: usize,
    /// Rows of the position embedding: the longest sequence in tokens.
    pub positions_max: usize,
    /// Rows of the segment embedding, of which the first is used.
    pub token_types: usize,
    /// Added to the variance in layer norms.
    pub norm_eps: f64,
    /// Of the feed-forward layers.
    pub activation: Activation,
}

/// What makes classes of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classifier {
    /// How a sequence becomes one vector.
    pub pooling: Pooling,
    /// Classes.
    pub labels: usize,
}

/// Matrices of a layer: query, key, value, attention output, intermediate, output.
const MATRICES: usize = 6;

impl BertConfig {
    /// The matrices: six a layer, then the classifier's.
    #[must_use]
    pub fn matrices(&self, classifier: Classifier) -> Vec<MatrixSpec> {
        let (hidden, intermediate) = (self.hidden, self.intermediate);
        let spec = |name: String, outputs, inputs, kind| {
            let bias = Some(format!("{name}.bias"));
            MatrixSpec { name: format!("{name}.weight"), outputs, inputs, kind, bias }
        };
        let layer = |n: usize| {
            let name = move |part: &str| format!("encoder.layer.{n}.{part}");
            [
                spec(name("attention.self.query"), hidden, hidden, Kind::Attention),
                spec(name("attention.self.key"), hidden, hidden, Kind::Attention),
                spec(name("attention.self.value"), hidden, hidden, Kind::Attention),
                spec(name("attention.output.dense"), hidden, hidden, Kind::Attention),
                spec(name("intermediate.dense"), intermediate, hidden, Kind::Mlp),
                spec(name("output.dense"), hidden, intermediate, Kind::Mlp),
            ]
        };
        let head = spec("classifier".into(), classifier.labels, hidden, Kind::Head);
        (0..self.layers).flat_map(layer).chain([head]).collect()
    }

    /// Features of a token between and inside layers, layers, heads.
    pub(crate) const fn sizes(&self) -> (usize, usize, usize, usize) {
        (self.hidden, self.intermediate, self.layers, self.heads)
    }

    fn check(&self) -> Result<(), ConfigError> {
        not_zero(&[
            ("hidden size", self.hidden),
            ("number of layers", self.layers),
            ("number of heads", self.heads),
            ("intermediate size", self.intermediate),
            ("vocabulary", self.vocabulary),
            ("number of positions", self.positions_max),
            ("number of token types", self.token_types),
        ])?;
        if !self.hidden.is_multiple_of(self.heads) {
            return Err(ConfigError::Heads { hidden: self.hidden, heads: self.heads });
        }
        Ok(())
    }
}

/// An encoder without its matrices.
#[derive(Clone, Debug)]
pub struct Bert<E> {
    config: BertConfig,
    words: Embedding,
    positions: Embedding,
    segments: Embedding,
    norm: Norm<E>,
    layers: Vec<Layer<E>>,
}

/// What a layer owns.
#[derive(Clone, Debug)]
struct Layer<E> {
    attention_norm: Norm<E>,
    output_norm: Norm<E>,
    activation: Activation,
}

impl<E: Element> Bert<E> {
    /// Embeddings and norms of a model.
    ///
    /// # Errors
    /// If the configuration makes no model, the source fails, or a tensor has another shape.
    pub fn load<S: std::error::Error>(config: BertConfig, source: Source<'_, S>) -> Result<Self, LoadError<S>> {
        config.check()?;
        let hidden = config.hidden;
        let words = embedding(source, "embeddings.word_embeddings.weight", [config.vocabulary, hidden])?;
        let positions = embedding(source, "embeddings.position_embeddings.weight", [config.positions_max, hidden])?;
        let segments = embedding(source, "embeddings.token_type_embeddings.weight", [config.token_types, hidden])?;
        let norm = |name: &str, source: Source<'_, S>| {
            let weight = vector(source, &format!("{name}.weight"), hidden)?;
            let bias = vector(source, &format!("{name}.bias"), hidden)?;
            Norm::layer(weight, bias, config.norm_eps).map_err(LoadError::Tensor)
        };
        let embedding_norm = norm("embeddings.LayerNorm", source)?;
        let mut layers = Vec::new();
        for n in 0..config.layers {
            layers.push(Layer {
                attention_norm: norm(&format!("encoder.layer.{n}.attention.output.LayerNorm"), source)?,
                output_norm: norm(&format!("encoder.layer.{n}.output.LayerNorm"), source)?,
                activation: config.activation,
            });
        }
        Ok(Self { config, words, positions, segments, norm: embedding_norm, layers })
    }

    /// Its dimensions.
    #[must_use]
    pub const fn config(&self) -> &BertConfig {
        &self.config
    }

    /// The last layer's output, tokens × hidden.
    ///
    /// # Errors
    /// If a sequence is too long or an id is not of the vocabulary.
    pub fn hidden(
        &self,
        linears: &Arc<dyn Linears>,
        tokens: &Tokens,
        activations: Activations,
    ) -> TensorResult<Tensor> {
        tokens.check(self.config.positions_max)?;
        let BertConfig { hidden, heads, .. } = self.config;
        let sequences = tokens.sequences();
        let positions: Vec<u32> = sequences.positions().map(|at| u32::try_from(at).unwrap_or(u32::MAX)).collect();
        let mut x = vec![<E as Scalar>::ZERO; tokens.ids().len() * hidden];
        self.words.add_rows(tokens.ids(), &mut x)?;
        self.positions.add_rows(&positions, &mut x)?;
        self.segments.add_rows(&vec![0; tokens.ids().len()], &mut x)?;
        let mut x = self.norm.forward(&Tensor::from_vec(x, (tokens.ids().len(), hidden), &Device::Cpu)?)?;
        let heads = Heads { queries: heads, keys: heads, features: hidden / heads };
        let attention = Attention::new(heads, Mask::Whole, sequences.clone(), sequences.clone())?;
        for (n, own) in self.layers.iter().enumerate() {
            let range = n * MATRICES..(n + 1) * MATRICES;
            let (own, attention, matrices) = (own.clone(), attention.clone(), range.clone());
            let run = move |linears: &dyn Linears, x: &Tensor| own.forward(linears, &matrices, &attention, x);
            x = layer::<E>(activations, linears, range, &x, run)?;
        }
        Ok(x)
    }

    /// Logits of the classifier over pooled sequences, sequences × labels.
    ///
    /// # Errors
    /// As [`Bert::hidden`], or if a sequence is empty.
    pub fn logits(
        &self,
        linears: &Arc<dyn Linears>,
        pooling: Pooling,
        tokens: &Tokens,
        activations: Activations,
    ) -> TensorResult<Tensor> {
        let x = self.hidden(linears, tokens, activations)?;
        let pooled = pooling.forward::<E>(&x, tokens.sequences())?;
        linears.forward(self.layers.len() * MATRICES, &pooled)
    }
}

impl<E: Element> Layer<E> {
    fn forward(
        &self,
        linears: &dyn Linears,
        matrices: &Range<usize>,
        attention: &Attention,
        x: &Tensor,
    ) -> TensorResult<Tensor> {
        let apply = |n: usize, x: &Tensor| linears.forward(matrices.start + n, x);
        let seen = attention.forward::<E>(&apply(0, x)?, &apply(1, x)?, &apply(2, x)?)?;
        let x = self.attention_norm.forward_sum(&apply(3, &seen)?, x)?;
        let inner = self.activation.forward::<E>(&apply(4, &x)?)?;
        self.output_norm.forward_sum(&apply(5, &inner)?, &x)
    }
}
