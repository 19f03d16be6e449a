//! A tokenizer as GGUF metadata describes it, in the form of `tokenizer.json`.
//!
//! Byte-level BPE only: the vocabularies of GPT-2's kind, which llama.cpp calls `gpt2`.

use serde_json::{Value as Json, json};

use crate::files::{Metadata, SpecialTokens, Value};

/// How text is cut before merging, as `tokenizer.json` writes it, by the names of llama.cpp.
fn pre_tokenizer(name: &str) -> Result<Json, String> {
    let byte_level = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex });
    let sequence = |first: Json, rest: Json| json!({ "type": "Sequence", "pretokenizers": [first, rest] });
    match name {
        "gpt-2" => Ok(byte_level(true)),
        "smollm" | "starcoder" | "refact" | "command-r" => {
            Ok(sequence(json!({ "type": "Digits", "individual_digits": true }), byte_level(true)))
        }
        "llama-bpe" => {
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
const LLAMA_3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// `tokenizer.ggml.token_type` of tokens that stand for themselves, and of those that also vanish in decoding.
const USER_DEFINED: i32 = 4;
const CONTROL: i32 = 3;

/// The `tokenizer.json` that GGUF metadata amounts to.
pub(super) fn tokenizer(metadata: &Metadata) -> Result<(Json, SpecialTokens), String> {
    let text = |key: &str| match metadata.get(key) {
        Some(Value::Text(text)) => Ok(text.as_str()),
        Some(found) => Err(format!("{key} is {found:?}, expected a string")),
        None => Err(format!("{key} is missing")),
    };
    let texts = |key: &str| match metadata.get(key) {
        Some(Value::Texts(texts)) => Ok(texts),
        Some(found) => Err(format!("{key} is {found:?}, expected a list of strings")),
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
