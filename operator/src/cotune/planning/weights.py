"""The weights of a language model on one card, as vLLM counts them once it has loaded them.

Its count is what torch's allocator has handed out (`DeviceMemoryProfiler` around `GPUModelRunner.load_model`): every
parameter, the rotary tables, and what the allocator leaves unsplit. Shapes and order are those of
`model_executor/models/llama.py` and `qwen2.py` of vLLM 0.26, whose layers nearly all dense models share: input table;
per layer the fused query-key-value projection, the output projection, the fused gate and up projection, the down
projection and two norms; the last norm; the output table, unless it is the input's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from cotune.planning.model_config import ModelConfig
from cotune.planning.torch_allocator import LOADING_MAX_SPLIT, CachingAllocator

_VOCABULARY_STEP = 64
"""`DEFAULT_VOCAB_PADDING_SIZE`: rows of the tables are padded to a multiple of it."""
_FLOAT32 = 4
_UNGATED = ("gpt2", "gpt_neox", "gptj", "gpt_bigcode", "opt", "bloom", "falcon", "mpt", "phi", "starcoder2", "nemotron")
"""Model types whose feed-forward has no gate."""
_LEARNED_POSITIONS = ("gpt2", "gpt_bigcode", "opt", "xglm")
"""Model types with a table of positions among their weights."""
_WITHOUT_ROTARY = (*_LEARNED_POSITIONS, "bloom", "mpt")
_NO_ADAPTED_TABLES = ("qwen2", "mistral")
"""Model types whose class names no `embedding_modules`: adapters of others may change both tables."""


@dataclass(frozen=True)
class Lora:
    """Adapters that a server keeps slots for on the card."""

    slots: int
    """`--max-loras`: how many are there at once; those in `--max-cpu-loras` wait in the host's memory."""
    rank: int
    """`--max-lora-rank`: every slot is as large as the largest adapter."""


@dataclass(frozen=True)
class Weights:
    """The bytes of a model's weights on one card."""

    linear: int
    embeddings: int
    other: int
    """Norms and biases."""
    rotary: int
    """Cosines and sines of every position."""
    absorbed: int
    """Of latent attention, a 16-bit copy of the quantised projection that its decoding works with."""
    adapters: int
    """Slots for LoRA."""
    unsplit: int
    """Remainders of allocator blocks that are not split."""
    reserved: int
    """Of the driver, free blocks of the allocator included."""

    @property
    def parameters(self) -> int:
        """What a file of the weights holds."""
        return self.linear + self.embeddings + self.other

    @property
    def total(self) -> int:
        """All that vLLM logs as weights."""
        return self.parameters + self.rotary + self.absorbed + self.adapters + self.unsplit


@dataclass(frozen=True)
class _Tensor:
    kind: str
    """`linear`, `embeddings`, `other`, `rotary` or `absorbed`."""
    size: int


@lru_cache(maxsize=1024)
def weights(config: ModelConfig, tensor_parallel: int = 1, value_bytes: int = 2, lora: Lora | None = None) -> Weights:
    """The weights on each of `tensor_parallel` cards.

    Args:
        config: the model.
        tensor_parallel: cards that share every layer.
        value_bytes: of an unquantised weight.
        lora: slots for adapters, left out without `--enable-lora`.

    Raises:
        ModelConfigError: the quantisation is not known.
    """
    allocator = CachingAllocator(LOADING_MAX_SPLIT)
    sums: dict[str, int] = dict.fromkeys(("linear", "embeddings", "other", "rotary", "absorbed"), 0)
    taken = 0
    for tensor in (
        *_tensors(config, tensor_parallel, value_bytes),
        _not_computed(config, tensor_parallel, value_bytes),
    ):
        sums[tensor.kind] += tensor.size
        if tensor.size <= 0:
            continue
        if tensor.kind == "rotary":
            _take_rotary_table(allocator, tensor.size, value_bytes)
        else:
            allocator.take(tensor.size)
        taken += tensor.size
    adapters = _adapter_bytes(config, tensor_parallel, lora) if lora is not None else 0
    return Weights(
        **sums,
        adapters=adapters,
        unsplit=allocator.allocated - taken,
        reserved=allocator.reserved + adapters,
    )


def computed_bytes(config: ModelConfig, value: int = 2) -> int:
    """What the files of the weights hold by the formulas."""
    return sum(it.size for it in _tensors(config, 1, value) if it.kind not in {"rotary", "absorbed"})


def stored_bytes(config: ModelConfig) -> int | None:
    """What vLLM loads of what the files hold: weights that were published in float32 are served in 16 bits."""
    if config.stored_bytes is None:
        return None
    is_halved = config.torch_dtype == "float32" and config.quantization_config is None
    return config.stored_bytes // 2 if is_halved else config.stored_bytes


def padded_vocabulary(config: ModelConfig) -> int:
    """Rows of the tables, and columns of the logits before they are cut."""
    return -(-config.vocab_size // _VOCABULARY_STEP) * _VOCABULARY_STEP


def has_gate(config: ModelConfig) -> bool:
    """Whether the feed-forward multiplies its product with a gate, as nearly all models since Llama do."""
    return config.model_type not in _UNGATED


def shared_width(config: ModelConfig) -> int:
    """Of the expert that every token of a mixture goes to; 0 without one."""
    if config.model_type.startswith("llama4"):
        return config.intermediate_size
    size = config.moe_intermediate_size or config.intermediate_size
    return config.shared_expert_intermediate_size or (config.n_shared_experts or 0) * size


def _take_rotary_table(allocator: CachingAllocator, size: int, value_bytes: int) -> None:
    """`RotaryEmbeddingBase._compute_cos_sin_cache`: angles, cosines, sines and both in float32, then in the dtype.

    The first four are freed, and later weights move into what they leave.
    """
    half = size // value_bytes // 2 * _FLOAT32
    passing = [allocator.take(half) for _ in range(3)]
    joined = allocator.take(2 * half)
    for it in passing:
        allocator.give_back(it)
    allocator.take(size)
    allocator.give_back(joined)


def _not_computed(config: ModelConfig, cards: int, value: int) -> _Tensor:
    """What the files hold beyond the formulas, biases and encoders say; negative: the formulas say more."""
    stored = stored_bytes(config)
    return _Tensor("other", 0 if stored is None else (stored - computed_bytes(config, value)) // cards)


def _tensors(config: ModelConfig, cards: int, value: int) -> Iterator[_Tensor]:
    quantized = config.quantization_config.bytes_per_weight() if config.quantization_config else value
    only_experts = config.quantization_config is not None and config.quantization_config.is_for_experts_only
    attention = value if only_experts else quantized
    hidden, table = config.hidden_size, padded_vocabulary(config) * config.hidden_size * value // cards
    yield _Tensor("embeddings", table)
    if config.model_type in _LEARNED_POSITIONS:
        yield _Tensor("embeddings", config.max_position_embeddings * hidden * value)
    for layer in range(config.num_hidden_layers):
        for count in _attention_weights(config, cards):
            yield _Tensor("linear", round(count * attention))
        if config.is_latent and attention != value:
            # `MLAAttention.process_weights_after_loading`; an unquantised projection is looked at, not copied.
            size = config.num_attention_heads * (config.qk_nope_head_dim + config.v_head_dim)
            yield _Tensor("absorbed", (config.kv_lora_rank or 0) * size * value // cards)
        if layer == 0 and config.model_type not in _WITHOUT_ROTARY:
            yield from (_Tensor("rotary", it * value) for it in _rotary_values(config))
        for count in _feed_forward_weights(config, layer, cards):
            yield _Tensor("linear", round(count * quantized))
        yield _Tensor("other", hidden * value)
        yield _Tensor("other", hidden * value)
    yield _Tensor("other", hidden * value)
    if not config.is_tied:
        yield _Tensor("embeddings", table)


def _attention_weights(config: ModelConfig, cards: int) -> Iterator[float]:
    """Weights of the projections around attention on each card, one number for every fused matrix.

    With fewer key-value heads than cards, heads are repeated (`QKVParallelLinear`); what latent attention projects down
    to is whole on each card (`ReplicatedLinear`).
    """
    hidden, heads = config.hidden_size, config.num_attention_heads / cards
    if config.kv_lora_rank is None:
        yield hidden * config.head_size * (heads + 2 * max(1, config.kv_heads / cards))
        yield heads * config.head_size * hidden
        return
    query_size = config.qk_nope_head_dim + config.qk_rope_head_dim
    latent = config.kv_lora_rank + config.qk_rope_head_dim
    low_rank = config.q_lora_rank
    yield hidden * ((low_rank or 0) + latent)
    yield (low_rank or hidden) * heads * query_size
    yield config.kv_lora_rank * heads * (config.qk_nope_head_dim + config.v_head_dim)
    yield heads * config.v_head_dim * hidden


def _feed_forward_weights(config: ModelConfig, layer: int, cards: int) -> Iterator[float]:
    """Gate with up, and down, on each card; of all experts together where there are experts, after the router.

    The router is whole on each card.
    """
    hidden, into = config.hidden_size, 2 if has_gate(config) else 1
    if not config.is_mixture(layer):
        wide = (config.intermediate_size_mlp or config.intermediate_size) / cards
        yield into * hidden * wide
        yield hidden * wide
        return
    size = (config.moe_intermediate_size or config.intermediate_size) / cards
    shared = shared_width(config) / cards
    yield hidden * config.experts
    yield into * hidden * config.experts * size
    yield hidden * config.experts * size
    if shared:
        yield into * hidden * shared
        yield hidden * shared


def _rotary_values(config: ModelConfig) -> tuple[int, ...]:
    """Values of each table: cosine and sine of half the rotary dimension, for every position.

    YaRN, linear and dynamic scaling lengthen the table by their factor, LongRoPE keeps one for short and one for long
    requests, M-RoPE one four times as long, and models with two bases (Gemma 3) one for each.
    """
    scaling = config.rope_scaling or config.rope_parameters or {}
    share = float(scaling.get("partial_rotary_factor") or config.partial_rotary_factor)
    size = config.qk_rope_head_dim or round(config.head_size * share)
    kind = str(scaling.get("rope_type") or scaling.get("type") or "default")
    original = int(scaling.get("original_max_position_embeddings") or config.max_position_embeddings)
    positions = config.max_position_embeddings
    if "mrope_section" in scaling:
        positions *= 4
    elif kind in {"yarn", "deepseek_yarn"}:
        positions = round(original * float(scaling.get("factor") or 1))
    elif kind in {"linear", "dynamic"}:
        positions = round(positions * float(scaling.get("factor") or 1))
    elif kind in {"longrope", "su"}:
        positions += original
    tables = 2 if config.model_type.startswith("gemma3") else 1
    return (positions * size,) * tables


def _adapter_bytes(config: ModelConfig, cards: int, lora: Lora) -> int:
    """Two matrices of the rank for every slice of every linear layer, for each slot, in the model's 16 bits.

    Source: `create_lora_weights` in `lora/layers/base_linear.py`, `column_parallel_linear.py`, `fused_moe.py` and
    `logits_processor.py` of vLLM 0.26: A takes in what the layer takes in, B gives out what the slice gives out;
    column-parallel layers spread B over the cards, row-parallel ones A.
    """
    hidden, heads = config.hidden_size, config.num_attention_heads
    query, key = heads * config.head_size // cards, config.kv_heads * config.head_size // cards
    attention = 3 * hidden + query + 2 * key + (query + hidden)
    wide = (config.moe_intermediate_size or config.intermediate_size) // cards
    slices = 2 if has_gate(config) else 1
    feed_forward = slices * (hidden + wide) + (wide + hidden)
    copies = config.experts or 1
    tables = 0 if config.model_type in _NO_ADAPTED_TABLES else 2 * (hidden + padded_vocabulary(config))
    values = config.num_hidden_layers * (attention + copies * feed_forward) + tables
    return values * lora.rank * lora.slots * 2
