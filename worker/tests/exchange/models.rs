//! Small models on disk in both forms, and logits of a model under deltas.

use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{Device, Tensor};
use packfed_codec::{LayerSpec, Layout, Profile, Seed, State, Window};
use packfed_worker::data::TokenExample;
use packfed_worker::files::{Family, ModelFiles};
use packfed_worker::model::MatrixSpec;
use packfed_worker::pretrained::Pretrained;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

const BERT: &str = r#"{ "model_type": "bert", "architectures": ["BertModel"], "hidden_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 12, "vocab_size": 17, "max_position_embeddings": 16, "torch_dtype": "float32" }"#;
const LLAMA: &str = r#"{ "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 12, "vocab_size": 17, "eos_token_id": [3, 4] }"#;

pub(crate) fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut stream = Seed::from_number(seed).stream();
    (0..n).map(|_| f32::from(u16::try_from(stream.bits_32() >> 16).unwrap()) / 32_768.0 - 1.0).collect()
}

/// A safetensors file of 32-bit floats.
pub(crate) fn write_tensors(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(.., values)| values.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// A Hugging Face directory of this configuration and these tensors of noise.
fn directory(config: &str, tensors: &[(&str, &[usize])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tensors: Vec<_> = tensors
        .iter()
        .zip(1..)
        .map(|(&(name, shape), seed)| (name.to_owned(), shape.to_vec(), noise(seed, shape.iter().product())))
        .collect();
    write_tensors(&folder.path().join("model.safetensors"), &tensors);
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), "{ \"as\": \"it is\" }").unwrap();
    folder
}

pub(crate) fn bert() -> tempfile::TempDir {
    directory(
        BERT,
        &[
            ("embeddings.word_embeddings.weight", &[17, 8]),
            ("embeddings.position_embeddings.weight", &[16, 8]),
            ("embeddings.token_type_embeddings.weight", &[2, 8]),
            ("embeddings.LayerNorm.gamma", &[8]),
            ("embeddings.LayerNorm.beta", &[8]),
            ("encoder.layer.0.attention.self.query.weight", &[8, 8]),
            ("encoder.layer.0.attention.self.query.bias", &[8]),
            ("encoder.layer.0.attention.self.key.weight", &[8, 8]),
            ("encoder.layer.0.attention.self.key.bias", &[8]),
            ("encoder.layer.0.attention.self.value.weight", &[8, 8]),
            ("encoder.layer.0.attention.self.value.bias", &[8]),
            ("encoder.layer.0.attention.output.dense.weight", &[8, 8]),
            ("encoder.layer.0.attention.output.dense.bias", &[8]),
            ("encoder.layer.0.attention.output.LayerNorm.weight", &[8]),
            ("encoder.layer.0.attention.output.LayerNorm.bias", &[8]),
            ("encoder.layer.0.intermediate.dense.weight", &[12, 8]),
            ("encoder.layer.0.intermediate.dense.bias", &[12]),
            ("encoder.layer.0.output.dense.weight", &[8, 12]),
            ("encoder.layer.0.output.dense.bias", &[8]),
            ("encoder.layer.0.output.LayerNorm.weight", &[8]),
            ("encoder.layer.0.output.LayerNorm.bias", &[8]),
            ("pooler.dense.weight", &[8, 8]),
            ("pooler.dense.bias", &[8]),
        ],
    )
}

/// An untied decoder, as the bare model is saved: without the prefix.
pub(crate) fn llama() -> tempfile::TempDir {
    llama_of(17)
}

/// The same with so many tokens.
pub(crate) fn llama_of(vocabulary: usize) -> tempfile::TempDir {
    directory(
        &LLAMA.replace("17", &vocabulary.to_string()),
        &[
            ("embed_tokens.weight", &[vocabulary, 8]),
            ("layers.0.input_layernorm.weight", &[8]),
            ("layers.0.post_attention_layernorm.weight", &[8]),
            ("layers.0.self_attn.q_proj.weight", &[8, 8]),
            ("layers.0.self_attn.k_proj.weight", &[4, 8]),
            ("layers.0.self_attn.v_proj.weight", &[4, 8]),
            ("layers.0.self_attn.o_proj.weight", &[8, 8]),
            ("layers.0.mlp.gate_proj.weight", &[12, 8]),
            ("layers.0.mlp.up_proj.weight", &[12, 8]),
            ("layers.0.mlp.down_proj.weight", &[8, 12]),
            ("layers.0.self_attn.rotary_emb.inv_freq", &[1]),
            ("norm.weight", &[8]),
            ("lm_head.weight", &[vocabulary, 8]),
        ],
    )
}

/// A decoder in one quantized GGUF file, its vocabulary in its metadata.
pub(crate) fn gguf() -> tempfile::TempDir {
    use gguf_file::Value::{Array, F32, I32, String, U32};
    let strings = |of: &[&str]| Array(of.iter().map(|&text| String(text.into())).collect());
    let metadata = [
        ("general.architecture", String("llama".into())),
        ("llama.block_count", U32(1)),
        ("llama.context_length", U32(16)),
        ("llama.embedding_length", U32(64)),
        ("llama.feed_forward_length", U32(96)),
        ("llama.attention.head_count", U32(2)),
        ("llama.attention.head_count_kv", U32(1)),
        ("llama.attention.layer_norm_rms_epsilon", F32(1e-5)),
        ("llama.rope.freq_base", F32(500.0)),
        ("tokenizer.chat_template", String("{{ messages }}".into())),
        ("tokenizer.ggml.model", String("gpt2".into())),
        ("tokenizer.ggml.pre", String("smollm".into())),
        ("tokenizer.ggml.tokens", strings(&["<end>", "a", "b", "ab"])),
        ("tokenizer.ggml.token_type", Array(vec![I32(3), I32(1), I32(1), I32(1)])),
        ("tokenizer.ggml.merges", strings(&["a b"])),
        ("tokenizer.ggml.eos_token_id", U32(0)),
    ];
    let shapes: [(&str, &[usize]); 11] = [
        ("token_embd.weight", &[4, 64]),
        ("blk.0.attn_norm.weight", &[64]),
        ("blk.0.ffn_norm.weight", &[64]),
        ("blk.0.attn_q.weight", &[64, 64]),
        ("blk.0.attn_k.weight", &[32, 64]),
        ("blk.0.attn_v.weight", &[32, 64]),
        ("blk.0.attn_output.weight", &[64, 64]),
        ("blk.0.ffn_gate.weight", &[96, 64]),
        ("blk.0.ffn_up.weight", &[96, 64]),
        ("blk.0.ffn_down.weight", &[64, 96]),
        ("output_norm.weight", &[64]),
    ];
    let quantized = |((name, shape), seed): (&(&'static str, &[usize]), u64)| {
        let tensor = Tensor::from_vec(noise(seed, shape.iter().product()), *shape, &Device::Cpu).unwrap();
        let kind = if shape.len() == 1 { GgmlDType::F32 } else { GgmlDType::Q4_1 };
        (*name, QTensor::quantize(&(tensor * 0.3).unwrap(), kind).unwrap())
    };
    let tensors: Vec<(&str, QTensor)> = shapes.iter().zip(1..).map(quantized).collect();
    let mut bytes = std::io::Cursor::new(Vec::new());
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    gguf_file::write(&mut bytes, &metadata, &tensors).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tiny.gguf"), bytes.into_inner()).unwrap();
    folder
}

/// The matrices of a model; an encoder has a classifier of so many classes.
pub(crate) fn matrices(files: &ModelFiles, labels: usize) -> Vec<MatrixSpec> {
    pretrained(files, labels).matrices().to_vec()
}

/// Noise on every lane of every matrix, of about `size`.
pub(crate) fn random_state(matrices: &[MatrixSpec], number: u64, size: f64) -> State {
    let spec = |matrix: &MatrixSpec| LayerSpec {
        name: matrix.name.clone(),
        rows: matrix.outputs,
        cols: matrix.inputs,
        block: 64,
        residual: 40,
        gain_exponent: 4,
    };
    let layout = Layout::new(&Seed::from_number(number), matrices.iter().map(spec).collect()).unwrap();
    let lanes = noise(number, layout.lanes());
    #[expect(clippy::cast_possible_truncation, reason = "noise of −1 to 1")]
    let bytes: Vec<u8> =
        lanes.iter().flat_map(|&lane| ((f64::from(lane) * size * f64::from(1 << 20)) as i32).to_le_bytes()).collect();
    State::from_bytes(Arc::new(layout), &bytes).unwrap()
}

/// Logits of a model with Δ on the matrices that a state has, applied and not added.
pub(crate) fn logits(files: &ModelFiles, labels: usize, state: Option<&State>, texts: &[Vec<u32>]) -> Vec<f32> {
    let model = pretrained(files, labels);
    let linears = match state {
        Some(state) => {
            let adapter = model.adapter(state.layout()).unwrap();
            adapter.packed(state, Window::new(Profile::Plain, 0)).unwrap().0
        }
        None => model.base(),
    };
    let examples: Vec<TokenExample> = texts.iter().map(|ids| TokenExample { ids: ids.clone(), label: None }).collect();
    let logits = model.logits(&linears, &examples.iter().collect::<Vec<_>>()).unwrap();
    logits.flatten_all().unwrap().to_vec1().unwrap()
}

fn pretrained(files: &ModelFiles, labels: usize) -> Pretrained {
    Pretrained::open(files, matches!(files.family(), Family::Bert(_)).then_some(labels)).unwrap()
}

pub(crate) fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
