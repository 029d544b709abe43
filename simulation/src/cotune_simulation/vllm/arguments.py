"""vLLM's command line, as far as the simulation has a use for it."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

_UNUSED = (
    *("--dtype", "--load-format", "--tensor-parallel-size", "--tokenizer", "--download-dir"),
    *("--seed", "--swap-space", "--revision", "--hf-token", "--uvicorn-log-level", "--max-log-len", "--api-key"),
)
"""Options with a value that change nothing here."""

_UNUSED_FLAGS = ("--trust-remote-code", "--enable-prefix-caching", "--no-enable-prefix-caching", "--disable-log-stats")


@dataclass(frozen=True)
class ServeArguments:
    """What `vllm serve` was told; None stands for vLLM's default."""

    model: str
    host: str
    port: int
    served_model_names: tuple[str, ...]
    gpu_memory_utilization: float
    max_model_len: int | None
    max_num_seqs: int | None
    max_num_batched_tokens: int | None
    block_size: int
    kv_cache_dtype: str
    quantization: str | None
    enforce_eager: bool


def parse_arguments(arguments: Sequence[str]) -> ServeArguments:
    """Parse `serve MODEL --option value ...`; unknown or malformed ones end the process with code 2, as vLLM's do."""
    parser = argparse.ArgumentParser(prog="vllm", description="a simulated vLLM server")
    serve = parser.add_subparsers(dest="command", required=True).add_parser("serve")
    serve.add_argument("model")
    serve.add_argument("--host", default="0.0.0.0")
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument("--served-model-name", nargs="+", default=None)
    serve.add_argument("--gpu-memory-utilization", type=_utilization, default=0.9)
    serve.add_argument("--max-model-len", type=_length, default=None)
    serve.add_argument("--max-num-seqs", type=_positive, default=None)
    serve.add_argument("--max-num-batched-tokens", type=_length, default=None)
    serve.add_argument("--block-size", type=int, choices=(8, 16, 32, 64), default=16)
    serve.add_argument(
        "--kv-cache-dtype", choices=("auto", "fp8", "fp8_e4m3", "fp8_e5m2", "float16", "bfloat16"), default="auto"
    )
    serve.add_argument("--quantization", default=None)
    serve.add_argument("--enforce-eager", action="store_true")
    for option in _UNUSED:
        serve.add_argument(option, help=argparse.SUPPRESS)
    for flag in _UNUSED_FLAGS:
        serve.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args([_dashed(argument) for argument in arguments])
    return ServeArguments(
        model=options.model,
        host=options.host,
        port=options.port,
        served_model_names=tuple(options.served_model_name or [options.model]),
        gpu_memory_utilization=options.gpu_memory_utilization,
        max_model_len=options.max_model_len,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        block_size=options.block_size,
        kv_cache_dtype=options.kv_cache_dtype,
        quantization=options.quantization,
        enforce_eager=options.enforce_eager,
    )


def _dashed(argument: str) -> str:
    """vLLM takes `--max_model_len` for `--max-model-len`."""
    if not argument.startswith("--"):
        return argument
    option, equals, value = argument.partition("=")
    return option.replace("_", "-") + equals + value


def _utilization(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"GPU memory utilization must be in (0, 1], got {value}")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _length(text: str) -> int:
    """A number of tokens: `2048`, `2k` (2,000) or `2K` (2,048)."""
    factors = {"k": 1000, "K": 1024, "m": 1000**2, "M": 1024**2}
    factor = factors.get(text[-1:], 1)
    return _positive(str(int(float(text[:-1]) * factor)) if factor > 1 else text)
