"""Loads an exported model with `transformers` and compares its logits with packfed's.

    pip install torch transformers safetensors        # 2.15.0, 5.23.0 and 0.8 when this was last run
    PACKFED_BASE=minilm PACKFED_OUT=/tmp/out cargo test --release -p packfed-worker --test exchange -- --ignored
    python outputs.py /tmp/out
"""

import json
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

path = pathlib.Path(sys.argv[1])
expected = json.loads((path / "expected.json").read_text())
family = json.loads((path / "config.json").read_text())["model_type"]
auto = AutoModelForSequenceClassification if family == "bert" else AutoModelForCausalLM
model, loading = auto.from_pretrained(path, trust_remote_code=True, dtype=torch.float32, output_loading_info=True)
model.eval()
tokenizer = AutoTokenizer.from_pretrained(path)

assert not loading["missing_keys"] and not loading["unexpected_keys"], loading
assert [tokenizer(text)["input_ids"] for text in expected["texts"]] == expected["ids"], "the tokenizers differ"

worst = 0.0
with torch.no_grad():
    for ids, logits in zip(expected["ids"], expected["logits"]):
        found = model(torch.tensor([ids])).logits.flatten()
        worst = max(worst, (found - torch.tensor(logits)).abs().max().item())
    if family == "bert":
        # Padding and its mask change nothing.
        batch = tokenizer(expected["texts"], padding=True, return_tensors="pt")
        found = model(**batch).logits
        worst = max(worst, (found - torch.tensor(expected["logits"])).abs().max().item())
    else:
        prompt = torch.tensor([expected["ids"][0]])
        print(tokenizer.decode(model.generate(prompt, max_new_tokens=20, do_sample=False)[0]))

print(f"{type(model).__name__}: largest difference {worst:.2e}; between merged and packed {expected['packed']:.2e}; "
      f"the delta moves logits by {expected['moved']:.2f}")
assert worst < 1e-4
