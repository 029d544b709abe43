"""How vLLM divides the card, and when it refuses to start.

    KV cache = utilisation x total - (weights + activation peak + non-torch memory)

as vLLM logs it (0.26, measured 2026-11-23 on an H200). CUDA graphs and the process's context come on top of the
utilisation: they are held, and not counted by vLLM.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from cotune.planning.cards import Card
from cotune.planning.model_config import ModelConfig, is_hybrid, kv_bytes_per_token, weights
from cotune.planning.sizes import GIB, gib

_FRAGMENTATION_BYTES = round(0.12 * GIB)
"""Measured: what a start without graphs holds beyond its budget, less the context."""
_GRAPH_BYTES = round(0.5 * GIB)
"""Measured on the H200 with 28 layers and the default capture sizes."""
_HIDDEN_COPIES = 3
"""Residual, normalised input and output of a layer live at once."""
_LOGIT_BYTES = 2 + 4 + 4
"""Logits of the model, the same as float32, and their probabilities."""


class ArgumentError(ValueError):
    """The command line is not one that the planner understands."""


class Refusal(StrEnum):
    """Why a server does not start: the reasons that a failed trial would state."""

    NO_CACHE_BLOCKS = "NoCacheBlocks"
    CONTEXT_TOO_LONG = "ContextTooLong"
    CARD_TAKEN = "CardTaken"
    PROFILING_DISTURBED = "ProfilingDisturbed"
    CUDA_OUT_OF_MEMORY = "CudaOutOfMemory"


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

    def batched_tokens(self, card: Card) -> int:
        """Tokens of one step: what the profile run is made with."""
        return self.max_num_batched_tokens or (8192 if card.is_large else 2048)

    def sequences(self, card: Card) -> int:
        """Sequences of one step."""
        return self.max_num_seqs or (1024 if card.is_large else 256)


@dataclass(frozen=True)
class VllmPlan:
    """What one server is predicted to hold; bytes on the card."""

    budget: int
    weights: int
    activations: int
    non_torch: int
    kv_cache: int
    """What is left for the KV cache; negative: so much is missing."""
    outside: int
    """Context, graphs and fragmentation: held beyond the budget."""
    tokens: int
    concurrency: float
    """Requests of the greatest length."""
    max_model_len: int
    refusal: Refusal | None
    message: str
    """The refusal in figures; empty when it starts."""
    is_doubtful: bool
    """So near to a bound that the model's own error could tip it, or a model whose layers differ."""

    @property
    def held(self) -> int:
        """On the card once it serves."""
        return self.budget + self.outside if self.refusal is None else 0


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


@cache
def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--gpu-memory-utilization", type=float, default=0.9)
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--max-num-batched-tokens", type=int)
    parser.add_argument("--max-num-seqs", type=int)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--kv-cache-dtype", default="auto")
    parser.add_argument("--enforce-eager", action="store_true")
    parser.add_argument("--tensor-parallel-size", "-tp", type=int, default=1)
    return parser


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


def activation_peak(config: ModelConfig, settings: VllmSettings, card: Card) -> int:
    """The peak of the profile run: the widest layer's forward pass, or the sampler, whichever is larger.

    Forward: gate and up projections and their product for every token of a full batch, beside the hidden states.
    Sampler: the logits of every sequence, three times over.
    """
    tokens, value = settings.batched_tokens(card), config.value_bytes
    hidden = _HIDDEN_COPIES * tokens * config.hidden_size * value
    width = config.moe_intermediate_size or config.intermediate_size
    forward = 3 * tokens * max(width, config.intermediate_size) * value // settings.tensor_parallel_size
    sampler = settings.sequences(card) * config.vocab_size * _LOGIT_BYTES
    return hidden + max(forward, sampler)


def plan_vllm(
    config: ModelConfig,
    settings: VllmSettings,
    card: Card,
    taken: int = 0,
    offset: int = 0,
    freed_while_profiling: int = 0,
    doubt: int = round(0.15 * GIB),
) -> VllmPlan:
    """Predict one start.

    Args:
        config: the model.
        settings: the command line.
        card: the card.
        taken: bytes that other processes hold when it starts.
        offset: bytes that earlier starts of this model, card and version took beyond the prediction.
        freed_while_profiling: bytes that others give back while vLLM measures itself.
        doubt: bytes by which the prediction may be wrong.
    """
    budget = round(settings.gpu_memory_utilization * card.total_bytes)
    model = weights(config, settings.tensor_parallel_size).total
    activations = activation_peak(config, settings, card) + offset
    kv_cache = budget - model - activations - card.non_torch_bytes
    longest = settings.max_model_len or config.max_position_embeddings
    block = settings.block_size * kv_bytes_per_token(config, settings.kv_cache_dtype) // _kv_share(config, settings)
    blocks = max(kv_cache, 0) // block
    free = card.total_bytes - taken - card.context_bytes
    refusal, message = _refusal(
        _Start(budget, free, model + activations, kv_cache, blocks, block, longest, freed_while_profiling), settings
    )
    needed = -(-longest // settings.block_size)
    margins = (abs(kv_cache), abs(kv_cache - needed * block), abs(free - budget))
    return VllmPlan(
        budget=budget,
        weights=model,
        activations=activations,
        non_torch=card.non_torch_bytes,
        kv_cache=kv_cache,
        outside=card.context_bytes + _FRAGMENTATION_BYTES + (0 if settings.enforce_eager else _GRAPH_BYTES),
        tokens=blocks * settings.block_size,
        concurrency=blocks / needed,
        max_model_len=longest,
        refusal=refusal,
        message=message,
        is_doubtful=min(margins) < doubt or is_hybrid(config),
    )


def _kv_share(config: ModelConfig, settings: VllmSettings) -> int:
    """Over how many cards the KV heads are spread; latents are kept whole on each."""
    return 1 if config.kv_lora_rank is not None else min(settings.tensor_parallel_size, config.kv_heads)


@dataclass(frozen=True)
class _Start:
    """What the checks of one start look at; bytes, but for `blocks` and `longest` (tokens)."""

    budget: int
    free: int
    fixed: int
    kv_cache: int
    blocks: int
    block: int
    longest: int
    freed: int


def _refusal(start: _Start, settings: VllmSettings) -> tuple[Refusal | None, str]:
    """vLLM's own checks, in the order in which it makes them."""
    budget, needed = gib(start.budget), -(-start.longest // settings.block_size)
    if start.free < start.budget:
        return (
            Refusal.CARD_TAKEN,
            f"{gib(start.free):.2f} GiB are free when it starts, and {budget:.2f} GiB are asked for",
        )
    if start.freed > start.fixed:
        # What it takes itself hides smaller amounts from its comparison of free memory before and after.
        return Refusal.PROFILING_DISTURBED, f"others give {gib(start.freed):.2f} GiB back while it measures itself"
    if start.kv_cache <= 0:
        missing = gib(-start.kv_cache)
        return (
            Refusal.NO_CACHE_BLOCKS,
            f"the budget of {budget:.2f} GiB is {missing:.2f} GiB less than weights, activations and libraries",
        )
    if needed > start.blocks:
        wanted, left = gib(needed * start.block), gib(start.kv_cache)
        return (
            Refusal.CONTEXT_TOO_LONG,
            f"one request of {start.longest} tokens needs {wanted:.2f} GiB of KV cache, and {left:.2f} GiB are left",
        )
    return None, ""
