"""Writes a small random model of each family and what `transformers` computes with it.

    pip install torch transformers safetensors        # 2.15.0, 5.23.0 and 0.8 when the files were written
    python outputs.py

Beside the weights, under their Hugging Face names, a file holds:
    ids              all tokens, sequences end to end
    lengths          of the sequences
    hidden           tokens x hidden, the last layer's output
    logits           BERT: sequences x labels, a linear head over the mean of the tokens; Llama: tokens x vocabulary
    loss             Llama: mean cross-entropy of every next token, in nats
"""

import pathlib

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).parent
LENGTHS = [9, 4, 1]
VOCABULARY = 40


def randomize(model, seed):
    """Weights large enough that every part shows in the outputs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            norm = "norm" in name.lower() and name.endswith("weight")
            parameter.copy_(1 + 0.2 * noise if norm else 0.2 * noise)
    return model.eval()


def write(name, weights, ids, outputs):
    tensors = {key: value.detach().float().contiguous() for key, value in (weights | outputs).items()}
    tensors["ids"] = torch.cat(ids).to(torch.int32)
    tensors["lengths"] = torch.tensor(LENGTHS, dtype=torch.int32)
    save_file(tensors, HERE / f"{name}.safetensors")


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, VOCABULARY, (length,), generator=generator) for length in LENGTHS]


def bert():
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=12, type_vocab_size=2, hidden_act="gelu", layer_norm_eps=1e-12,
    )
    model = randomize(BertModel(config, add_pooling_layer=False), 1)
    head = randomize(torch.nn.Linear(32, 5), 2)
    ids = batch(3)
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    mask = torch.stack([torch.arange(max(LENGTHS)) < length for length in LENGTHS])
    hidden = model(padded, attention_mask=mask.long()).last_hidden_state
    pooled = torch.stack([row[keep].mean(0) for row, keep in zip(hidden, mask)])
    weights = dict(model.named_parameters()) | {f"classifier.{k}": v for k, v in head.named_parameters()}
    write("bert", weights, ids, {"hidden": hidden[mask], "logits": head(pooled)})


def llama(name, seed, **changes):
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=24, num_hidden_layers=2, intermediate_size=40, max_position_embeddings=12,
        rms_norm_eps=1e-5, rope_theta=100.0, **changes,
    )
    model = randomize(LlamaForCausalLM(config), seed)
    ids = batch(seed + 1)
    outputs = [model(row[None], output_hidden_states=True) for row in ids]
    logits = torch.cat([output.logits[0] for output in outputs])
    hidden = torch.cat([output.hidden_states[-1][0] for output in outputs])
    starts = [sum(LENGTHS[:n]) for n in range(len(LENGTHS))]
    rows = [start + n for start, length in zip(starts, LENGTHS) for n in range(length - 1)]
    targets = torch.cat(ids)[[row + 1 for row in rows]]
    loss = torch.nn.functional.cross_entropy(logits[rows], targets)
    write(name, dict(model.named_parameters()), ids, {"hidden": hidden, "logits": logits, "loss": loss})


if __name__ == "__main__":
    bert()
    llama("llama", 4, num_attention_heads=6, num_key_value_heads=2, head_dim=4, tie_word_embeddings=True)
    llama("llama-untied", 6, num_attention_heads=2, num_key_value_heads=1, head_dim=16, tie_word_embeddings=False)
