"""Record how many parameters transformers' own classes have, to hold the planner's weights against.

Runs where torch and transformers can be imported; nothing is downloaded, no memory is taken (device `meta`):

    PYTHONPATH=bench/src python -m cotune_bench.parameter_counts tests/data/planner/parameters/transformers.json
"""

import argparse
import json
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

_COMMON: Mapping[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 6,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "vocab_size": 49_152,
    "max_position_embeddings": 8192,
}
_MODELS: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "llama tied": {"model_type": "llama", "tie_word_embeddings": True},
    "llama of many heads": {"model_type": "llama", "num_key_value_heads": 16},
    "mistral": {"head_dim": 160},
    "qwen2": {},
    "qwen3": {"head_dim": 128},
    "gemma": {"head_dim": 256},
    "gemma2": {"head_dim": 256},
    "gemma3_text": {"head_dim": 256},
    "phi3": {},
    "olmo2": {},
    "granite": {},
    "glm4": {"head_dim": 128},
    "cohere": {},
    "cohere2": {},
    "smollm3": {},
    "starcoder2": {},
    "stablelm": {},
    "nemotron": {"head_dim": 128},
    "phi": {},
    "gpt_neox": {"num_key_value_heads": None},
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {"num_experts": 8, "moe_intermediate_size": 704, "shared_expert_intermediate_size": 2816},
    "qwen3_moe": {"num_experts": 8, "moe_intermediate_size": 704, "head_dim": 128},
    "olmoe": {"num_experts": 8, "intermediate_size": 1024},
    "gpt_oss": {"num_local_experts": 8, "intermediate_size": 2048, "head_dim": 64},
    "deepseek_v2": {
        "n_routed_experts": 8,
        "n_shared_experts": 2,
        "moe_intermediate_size": 704,
        "first_k_dense_replace": 1,
        "kv_lora_rank": 512,
        "q_lora_rank": None,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "num_key_value_heads": 16,
    },
    "deepseek_v3": {
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "moe_intermediate_size": 704,
        "first_k_dense_replace": 2,
        "kv_lora_rank": 512,
        "q_lora_rank": 768,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "num_key_value_heads": 16,
    },
}


def main() -> int:
    """Write one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    torch, transformers = import_module("torch"), import_module("transformers")
    models: dict[str, Any] = {}
    for name, changes in _MODELS.items():
        fields = {"model_type": name, "pad_token_id": 0, **_COMMON, **changes}
        config = transformers.AutoConfig.for_model(**fields)
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
        model.tie_weights()
        count = sum(it.numel() for it in model.parameters())
        published = {key: it for key, it in config.to_diff_dict().items() if it is not None}
        models[name] = {
            "config": {**fields, **published},
            "parameters": count,
            "tiedByDefault": type(config)().tie_word_embeddings,
        }
    found = {
        "meta": {
            "command": "python -m cotune_bench.parameter_counts OUTPUT",
            "functions": "transformers.AutoModelForCausalLM.from_config",
            "transformers": transformers.__version__,
        },
        "models": models,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{len(models)} models: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
