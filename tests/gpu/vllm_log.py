"""What a start of vLLM says of itself: figures and the reason of a refusal, read from its log.

The messages are those of vLLM 0.26 (gpu_worker.py, kv_cache_utils.py, model_runner.py); sizes are GiB, rounded to two
digits by vLLM itself. With VLLM_LOGGING_LEVEL=DEBUG the profile's figures are there for refused starts too.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

_T = TypeVar("_T")
_GIB = r"(-?[\d.]+) ?GiB"
_USAGE = re.compile(
    rf"Actual usage is {_GIB} for weight, {_GIB} for peak activation, {_GIB} for non-torch memory, "
    rf"and {_GIB} for CUDAGraph memory"
)
_PROFILE = re.compile(
    rf"torch peak memory increase: {_GIB}; non-torch forward increase memory: {_GIB}; weights memory: {_GIB}"
)
_MEMORY_AT_START = re.compile(r"Free memory on device (?:\S+ )?\(([\d.]+)/([\d.]+) GiB\) on startup")
_ERROR = re.compile(
    r"\b((?:torch\.|torch\.cuda\.)?(?:[A-Z][A-Za-z]*Error|OutOfMemoryError|[A-Z][A-Za-z]*Exception): .+)"
)
_BELOW_ERROR = re.compile(r"\b(?:DEBUG|INFO|WARNING) \d\d-\d\d ")
_CONSEQUENCE = "Engine core initialization failed"
_CACHE_CONFIG = re.compile(r"^vllm:cache_config_info\{(.*)\} ", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class StartLog:
    """The figures of one start; None where the log does not say."""

    weights_gib: float | None
    activation_peak_gib: float | None
    non_torch_gib: float | None
    cuda_graph_gib: float | None
    """Held by the graphs that were captured."""
    cuda_graph_estimate_gib: float | None
    """What vLLM set aside for graphs before it divided the memory; its model runner V2 sets nothing aside."""
    available_kv_gib: float | None
    kv_tokens: int | None
    concurrency_at_max_len: float | None
    total_gib: float | None
    """The card, as torch counts."""
    free_at_start_gib: float | None
    model_runner: str
    attention_backend: str | None
    engine_seconds: float | None
    """Profile, cache and warm-up, without imports and weights."""
    compile_cache: str | None
    """`cold` or `warm`; None where nothing was compiled."""
    error: str | None
    """The first error and its message: what follows it are its consequences."""


def read_log(text: str) -> StartLog:
    """Read the log of one start, whether it came up or not."""
    usage = _USAGE.search(text)
    profile = _PROFILE.search(text)
    memory = _MEMORY_AT_START.search(text)
    peak, non_torch, weights = map(float, profile.groups()) if profile else (None, None, None)
    if usage:
        weights, peak, non_torch = (float(usage[it]) for it in (1, 2, 3))
    return StartLog(
        weights_gib=weights if weights is not None else _found(rf"Model loading took {_GIB}", text, float),
        activation_peak_gib=peak,
        non_torch_gib=non_torch,
        cuda_graph_gib=float(usage[4]) if usage else None,
        cuda_graph_estimate_gib=_found(rf"CUDA graph pool memory: .*?, {_GIB} \(estimated\)", text, float),
        available_kv_gib=_found(rf"Available KV cache memory: {_GIB}", text, float),
        kv_tokens=_found(r"GPU KV cache size: ([\d,]+) tokens", text, _whole),
        concurrency_at_max_len=_found(r"Maximum concurrency for [\d,]+ tokens per request: ([\d.]+)x", text, float),
        total_gib=float(memory[2]) if memory else None,
        free_at_start_gib=float(memory[1]) if memory else None,
        model_runner="V2" if "Using V2 Model Runner" in text else "V1",
        attention_backend=_found(r"Using (\w+) attention backend", text, str),
        engine_seconds=_found(r"init engine \([^)]*\) took ([\d.]+) s", text, float),
        compile_cache=_compile_cache(text),
        error=_error(text),
    )


def _compile_cache(text: str) -> str | None:
    """`cold` where anything was compiled, `warm` where all was loaded; None: the log says neither."""
    if "Compiling a graph for" in text:
        return "cold"
    return "warm" if "Directly load the compiled graph" in text or "Directly load AOT compilation" in text else None


def cache_config(metrics: str) -> "dict[str, str]":
    """The labels of `vllm:cache_config_info`, for example `num_gpu_blocks`; empty when the text has none."""
    found = _CACHE_CONFIG.search(metrics)
    return dict(_LABEL.findall(found[1])) if found else {}


def _found(pattern: str, text: str, read: Callable[[str], _T]) -> _T | None:
    found = re.search(pattern, text)
    return read(found[1]) if found else None


def _whole(text: str) -> int:
    return int(text.replace(",", ""))


def _error(text: str) -> str | None:
    for line in text.splitlines():
        # A warning may quote an error that could come: `This can cause fd limit errors like ...`.
        found = None if _BELOW_ERROR.search(line) else _ERROR.search(line)
        if found and _CONSEQUENCE not in line:
            return found[1].strip()
    return None
