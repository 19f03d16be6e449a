//! One name for one tensor: the Hugging Face name of its family, whatever the file calls it.

/// The name of a tensor of a BERT checkpoint without the prefix of the model around the encoder, and with the
/// names that layer norms have had since 2019.
pub(super) fn bert(name: &str) -> String {
    let name = name.strip_prefix("bert.").unwrap_or(name);
    if let Some(norm) = name.strip_suffix("LayerNorm.gamma") {
        return format!("{norm}LayerNorm.weight");
    }
    match name.strip_suffix("LayerNorm.beta") {
        Some(norm) => format!("{norm}LayerNorm.bias"),
        None => name.to_owned(),
    }
}

/// The name of a tensor of a Llama checkpoint; a bare decoder is saved without the prefix `model.`.
pub(super) fn llama(name: &str) -> String {
    let bare = ["embed_tokens.", "layers.", "norm."].iter().any(|start| name.starts_with(start));
    if bare { format!("model.{name}") } else { name.to_owned() }
}

/// The name of a Llama tensor that GGUF calls `name`; `None` for one that the family does not have.
///
/// Source: llama.cpp, `gguf-py/gguf/tensor_mapping.py`.
pub(super) fn llama_from_gguf(name: &str) -> Option<String> {
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".into()),
        "output_norm.weight" => return Some("model.norm.weight".into()),
        "output.weight" => return Some("lm_head.weight".into()),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let part = match part.strip_suffix(".weight")? {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    let layer: u32 = layer.parse().ok()?;
    Some(format!("model.layers.{layer}.{part}.weight"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_has_one_name_whoever_saved_it() {
        assert_eq!(bert("bert.encoder.layer.0.output.LayerNorm.gamma"), "encoder.layer.0.output.LayerNorm.weight");
        assert_eq!(bert("embeddings.LayerNorm.beta"), "embeddings.LayerNorm.bias");
        assert_eq!(bert("classifier.weight"), "classifier.weight");
        assert_eq!(llama("layers.3.mlp.up_proj.weight"), "model.layers.3.mlp.up_proj.weight");
        assert_eq!(llama("model.norm.weight"), "model.norm.weight");
        assert_eq!(llama("lm_head.weight"), "lm_head.weight");
        let gguf = llama_from_gguf("blk.12.attn_q.weight").unwrap();
        assert_eq!(gguf, "model.layers.12.self_attn.q_proj.weight");
        assert_eq!(llama_from_gguf("blk.x.attn_q.weight"), None);
        assert_eq!(llama_from_gguf("rope_freqs.weight"), None);
    }
}
