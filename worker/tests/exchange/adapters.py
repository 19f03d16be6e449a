"""Writes LoRA adapters of an encoder with the `peft` library, each beside the model that it merges into.

    pip install torch transformers peft        # 2.15.0, 5.23.0 and 0.21.2 when this was last run
    python adapters.py minilm /tmp/adapters
    PACKFED_BASE=minilm PACKFED_ADAPTERS=/tmp/adapters cargo test --release -p packfed-worker --test exchange -- --ignored peft
"""

import pathlib
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import BertForSequenceClassification

base, out = sys.argv[1], pathlib.Path(sys.argv[2])
generator = torch.Generator().manual_seed(1)
patterns = {
    "rank_pattern": {"value": 4},
    "alpha_pattern": {"query": 32, "^bert.encoder.layer.1.attention.self.value": 5},
}
for name, options in {"plain": {}, "rslora": {"use_rslora": True}, "patterns": patterns}.items():
    model = BertForSequenceClassification.from_pretrained(base, num_labels=77)
    targets = ["query", "value", "intermediate.dense"]
    config = LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16, target_modules=targets, **options)
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for key, parameter in adapted.named_parameters():
            if "lora_" in key or "modules_to_save" in key:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    adapted.save_pretrained(out / name / "adapter")
    adapted.merge_and_unload().save_pretrained(out / name / "merged")
