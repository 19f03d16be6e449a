//! Text to token ids and back, with the tokenizer that a model was trained with.
//!
//! It comes from `tokenizer.json`, or is rebuilt from GGUF metadata in that same form. Padding and truncation
//! that such a file may ask for are ignored: batches pad, and a caller says how long a text may be.

mod gguf;

use std::path::{Path, PathBuf};

use thiserror::Error;
use tokenizers::utils::truncation::TruncationDirection;

use crate::files::{Metadata, SpecialTokens};

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
        // The package panics at a syntax error inside a decoder, so the syntax is checked first, and wholly.
        serde_json::from_slice::<serde_json::Value>(text).map_err(|error| content(error.to_string()))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(text).map_err(|error| content(error.to_string()))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| content(error.to_string()))?;
        Ok(Self { inner, special })
    }

    /// Rebuilds a byte-level BPE tokenizer from the metadata of a GGUF file.
    pub(crate) fn from_gguf(path: &Path, metadata: &Metadata) -> Result<Self, TokenizerError> {
        let content = |why: String| TokenizerError::Content { path: path.to_owned(), why };
        let (json, special) = gguf::tokenizer(metadata).map_err(content)?;
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

    /// A token as the vocabulary spells it.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The `tokenizer.json` that gives this tokenizer again.
    ///
    /// # Errors
    /// If a part of it cannot be written.
    pub fn to_json(&self) -> Result<String, TokenizerError> {
        self.inner.to_string(false).map_err(|error| refused(&error))
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::files::Value;

    /// `tests/models/tokenizers.py` builds the same and prints the ids below.
    const WORD_PIECE: &str = r###"{ "truncation": { "max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right" },
        "added_tokens": [
            { "id": 0, "content": "[PAD]", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false },
            { "id": 2, "content": "[CLS]", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false },
            { "id": 3, "content": "[SEP]", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false },
            { "id": 1, "content": "[UNK]", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false }],
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "BertProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", 3] },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": { "[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "my": 4, "card": 5, "has": 6, "not": 7, "arrive": 8,
                "##d": 9, "##s": 10, "?": 11, "a": 12, "##r": 13, "caf": 14, "##e": 15, "ca": 16 } } }"###;

    pub(crate) fn word_piece() -> Tokenizer {
        Tokenizer::from_json(Path::new("tokenizer.json"), WORD_PIECE.as_bytes(), SpecialTokens::default()).unwrap()
    }

    fn texts(of: &[&str]) -> Value {
        Value::Texts(of.iter().map(|&text| text.to_owned()).collect())
    }

    /// Bytes as GPT-2 spells them, then eight merges.
    fn metadata(pre: &str) -> Metadata {
        let plain = |b: u32| (33..127).contains(&b) || (161..173).contains(&b) || (174..256).contains(&b);
        let shifted = (0..256).filter(|&b| !plain(b)).zip(256..);
        let mut spelled: Vec<(u32, u32)> = (0..256).filter(|&b| plain(b)).map(|b| (b, b)).chain(shifted).collect();
        spelled.sort_unstable();
        let bytes = spelled.into_iter().map(|(_, c)| char::from_u32(c).unwrap().to_string());
        let merged = ["he", "ll", "hell", "hello", "Ġw", "or", "Ġwor", "22"].map(str::to_owned);
        let tokens: Vec<String> =
            ["<end>", "<user>"].map(str::to_owned).into_iter().chain(bytes).chain(merged).collect();
        let kinds = (0..tokens.len()).map(|id| if id < 2 { 3 } else { 1 }).collect();
        Metadata::from([
            ("tokenizer.ggml.model".into(), Value::Text("gpt2".into())),
            ("tokenizer.ggml.pre".into(), Value::Text(pre.into())),
            ("tokenizer.ggml.tokens".into(), Value::Texts(tokens)),
            ("tokenizer.ggml.token_type".into(), Value::Integers(kinds)),
            ("tokenizer.ggml.merges".into(), texts(&["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "2 2"])),
            ("tokenizer.ggml.eos_token_id".into(), Value::Integer(0)),
            ("tokenizer.ggml.bos_token_id".into(), Value::Integer(1)),
        ])
    }

    pub(crate) fn byte_level(pre: &str) -> Tokenizer {
        Tokenizer::from_gguf(Path::new("model.gguf"), &metadata(pre)).unwrap()
    }

    #[test]
    fn word_pieces_are_those_of_the_reference_whatever_length_the_file_asks_for() {
        let tokenizer = word_piece();
        let ids = |text| tokenizer.encode(text, Marks::Around, 100).unwrap();
        assert_eq!(ids("My card has not arrived?"), [2, 4, 5, 6, 7, 8, 9, 11, 3]);
        assert_eq!(ids("cards, Café!"), [2, 5, 10, 1, 14, 15, 1, 3]);
        assert_eq!(ids(""), [2, 3]);
        assert_eq!(tokenizer.decode(&ids("cards, Café!")).unwrap(), "cards cafe");
    }

    #[test]
    fn a_vocabulary_in_gguf_gives_the_ids_of_the_reference() {
        let ids = |pre, text| byte_level(pre).encode(text, Marks::Around, 100).unwrap();
        let by_byte = |text: &str| text.bytes().map(|b| u32::from(b) + 2).collect::<Vec<_>>();
        assert_eq!(ids("gpt-2", "hello world 22"), [vec![261, 264], by_byte("ld "), vec![265]].concat());
        assert_eq!(ids("smollm", "hello world 22"), [vec![261, 264], by_byte("ld 22")].concat());
        assert_eq!(ids("smollm", "<user>é€😀<end>"), [vec![1], by_byte("é€😀"), vec![0]].concat());
        assert_eq!(ids("smollm", "hello\n\n  w"), [vec![261], by_byte("\n\n "), vec![262]].concat());
        assert_eq!(byte_level("smollm").special(), &SpecialTokens { bos: Some(1), eos: vec![0], pad: None });
    }

    #[test]
    fn a_text_is_begun_when_the_file_says_so() {
        let mut metadata = metadata("smollm");
        metadata.insert("tokenizer.ggml.add_bos_token".into(), Value::Bool(true));
        let tokenizer = Tokenizer::from_gguf(Path::new("model.gguf"), &metadata).unwrap();
        assert_eq!(tokenizer.encode("hello", Marks::Around, 9).unwrap(), [1, 261]);
        assert_eq!(tokenizer.encode("hello", Marks::None, 9).unwrap(), [261]);
    }

    #[test]
    fn a_long_text_is_cut_inside_its_marks() {
        let tokenizer = word_piece();
        assert_eq!(tokenizer.encode("my card has not arrived", Marks::Around, 4).unwrap(), [2, 4, 5, 3]);
        assert_eq!(tokenizer.encode("my card has not arrived", Marks::None, 4).unwrap(), [4, 5, 6, 7]);
        let batch = tokenizer.encode_batch(&["my", "my card"], Marks::Around, 3).unwrap();
        assert_eq!(batch, [[2, 4, 3], [2, 4, 3]]);
        let error = tokenizer.encode("my", Marks::Around, 2).unwrap_err();
        assert!(matches!(error, TokenizerError::Length { tokens_max: 2, added: 2 }), "{error}");
    }

    #[test]
    fn a_stream_never_shows_half_a_character_and_loses_none() {
        let tokenizer = byte_level("smollm");
        let text = "hello é€😀 world 22 👩‍👩‍👧\n";
        let mut stream = tokenizer.stream();
        let mut shown = Vec::new();
        for id in tokenizer.encode(text, Marks::Around, 100).unwrap() {
            shown.push(stream.push(id).unwrap());
        }
        assert!(shown.iter().all(|piece| !piece.contains('\u{fffd}')), "{shown:?}");
        assert_eq!(shown.concat(), text);
        assert_eq!(stream.finish().unwrap(), "");
        let mut broken = tokenizer.stream();
        let pieces: Vec<String> = [0xf0, 0x9f].map(|b| broken.push(b + 2).unwrap()).into();
        assert_eq!(pieces.concat() + &broken.finish().unwrap(), "\u{fffd}", "the end comes inside a character");
        let mut endless = tokenizer.stream();
        let shown = (0..20).map(|_| endless.push(0x80 + 2).unwrap()).collect::<String>();
        assert_eq!(shown.chars().count(), 20, "bytes that are no text do not wait for ever");
    }

    #[test]
    fn words_that_a_decoder_joins_stream_as_they_read_together() {
        let tokenizer = word_piece();
        let ids = tokenizer.encode("my card has not arrived?", Marks::Around, 100).unwrap();
        let mut stream = tokenizer.stream();
        let mut shown: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        shown += &stream.finish().unwrap();
        assert_eq!(shown, "my card has not arrived?");
    }

    #[test]
    fn what_is_wrong_with_a_vocabulary_is_named() {
        let error = |key: &str, value| {
            let mut metadata = metadata("smollm");
            metadata.insert(format!("tokenizer.ggml.{key}"), value);
            Tokenizer::from_gguf(Path::new("model.gguf"), &metadata).unwrap_err().to_string()
        };
        let model = error("model", Value::Text("llama".into()));
        assert_eq!(
            model,
            "model.gguf: tokenizer: tokenizer.ggml.model is \"llama\", supported is \"gpt2\", byte-level BPE"
        );
        assert!(error("pre", Value::Text("poro".into())).contains("supported are gpt-2, smollm"));
        assert!(error("eos_token_id", Value::Integer(266)).contains("tokens are 0 to 265"));
        assert!(error("tokens", texts(&["a", "a"])).contains("2 tokens, 1 of them differ"));
        assert!(error("token_type", Value::Integers(vec![1])).contains("no list of 266"));
        assert!(error("merges", texts(&["h z"])).contains("tokenizer"));
        let json = Tokenizer::from_json(Path::new("t.json"), b"{\"model\":", SpecialTokens::default());
        assert!(json.unwrap_err().to_string().starts_with("t.json: tokenizer: EOF"));
        let number = WORD_PIECE.replace(r###""prefix": "##""###, r#""prefix": 1e999"#);
        let json = Tokenizer::from_json(Path::new("t.json"), number.as_bytes(), SpecialTokens::default());
        assert!(json.unwrap_err().to_string().starts_with("t.json: tokenizer: number out of range"));
    }

    #[test]
    fn damage_anywhere_in_a_vocabulary_returns() {
        let mut refused = 0;
        for at in 0..WORD_PIECE.len() {
            for flip in [0x01, 0x10, 0x80] {
                let mut damaged = WORD_PIECE.as_bytes().to_vec();
                damaged[at] ^= flip;
                let built = Tokenizer::from_json(Path::new("t.json"), &damaged, SpecialTokens::default());
                let encoded = built.and_then(|tokenizer| {
                    let ids = tokenizer.encode("My card, Café!", Marks::Around, 9)?;
                    tokenizer.decode(&ids)
                });
                refused += usize::from(encoded.is_err());
            }
        }
        assert!(refused > WORD_PIECE.len(), "{refused}");
    }
}
