"""Record how vLLM itself cuts memory into KV cache blocks, to hold the planner's figures against.

Runs where vLLM 0.26 and transformers can be imported, a card is not needed:

    PYTHONPATH=bench/src:VLLM python -m cotune_bench.kv_layouts tests/data/planner/kv-layouts/vllm-0.26.0.json

with VLLM the folder of the unpacked wheel. Layers without a KV cache are not asked for.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_GIB = 1 << 30
_CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "llama-3.1-8b": {
        "class": "LlamaConfig",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
    },
    "mistral-7b-0.1": {
        "class": "MistralConfig",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
        "max_position_embeddings": 32768,
        "sliding_window": 4096,
    },
    "gemma-2-9b": {
        "class": "Gemma2Config",
        "hidden_size": 3584,
        "intermediate_size": 14336,
        "num_hidden_layers": 42,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "vocab_size": 256000,
        "max_position_embeddings": 8192,
        "sliding_window": 4096,
    },
    "gemma-3-4b": {
        "class": "Gemma3TextConfig",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window": 1024,
    },
    "gemma-3-27b": {
        "class": "Gemma3TextConfig",
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "num_hidden_layers": 62,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "sliding_window": 1024,
    },
    "gpt-oss-20b": {
        "class": "GptOssConfig",
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_hidden_layers": 24,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "num_local_experts": 32,
        "vocab_size": 201088,
        "max_position_embeddings": 131072,
        "sliding_window": 128,
    },
    "llama-4-scout-like": {
        "class": "Llama4TextConfig",
        "hidden_size": 5120,
        "intermediate_size": 8192,
        "num_hidden_layers": 48,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 202048,
        "max_position_embeddings": 262144,
        "attention_chunk_size": 8192,
    },
    "thirteen-and-twelve": {
        "class": "Qwen3Config",
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 25,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
        "use_sliding_window": True,
        "sliding_window": 4096,
        "max_window_layers": 13,
    },
    "four-and-seven": {
        "class": "Qwen3Config",
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 11,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
        "use_sliding_window": True,
        "sliding_window": 512,
        "max_window_layers": 4,
    },
}
_RUNS: Sequence[Mapping[str, Any]] = (
    {"memory": 4 * _GIB, "length": 4096, "tokens_of_a_step": 2048, "block": 16, "mixing": True, "steps": 2},
    {
        "memory": 7 * _GIB + 12_345_678,
        "length": 8192,
        "tokens_of_a_step": 8192,
        "block": 16,
        "mixing": True,
        "steps": 2,
    },
    {"memory": 40 * _GIB + 1, "length": 32_000, "tokens_of_a_step": 2048, "block": 32, "mixing": True, "steps": 1},
    {"memory": 3 * _GIB, "length": 8001, "tokens_of_a_step": 512, "block": 16, "mixing": False, "steps": 2},
    {"memory": 200 * (1 << 20), "length": 32_768, "tokens_of_a_step": 2048, "block": 16, "mixing": True, "steps": 2},
)
_SMALLEST_KERNEL_BLOCK = 16


def main() -> int:
    """Write one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    transformers = import_module("transformers")
    cases = [
        {"model": name, **run, **_record(_config(transformers, fields), run)}
        for name, fields in _CONFIGS.items()
        for run in _RUNS
    ]
    found = {
        "meta": {
            "command": "python -m cotune_bench.kv_layouts OUTPUT",
            "functions": "vllm.v1.core.kv_cache_utils.get_kv_cache_configs, get_kv_cache_capacity",
            "vllm": "0.26.0",
            "transformers": transformers.__version__,
            "models": {name: _written(transformers, fields) for name, fields in _CONFIGS.items()},
            "layers": {name: " ".join(_kinds(_config(transformers, fields))) for name, fields in _CONFIGS.items()},
        },
        "cases": cases,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{len(cases)} cases: {options.output}")
    return 0


def _config(transformers: Any, fields: Mapping[str, Any]) -> Any:
    return getattr(transformers, fields["class"])(**{key: it for key, it in fields.items() if key != "class"})


def _written(transformers: Any, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """As it would be published, without what transformers adds and older files lack."""
    config = _config(transformers, fields)
    return {**{key: it for key, it in fields.items() if key != "class"}, "model_type": config.model_type}


def _record(config: Any, run: Mapping[str, Any]) -> Mapping[str, Any]:
    utils = import_module("vllm.v1.core.kv_cache_utils")
    specs = {f"layers.{index}": _spec(config, kind, run) for index, kind in enumerate(_kinds(config))}
    vllm = SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=run["length"], original_max_model_len=run["length"]),
        parallel_config=SimpleNamespace(decode_context_parallel_size=1),
        scheduler_config=SimpleNamespace(disable_hybrid_kv_cache_manager=not run["mixing"]),
        cache_config=SimpleNamespace(num_gpu_blocks_override=None),
        kv_transfer_config=None,
        max_in_flight_tokens=run["steps"] * run["tokens_of_a_step"],
    )
    try:
        (found,) = utils.get_kv_cache_configs(vllm, [specs], [run["memory"]])
    except ValueError as error:
        return {"blocks": None, "refused": str(error).split(". ")[0]}
    tokens, concurrency = utils.get_kv_cache_capacity(vllm, found)
    return {
        "groups": [len(it.layer_names) for it in found.kv_cache_groups],
        "blocks": found.num_blocks,
        "bytes": sum(it.size for it in found.kv_cache_tensors),
        "kv_tokens": tokens,
        "concurrency": concurrency,
    }


def _kinds(config: Any) -> list[str]:
    """transformers' word on every layer; classes without one have one kind of attention."""
    types = getattr(config, "layer_types", None)
    if types:
        return list(types)
    window = getattr(config, "sliding_window", None)
    return ["sliding_attention" if window else "full_attention"] * config.num_hidden_layers


def _spec(config: Any, kind: str, run: Mapping[str, Any]) -> Any:
    interface, torch = import_module("vllm.v1.kv_cache_interface"), import_module("torch")
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    common = {"num_kv_heads": config.num_key_value_heads, "head_size": head, "dtype": torch.bfloat16}
    match kind:
        case "sliding_attention":
            return interface.SlidingWindowSpec(
                block_size=_SMALLEST_KERNEL_BLOCK, sliding_window=config.sliding_window, **common
            )
        case "chunked_attention":
            size = config.attention_chunk_size
            return interface.ChunkedLocalAttentionSpec(block_size=run["block"], attention_chunk_size=size, **common)
        case _:
            return interface.FullAttentionSpec(block_size=run["block"], **common)


if __name__ == "__main__":
    sys.exit(main())
