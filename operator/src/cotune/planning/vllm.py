"""How vLLM divides the card, and when it refuses to start.

    KV cache = utilisation x total - (weights + activation peak + non-torch memory)

as vLLM logs it (`Worker.determine_available_memory`, 0.26; measured 2026-11-23 on an H200). The process's context, the
model runner's buffers and, for most models, CUDA graphs come on top of the utilisation: they are held, and not counted
by vLLM. Models that the older model runner serves (mixtures but for a few) have their graphs estimated and subtracted.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from cotune.planning.activations import (
    activation_peak,
    latent_workspace_tokens,
    persistent_buffers,
    uses_second_runner,
)
from cotune.planning.cards import Card
from cotune.planning.kv_cache import KvLayout, kv_layout
from cotune.planning.model_config import ModelConfig, QuantizationConfig
from cotune.planning.sizes import GIB, MIB, gib
from cotune.planning.vllm_settings import (
    LONGEST_THAT_FITS,
    ArgumentError,
    CompileCache,
    VllmSettings,
    settings_from_arguments,
)
from cotune.planning.weights import Weights, computed_bytes, stored_bytes, weights

__all__ = [
    "ArgumentError",
    "CompileCache",
    "Refusal",
    "VllmPlan",
    "VllmSettings",
    "activation_peak",
    "plan_vllm",
    "settings_from_arguments",
]

_GRAPH_BYTES = 512 * MIB
"""Measured on the H200: 28 layers and the 51 default capture sizes, piecewise and full graphs."""
_GRAPH_LAYERS, _GRAPH_SIZES = 28 + 1, 51
_LARGEST_CAPTURE = 512
_MARGIN, _WIDE_MARGIN = round(0.15 * GIB), round(0.5 * GIB)
_FAMILIAR = 0.05
"""Share by which files and formulas may differ before the formulas count as wrong."""
_NCCL_BYTES = 512 * MIB
"""Modelled: buffers of NCCL and of vLLM's own all-reduce, on each card that shares a model."""


class Refusal(StrEnum):
    """Why a server does not start: the reasons that a failed trial would state."""

    NO_CACHE_BLOCKS = "NoCacheBlocks"
    CONTEXT_TOO_LONG = "ContextTooLong"
    CARD_TAKEN = "CardTaken"
    PROFILING_DISTURBED = "ProfilingDisturbed"
    CUDA_OUT_OF_MEMORY = "CudaOutOfMemory"
    CLIENT_LIMIT = "ClientLimit"
    """More than MPS lets one client have; the failed trial's log would say that CUDA is out of memory."""


@dataclass(frozen=True)
class VllmPlan:
    """What one server is predicted to hold; bytes on the card."""

    budget: int
    weights: int
    activations: int
    non_torch: int
    """Libraries and kernels, and what neighbours took (less what they gave back) while vLLM measured itself."""
    counted_graphs: int
    """CUDA graphs that are subtracted from the budget; 0 where they come on top."""
    kv_cache: int
    """What is left for the KV cache; negative: so much is missing."""
    outside: int
    """Context, buffers, graphs and NCCL: held beyond the budget."""
    tokens: int
    """As vLLM logs them: concurrency times the greatest length."""
    blocks: int
    block_bytes: int
    """Of one block, in all layers."""
    block_size: int
    """Tokens of one block."""
    concurrency: float
    """Requests of the greatest length."""
    max_model_len: int
    refusal: Refusal | None
    message: str
    """The refusal in figures; empty when it starts."""
    if_compiled: int
    """Bytes of the KV cache that a start lacks which compiles its model; 0 where that was assumed."""
    if_loaded: int
    """Bytes that it gains where it loads an earlier start's compilation; 0 where that was assumed."""
    doubts: tuple[str, ...]
    """Why the prediction may be wrong: too near to a bound, or something that the formulas do not cover."""

    @property
    def is_doubtful(self) -> bool:
        """Whether the prediction may be wrong about starting."""
        return bool(self.doubts)

    @property
    def held(self) -> int:
        """On the card once it serves."""
        return self.budget + self.outside if self.refusal is None else 0


def plan_vllm(
    config: ModelConfig,
    settings: VllmSettings,
    card: Card,
    taken: int = 0,
    offset: int = 0,
    freed_while_profiling: int = 0,
    doubt: int | None = None,
    taken_while_profiling: int = 0,
) -> VllmPlan:
    """Predict one start.

    vLLM takes for its own what the card's free memory loses while it profiles: a neighbour that starts meanwhile makes
    its KV cache smaller by all it takes. One that goes makes it larger than what is there, or, if it gives back more
    than vLLM has taken itself, ends the start.

    Args:
        config: the model.
        settings: the command line.
        card: the card.
        taken: bytes that other processes hold when it starts.
        offset: bytes that earlier starts of this model, card and version took beyond the prediction.
        freed_while_profiling: bytes that others give back while vLLM measures itself.
        doubt: bytes by which the prediction may be wrong; None: what is known of such models.
        taken_while_profiling: bytes that others take while vLLM measures itself.

    Raises:
        ModelConfigError: the quantisation is not known.
    """
    config = _quantized(config, settings)
    budget = math.ceil(settings.gpu_memory_utilization * card.total_bytes)
    model = weights(config, settings.tensor_parallel_size, settings.value_bytes, settings.lora)
    peak = activation_peak(config, settings, card)
    activations = peak.assumed + offset
    graphs = graph_bytes(config, settings, card)
    counted = 0 if uses_second_runner(config) else graphs
    non_torch = card.non_torch_bytes + taken_while_profiling - freed_while_profiling
    left = budget - model.total - activations - non_torch - counted
    kv_cache = left if settings.kv_cache_memory_bytes is None else settings.kv_cache_memory_bytes
    layout = _layout(config, settings, card)
    limit = config.max_position_embeddings
    longest = settings.max_model_len or limit
    if longest == LONGEST_THAT_FITS:
        longest = max(1, layout.longest(kv_cache, limit))
    buffers = persistent_buffers(config, settings, card, longest, len(layout.groups))
    late = _latent_workspace(config, settings, card)
    start = _Start(
        budget=budget if settings.kv_cache_memory_bytes is None else 0,
        free=card.total_bytes - taken - card.context_bytes - _nccl(settings),
        model=model,
        activations=activations,
        non_torch=card.non_torch_bytes,
        buffers=buffers,
        graphs=graphs + late,
        kv_cache=kv_cache,
        layout=layout,
        longest=longest,
        freed=freed_while_profiling,
        taken_meanwhile=taken_while_profiling,
    )
    refusal, message = _refusal(start)
    unsure = peak.cold - peak.assumed if settings.compile_cache is CompileCache.UNKNOWN else 0
    margin = unsure + (_margin(config, settings) if doubt is None else doubt)
    blocks = layout.blocks(kv_cache)
    concurrency = layout.concurrency(blocks, longest)
    return VllmPlan(
        budget=budget if settings.kv_cache_memory_bytes is None else budget - left + kv_cache,
        weights=model.total,
        activations=activations,
        non_torch=non_torch,
        counted_graphs=counted,
        kv_cache=kv_cache,
        outside=card.context_bytes + _nccl(settings) + buffers + graphs + late - counted,
        tokens=math.floor(concurrency * longest),
        blocks=blocks,
        block_bytes=layout.block_bytes,
        block_size=layout.block_size,
        concurrency=float(concurrency),
        max_model_len=longest,
        refusal=refusal,
        message=message,
        if_compiled=peak.cold - peak.assumed,
        if_loaded=peak.assumed - peak.warm,
        doubts=(*_near_bounds(start, margin), *_uncovered(config, settings)),
    )


def graph_bytes(config: ModelConfig, settings: VllmSettings, card: Card) -> int:
    """CUDA graphs, none with `--enforce-eager`: as many per capture size as there are layers and one.

    Sizes are those of `VllmConfig._set_cudagraph_sizes`. Proportional to one measurement, which says nothing of width.
    """
    if settings.enforce_eager:
        return 0
    largest = min(settings.batched_tokens(card), 2 * settings.sequences(card), _LARGEST_CAPTURE)
    sizes = {it for it in (1, 2, 4, *range(8, 256, 8), *range(256, _LARGEST_CAPTURE + 1, 16)) if it <= largest}
    return _GRAPH_BYTES * len(sizes) * (config.num_hidden_layers + 1) // (_GRAPH_SIZES * _GRAPH_LAYERS)


def _latent_workspace(config: ModelConfig, settings: VllmSettings, card: Card) -> int:
    """Where latent attention gathers prefixes: allocated after the KV cache, for good."""
    if not config.is_latent:
        return 0
    width = (config.kv_lora_rank or 0) + config.qk_rope_head_dim
    return latent_workspace_tokens(config, settings, card) * width * settings.value_bytes


def _layout(config: ModelConfig, settings: VllmSettings, card: Card) -> KvLayout:
    return kv_layout(
        config,
        block_size=settings.block_size,
        cache_dtype=settings.kv_cache_dtype,
        cards=settings.tensor_parallel_size,
        value_bytes=settings.value_bytes,
        batched_tokens=settings.batched_tokens(card),
        is_one_step_at_a_time=settings.no_async_scheduling,
        is_mixing=not settings.disable_hybrid_kv_cache_manager,
    )


def _quantized(config: ModelConfig, settings: VllmSettings) -> ModelConfig:
    """The model as `--quantization` loads it, if its file says nothing of that."""
    if settings.quantization is None or config.quantization_config is not None:
        return config
    quantized = QuantizationConfig(quant_method=settings.quantization)
    return config.model_copy(update={"quantization_config": quantized, "stored_bytes": None})


def _nccl(settings: VllmSettings) -> int:
    return _NCCL_BYTES if settings.tensor_parallel_size * settings.pipeline_parallel_size > 1 else 0


@dataclass(frozen=True)
class _Start:
    """What the checks of one start look at; bytes, but for `longest` (tokens)."""

    budget: int
    """0 where the KV cache's size is given: nothing is checked against it then."""
    free: int
    model: Weights
    activations: int
    non_torch: int
    buffers: int
    graphs: int
    kv_cache: int
    layout: KvLayout
    longest: int
    freed: int
    taken_meanwhile: int

    @property
    def settled(self) -> int:
        """What vLLM has taken itself when it compares free memory before and after: activations are gone again."""
        return self.model.reserved + self.buffers + self.non_torch

    @property
    def profiling(self) -> int:
        """Held at the peak of the profile run."""
        return self.model.total + self.buffers + self.activations + self.non_torch + self.taken_meanwhile

    @property
    def serving(self) -> int:
        """Held at the end of the start, before the first batch needs activations again."""
        held = self.model.total + self.buffers + self.non_torch + self.graphs + max(self.kv_cache, 0)
        return held + self.taken_meanwhile

    @property
    def request(self) -> int:
        """Of the KV cache, by one request of the greatest length."""
        return self.layout.blocks_per_request(self.longest) * self.layout.block_bytes


def _refusal(start: _Start) -> tuple[Refusal | None, str]:
    """vLLM's own checks and torch's allocations, in the order in which they come."""
    free, budget = gib(start.free), gib(start.budget)
    if start.free < start.budget:
        return (
            Refusal.CARD_TAKEN,
            f"{free:.2f} GiB are free when it starts, and {budget:.2f} GiB are asked for",
        )
    if start.profiling - start.freed > start.free:
        held = gib(start.profiling - start.freed)
        return (
            Refusal.CUDA_OUT_OF_MEMORY,
            f"weights and the profile run need {held:.2f} GiB, and {free:.2f} GiB are free",
        )
    if start.freed > start.settled + start.taken_meanwhile:
        # What it takes itself hides smaller amounts from its comparison of free memory before and after.
        return Refusal.PROFILING_DISTURBED, f"others give {gib(start.freed):.2f} GiB back while it measures itself"
    if start.kv_cache <= 0:
        missing = gib(-start.kv_cache)
        return (
            Refusal.NO_CACHE_BLOCKS,
            f"the budget of {budget:.2f} GiB is {missing:.2f} GiB less than weights, activations and libraries",
        )
    if start.request > start.kv_cache:
        return (
            Refusal.CONTEXT_TOO_LONG,
            f"one request of {start.longest} tokens needs {gib(start.request):.2f} GiB of KV cache, "
            f"and {gib(start.kv_cache):.2f} GiB are left",
        )
    if start.serving - start.freed > start.free:
        held = gib(start.serving - start.freed)
        return (
            Refusal.CUDA_OUT_OF_MEMORY,
            f"weights, KV cache and graphs need {held:.2f} GiB, and {free:.2f} GiB are free",
        )
    return None, ""


def _margin(config: ModelConfig, settings: VllmSettings) -> int:
    """By how much a prediction may be wrong.

    The recorded models are off by less than 0.01 GiB, the public report's by 0.05. No start was recorded of mixtures,
    latent attention and the older model runner (other kernels, and graphs that are estimated), of several cards and of
    adapters.
    """
    is_recorded = uses_second_runner(config) and not config.experts and not config.is_latent
    is_recorded = is_recorded and not _nccl(settings) and not settings.enable_lora
    return _MARGIN if is_recorded else _WIDE_MARGIN


def _near_bounds(start: _Start, doubt: int) -> tuple[str, ...]:
    """The bounds that the model's own error could tip."""
    margins = {
        "weights and activations nearly fill the budget": start.kv_cache,
        "one request of the greatest length nearly fills the KV cache": start.kv_cache - start.request,
        "barely more is free than it asks for": start.free - start.budget,
        "weights, KV cache and graphs nearly fill what is free": start.free - start.serving,
    }
    return tuple(words for words, margin in margins.items() if abs(margin) < doubt)


def _uncovered(config: ModelConfig, settings: VllmSettings) -> tuple[str, ...]:
    """What the formulas leave out."""
    doubts = {
        "layers with a state of fixed size: neither their weights nor their states are modelled": config.has_states,
        "parts for images or sound are not modelled": config.is_multimodal,
        "layers spread over cards by pipeline are planned as if one card had them all": (
            settings.pipeline_parallel_size > 1
        ),
        "a draft model is not modelled": settings.speculative_config is not None,
        f"the architecture {config.model_type or 'of no model_type'} was never held against another count": (
            not config.is_checked
        ),
        f"the formulas do not follow {', '.join(config.not_followed)}": bool(config.not_followed),
        **_other_weights(config),
    }
    return tuple(words for words, applies in doubts.items() if applies)


def _other_weights(config: ModelConfig) -> dict[str, bool]:
    """Whether the files hold something else than the formulas say: their figure is taken, and the rest is unsure."""
    stored = stored_bytes(config)
    if stored is None:
        return {}
    computed = computed_bytes(config)
    words = f"the weights' files hold {gib(stored):.2f} GiB, and the formulas say {gib(computed):.2f}"
    return {words: abs(stored - computed) > _FAMILIAR * stored}
