//! Model files of every form that can be opened, whole, damaged and hostile; all of them are written here.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use packfed_codec::Seed;
use packfed_worker::files::{CHUNK_VALUES_MAX, Family, Format, ModelFiles, Problem};
use packfed_worker::nn::activation::Activation;
use packfed_worker::weight::{Stored, Weight};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

const BERT: &str = r#"{ "model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 12, "vocab_size": 5, "max_position_embeddings": 16, "layer_norm_eps": 1e-7, "pad_token_id": 0 }"#;
const LLAMA: &str = r#"{ "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 12, "vocab_size": 5, "eos_token_id": [3, 4] }"#;

fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut stream = Seed::from_number(seed).stream();
    (0..n).map(|_| f32::from(u16::try_from(stream.bits_32() >> 16).unwrap()) / 32_768.0 - 1.0).collect()
}

type Entry = (&'static str, Dtype, Vec<usize>, Vec<u8>);

fn f32s(name: &'static str, shape: &[usize]) -> Entry {
    let values = noise(1, shape.iter().product());
    (name, Dtype::F32, shape.to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

fn safetensors(entries: &[Entry]) -> Vec<u8> {
    let view = |(name, dtype, shape, bytes): &'_ Entry| (*name, *dtype, shape.clone(), bytes.clone());
    let owned: Vec<Entry> = entries.iter().map(view).collect();
    let views =
        owned.iter().map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

/// The message of an error, without the folder that the test made.
fn refusal(path: &Path) -> String {
    let error = ModelFiles::open(path).unwrap_err().to_string();
    let base = if path.is_dir() { path } else { path.parent().unwrap() };
    error.replace(base.to_str().unwrap(), "")
}

#[test]
fn a_hugging_face_directory_gives_each_tensor_as_it_is_stored() {
    let values = noise(2, 40);
    let halves: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
    let brains: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
    let file = safetensors(&[
        (
            "bert.embeddings.word_embeddings.weight",
            Dtype::F16,
            vec![5, 8],
            halves.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ),
        ("bert.pooler.dense.weight", Dtype::BF16, vec![5, 8], brains.iter().flat_map(|v| v.to_le_bytes()).collect()),
        ("bert.embeddings.position_ids", Dtype::I64, vec![1, 2], vec![0; 16]),
        f32s("bert.embeddings.LayerNorm.gamma", &[8]),
        f32s("classifier.weight", &[3, 8]),
    ]);
    let folder = folder(&[("config.json", BERT.as_bytes()), ("model.safetensors", &file)]);
    let model = ModelFiles::open(folder.path()).unwrap();
    let Family::Bert(config) = model.family() else { panic!("{:?}", model.family()) };
    assert_eq!((config.hidden, config.layers, config.heads, config.intermediate), (8, 1, 2, 12));
    assert_eq!((config.vocabulary, config.positions_max, config.token_types), (5, 16, 2));
    assert_eq!((config.norm_eps, config.activation), (1e-7, Activation::Gelu));
    let stored = |name: &str, shape: &[usize]| model.weight(name, shape).unwrap().stored;
    assert!(matches!(stored("embeddings.word_embeddings.weight", &[5, 8]), Stored::F16(found) if *found == halves));
    assert!(matches!(stored("pooler.dense.weight", &[5, 8]), Stored::Bf16(found) if *found == brains));
    assert!(matches!(stored("embeddings.LayerNorm.weight", &[8]), Stored::F32(found) if *found == noise(1, 8)));
    assert!(matches!(stored("classifier.weight", &[3, 8]), Stored::F32(found) if *found == noise(1, 24)));
    let formats: Vec<String> = model.tensors().map(|info| format!("{}", info.format)).collect();
    assert_eq!(formats, ["F32", "F32", "I64", "F16", "BF16"]);
    let error = |name: &str, shape: &[usize]| model.weight(name, shape).unwrap_err().to_string();
    assert!(error("classifier.bias", &[3]).ends_with("tensor classifier.bias is missing"));
    let wrong = error("classifier.weight", &[4, 8]);
    assert!(
        wrong.ends_with("model.safetensors: tensor classifier.weight has shape [3, 8], expected [4, 8]"),
        "{wrong}"
    );
    let integers = error("embeddings.position_ids", &[1, 2]);
    assert!(integers.ends_with("of shape [1, 2] is stored as I64, expected F32, F16 or BF16"), "{integers}");
    assert!(model.tokenizer().unwrap_err().to_string().contains("tokenizer.json"));
}

#[test]
fn several_files_read_as_one() {
    let (one, two) = (safetensors(&[f32s("norm.weight", &[8])]), safetensors(&[f32s("model.layers.0.a", &[2, 3])]));
    let index = |first: &str| {
        format!(r#"{{ "weight_map": {{ "norm.weight": "{first}", "model.layers.0.a": "model-2.safetensors" }} }}"#)
    };
    let open = |index: &str| {
        let folder = folder(&[
            ("config.json", LLAMA.as_bytes()),
            ("model-1.safetensors", &one),
            ("model-2.safetensors", &two),
            ("model.safetensors.index.json", index.as_bytes()),
        ]);
        let model = ModelFiles::open(folder.path());
        (folder, model)
    };
    let (_folder, model) = open(&index("model-1.safetensors"));
    let model = model.unwrap();
    let Family::Llama(config) = model.family() else { panic!("{:?}", model.family()) };
    assert_eq!((config.heads, config.kv_heads, config.head_size, config.tied_embeddings), (4, 2, 2, false));
    assert_eq!((config.norm_eps, config.rope_theta, config.activation), (1e-6, 10_000.0, Activation::Silu));
    assert_eq!(model.weight("model.norm.weight", &[8]).unwrap().shape, [8]);
    assert_eq!(model.weight("model.layers.0.a", &[2, 3]).unwrap().shape, [2, 3]);
    for (file, expected) in [
        ("../model-1.safetensors", "not a file beside the index"),
        ("model-2.safetensors", "model-2.safetensors: tensor norm.weight is missing"),
        ("model-3.safetensors", "model-3.safetensors: No such file"),
    ] {
        let error = open(&index(file)).1.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_a_configuration_asks_for_and_is_not_built_is_refused_by_name() {
    let error = |config: &str, from: &str, to: &str| {
        assert!(config.contains(from));
        let config = config.replace(from, to);
        refusal(folder(&[("config.json", config.as_bytes())]).path())
    };
    let unknown = error(BERT, r#""bert""#, r#""gpt_neox""#);
    assert!(unknown.contains(r#"architecture "gpt_neox" is not supported; supported are bert and llama"#), "{unknown}");
    for (from, to, expected) in [
        ("\"pad_token_id\": 0", "\"position_embedding_type\": \"relative_key\"", "supported is \"absolute\""),
        ("\"pad_token_id\": 0", "\"hidden_act\": \"mish\"", "hidden_act is \"mish\""),
        (
            "\"num_attention_heads\": 2",
            "\"num_attention_heads\": 3",
            "num_attention_heads is 3, which does not divide hidden_size 8",
        ),
        ("\"hidden_size\": 8", "\"hidden_size\": 0", "hidden_size is 0, allowed are 1 to 16777216"),
        ("\"hidden_size\": 8", "\"hidden_size\": 4294967296", "hidden_size is 4294967296"),
        ("\"hidden_size\": 8", "\"hidden_size\": -8", "/config.json: invalid value: integer `-8`"),
        ("1e-7", "0", "layer_norm_eps is 0, expected a positive number"),
    ] {
        let error = error(BERT, from, to);
        assert!(error.contains(expected), "{error}");
    }
    let add = |what: &str| error(LLAMA, "\"eos_token_id\"", &format!("{what}, \"eos_token_id\""));
    for (what, expected) in [
        (r#""rope_scaling": { "rope_type": "llama3", "factor": 8 }"#, "rope_scaling is llama3"),
        (r#""rope_parameters": { "rope_type": "yarn" }"#, "rope_parameters is yarn"),
        (r#""attention_bias": true"#, "attention_bias is true, supported is false"),
        (r#""partial_rotary_factor": 0.5"#, "partial_rotary_factor is 0.5"),
        (r#""head_dim": 3"#, "does not divide the head size 3"),
    ] {
        let error = add(what);
        assert!(error.contains(expected), "{error}");
    }
    let missing = error(LLAMA, "\"hidden_size\": 8,", "");
    assert!(missing.contains("/config.json: missing field `hidden_size` at line"), "{missing}");
    let plain = add(r#""rope_parameters": { "rope_type": "default", "rope_theta": 5.0 }"#);
    assert!(plain.contains("neither model.safetensors nor"), "the configuration is fine: {plain}");
}

#[test]
fn a_perceptron_is_one_file_and_nothing_else_is() {
    let folder = folder(&[
        ("mlp.safetensors", &safetensors(&[f32s("layers.0.weight", &[3, 2]), f32s("layers.0.bias", &[3])])),
        ("other.safetensors", &safetensors(&[f32s("w", &[3, 2])])),
    ]);
    let model = ModelFiles::open(&folder.path().join("mlp.safetensors")).unwrap();
    assert_eq!((model.family(), model.tensors().count()), (&Family::Mlp, 2));
    assert!(model.tokenizer().unwrap_err().to_string().ends_with("this model has no tokenizer"));
    assert!(refusal(&folder.path().join("other.safetensors")).contains("no tensor layers.0.weight"));
    assert!(refusal(folder.path()).contains("without config.json and with 0 .gguf files"));
    assert!(refusal(&folder.path().join("none")).contains("No such file"));
}

const HIDDEN: usize = 64;
const HEADS: usize = 2;
const KV_HEADS: usize = 1;
const HEAD_SIZE: usize = 32;
/// So many that the embedding is more than one chunk.
const VOCABULARY: usize = CHUNK_VALUES_MAX / HIDDEN + 10;

fn tensor(values: &[f32], cols: usize) -> Tensor {
    Tensor::from_slice(values, (values.len() / cols, cols), &Device::Cpu).unwrap()
}

/// As `LlamaModel.permute` of llama.cpp's converter does it: `(heads, 2, half)` becomes `(heads, half, 2)`.
fn permute(weight: &Tensor, heads: usize) -> Tensor {
    let (rows, cols) = weight.dims2().unwrap();
    let split = weight.reshape((heads, 2, rows / heads / 2, cols)).unwrap();
    split.transpose(1, 2).unwrap().contiguous().unwrap().reshape((rows, cols)).unwrap()
}

fn query() -> Tensor {
    tensor(&noise(3, HEADS * HEAD_SIZE * HIDDEN), HIDDEN)
}

fn key() -> Tensor {
    tensor(&noise(4, KV_HEADS * HEAD_SIZE * HIDDEN), HIDDEN)
}

fn metadata() -> Vec<(&'static str, gguf_file::Value)> {
    use gguf_file::Value::{Array, F32, I32, String, U32};
    let strings = |of: &[&str]| Array(of.iter().map(|&text| String(text.into())).collect());
    vec![
        ("general.architecture", String("llama".into())),
        ("llama.block_count", U32(1)),
        ("llama.context_length", U32(128)),
        ("llama.embedding_length", U32(64)),
        ("llama.feed_forward_length", U32(96)),
        ("llama.attention.head_count", U32(2)),
        ("llama.attention.head_count_kv", U32(1)),
        ("llama.attention.layer_norm_rms_epsilon", F32(0.25)),
        ("llama.rope.freq_base", F32(500.0)),
        ("llama.rope.dimension_count", U32(32)),
        ("tokenizer.ggml.model", String("gpt2".into())),
        ("tokenizer.ggml.pre", String("smollm".into())),
        ("tokenizer.ggml.tokens", strings(&["<end>", "a", "b", "ab"])),
        ("tokenizer.ggml.token_type", Array(vec![I32(3), I32(1), I32(1), I32(1)])),
        ("tokenizer.ggml.scores", Array(vec![F32(0.0); 4])),
        ("tokenizer.ggml.merges", strings(&["a b"])),
        ("tokenizer.ggml.eos_token_id", U32(0)),
    ]
}

fn write_gguf(metadata: &[(&str, gguf_file::Value)], tensors: &[(&str, QTensor)]) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    gguf_file::write(&mut bytes, &metadata, &tensors).unwrap();
    bytes.into_inner()
}

fn tensors(vocabulary: usize) -> Vec<(&'static str, QTensor)> {
    let quantize = |tensor: &Tensor, format| QTensor::quantize(tensor, format).unwrap();
    let norm = Tensor::from_vec(noise(5, HIDDEN), HIDDEN, &Device::Cpu).unwrap();
    vec![
        ("token_embd.weight", quantize(&tensor(&noise(6, vocabulary * HIDDEN), HIDDEN), GgmlDType::Q8_0)),
        ("blk.0.attn_q.weight", quantize(&permute(&query(), HEADS), GgmlDType::Q4_1)),
        ("blk.0.attn_k.weight", quantize(&permute(&key(), KV_HEADS), GgmlDType::F16)),
        ("output_norm.weight", quantize(&norm, GgmlDType::F32)),
    ]
}

fn widened(weight: &Weight) -> Vec<f32> {
    let flat = |chunk: &QTensor| chunk.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    match &weight.stored {
        Stored::Quantized(chunks) => chunks.iter().flat_map(|chunk| -> Vec<f32> { flat(chunk) }).collect(),
        Stored::F32(values) => values.to_vec(),
        Stored::F16(values) => values.iter().map(|v| v.to_f32()).collect(),
        Stored::Bf16(values) => values.iter().map(|v| v.to_f32()).collect(),
    }
}

fn values(tensor: &Tensor, format: GgmlDType) -> Vec<f32> {
    let stored = QTensor::quantize(tensor, format).unwrap();
    stored.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_gguf_file_has_hugging_face_names_and_rows_and_stays_quantized() {
    let folder = folder(&[("any.gguf", &write_gguf(&metadata(), &tensors(VOCABULARY)))]);
    let model = ModelFiles::open(folder.path()).unwrap();
    let Family::Llama(config) = model.family() else { panic!("{:?}", model.family()) };
    assert_eq!((config.hidden, config.layers, config.heads, config.kv_heads), (HIDDEN, 1, HEADS, KV_HEADS));
    assert_eq!((config.head_size, config.intermediate, config.vocabulary), (HEAD_SIZE, 96, VOCABULARY));
    assert_eq!((config.norm_eps, config.rope_theta, config.tied_embeddings), (0.25, 500.0, true));
    let weight = |name: &str, shape: &[usize]| model.weight(name, shape).unwrap();
    let embedding = weight("model.embed_tokens.weight", &[VOCABULARY, HIDDEN]);
    assert_eq!(widened(&embedding), values(&tensor(&noise(6, VOCABULARY * HIDDEN), HIDDEN), GgmlDType::Q8_0));
    let Stored::Quantized(chunks) = &embedding.stored else { panic!("{embedding:?}") };
    let rows: Vec<usize> = chunks.iter().map(|chunk| chunk.shape().dims2().unwrap().0).collect();
    assert_eq!(rows, [CHUNK_VALUES_MAX / HIDDEN, 10], "whole rows, none larger than a chunk");
    let query_shape = [HEADS * HEAD_SIZE, HIDDEN];
    let found = weight("model.layers.0.self_attn.q_proj.weight", &query_shape);
    assert!(matches!(found.stored, Stored::Quantized(_)));
    assert_eq!(widened(&found), values(&query(), GgmlDType::Q4_1), "as before llama.cpp's permutation");
    let found = weight("model.layers.0.self_attn.k_proj.weight", &[KV_HEADS * HEAD_SIZE, HIDDEN]);
    assert_eq!(widened(&found), values(&key(), GgmlDType::F16));
    assert_eq!(widened(&weight("model.norm.weight", &[HIDDEN])), noise(5, HIDDEN));
    let tokenizer = model.tokenizer().unwrap();
    assert_eq!(tokenizer.encode("abba", packfed_worker::text::Marks::Around, 9).unwrap(), [3, 2, 1]);
}

#[test]
fn a_gguf_model_that_is_no_plain_llama_is_refused_by_name() {
    let error = |key: &'static str, value: gguf_file::Value| {
        let mut metadata = metadata();
        metadata.retain(|(known, _)| *known != key);
        metadata.push((key, value));
        let folder = folder(&[("any.gguf", &write_gguf(&metadata, &tensors(4)))]);
        refusal(&folder.path().join("any.gguf"))
    };
    use gguf_file::Value::{F32, String, U32};
    let architecture = error("general.architecture", String("qwen2".into()));
    assert!(architecture.starts_with("/any.gguf: architecture \"qwen2\" is not supported"), "{architecture}");
    for (key, value, expected) in [
        ("llama.rope.scaling.type", String("linear".into()), "only a rotary embedding without scaling"),
        ("llama.expert_count", U32(8), "llama.expert_count is 8, which is not built"),
        ("llama.rope.dimension_count", U32(16), "llama.rope.dimension_count is 16, supported is the head size, 32"),
        ("llama.block_count", F32(1.0), "llama.block_count is 1.0, expected one integer"),
        ("llama.attention.head_count", U32(0), "llama.attention.head_count is 0, allowed are 1 to"),
        ("general.alignment", U32(0), "general.alignment is 0, allowed are"),
    ] {
        let error = error(key, value);
        assert!(error.contains(expected), "{error}");
    }
    let mut tensors = tensors(4);
    tensors.push(("blk.0.attn_q.bias", QTensor::quantize(&tensor(&noise(1, 64), 64), GgmlDType::F32).unwrap()));
    let folder = folder(&[("any.gguf", &write_gguf(&metadata(), &tensors))]);
    let error = refusal(folder.path());
    assert!(error.ends_with("tensor blk.0.attn_q.bias of shape [1, 64] belongs to no plain Llama"), "{error}");
}

/// Opens, and if that goes well reads everything; whatever comes, it comes back.
fn read_everything(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let model = ModelFiles::open(path)?;
    let wanted: Vec<_> = model.tensors().filter(|info| !matches!(info.format, Format::Other(_))).collect();
    let files: BTreeSet<_> = wanted.iter().map(|info| info.path.clone()).collect();
    let length: u64 = files.iter().map(|file| std::fs::metadata(file).unwrap().len()).sum();
    assert!(wanted.iter().map(|info| info.bytes).sum::<u64>() <= length, "no more than the files have");
    for info in wanted {
        model.weight(&info.name, &info.shape)?;
    }
    model.tokenizer()?.encode("ab", packfed_worker::text::Marks::Around, 9)?;
    Ok(())
}

/// One file of each form, and the bytes in it that say what the others mean.
fn samples() -> [(PathBuf, tempfile::TempDir, usize); 2] {
    let gguf = write_gguf(&metadata(), &tensors(4));
    let bert = safetensors(&[f32s("embeddings.LayerNorm.weight", &[8]), f32s("classifier.weight", &[3, 8])]);
    let header = |bytes: &[u8], data: usize| bytes.len() - data;
    let (in_gguf, in_bert) = (header(&gguf, 4 * 68 + 64 * 40 + 32 * 128 + 256), header(&bert, 128));
    let gguf = folder(&[("any.gguf", &gguf)]);
    let bert = folder(&[("config.json", BERT.as_bytes()), ("model.safetensors", &bert), ("tokenizer.json", TOKENIZER)]);
    [(gguf.path().join("any.gguf"), gguf, in_gguf), (bert.path().join("model.safetensors"), bert, in_bert)]
}

const TOKENIZER: &[u8] = br#"{ "model": { "type": "WordLevel", "unk_token": "a", "vocab": { "a": 0 } } }"#;

#[test]
fn a_file_cut_anywhere_is_an_error() {
    for (file, folder, header) in samples() {
        let (header, whole) = (header as u64, std::fs::metadata(&file).unwrap().len());
        read_everything(folder.path()).unwrap();
        let open = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
        let inside = (header..whole).step_by(97).chain([whole - 1]);
        let mut lengths: Vec<u64> = (0..header).step_by(3).chain(inside).collect();
        lengths.sort_unstable();
        for length in lengths.into_iter().rev() {
            open.set_len(length).unwrap();
            let error = read_everything(folder.path()).expect_err("cut").to_string();
            assert!(error.contains(file.to_str().unwrap()), "{length}: {error}");
        }
    }
}

fn put(file: &mut File, at: usize, byte: u8) {
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(&[byte]).unwrap();
}

#[test]
fn damage_anywhere_in_a_header_returns() {
    for (file, folder, header) in samples() {
        let whole = std::fs::read(&file).unwrap();
        let mut open = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
        let mut refused = 0;
        for (at, &byte) in whole.iter().enumerate().take(header) {
            for flip in [0x01, 0x80, 0xff] {
                // In place: to write it anew waits for the disk.
                put(&mut open, at, byte ^ flip);
                refused += usize::from(read_everything(folder.path()).is_err());
            }
            put(&mut open, at, byte);
        }
        assert!(refused > header, "{refused} of {} were refused", 3 * header);
    }
}

#[test]
fn claims_beyond_the_file_are_refused_before_anything_is_allocated() {
    let claim = |json: &str, data: usize| {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        let folder = folder(&[("m.safetensors", &bytes)]);
        refusal(&folder.path().join("m.safetensors"))
    };
    let outside = claim(r#"{"layers.0.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[8,24]}}"#, 16);
    assert_eq!(outside, "/m.safetensors: tensor layers.0.weight lies at bytes 87..103, the file has 95");
    let short = claim(r#"{"layers.0.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,16]}}"#, 16);
    assert!(
        short.ends_with("tensor layers.0.weight of shape [2, 3] takes 24 bytes, the header gives it 16"),
        "{short}"
    );
    let huge = r#"{"layers.0.weight":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#;
    assert!(claim(huge, 16).contains("is stored as F32, expected rows of whole blocks, and fewer than 2^64 bytes"));
    let twice = r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}}"#;
    assert!(claim(twice, 24).contains("tensor b lies at bytes"), "two tensors may not share bytes");
    let backwards = claim(r#"{"a":{"dtype":"F32","shape":[0],"data_offsets":[8,0]}}"#, 16);
    assert!(backwards.contains("ends at 0, before its start at 8"), "{backwards}");
    let folder = folder(&[
        ("m.safetensors", &[0xff_u8; 64]),
        ("m.gguf", b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f\0\0\0\0\0\0\0\0"),
    ]);
    assert!(
        refusal(&folder.path().join("m.safetensors")).contains("header, byte 0: it claims 18446744073709551615 bytes")
    );
    let gguf = refusal(&folder.path().join("m.gguf"));
    assert_eq!(gguf, "/m.gguf: header, byte 24: a number takes 8 bytes, 0 are left");
}

#[test]
fn a_digest_is_of_the_bytes_and_not_of_their_place() {
    let bert = safetensors(&[f32s("classifier.weight", &[3, 8])]);
    let digest = |weights: &[u8], tokenizer: &[u8]| {
        let files = [("config.json", BERT.as_bytes()), ("model.safetensors", weights), ("tokenizer.json", tokenizer)];
        let folder = folder(&files);
        ModelFiles::open(folder.path()).unwrap().digest().unwrap()
    };
    assert_eq!(digest(&bert, TOKENIZER), digest(&bert, TOKENIZER), "in another directory");
    assert_ne!(digest(&bert, TOKENIZER), digest(&bert, b"{}"));
    let mut other = bert.clone();
    *other.last_mut().unwrap() ^= 1;
    assert_ne!(digest(&bert, TOKENIZER), digest(&other, TOKENIZER));
    assert_eq!(digest(&bert, TOKENIZER).to_string().len(), 64);
}

#[test]
fn a_file_that_changes_after_it_was_opened_is_an_error() {
    for (file, folder, header) in samples() {
        let model = ModelFiles::open(folder.path()).unwrap();
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, &whole[..header]).unwrap();
        let last = model.tensors().max_by_key(|info| info.bytes).unwrap();
        let error = model.weight(&last.name, &last.shape).unwrap_err();
        assert!(matches!(*error.problem, Problem::Io(_)), "{error}");
    }
}
