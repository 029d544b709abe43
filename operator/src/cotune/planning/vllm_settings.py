"""The part of vLLM's command line that memory depends on."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from cotune.planning.cards import Card
from cotune.planning.weights import Lora

_COUNT = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)")
_FACTORS = {"": 1, "k": 10**3, "K": 1 << 10, "m": 10**6, "M": 1 << 20, "g": 10**9, "G": 1 << 30, "t": 10**12}
_FACTORS["T"] = 1 << 40
LONGEST_THAT_FITS = -1
"""`--max-model-len -1` or `auto`."""


Version = tuple[int, ...]
"""Of vLLM: `(0, 26, 0)`."""
WRITTEN_ON: Version = (0, 26, 0)
"""The version whose source the formulas follow; what differs in another one is said where it does."""
_COMBINES_KERNELS: Version = (0, 11, 1)
"""Since then with torch 2.9, and so with `combo_kernels` (vllm-project/vllm pull request 26682)."""
_VERSION = re.compile(r"v?(\d{1,2})\.(\d{1,3})(?:\.(\d+))?(?!\d)")


class ArgumentError(ValueError):
    """The command line is not one that the planner understands."""


class CompileCache(StrEnum):
    """What `torch.compile` finds of an earlier start with the same model and shapes (`VLLM_CACHE_ROOT`)."""

    COLD = "cold"
    """Nothing: a fresh container. It compiles, and times its kernels."""
    WARM = "warm"
    """All of it."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class VllmSettings:
    """The arguments that memory depends on, vLLM's defaults filled in."""

    gpu_memory_utilization: float = 0.9
    max_model_len: int | None = None
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    block_size: int = 16
    kv_cache_dtype: str = "auto"
    enforce_eager: bool = False
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    dtype: str = "auto"
    quantization: str | None = None
    """`--quantization`: of a model without one of its own, its weights are quantised while they are loaded."""
    enable_lora: bool = False
    max_loras: int = 1
    max_lora_rank: int = 16
    kv_cache_memory_bytes: int | None = None
    """`--kv-cache-memory-bytes`: so much, whatever the utilisation says."""
    disable_hybrid_kv_cache_manager: bool = False
    no_async_scheduling: bool = False
    speculative_config: str | None = None
    compile_cache: CompileCache = CompileCache.UNKNOWN
    """No argument: it depends on the container's volumes. Without meaning for `--enforce-eager`."""
    version: Version = WRITTEN_ON
    """No argument: of the server."""

    @property
    def combines_kernels(self) -> bool:
        """Whether inductor is asked to combine kernels that do not depend on each other, and to try what that gains."""
        return self.version >= _COMBINES_KERNELS

    def batched_tokens(self, card: Card) -> int:
        """Tokens of one step: what the profile run is made with."""
        if self.max_num_batched_tokens is not None:
            return self.max_num_batched_tokens
        default, longest = 8192 if card.is_large else 2048, self.max_model_len or 0
        return min(default, self.sequences(card) * longest) if longest > 0 else default

    def sequences(self, card: Card) -> int:
        """Sequences of one step: never more than tokens where vLLM chooses it."""
        if self.max_num_seqs is not None:
            return self.max_num_seqs
        default = 1024 if card.is_large else 256
        return min(default, self.max_num_batched_tokens or default)

    @property
    def value_bytes(self) -> int:
        """Of an unquantised weight and of an activation."""
        return 4 if self.dtype in {"float", "float32"} else 2

    @property
    def lora(self) -> Lora | None:
        """Slots for adapters, if any."""
        return Lora(self.max_loras, self.max_lora_rank) if self.enable_lora else None


def settings_from_arguments(arguments: Sequence[str]) -> VllmSettings:
    """Read vLLM's command line; what memory does not depend on is passed over.

    Raises:
        ArgumentError: a value is not a number, or out of its range.
    """
    try:
        known, _ = _parser().parse_known_args(_words(arguments))
    except argparse.ArgumentError as error:
        raise ArgumentError(str(error)) from error
    settings = VllmSettings(**vars(known))
    if not 0 < settings.gpu_memory_utilization <= 1:
        found = settings.gpu_memory_utilization
        raise ArgumentError(f"--gpu-memory-utilization must be over 0 and at most 1, not {found:g}")
    return settings


def read_version(text: str) -> Version | None:
    """The version that a text begins with, such as `0.26.0` or an image's tag `v0.11.0-x86_64`; None: with none."""
    found = _VERSION.match(text)
    return tuple(int(it or 0) for it in found.groups()) if found is not None else None


@cache
def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--gpu-memory-utilization", type=float, default=0.9)
    parser.add_argument("--max-model-len", type=_length)
    parser.add_argument("--max-num-batched-tokens", type=_count)
    parser.add_argument("--max-num-seqs", type=int)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--kv-cache-dtype", default="auto")
    parser.add_argument("--enforce-eager", action="store_true")
    parser.add_argument("--tensor-parallel-size", "-tp", type=int, default=1)
    parser.add_argument("--pipeline-parallel-size", "-pp", type=int, default=1)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--quantization", "-q")
    parser.add_argument("--enable-lora", action="store_true")
    parser.add_argument("--max-loras", type=int, default=1)
    parser.add_argument("--max-lora-rank", type=int, default=16)
    parser.add_argument("--kv-cache-memory-bytes", "--kv-cache-memory", type=_count)
    parser.add_argument("--disable-hybrid-kv-cache-manager", action="store_true")
    parser.add_argument("--no-async-scheduling", action="store_true")
    parser.add_argument("--speculative-config", "-sc")
    return parser


def _count(text: str) -> int:
    """`4096`, `4k` (thousands) or `4K` (1024s), as vLLM reads them."""
    found = _COUNT.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"invalid int value: {text!r}")
    return int(float(found[1]) * _FACTORS[found[2]])


def _length(text: str) -> int:
    return LONGEST_THAT_FITS if text in {"auto", str(LONGEST_THAT_FITS)} else _count(text)


def _words(arguments: Sequence[str]) -> list[str]:
    """Keys with hyphens, and values as words of their own: vLLM takes `--max_model_len=1` as well."""
    words: list[str] = []
    for argument in arguments:
        if not argument.startswith("--"):
            words.append(argument)
            continue
        key, separator, value = argument.partition("=")
        words += [key.replace("_", "-"), value] if separator else [key.replace("_", "-")]
    return words
