//! Text to token ids and back, with the tokenizer that a model was trained with.
//!
//! It comes from `tokenizer.json`, or is rebuilt from GGUF metadata in that same form. Padding and truncation
//! that such a file may ask for are ignored: batches pad, and a caller says how long a text may be.

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use thiserror::Error;
use tokenizers::utils::truncation::TruncationDirection;

use crate::files::{Metadata, SpecialTokens, Value};

/// Why there is no tokenizer, or a text has no tokens.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// The model comes without one.
    #[error("{}: this model has no tokenizer", path.display())]
    None {
        /// The model.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file does not describe a tokenizer that can be built.
    #[error("{}: tokenizer: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A text may not be longer than the special tokens around it.
    #[error("texts of at most {tokens_max} tokens have no room beside {added} special tokens")]
    Length {
        /// The limit given.
        tokens_max: usize,
        /// Tokens that the tokenizer adds.
        added: usize,
    },
    /// The tokenizer refused a text or an id.
    #[error("tokenizer: {0}")]
    Refused(String),
}

/// Whether the model's own marks are put around a text: `[CLS]` and `[SEP]` for BERT, for Llama what its file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// As the model was trained.
    Around,
    /// The text alone, as for a piece of a longer one.
    None,
}

/// A model's tokenizer.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: SpecialTokens,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`; which tokens are special in what way is known elsewhere.
    ///
    /// # Errors
    /// If it cannot be read or built.
    pub fn from_file(path: &Path, special: SpecialTokens) -> Result<Self, TokenizerError> {
        let text = std::fs::read(path).map_err(|source| TokenizerError::Io { path: path.to_owned(), source })?;
        Self::from_json(path, &text, special)
    }

    fn from_json(path: &Path, text: &[u8], special: SpecialTokens) -> Result<Self, TokenizerError> {
        let content = |why: String| TokenizerError::Content { path: path.to_owned(), why };
        let mut inner = tokenizers::Tokenizer::from_bytes(text).map_err(|error| content(error.to_string()))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| content(error.to_string()))?;
        Ok(Self { inner, special })
    }

    /// Rebuilds a byte-level BPE tokenizer from the metadata of a GGUF file.
    pub(crate) fn from_gguf(path: &Path, metadata: &Metadata) -> Result<Self, TokenizerError> {
        let content = |why: String| TokenizerError::Content { path: path.to_owned(), why };
        let (json, special) = gguf_tokenizer(metadata).map_err(content)?;
        Self::from_json(path, json.to_string().as_bytes(), special)
    }

    /// Ids that it may give are below this.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The tokens that begin, end and pad.
    #[must_use]
    pub const fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// The id of one token as the vocabulary spells it.
    #[must_use]
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Ids of a text, cut at its end so that with its marks it has at most `tokens_max`.
    ///
    /// # Errors
    /// If the marks alone are as long, or the tokenizer refuses the text.
    pub fn encode(&self, text: &str, marks: Marks, tokens_max: usize) -> Result<Vec<u32>, TokenizerError> {
        let with_marks = marks == Marks::Around;
        let added = if with_marks { self.added() } else { 0 };
        if tokens_max <= added {
            return Err(TokenizerError::Length { tokens_max, added });
        }
        let mut encoding = self.inner.encode_fast(text, false).map_err(|error| refused(&error))?;
        encoding.truncate(tokens_max - added, 0, TruncationDirection::Right);
        encoding.take_overflowing();
        if !with_marks {
            return Ok(encoding.get_ids().to_vec());
        }
        Ok(self.inner.post_process(encoding, None, true).map_err(|error| refused(&error))?.get_ids().to_vec())
    }

    /// As [`Tokenizer::encode`], for many texts in their order.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_batch<T: AsRef<str>>(
        &self,
        texts: &[T],
        marks: Marks,
        tokens_max: usize,
    ) -> Result<Vec<Vec<u32>>, TokenizerError> {
        texts.iter().map(|text| self.encode(text.as_ref(), marks, tokens_max)).collect()
    }

    /// Text of ids, without special tokens.
    ///
    /// # Errors
    /// If the tokenizer refuses them.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.inner.decode(ids, true).map_err(|error| refused(&error))
    }

    /// Text of ids that come one at a time.
    #[must_use]
    pub const fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: self, ids: Vec::new(), shown: 0 }
    }

    fn added(&self) -> usize {
        use tokenizers::PostProcessor;
        self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(false))
    }
}

fn refused(error: &tokenizers::Error) -> TokenizerError {
    TokenizerError::Refused(error.to_string())
}

/// Turns a stream of ids into a stream of text: whole characters only.
///
/// What a token reads as may depend on those before it (WordPiece joins, a leading space is dropped), so text is
/// the difference of two decodings: with the new ids and without. Bytes that are no UTF-8 read as U+FFFD.
#[derive(Clone, Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// Ids of the last text given out, then those that are still waiting.
    ids: Vec<u32>,
    /// How many of them have been given out.
    shown: usize,
}

/// Tokens that may wait for the rest of a character; UTF-8 has at most 4 bytes, and a token at least one.
const WAITING_MAX: usize = 4;

impl TextStream<'_> {
    /// Takes the next id and gives the text that it completes, which may be empty.
    ///
    /// # Errors
    /// If the tokenizer refuses the ids.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        self.ids.push(id);
        let text = self.waiting()?;
        if text.is_empty() || (text.ends_with('\u{fffd}') && self.ids.len() - self.shown < WAITING_MAX) {
            return Ok(String::new());
        }
        self.ids.drain(..self.shown);
        self.shown = self.ids.len();
        Ok(text)
    }

    /// The text of what is still waiting, when no more ids come.
    ///
    /// # Errors
    /// As [`TextStream::push`].
    pub fn finish(self) -> Result<String, TokenizerError> {
        self.waiting()
    }

    fn waiting(&self) -> Result<String, TokenizerError> {
        let before = self.tokenizer.decode(&self.ids[..self.shown])?;
        let all = self.tokenizer.decode(&self.ids)?;
        Ok(all.get(before.len()..).unwrap_or_default().to_owned())
    }
}

/// How text is cut before merging, as `tokenizer.json` writes it, by the names of llama.cpp.
fn pre_tokenizer(name: &str) -> Result<Json, String> {
    let byte_level = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex });
    let sequence = |first: Json, rest: Json| json!({ "type": "Sequence", "pretokenizers": [first, rest] });
    match name {
        "gpt-2" => Ok(byte_level(true)),
        "smollm" | "starcoder" | "refact" | "command-r" => {
            Ok(sequence(json!({ "type": "Digits", "individual_digits": true }), byte_level(true)))
        }
        "llama-bpe" | "llama3" | "llama-v3" => {
            let pattern = json!({ "Regex": LLAMA_3 });
            let split = json!({ "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false });
            Ok(sequence(split, byte_level(false)))
        }
        _ => Err(format!(
            "tokenizer.ggml.pre is {name:?}, supported are gpt-2, smollm, starcoder, refact, command-r and llama-bpe"
        )),
    }
}

/// Source: `tokenizer.json` of Llama 3.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// `tokenizer.ggml.token_type` of tokens that stand for themselves, and of those that also vanish in decoding.
const USER_DEFINED: i32 = 4;
const CONTROL: i32 = 3;

/// The `tokenizer.json` that GGUF metadata amounts to.
fn gguf_tokenizer(metadata: &Metadata) -> Result<(Json, SpecialTokens), String> {
    let text = |key: &str| match metadata.get(key) {
        Some(Value::Text(text)) => Ok(text.as_str()),
        found => Err(format!("{key} is {found:?}, expected a string")),
    };
    let texts = |key: &str| match metadata.get(key) {
        Some(Value::Texts(texts)) => Ok(texts),
        Some(_) => Err(format!("{key} is not a list of strings")),
        None => Err(format!("{key} is missing")),
    };
    let model = text("tokenizer.ggml.model")?;
    if model != "gpt2" {
        return Err(format!("tokenizer.ggml.model is {model:?}, supported is \"gpt2\", byte-level BPE"));
    }
    let pre = text("tokenizer.ggml.pre")?;
    let (tokens, merges) = (texts("tokenizer.ggml.tokens")?, texts("tokenizer.ggml.merges")?);
    let vocabulary: serde_json::Map<String, Json> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
    if vocabulary.len() != tokens.len() {
        return Err(format!("tokenizer.ggml.tokens has {} tokens, {} of them differ", tokens.len(), vocabulary.len()));
    }
    let kinds = match metadata.get("tokenizer.ggml.token_type") {
        Some(Value::Integers(kinds)) if kinds.len() == tokens.len() => kinds.as_slice(),
        None => &[],
        Some(_) => return Err(format!("tokenizer.ggml.token_type is no list of {} integers", tokens.len())),
    };
    let added = |(id, (token, kind)): (usize, (&String, &i32))| {
        [CONTROL, USER_DEFINED].contains(kind).then(|| {
            json!({ "id": id, "content": token, "special": *kind == CONTROL, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false })
        })
    };
    let added: Vec<Json> = tokens.iter().zip(kinds).enumerate().filter_map(added).collect();
    let id = |key: &str| match metadata.get(key) {
        None => Ok(None),
        Some(&Value::Integer(id)) => match u32::try_from(id) {
            Ok(id) if (id as usize) < tokens.len() => Ok(Some(id)),
            _ => Err(format!("{key} is {id}, tokens are 0 to {}", tokens.len().saturating_sub(1))),
        },
        Some(found) => Err(format!("{key} is {found:?}, expected an integer")),
    };
    let special = SpecialTokens {
        bos: id("tokenizer.ggml.bos_token_id")?,
        eos: id("tokenizer.ggml.eos_token_id")?.into_iter().collect(),
        pad: id("tokenizer.ggml.padding_token_id")?,
    };
    let begins = metadata.get("tokenizer.ggml.add_bos_token") == Some(&Value::Bool(true));
    let template = special.bos.filter(|_| begins).map(|bos| template(&tokens[bos as usize], bos));
    let json = json!({
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": pre_tokenizer(pre)?,
        "post_processor": template,
        "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        // Llama 3's merges do not reach every one of its tokens, so a word that is one is taken as it is.
        "model": { "type": "BPE", "vocab": vocabulary, "merges": merges, "ignore_merges": pre.starts_with("llama") },
    });
    Ok((json, special))
}

/// A post-processor that puts one token before every text.
fn template(bos: &str, id: u32) -> Json {
    let mark = json!({ "SpecialToken": { "id": bos, "type_id": 0 } });
    let sequence = |id: &str, kind: u32| json!({ "Sequence": { "id": id, "type_id": kind } });
    json!({
        "type": "TemplateProcessing",
        "single": [mark, sequence("A", 0)],
        "pair": [mark, sequence("A", 0), mark, sequence("B", 1)],
        "special_tokens": { bos: { "id": bos, "ids": [id], "tokens": [bos] } },
    })
}
