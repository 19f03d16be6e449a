//! What stands beside an exported model's weights: configuration, tokenizer, and the class of a classifier.
//!
//! The base's files are taken along as they are where there are any; `config.json` is completed, and all of them are
//! made anew from GGUF metadata.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value as Json, json};

use crate::export::destination::DestinationError;
use crate::export::merged::{ExportError, MergedModel};
use crate::files::Family;
use crate::nn::pool::Pooling;
use crate::text::Tokenizer;

/// The classifier's tensors.
pub(super) const CLASSIFIER: &str = "classifier.weight";
pub(super) const CLASSIFIER_BIAS: &str = "classifier.bias";

/// The class that a directory with a classifier brings along.
const MODELING: &str = include_str!("modeling_packfed.py");
const MODELING_FILE: &str = "modeling_packfed.py";
const MODELING_CLASS: &str = "BertForPooledSequenceClassification";

/// Files of a Hugging Face directory that say how text becomes ids and back, and how to generate.
const TAKEN_ALONG: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "generation_config.json",
];

/// Writes everything but the weights; `classes` is the rows of the classifier.
pub(super) fn write(model: &MergedModel<'_>, classes: Option<usize>, to: &Path) -> Result<(), ExportError> {
    let from = model.files.path();
    let mut config = if from.is_dir() {
        take_along(from, to)?;
        read_config(&from.join("config.json"))?
    } else {
        from_gguf(model, to)?
    };
    complete(model, classes, &mut config);
    if classes.is_some() {
        put(&to.join(MODELING_FILE), MODELING.as_bytes())?;
    }
    put_json(&to.join("config.json"), &Json::Object(config))
}

fn complete(model: &MergedModel<'_>, classes: Option<usize>, config: &mut Map<String, Json>) {
    let architecture = match (model.files.family(), classes) {
        (Family::Llama(_), _) => "LlamaForCausalLM",
        (_, Some(_)) => MODELING_CLASS,
        (_, None) => "BertModel",
    };
    config.insert("architectures".into(), json!([architecture]));
    config.insert("torch_dtype".into(), model.floats.torch_name().into());
    // What version 5 calls it.
    config.remove("dtype");
    let Some(classes) = classes else { return };
    let own = format!("modeling_packfed.{MODELING_CLASS}");
    config.insert("auto_map".into(), json!({ "AutoModelForSequenceClassification": own }));
    let pooling = match model.pooling {
        Pooling::Mean => "mean",
        Pooling::First => "cls",
    };
    config.insert("classifier_pooling".into(), pooling.into());
    let kept = config.get("id2label").and_then(Json::as_object).is_some_and(|names| names.len() == classes);
    if model.labels.is_empty() && kept {
        return;
    }
    let numbered = |n: usize| format!("LABEL_{n}");
    let names: Vec<String> =
        (0..classes).map(|n| model.labels.get(n).cloned().unwrap_or_else(|| numbered(n))).collect();
    let id2label: Map<String, Json> =
        names.iter().enumerate().map(|(n, name)| (n.to_string(), name.as_str().into())).collect();
    let label2id: Map<String, Json> = names.iter().enumerate().map(|(n, name)| (name.clone(), n.into())).collect();
    config.insert("num_labels".into(), classes.into());
    config.insert("id2label".into(), id2label.into());
    config.insert("label2id".into(), label2id.into());
    config.insert("problem_type".into(), "single_label_classification".into());
}

/// Tokenizer files out of GGUF metadata; the configuration.
fn from_gguf(model: &MergedModel<'_>, to: &Path) -> Result<Map<String, Json>, ExportError> {
    let Family::Llama(config) = model.files.family() else {
        return Err(ExportError::Perceptron(model.files.path().to_owned()));
    };
    let tokenizer = model.files.tokenizer()?;
    put(&to.join("tokenizer.json"), tokenizer.to_json()?.as_bytes())?;
    let special = tokenizer.special();
    let token = |id: Option<u32>| id.and_then(|id| tokenizer.token(id));
    let mut about = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.positions_max,
        "clean_up_tokenization_spaces": false,
    });
    let named = [
        ("bos_token", token(special.bos)),
        ("eos_token", token(special.eos.first().copied())),
        ("pad_token", token(special.pad)),
    ];
    for (key, value) in named.into_iter().chain([("chat_template", model.files.chat_template().map(ToOwned::to_owned))])
    {
        if let Some(value) = value {
            about[key] = value.into();
        }
    }
    put_json(&to.join("tokenizer_config.json"), &about)?;
    let roles = roles(&tokenizer);
    put_json(&to.join("generation_config.json"), &Json::Object(roles.clone()))?;
    let dimensions = json!({
        "model_type": "llama",
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "intermediate_size": config.intermediate,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.positions_max,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tied_embeddings,
        // GGUF's llama has no other.
        "hidden_act": "silu",
        "attention_bias": false,
        "mlp_bias": false,
    });
    let dimensions = dimensions.as_object().cloned().unwrap_or_default();
    Ok(dimensions.into_iter().chain(roles).collect())
}

/// The ids of tokens with a role, under the keys of configurations.
fn roles(tokenizer: &Tokenizer) -> Map<String, Json> {
    let special = tokenizer.special();
    let eos = match special.eos.as_slice() {
        [] => None,
        [one] => Some(Json::from(*one)),
        several => Some(several.into()),
    };
    let all = [
        ("bos_token_id", special.bos.map(Json::from)),
        ("eos_token_id", eos),
        ("pad_token_id", special.pad.map(Json::from)),
    ];
    all.into_iter().filter_map(|(key, id)| Some((key.to_owned(), id?))).collect()
}

fn take_along(from: &Path, to: &Path) -> Result<(), ExportError> {
    for name in TAKEN_ALONG {
        let file = from.join(name);
        if file.is_file() {
            let content = fs::read(&file).map_err(DestinationError::io(&file))?;
            put(&to.join(name), &content)?;
        }
    }
    Ok(())
}

fn read_config(path: &Path) -> Result<Map<String, Json>, ExportError> {
    let text = fs::read(path).map_err(DestinationError::io(path))?;
    serde_json::from_slice(&text).map_err(|error| ExportError::Config { path: path.to_owned(), why: error.to_string() })
}

fn put_json(path: &Path, value: &Json) -> Result<(), ExportError> {
    put(path, format!("{value:#}\n").as_bytes())
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), ExportError> {
    Ok(fs::write(path, bytes).map_err(DestinationError::io(path))?)
}
