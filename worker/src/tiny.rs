//! Random models of both families, as small as a test wants them, in the files that real ones come in.
//!
//! Tests and trials need no download. Weights are noise, so such a model knows nothing; it is trained like any other.

use std::io;
use std::path::Path;

use packfed_codec::{Scalar, Seed};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

/// Features of a token.
const HIDDEN: usize = 32;
/// Features inside a feed-forward layer.
const INTERMEDIATE: usize = 64;
/// Layers.
const LAYERS: usize = 2;
/// Attention heads.
const HEADS: usize = 4;
/// Key heads of the decoder.
const KEY_HEADS: usize = 2;
/// Longest text in tokens.
const POSITIONS: usize = 128;
/// The encoder's special tokens, by id.
const MARKS: [&str; 4] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"];
/// Ends a decoder's text.
const END: &str = "<end>";

/// Writes an encoder: `config.json`, `tokenizer.json` and `model.safetensors`, for texts of ASCII letters and digits.
///
/// # Errors
/// If a file cannot be written.
pub fn write_bert(folder: &Path, seed: &Seed) -> io::Result<()> {
    let vocabulary = pieces();
    let mut tensors = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![vocabulary.len(), HIDDEN]),
        ("embeddings.position_embeddings.weight".to_owned(), vec![POSITIONS, HIDDEN]),
        ("embeddings.token_type_embeddings.weight".to_owned(), vec![2, HIDDEN]),
    ];
    let mut both = |name: String, rows: usize, cols: Option<usize>| {
        tensors.push((format!("{name}.weight"), std::iter::once(rows).chain(cols).collect()));
        tensors.push((format!("{name}.bias"), vec![rows]));
    };
    both("embeddings.LayerNorm".to_owned(), HIDDEN, None);
    for n in 0..LAYERS {
        for part in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"] {
            both(format!("encoder.layer.{n}.{part}"), HIDDEN, Some(HIDDEN));
        }
        both(format!("encoder.layer.{n}.intermediate.dense"), INTERMEDIATE, Some(HIDDEN));
        both(format!("encoder.layer.{n}.output.dense"), HIDDEN, Some(INTERMEDIATE));
        both(format!("encoder.layer.{n}.attention.output.LayerNorm"), HIDDEN, None);
        both(format!("encoder.layer.{n}.output.LayerNorm"), HIDDEN, None);
    }
    let config = json!({
        "model_type": "bert", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "intermediate_size": INTERMEDIATE, "vocab_size": vocabulary.len(), "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2, "pad_token_id": 0,
    });
    let ids: serde_json::Map<String, Value> =
        vocabulary.into_iter().enumerate().map(|(id, piece)| (piece, id.into())).collect();
    let marks = (0..MARKS.len()).map(|id| added(id, MARKS[id])).collect::<Vec<Value>>();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": marks,
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2] },
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": ids },
    });
    write(folder, &config, &tokenizer, tensors, seed)
}

/// Writes a decoder with a tied head: `config.json`, `tokenizer.json` and `model.safetensors`, for any text; a token is a
/// byte.
///
/// # Errors
/// If a file cannot be written.
pub fn write_llama(folder: &Path, seed: &Seed) -> io::Result<()> {
    let vocabulary = bytes();
    let keys = HIDDEN / HEADS * KEY_HEADS;
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![vocabulary.len(), HIDDEN])];
    for n in 0..LAYERS {
        let mut tensor =
            |part: &str, shape: Vec<usize>| tensors.push((format!("model.layers.{n}.{part}.weight"), shape));
        tensor("self_attn.q_proj", vec![HIDDEN, HIDDEN]);
        tensor("self_attn.k_proj", vec![keys, HIDDEN]);
        tensor("self_attn.v_proj", vec![keys, HIDDEN]);
        tensor("self_attn.o_proj", vec![HIDDEN, HIDDEN]);
        tensor("mlp.gate_proj", vec![INTERMEDIATE, HIDDEN]);
        tensor("mlp.up_proj", vec![INTERMEDIATE, HIDDEN]);
        tensor("mlp.down_proj", vec![HIDDEN, INTERMEDIATE]);
        tensor("input_layernorm", vec![HIDDEN]);
        tensor("post_attention_layernorm", vec![HIDDEN]);
    }
    tensors.push(("model.norm.weight".to_owned(), vec![HIDDEN]));
    let config = json!({
        "model_type": "llama", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_HEADS, "intermediate_size": INTERMEDIATE, "vocab_size": vocabulary.len(),
        "max_position_embeddings": POSITIONS, "tie_word_embeddings": true, "eos_token_id": 256,
    });
    let ids: serde_json::Map<String, Value> =
        vocabulary.into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [added(256, END)], "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "vocab": ids, "merges": [] },
    });
    write(folder, &config, &tokenizer, tensors, seed)
}

/// A special token of a vocabulary.
fn added(id: usize, content: &str) -> Value {
    json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true })
}

/// Marks, then every letter and digit, alone and inside a word.
fn pieces() -> Vec<String> {
    let letters = || ('a'..='z').chain('0'..='9');
    MARKS
        .map(str::to_owned)
        .into_iter()
        .chain(letters().map(String::from))
        .chain(letters().map(|c| format!("##{c}")))
        .collect()
}

/// Every byte as byte-level vocabularies spell it (Radford et al., 2019), then the end of a text.
fn bytes() -> Vec<String> {
    let plain = |b: &u32| (33..127).contains(b) || (161..173).contains(b) || (174..256).contains(b);
    let mut next = 256;
    let spelled = (0..256u32).map(|b| {
        let code = if plain(&b) {
            b
        } else {
            next += 1;
            next - 1
        };
        char::from_u32(code).map(String::from).unwrap_or_default()
    });
    spelled.chain([END.to_owned()]).collect()
}

fn write(
    folder: &Path,
    config: &Value,
    tokenizer: &Value,
    tensors: Vec<(String, Vec<usize>)>,
    seed: &Seed,
) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("config.json"), config.to_string())?;
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string())?;
    let mut stream = seed.derive("packfed/tiny/1", &[]).stream();
    let mut stored = Vec::new();
    for (name, shape) in tensors {
        // Norms scale by about one; matrices keep the size of what goes through them.
        let (mean, reach) = match shape.as_slice() {
            [_] if name.ends_with("weight") => (1.0, 0.1),
            [_] => (0.0, 0.1),
            [.., inputs] => (0.0, (3.0 / *inputs as f64).sqrt()),
            [] => (0.0, 0.0),
        };
        let value = |_| <f32 as Scalar>::from_f64(mean + reach * (2.0 * stream.unit() - 1.0)).to_le_bytes();
        let bytes: Vec<u8> = (0..shape.iter().product::<usize>()).flat_map(value).collect();
        stored.push((name, shape, bytes));
    }
    let mut views = Vec::new();
    for (name, shape, bytes) in &stored {
        views.push((name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(io::Error::other)?));
    }
    std::fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).map_err(io::Error::other)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::ModelFiles;
    use crate::pretrained::Pretrained;
    use crate::text::Marks;

    #[test]
    fn both_families_open_like_real_ones() {
        let folder = tempfile::tempdir().unwrap();
        let seed = Seed::from_number(1);
        write_bert(folder.path(), &seed).unwrap();
        let files = ModelFiles::open(folder.path()).unwrap();
        let tokenizer = files.tokenizer().unwrap();
        let ids = tokenizer.encode("My card 7", Marks::Around, 100).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), "my card 7");
        assert_eq!(Pretrained::open(&files, Some(3)).unwrap().matrices().len(), 6 * LAYERS + 1);
        write_llama(folder.path(), &seed).unwrap();
        let files = ModelFiles::open(folder.path()).unwrap();
        let tokenizer = files.tokenizer().unwrap();
        let ids = tokenizer.encode("Thou é!\n", Marks::None, 100).unwrap();
        assert_eq!((ids.len(), tokenizer.decode(&ids).unwrap().as_str()), (9, "Thou é!\n"));
        assert_eq!(Pretrained::open(&files, None).unwrap().matrices().len(), 7 * LAYERS);
    }
}
