"""`python -m cotune_servers.weights.hugging_face_folder MODEL.gguf FOLDER`: a GGUF file as what vLLM serves on a CPU.

Needs torch, transformers, gguf and accelerate. transformers itself expands the quantised blocks, to bfloat16.
"""

import argparse
import importlib
from pathlib import Path
from typing import Any


def convert(source: Path, folder: Path) -> int:
    """Write `config.json`, `model.safetensors` and the tokenizer; returns the number of parameters."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.bfloat16
    )
    # The weights are expanded by now, though the model still calls itself quantised and would refuse to be written.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return int(model.num_parameters())


def main() -> None:
    """Convert what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m cotune_servers.weights.hugging_face_folder", description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    print(f"{options.folder}: {convert(options.source, options.folder):,} parameters")


if __name__ == "__main__":
    main()
