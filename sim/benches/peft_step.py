#!/usr/bin/env python3
"""One LoRA training step of PyTorch with `peft`, beside `cargo bench -p packfed-sim --bench transformer_step`.

    pip install torch transformers peft gguf     # the CPU build of torch
    python3 sim/benches/peft_step.py models [--threads 2]

Prints, for MiniLM (16 texts of 64 tokens, 77 classes over the mean of the tokens) and SmolLM2 (1 text of 256 tokens),
the median, lowest and highest seconds of a step (forward, backward, AdamW) and the process's peak memory. LoRA of rank 8
stands beside every attention and feed-forward matrix; the classifier is trained whole.
"""

import argparse
import pathlib
import resource
import statistics
import subprocess
import sys
import time

STEPS = 12
WARM = 2


def minilm(path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            body = AutoModel.from_pretrained(path, attn_implementation="sdpa", add_pooling_layer=False)
            for parameter in body.parameters():
                parameter.requires_grad = False
            targets = ["query", "key", "value", "dense"]
            self.body = get_peft_model(body, LoraConfig(r=8, lora_alpha=8, target_modules=targets))
            self.head = torch.nn.Linear(body.config.hidden_size, 77)

        def forward(self, ids, labels):
            hidden = self.body(input_ids=ids).last_hidden_state
            return torch.nn.functional.cross_entropy(self.head(hidden.mean(dim=1)), labels)

    ids = torch.arange(16 * 64).remainder(1000).add(1000).reshape(16, 64)
    return Classifier(), (ids, torch.arange(16))


def smollm2(path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    file = next(pathlib.Path(path).glob("*.gguf"))
    model = AutoModelForCausalLM.from_pretrained(path, gguf_file=file.name, dtype=torch.float32)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=8, target_modules=targets))

    class Language(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, ids):
            return self.model(input_ids=ids, labels=ids, use_cache=False).loss

    return Language(), (torch.arange(256).remainder(1000).add(1000).reshape(1, 256),)


def one(name, models, threads):
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, batch = {"minilm": minilm, "smollm2": smollm2}[name](str(models / name))
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)
    times = []
    for _ in range(WARM + STEPS):
        start = time.perf_counter()
        optimizer.zero_grad()
        model(*batch).backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    times = sorted(times[WARM:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{name:8} peft lora-r8  {statistics.median(times):.3f} s ({times[0]:.3f} - {times[-1]:.3f})  peak {peak:.0f} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", choices=["minilm", "smollm2"], help="only this one, in this process")
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one, arguments.models, arguments.threads)
        return
    for name in ["minilm", "smollm2"]:
        command = [sys.executable, __file__, str(arguments.models), "--threads", str(arguments.threads), "--one", name]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
