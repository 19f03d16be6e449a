//! Llama-family decoders (Touvron et al., 2023): rotary positions, RMS norms, grouped key heads, gated feed-forward.
//!
//! ```text
//!  x = embedding
//!  each layer:  x = x + o(attention(rotary(q n), rotary(k n), v n)),  n = norm(x)
//!               x = x + down(activation(gate n)·up n),                n = norm(x)
//!  logits = head(norm(x)),  the head the embedding itself where they are tied
//! ```
//!
//! Outputs are those of `transformers`' `LlamaForCausalLM`. The head is frozen and not among the matrices.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Result as TensorResult, Tensor, bail};
use packfed_codec::Scalar;

use crate::adapted::Element;
use crate::model::linears::{Linears, layer};
use crate::model::tokens::Tokens;
use crate::model::{
    Activations, ConfigError, Kind, LoadError, MatrixSpec, Source, embedding, not_zero, vector, weight,
};
use crate::nn::activation::Activation;
use crate::nn::attention::{Attention, Heads, Mask};
use crate::nn::embedding::Embedding;
use crate::nn::frozen::FrozenLinear;
use crate::nn::norm::Norm;
use crate::nn::rotary::Rotary;
use crate::nn::sequences::Sequences;
use crate::nn::values::values;
use crate::nn::vocabulary::{next_token_loss, next_token_scores};

/// A decoder's dimensions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Features of a token between layers.
    pub hidden: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; they divide `heads`.
    pub kv_heads: usize,
    /// Features of a head; even.
    pub head_size: usize,
    /// Features of a token inside a feed-forward layer.
    pub intermediate: usize,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// The longest sequence in tokens.
    pub positions_max: usize,
    /// Added to the mean square in RMS norms.
    pub norm_eps: f64,
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// Whether the output matrix is the embedding; else it is `lm_head.weight`.
    pub tied_embeddings: bool,
    /// Of the gated feed-forward layers.
    pub activation: Activation,
}

/// Matrices of a layer: q, k, v, o, gate, up, down.
const MATRICES: usize = 7;

impl LlamaConfig {
    /// The matrices, seven a layer.
    #[must_use]
    pub fn matrices(&self) -> Vec<MatrixSpec> {
        let (hidden, intermediate) = (self.hidden, self.intermediate);
        let (queries, keys) = (self.heads * self.head_size, self.kv_heads * self.head_size);
        let layer = |n: usize| {
            let spec = move |part: &str, outputs, inputs, kind| {
                let name = format!("model.layers.{n}.{part}.weight");
                MatrixSpec { name, outputs, inputs, kind, bias: None }
            };
            [
                spec("self_attn.q_proj", queries, hidden, Kind::Attention),
                spec("self_attn.k_proj", keys, hidden, Kind::Attention),
                spec("self_attn.v_proj", keys, hidden, Kind::Attention),
                spec("self_attn.o_proj", hidden, queries, Kind::Attention),
                spec("mlp.gate_proj", intermediate, hidden, Kind::Mlp),
                spec("mlp.up_proj", intermediate, hidden, Kind::Mlp),
                spec("mlp.down_proj", hidden, intermediate, Kind::Mlp),
            ]
        };
        (0..self.layers).flat_map(layer).collect()
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
            ("number of key heads", self.kv_heads),
            ("head size", self.head_size),
            ("intermediate size", self.intermediate),
            ("vocabulary", self.vocabulary),
            ("number of positions", self.positions_max),
        ])?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(ConfigError::KeyHeads { heads: self.heads, kv_heads: self.kv_heads });
        }
        if self.head_size % 2 == 1 {
            return Err(ConfigError::OddHead(self.head_size));
        }
        Ok(())
    }

    const fn head_counts(&self) -> Heads {
        Heads { queries: self.heads, keys: self.kv_heads, features: self.head_size }
    }
}

/// A decoder without its layers' matrices.
#[derive(Clone, Debug)]
pub struct Llama<E> {
    config: LlamaConfig,
    words: Embedding,
    layers: Vec<Layer<E>>,
    norm: Norm<E>,
    head: FrozenLinear<E>,
}

/// What a layer owns.
#[derive(Clone, Debug)]
struct Layer<E> {
    attention_norm: Norm<E>,
    mlp_norm: Norm<E>,
    activation: Activation,
}

/// Keys and values of the tokens so far, for generation.
#[derive(Clone, Debug)]
pub struct Cache<E> {
    /// Of every layer, tokens × (key heads·d) each.
    layers: Vec<(Vec<E>, Vec<E>)>,
    tokens: usize,
}

impl<E> Cache<E> {
    /// Tokens so far.
    #[must_use]
    pub const fn tokens(&self) -> usize {
        self.tokens
    }
}

impl<E: Element> Llama<E> {
    /// Embedding, norms and head of a model.
    ///
    /// # Errors
    /// If the configuration makes no model, the source fails, or a tensor has another shape.
    pub fn load<S: std::error::Error>(config: LlamaConfig, source: Source<'_, S>) -> Result<Self, LoadError<S>> {
        config.check()?;
        let shape = [config.vocabulary, config.hidden];
        let words = embedding(source, "model.embed_tokens.weight", shape)?;
        let norm = |name: &str, source: Source<'_, S>| {
            let weight = vector(source, &format!("{name}.weight"), config.hidden)?;
            Norm::rms(weight, config.norm_eps).map_err(LoadError::Tensor)
        };
        let mut layers = Vec::new();
        for n in 0..config.layers {
            layers.push(Layer {
                attention_norm: norm(&format!("model.layers.{n}.input_layernorm"), source)?,
                mlp_norm: norm(&format!("model.layers.{n}.post_attention_layernorm"), source)?,
                activation: config.activation,
            });
        }
        let last = norm("model.norm", source)?;
        let head = match config.tied_embeddings {
            true => words.weight().clone(),
            false => weight(source, "lm_head.weight", &shape)?,
        };
        let head = FrozenLinear::new(head, None).map_err(LoadError::Tensor)?;
        Ok(Self { config, words, layers, norm: last, head })
    }

    /// Its dimensions.
    #[must_use]
    pub const fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// The last norm's output, tokens × hidden.
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
        let sequences = tokens.sequences();
        let rotary = Rotary::<E>::new(sequences.positions(), self.config.head_size, self.config.rope_theta)?;
        let heads = self.config.head_counts();
        let attention = Attention::new(heads, Mask::Causal, sequences.clone(), sequences.clone())?;
        let mut x = self.embedded(tokens.ids())?;
        for (n, own) in self.layers.iter().enumerate() {
            let range = n * MATRICES..(n + 1) * MATRICES;
            let (own, rotary, attention, matrices) = (own.clone(), rotary.clone(), attention.clone(), range.clone());
            let run = move |linears: &dyn Linears, x: &Tensor| {
                let attend = |q: &Tensor, k: &Tensor, v: &Tensor| attention.forward::<E>(q, k, v);
                own.forward(linears, &matrices, &rotary, attend, x)
            };
            x = layer::<E>(activations, linears, range, &x, run)?;
        }
        self.norm.forward(&x)
    }

    /// Mean cross-entropy in nats over the tokens that have a target; [`Tokens::next`] gives every next token.
    ///
    /// # Errors
    /// As [`Llama::hidden`], or if the targets do not fit.
    pub fn loss(
        &self,
        linears: &Arc<dyn Linears>,
        tokens: &Tokens,
        targets: &[Option<u32>],
        activations: Activations,
    ) -> TensorResult<Tensor> {
        next_token_loss(&self.hidden(linears, tokens, activations)?, targets, &self.head)
    }

    /// Sum of the cross-entropies in nats over the tokens that have a target, and how many were the likeliest.
    ///
    /// # Errors
    /// As [`Llama::loss`].
    pub fn scores(
        &self,
        linears: &Arc<dyn Linears>,
        tokens: &Tokens,
        targets: &[Option<u32>],
    ) -> TensorResult<(f64, u64)> {
        next_token_scores(&self.hidden(linears, tokens, Activations::Kept)?, targets, &self.head)
    }

    /// Logits of every token, tokens × vocabulary: for short texts and tests.
    ///
    /// # Errors
    /// As [`Llama::hidden`].
    pub fn logits(&self, linears: &Arc<dyn Linears>, tokens: &Tokens) -> TensorResult<Tensor> {
        self.head.forward(&self.hidden(linears, tokens, Activations::Kept)?)
    }

    /// A cache that has seen nothing.
    #[must_use]
    pub fn cache(&self) -> Cache<E> {
        Cache { layers: vec![(Vec::new(), Vec::new()); self.layers.len()], tokens: 0 }
    }

    /// Takes the next tokens of one sequence; the logits of the last of them, one a word of the vocabulary. Nothing
    /// is tracked. After an error the cache is of no more use.
    ///
    /// # Errors
    /// If there is no token, an id is not of the vocabulary, or the sequence becomes too long.
    pub fn step(&self, linears: &dyn Linears, ids: &[u32], cache: &mut Cache<E>) -> TensorResult<Vec<E>> {
        let before = cache.tokens;
        let after = before + ids.len();
        if ids.is_empty() || after > self.config.positions_max {
            bail!("{} tokens after {before}, the model takes {}", ids.len(), self.config.positions_max);
        }
        let rotary = Rotary::<E>::new(before..after, self.config.head_size, self.config.rope_theta)?;
        let (queries, keys) = (Sequences::new(&[ids.len()]), Sequences::new(&[after]));
        let attention = Attention::new(self.config.head_counts(), Mask::Causal, queries, keys)?;
        let untracked = Untracked(linears);
        let mut x = self.embedded(ids)?;
        for (n, (own, (keys, kept))) in self.layers.iter().zip(&mut cache.layers).enumerate() {
            let attend = |q: &Tensor, k: &Tensor, v: &Tensor| {
                keys.extend_from_slice(&values::<E>(k)?);
                kept.extend_from_slice(&values::<E>(v)?);
                Tensor::from_vec(attention.output(&values::<E>(q)?, keys, kept), q.shape(), q.device())
            };
            x = own.forward(&untracked, &(n * MATRICES..(n + 1) * MATRICES), &rotary, attend, &x)?;
        }
        cache.tokens = after;
        let last = self.norm.forward(&x.narrow(0, ids.len() - 1, 1)?)?;
        self.head.output(&values::<E>(&last)?)
    }

    fn embedded(&self, ids: &[u32]) -> TensorResult<Tensor> {
        let mut x = vec![<E as Scalar>::ZERO; ids.len() * self.config.hidden];
        self.words.add_rows(ids, &mut x)?;
        Tensor::from_vec(x, (ids.len(), self.config.hidden), &Device::Cpu)
    }
}

impl<E: Element> Layer<E> {
    fn forward(
        &self,
        linears: &dyn Linears,
        matrices: &Range<usize>,
        rotary: &Rotary<E>,
        attend: impl FnOnce(&Tensor, &Tensor, &Tensor) -> TensorResult<Tensor>,
        x: &Tensor,
    ) -> TensorResult<Tensor> {
        let apply = |n: usize, x: &Tensor| linears.forward(matrices.start + n, x);
        let normed = self.attention_norm.forward(x)?;
        let (q, k) = (rotary.forward(&apply(0, &normed)?)?, rotary.forward(&apply(1, &normed)?)?);
        let seen = attend(&q, &k, &apply(2, &normed)?)?;
        let x = (x + apply(3, &seen)?)?;
        let normed = self.mlp_norm.forward(&x)?;
        let inner = self.activation.gate::<E>(&apply(4, &normed)?, &apply(5, &normed)?)?;
        x + apply(6, &inner)?
    }
}

/// Matrices whose results remember nothing.
struct Untracked<'a>(&'a dyn Linears);

impl Linears for Untracked<'_> {
    fn apply(&self, index: usize, x: &Tensor, trained: &[Tensor]) -> TensorResult<Tensor> {
        Ok(self.0.apply(index, x, trained)?.detach())
    }

    fn trained(&self, index: usize) -> &[Tensor] {
        self.0.trained(index)
    }
}
