//! A pre-trained model on disk, in the forms that users have: its family, its configuration, its tensors.
//!
//! ```text
//!  a Hugging Face directory   config.json, tokenizer.json, model.safetensors
//!                             or model-0000N-of-….safetensors with model.safetensors.index.json
//!  a GGUF file                or a directory that holds just one
//!  a safetensors file         of layers.N.weight and layers.N.bias: a perceptron
//! ```
//!
//! [`ModelFiles::open`] reads headers only and checks every one against its file; a tensor is read when it is asked
//! for. Nothing here knows how a model computes.

mod config;
mod error;
mod gguf;
mod names;
mod place;
mod read;
mod safetensors;
mod tensor_file;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use config::SpecialTokens;
pub use error::{ModelFileError, Problem};
pub(crate) use gguf::{Metadata, Value};
use packfed_codec::BaseDigest;
pub use place::{Format, TensorInfo};
pub use read::CHUNK_VALUES_MAX;
pub use tensor_file::TensorFile;

use crate::model::bert::BertConfig;
use crate::model::llama::LlamaConfig;
use crate::text::{Tokenizer, TokenizerError};
use crate::weight::Weight;
use read::Rows;

/// What kind of model it is, with its dimensions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Family {
    /// An encoder like BERT's.
    Bert(BertConfig),
    /// A decoder like Llama's.
    Llama(LlamaConfig),
    /// packfed's own perceptron; its tensors are all that there is.
    Mlp,
}

impl Family {
    /// The name of the family.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Bert(_) => "bert",
            Self::Llama(_) => "llama",
            Self::Mlp => "mlp",
        }
    }

    /// The name that [`ModelFiles`] has for a tensor which a Hugging Face checkpoint of the family calls `name`.
    #[must_use]
    pub fn tensor_name(&self, name: &str) -> String {
        match self {
            Self::Bert(_) => names::bert(name),
            Self::Llama(_) => names::llama(name),
            Self::Mlp => name.to_owned(),
        }
    }
}

/// An opened model: headers read and checked, values still on disk.
#[derive(Debug)]
pub struct ModelFiles {
    path: PathBuf,
    family: Family,
    tensors: BTreeMap<String, TensorInfo>,
    vocabulary: Vocabulary,
    /// What each file is for, and where it is, in the order of the digest.
    parts: Vec<(String, PathBuf)>,
    /// Whether query and key are in llama.cpp's order.
    interleaved: bool,
}

#[derive(Debug)]
enum Vocabulary {
    Json(PathBuf, SpecialTokens),
    Gguf(Metadata),
    None,
}

impl ModelFiles {
    /// Opens a Hugging Face directory, a GGUF file or a perceptron's safetensors file.
    ///
    /// # Errors
    /// If it is none of these, if its architecture or a value of its configuration is not supported, or if a file is
    /// damaged: file and tensor are named.
    pub fn open(path: &Path) -> Result<Self, ModelFileError> {
        let io = ModelFileError::io(path);
        if std::fs::metadata(path).map_err(&io)?.is_dir() {
            return if path.join("config.json").exists() {
                Self::directory(path)
            } else {
                Self::gguf(&only_gguf(path)?)
            };
        }
        let mut start = Vec::new();
        File::open(path).map_err(&io)?.take(4).read_to_end(&mut start).map_err(&io)?;
        if start == gguf::MAGIC { Self::gguf(path) } else { Self::perceptron(path) }
    }

    /// What kind of model it is.
    #[must_use]
    pub const fn family(&self) -> &Family {
        &self.family
    }

    /// The path that it was opened from; of a directory that held one GGUF file, that file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tensors by name.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values()
    }

    /// Reads a tensor under its Hugging Face name: `encoder.layer.0.output.dense.weight` of a BERT (no `bert.` before
    /// it), `model.layers.0.self_attn.q_proj.weight` of a Llama, also from GGUF, with rows in Hugging Face's order.
    ///
    /// # Errors
    /// If it is missing, has another shape than `expected` or is not of floats; if its file has changed since it was
    /// opened.
    pub fn weight(&self, name: &str, expected: &[usize]) -> Result<Weight, ModelFileError> {
        let missing = || Problem::Missing(name.to_owned()).at(&self.path);
        let info = self.tensors.get(name).ok_or_else(missing)?;
        if info.shape != expected {
            return Err(shape(info, expected.to_vec()));
        }
        read::weight(info, self.rows(info)?)
    }

    fn rows(&self, info: &TensorInfo) -> Result<Rows, ModelFileError> {
        let Family::Llama(config) = &self.family else { return Ok(Rows::Plain) };
        let heads = match info.name.rsplit_once("self_attn.") {
            Some((_, "q_proj.weight")) if self.interleaved => config.heads,
            Some((_, "k_proj.weight")) if self.interleaved => config.kv_heads,
            _ => return Ok(Rows::Plain),
        };
        let fits = vec![heads * config.head_size, config.hidden];
        if info.shape == fits { Ok(Rows::Interleaved { heads }) } else { Err(shape(info, fits)) }
    }

    /// BLAKE3 over the bytes of every file in a fixed order: configuration, tokenizer, weights. Each is preceded by
    /// what it is for and by its length; neither the directory's name nor a GGUF file's own enters.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn digest(&self) -> Result<BaseDigest, ModelFileError> {
        let mut hasher = blake3::Hasher::new_derive_key("packfed/model-files/1");
        for (role, path) in &self.parts {
            let io = ModelFileError::io(path);
            let file = File::open(path).map_err(&io)?;
            hasher.update(&(role.len() as u64).to_le_bytes()).update(role.as_bytes());
            hasher.update(&file.metadata().map_err(&io)?.len().to_le_bytes());
            hasher.update_reader(file).map_err(&io)?;
        }
        Ok(BaseDigest(*hasher.finalize().as_bytes()))
    }

    /// The model's tokenizer.
    ///
    /// # Errors
    /// If the files hold none, or one that cannot be built.
    pub fn tokenizer(&self) -> Result<Tokenizer, TokenizerError> {
        match &self.vocabulary {
            Vocabulary::Json(path, special) => Tokenizer::from_file(path, special.clone()),
            Vocabulary::Gguf(metadata) => Tokenizer::from_gguf(&self.path, metadata),
            Vocabulary::None => Err(TokenizerError::None { path: self.path.clone() }),
        }
    }

    /// The template of a conversation that a GGUF file carries.
    pub(crate) fn chat_template(&self) -> Option<&str> {
        match &self.vocabulary {
            Vocabulary::Gguf(metadata) => match metadata.get("tokenizer.chat_template") {
                Some(Value::Text(template)) => Some(template),
                _ => None,
            },
            Vocabulary::Json(..) | Vocabulary::None => None,
        }
    }

    fn directory(path: &Path) -> Result<Self, ModelFileError> {
        let config = path.join("config.json");
        let text = std::fs::read(&config).map_err(ModelFileError::io(&config))?;
        let kind: config::RawKind = config::parse(&config, &text)?;
        type Naming = fn(&str) -> String;
        let (family, naming): (Family, Naming) = match kind.model_type.as_str() {
            "bert" => (Family::Bert(BertConfig::from_json(&config, &text)?), names::bert),
            "llama" => (Family::Llama(LlamaConfig::from_json(&config, &text)?), names::llama),
            _ => return Err(architecture(&config, kind.model_type)),
        };
        let vocabulary = path.join("tokenizer.json");
        let mut parts = vec![("config".to_owned(), config)];
        if vocabulary.exists() {
            parts.push(("tokenizer".to_owned(), vocabulary.clone()));
        }
        let mut tensors = BTreeMap::new();
        for (file, wanted) in weight_files(path)? {
            let found = safetensors::tensors(&file)?;
            if let Some(tensor) = wanted.iter().find(|&name| found.iter().all(|info| &info.name != name)) {
                return Err(Problem::Missing(tensor.clone()).at(&file));
            }
            for info in found {
                insert(&mut tensors, TensorInfo { name: naming(&info.name), ..info })?;
            }
            parts.push(("weights".to_owned(), file));
        }
        let vocabulary = Vocabulary::Json(vocabulary, kind.special_tokens());
        Ok(Self { path: path.to_owned(), family, tensors, vocabulary, parts, interleaved: false })
    }

    fn gguf(path: &Path) -> Result<Self, ModelFileError> {
        let header = gguf::header(path)?;
        match header.metadata.get("general.architecture") {
            Some(Value::Text(name)) if name == "llama" => {}
            Some(Value::Text(name)) => return Err(architecture(path, name.clone())),
            _ => return Err(ModelFileError::config(path, "general.architecture is missing, or is no string")),
        }
        let mut tensors = BTreeMap::new();
        for info in header.tensors {
            let Some(name) = names::llama_from_gguf(&info.name) else {
                let why = format!("tensor {} of shape {:?} belongs to no plain Llama", info.name, info.shape);
                return Err(ModelFileError::config(path, why));
            };
            insert(&mut tensors, TensorInfo { name, ..info })?;
        }
        let embedding = "model.embed_tokens.weight";
        let missing = || Problem::Missing(embedding.into()).at(path);
        let rows = tensors.get(embedding).and_then(|info| info.shape.first()).copied().ok_or_else(missing)?;
        let tied = !tensors.contains_key("lm_head.weight");
        let config = LlamaConfig::from_gguf(path, &header.metadata, rows, tied)?;
        Ok(Self {
            path: path.to_owned(),
            family: Family::Llama(config),
            tensors,
            vocabulary: Vocabulary::Gguf(header.metadata),
            parts: vec![("gguf".to_owned(), path.to_owned())],
            interleaved: true,
        })
    }

    fn perceptron(path: &Path) -> Result<Self, ModelFileError> {
        let mut tensors = BTreeMap::new();
        for info in safetensors::tensors(path)? {
            insert(&mut tensors, info)?;
        }
        if !tensors.contains_key("layers.0.weight") {
            let why = "a single safetensors file is a perceptron's, and this one has no tensor layers.0.weight; open a \
                       transformer by the directory of its config.json";
            return Err(Problem::Unrecognized(why.into()).at(path));
        }
        let parts = vec![("mlp".to_owned(), path.to_owned())];
        let vocabulary = Vocabulary::None;
        Ok(Self { path: path.to_owned(), family: Family::Mlp, tensors, vocabulary, parts, interleaved: false })
    }
}

/// The weight files of a directory, each with the tensors that must be in it.
fn weight_files(path: &Path) -> Result<Vec<(PathBuf, Vec<String>)>, ModelFileError> {
    let (single, index) = (path.join("model.safetensors"), path.join("model.safetensors.index.json"));
    if single.exists() {
        return Ok(vec![(single, Vec::new())]);
    }
    if index.exists() {
        return safetensors::shards(&index);
    }
    let why = "there is neither model.safetensors nor model.safetensors.index.json beside config.json".into();
    Err(Problem::Unrecognized(why).at(path))
}

fn only_gguf(path: &Path) -> Result<PathBuf, ModelFileError> {
    let io = ModelFileError::io(path);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(&io)? {
        let file = entry.map_err(&io)?.path();
        if file.extension().is_some_and(|extension| extension == "gguf") {
            found.push(file);
        }
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        _ => {
            let why = format!("a directory without config.json and with {} .gguf files, expected one", found.len());
            Err(Problem::Unrecognized(why).at(path))
        }
    }
}

fn insert(tensors: &mut BTreeMap<String, TensorInfo>, info: TensorInfo) -> Result<(), ModelFileError> {
    match tensors.insert(info.name.clone(), info) {
        None => Ok(()),
        Some(twice) => Err(Problem::Twice(twice.name).at(&twice.path)),
    }
}

fn architecture(path: &Path, found: String) -> ModelFileError {
    Problem::Architecture { found, supported: config::SUPPORTED }.at(path)
}

fn shape(info: &TensorInfo, expected: Vec<usize>) -> ModelFileError {
    Problem::Shape { tensor: info.name.clone(), found: info.shape.clone(), expected }.at(&info.path)
}
