//! What a model's configuration says, from `config.json` or from GGUF metadata, as plain numbers.
//!
//! A value that would change the outputs and that is not built here is refused, never ignored. It knows no
//! tensors.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::model::bert::BertConfig;
use crate::model::llama::LlamaConfig;
use crate::nn::activation::Activation;

use super::error::ModelFileError;
use super::gguf::{Metadata, Value};

/// Tokens with a role, as far as a configuration names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a text.
    pub bos: Option<u32>,
    /// Any of these ends a text.
    pub eos: Vec<u32>,
    /// Fills a batch.
    pub pad: Option<u32>,
}

/// The architectures that a `model_type` or `general.architecture` may name.
pub(super) const SUPPORTED: &str = "bert and llama (and perceptrons of layers.N.weight, which have no configuration)";

/// Every count in a configuration is within this; what is allocated by it is checked against tensors.
const COUNT_MAX: u64 = 1 << 24;

/// `config.json` as far as both families share it.
#[derive(Deserialize)]
pub(super) struct RawKind {
    #[serde(default)]
    pub(super) model_type: String,
    bos_token_id: Option<Json>,
    eos_token_id: Option<Json>,
    pad_token_id: Option<Json>,
}

impl RawKind {
    pub(super) fn special_tokens(&self) -> SpecialTokens {
        let ids = |value: &Option<Json>| -> Vec<u32> {
            let one = |value: &Json| value.as_u64().and_then(|id| u32::try_from(id).ok());
            match value {
                Some(Json::Array(values)) => values.iter().filter_map(one).collect(),
                Some(value) => one(value).into_iter().collect(),
                None => Vec::new(),
            }
        };
        let first = |value| ids(value).first().copied();
        SpecialTokens { bos: first(&self.bos_token_id), eos: ids(&self.eos_token_id), pad: first(&self.pad_token_id) }
    }
}

/// `config.json` of BERT; the defaults are those of `transformers`.
#[derive(Deserialize)]
#[serde(default)]
struct RawBert {
    hidden_size: u64,
    num_hidden_layers: u64,
    num_attention_heads: u64,
    intermediate_size: u64,
    vocab_size: u64,
    max_position_embeddings: u64,
    type_vocab_size: u64,
    layer_norm_eps: f64,
    hidden_act: String,
    position_embedding_type: Option<String>,
    is_decoder: bool,
}

impl Default for RawBert {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            vocab_size: 30522,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            hidden_act: "gelu".into(),
            position_embedding_type: None,
            is_decoder: false,
        }
    }
}

/// `config.json` of Llama; what has no default here must be given.
#[derive(Deserialize)]
struct RawLlama {
    hidden_size: u64,
    num_hidden_layers: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    intermediate_size: u64,
    vocab_size: u64,
    #[serde(default = "default_positions")]
    max_position_embeddings: u64,
    #[serde(default = "default_norm_eps")]
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<Json>,
    rope_parameters: Option<Json>,
    partial_rotary_factor: Option<f64>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default = "default_activation")]
    hidden_act: String,
}

fn default_positions() -> u64 {
    2048
}

fn default_norm_eps() -> f64 {
    1e-6
}

fn default_activation() -> String {
    "silu".into()
}

const ROPE_THETA_DEFAULT: f64 = 10_000.0;

/// Parses JSON of a file.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, ModelFileError> {
    serde_json::from_slice(text).map_err(|error| ModelFileError::config(path, error.to_string()))
}

/// Checks values and names the key of one that is refused.
struct Checks<'a> {
    path: &'a Path,
}

impl Checks<'_> {
    fn refuse<T>(&self, why: String) -> Result<T, ModelFileError> {
        Err(ModelFileError::config(self.path, why))
    }

    fn count(&self, key: &str, value: u64) -> Result<usize, ModelFileError> {
        match usize::try_from(value) {
            Ok(count) if (1..=COUNT_MAX).contains(&value) => Ok(count),
            _ => self.refuse(format!("{key} is {value}, allowed are 1 to {COUNT_MAX}")),
        }
    }

    fn positive(&self, key: &str, value: f64) -> Result<f64, ModelFileError> {
        if value.is_finite() && value > 0.0 {
            return Ok(value);
        }
        self.refuse(format!("{key} is {value}, expected a positive number"))
    }

    fn divides(&self, part: (&str, usize), whole: (&str, usize)) -> Result<(), ModelFileError> {
        if whole.1.is_multiple_of(part.1) {
            return Ok(());
        }
        self.refuse(format!("{} is {}, which does not divide {} {}", part.0, part.1, whole.0, whole.1))
    }

    /// Refuses a switch that stands on.
    fn off(&self, key: &str, value: bool) -> Result<(), ModelFileError> {
        if value { self.refuse(format!("{key} is true, supported is false")) } else { Ok(()) }
    }

    fn activation(&self, name: &str) -> Result<Activation, ModelFileError> {
        match name {
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            "silu" | "swish" => Ok(Activation::Silu),
            _ => self.refuse(format!("hidden_act is {name:?}, supported are gelu, gelu_new, relu and silu")),
        }
    }

    /// Refuses every rotary embedding but the plain one; returns the base that it may carry.
    fn rope(&self, key: &str, value: Option<&Json>) -> Result<Option<f64>, ModelFileError> {
        let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
        let kind = value.get("rope_type").or_else(|| value.get("type")).and_then(Json::as_str);
        if kind != Some("default") {
            let kind = kind.map_or_else(|| value.to_string(), ToOwned::to_owned);
            return self.refuse(format!("{key} is {kind}, only a rotary embedding without scaling is supported"));
        }
        Ok(value.get("rope_theta").and_then(Json::as_f64))
    }

    fn llama(&self, config: LlamaConfig) -> Result<LlamaConfig, ModelFileError> {
        self.divides(("the number of key/value heads", config.kv_heads), ("the number of heads", config.heads))?;
        self.divides(("a rotation's size", 2), ("the head size", config.head_size))?;
        Ok(config)
    }
}

impl BertConfig {
    pub(super) fn from_json(path: &Path, text: &[u8]) -> Result<Self, ModelFileError> {
        let raw: RawBert = parse(path, text)?;
        let checks = Checks { path };
        checks.off("is_decoder", raw.is_decoder)?;
        if let Some(kind) = raw.position_embedding_type.filter(|kind| kind != "absolute") {
            return checks.refuse(format!("position_embedding_type is {kind:?}, supported is \"absolute\""));
        }
        let config = Self {
            hidden: checks.count("hidden_size", raw.hidden_size)?,
            layers: checks.count("num_hidden_layers", raw.num_hidden_layers)?,
            heads: checks.count("num_attention_heads", raw.num_attention_heads)?,
            intermediate: checks.count("intermediate_size", raw.intermediate_size)?,
            vocabulary: checks.count("vocab_size", raw.vocab_size)?,
            positions_max: checks.count("max_position_embeddings", raw.max_position_embeddings)?,
            token_types: checks.count("type_vocab_size", raw.type_vocab_size)?,
            norm_eps: checks.positive("layer_norm_eps", raw.layer_norm_eps)?,
            activation: checks.activation(&raw.hidden_act)?,
        };
        checks.divides(("num_attention_heads", config.heads), ("hidden_size", config.hidden))?;
        Ok(config)
    }
}

impl LlamaConfig {
    pub(super) fn from_json(path: &Path, text: &[u8]) -> Result<Self, ModelFileError> {
        let raw: RawLlama = parse(path, text)?;
        let checks = Checks { path };
        checks.off("attention_bias", raw.attention_bias)?;
        checks.off("mlp_bias", raw.mlp_bias)?;
        if let Some(share) = raw.partial_rotary_factor.filter(|&share| share != 1.0) {
            return checks.refuse(format!("partial_rotary_factor is {share}, supported is 1"));
        }
        checks.rope("rope_scaling", raw.rope_scaling.as_ref())?;
        let theta = checks.rope("rope_parameters", raw.rope_parameters.as_ref())?;
        let theta = theta.or(raw.rope_theta).unwrap_or(ROPE_THETA_DEFAULT);
        let hidden = checks.count("hidden_size", raw.hidden_size)?;
        let heads = checks.count("num_attention_heads", raw.num_attention_heads)?;
        let head_size = match raw.head_dim {
            Some(size) => checks.count("head_dim", size)?,
            None => {
                checks.divides(("num_attention_heads", heads), ("hidden_size", hidden))?;
                hidden / heads
            }
        };
        let kv_heads = raw.num_key_value_heads.unwrap_or(raw.num_attention_heads);
        checks.llama(Self {
            hidden,
            layers: checks.count("num_hidden_layers", raw.num_hidden_layers)?,
            heads,
            kv_heads: checks.count("num_key_value_heads", kv_heads)?,
            head_size,
            intermediate: checks.count("intermediate_size", raw.intermediate_size)?,
            vocabulary: checks.count("vocab_size", raw.vocab_size)?,
            positions_max: checks.count("max_position_embeddings", raw.max_position_embeddings)?,
            norm_eps: checks.positive("rms_norm_eps", raw.rms_norm_eps)?,
            rope_theta: checks.positive("rope_theta", theta)?,
            tied_embeddings: raw.tie_word_embeddings,
            activation: checks.activation(&raw.hidden_act)?,
        })
    }

    /// From GGUF metadata; the vocabulary is as large as the embedding, which may be padded.
    pub(super) fn from_gguf(
        path: &Path,
        metadata: &Metadata,
        vocabulary: usize,
        tied_embeddings: bool,
    ) -> Result<Self, ModelFileError> {
        let keys = Keys { checks: Checks { path }, metadata };
        let checks = &keys.checks;
        for key in ["llama.expert_count", "llama.rope.scale_linear", "llama.rope.scaling.factor"] {
            let Some(value) = metadata.get(key) else { continue };
            if !matches!(value, Value::Integer(0) | Value::Float(1.0)) {
                return checks.refuse(format!("{key} is {value:?}, which is not built"));
            }
        }
        match metadata.get("llama.rope.scaling.type") {
            None => {}
            Some(Value::Text(kind)) if kind == "none" => {}
            Some(kind) => {
                let why = format!(
                    "llama.rope.scaling.type is {kind:?}, only a rotary embedding without scaling is supported"
                );
                return checks.refuse(why);
            }
        }
        let hidden = keys.count("llama.embedding_length")?;
        let heads = keys.count("llama.attention.head_count")?;
        let head_size = match keys.optional_count("llama.attention.key_length")? {
            Some(size) => size,
            None => {
                checks.divides(("llama.attention.head_count", heads), ("llama.embedding_length", hidden))?;
                hidden / heads
            }
        };
        for key in ["llama.rope.dimension_count", "llama.attention.value_length"] {
            if let Some(found) = keys.optional_count(key)?.filter(|&found| found != head_size) {
                return checks.refuse(format!("{key} is {found}, supported is the head size, {head_size}"));
            }
        }
        let theta = keys.optional_float("llama.rope.freq_base")?.unwrap_or(ROPE_THETA_DEFAULT);
        let eps = keys.optional_float("llama.attention.layer_norm_rms_epsilon")?;
        let Some(eps) = eps else { return checks.refuse("llama.attention.layer_norm_rms_epsilon is missing".into()) };
        checks.llama(Self {
            hidden,
            layers: keys.count("llama.block_count")?,
            heads,
            kv_heads: keys.optional_count("llama.attention.head_count_kv")?.unwrap_or(heads),
            head_size,
            intermediate: keys.count("llama.feed_forward_length")?,
            vocabulary,
            positions_max: keys.count("llama.context_length")?,
            norm_eps: checks.positive("llama.attention.layer_norm_rms_epsilon", eps)?,
            rope_theta: checks.positive("llama.rope.freq_base", theta)?,
            tied_embeddings,
            activation: Activation::Silu,
        })
    }
}

/// Typed look-ups in GGUF metadata.
struct Keys<'a> {
    checks: Checks<'a>,
    metadata: &'a Metadata,
}

impl Keys<'_> {
    fn optional_count(&self, key: &str) -> Result<Option<usize>, ModelFileError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(&Value::Integer(value)) => {
                let value = u64::try_from(value).unwrap_or(0);
                self.checks.count(key, value).map(Some)
            }
            Some(other) => self.checks.refuse(format!("{key} is {other:?}, expected one integer")),
        }
    }

    fn count(&self, key: &str) -> Result<usize, ModelFileError> {
        match self.optional_count(key)? {
            Some(value) => Ok(value),
            None => self.checks.refuse(format!("{key} is missing")),
        }
    }

    fn optional_float(&self, key: &str) -> Result<Option<f64>, ModelFileError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(&Value::Float(value)) => Ok(Some(value)),
            Some(other) => self.checks.refuse(format!("{key} is {other:?}, expected a float")),
        }
    }
}
