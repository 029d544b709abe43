"""How vLLM cuts the memory left for the KV cache into blocks, for layers that all keep the same and for mixed ones.

Source: vLLM 0.26, `v1/core/kv_cache_utils.py` (`get_kv_cache_groups`, `_get_kv_cache_groups_uniform_page_size`,
`get_kv_cache_config_from_groups`, `get_max_concurrency_for_kv_cache_config`, `get_kv_cache_capacity`) and
`v1/kv_cache_interface.py` (`max_memory_usage_bytes` and `max_admission_blocks_per_request` of each layer's spec).

Layers of one kind form groups of equal size; a block id stands for one page in every layer of a group, and all groups
draw their ids from one pool. A request holds, in every group, the blocks that its kind of attention still looks at.
"""

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from cotune.planning.model_config import Attention, Layer, ModelConfig

_SLIDING_BLOCK = 16
"""Where all layers slide, vLLM takes the smallest block of its kernels and not `--block-size`."""
_FEW_MORE = 1.5
"""Up to this ratio between the kinds, groups are as large as the larger kind and the smaller one is padded."""
_STEPS_IN_FLIGHT = 2
"""Steps whose blocks are not free yet: asynchronous scheduling, the default, prepares one while one runs."""


@dataclass(frozen=True)
class Group:
    """Layers that share block ids."""

    layer: Layer
    layers: int


@dataclass(frozen=True)
class KvLayout:
    """The blocks of one model under one command line."""

    groups: tuple[Group, ...]
    page: int
    """Bytes of one block in one layer."""
    block_size: int
    """Tokens of a block."""
    tokens_in_flight: int
    """Tokens that are scheduled and not settled: windows keep that much more."""

    @property
    def block_bytes(self) -> int:
        """Bytes of one block id: a page in each layer of the largest group."""
        return self.page * max((it.layers for it in self.groups), default=0)

    def blocks_per_request(self, length: int) -> int:
        """Blocks that a request of `length` tokens holds at most, in all groups."""
        return sum(self._blocks(it.layer, length) for it in self.groups)

    def blocks(self, size: int) -> int:
        """Blocks that fit into `size` bytes."""
        return max(size, 0) // self.block_bytes if self.groups else 0

    def concurrency(self, blocks: int, length: int) -> Fraction:
        """Requests of `length` tokens that the blocks hold."""
        return Fraction(blocks, self.blocks_per_request(length)) if self.groups else Fraction(0)

    def longest(self, size: int, limit: int) -> int:
        """The longest request, up to `limit` tokens, of which one fits into `size` bytes; 0 if none does."""
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            if self.blocks_per_request(middle) * self.block_bytes <= size:
                low = middle
            else:
                high = middle - 1
        return low

    def _blocks(self, layer: Layer, length: int) -> int:
        match layer.attention:
            case Attention.SLIDING:
                kept = min(layer.window - 1 + self.tokens_in_flight, length)
                # The window may begin in the middle of a block.
                return -(-kept // self.block_size) + 1
            case Attention.CHUNKED:
                return -(-min(layer.window + self.tokens_in_flight, length) // self.block_size)
            case _:
                return -(-length // self.block_size)


def kv_bytes_per_layer(config: ModelConfig, cache_dtype: str = "auto", cards: int = 1, value_bytes: int = 2) -> int:
    """The KV cache of one token in one layer, on each of `cards`.

    A key and a value per head; multi-head latent attention keeps one latent and one rotary key instead, whole on each
    card. With fewer heads than cards, heads are repeated.
    """
    value = 1 if cache_dtype.startswith("fp8") else value_bytes
    if config.is_latent and config.kv_lora_rank is not None:
        return (config.kv_lora_rank + config.qk_rope_head_dim) * value
    if config.kv_lora_rank is not None:
        size = config.qk_nope_head_dim + config.qk_rope_head_dim
        return 2 * max(1, config.num_attention_heads // cards) * size * value
    return 2 * max(1, config.kv_heads // cards) * config.head_size * value


def kv_bytes_per_token(config: ModelConfig, cache_dtype: str = "auto") -> int:
    """The KV cache of one token in all layers that keep one for every token or for a window."""
    return len(_keeping(config)) * kv_bytes_per_layer(config, cache_dtype)


def is_hybrid(config: ModelConfig) -> bool:
    """Whether layers differ in how much they keep: tokens are then no simple quotient."""
    return len(set(config.layers)) > 1


@lru_cache(maxsize=1024)
def kv_layout(
    config: ModelConfig,
    *,
    block_size: int = 16,
    cache_dtype: str = "auto",
    cards: int = 1,
    value_bytes: int = 2,
    batched_tokens: int = 2048,
    is_one_step_at_a_time: bool = False,
    is_mixing: bool = True,
) -> KvLayout:
    """The groups of a model's layers; layers without a KV cache are left out.

    Args:
        config: the model.
        block_size: `--block-size`, in tokens.
        cache_dtype: `--kv-cache-dtype`.
        cards: over how many cards heads are spread.
        value_bytes: of the model's own type.
        batched_tokens: tokens of one step.
        is_one_step_at_a_time: `--no-async-scheduling`.
        is_mixing: False for `--disable-hybrid-kv-cache-manager`: windows are then kept as if they were full.
    """
    layers = Counter(_keeping(config))
    if not is_mixing and Layer(Attention.FULL) in layers:
        layers = Counter({Layer(Attention.FULL): layers.total()})
    is_sliding_only = {it.attention for it in layers} == {Attention.SLIDING}
    block = _SLIDING_BLOCK if is_sliding_only else block_size
    return KvLayout(
        groups=_groups(layers),
        page=block * kv_bytes_per_layer(config, cache_dtype, cards, value_bytes),
        block_size=block,
        tokens_in_flight=batched_tokens * (1 if is_one_step_at_a_time else _STEPS_IN_FLIGHT),
    )


def _groups(layers: "Counter[Layer]") -> tuple[Group, ...]:
    """Kinds in the order of their first layer, each cut into groups of the same size; the last may lack layers."""
    if not layers:
        return ()
    fewest, most = min(layers.values()), max(layers.values())
    size = most if most < fewest * _FEW_MORE else fewest
    found: list[Group] = []
    for layer, count in layers.items():
        groups = -(-count // size)
        found += [Group(layer, len(range(index, count, groups))) for index in range(groups)]
    return tuple(found)


def _keeping(config: ModelConfig) -> tuple[Layer, ...]:
    return tuple(it for it in config.layers if it.attention is not Attention.RECURRENT)
