"""How much room vLLM finds for its KV cache, and its words when there is too little."""

from dataclasses import dataclass

from cotune_simulation.figures import GIB
from cotune_simulation.vllm.arguments import ServeArguments
from cotune_simulation.vllm.figures import ModelFigures

_DOCUMENTATION = "See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details."


@dataclass(frozen=True)
class EngineSizes:
    """The limits that the engine works within, defaults filled in."""

    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    kv_bytes_per_token: int
    activation_bytes: int
    """The peak while profiling with a full batch."""

    @property
    def block_bytes(self) -> int:
        """The KV cache of one block of tokens, in all layers."""
        return self.kv_bytes_per_token * self.block_size

    def blocks(self, tokens: int) -> int:
        """How many blocks so many tokens fill."""
        return -(-tokens // self.block_size)


def engine_sizes(arguments: ServeArguments, figures: ModelFigures) -> EngineSizes:
    """The limits that follow from the command line and the model.

    :raises ValueError: the model cannot do what was asked for, in vLLM's words.
    """
    max_model_len = arguments.max_model_len or figures.max_position_embeddings
    if max_model_len > figures.max_position_embeddings:
        raise ValueError(
            f"User-specified max_model_len ({max_model_len}) is greater than the derived max_model_len "
            f"(max_position_embeddings={figures.max_position_embeddings} or model_max_length=None in model's "
            "config.json)."
        )
    bytes_per_value = 1 if arguments.kv_cache_dtype.startswith("fp8") else figures.kv_bytes_per_value
    max_num_batched_tokens = arguments.max_num_batched_tokens or figures.default_max_batched_tokens
    return EngineSizes(
        max_model_len=max_model_len,
        max_num_seqs=arguments.max_num_seqs or figures.default_max_sequences,
        max_num_batched_tokens=max_num_batched_tokens,
        block_size=arguments.block_size,
        # A key and a value per layer and head.
        kv_bytes_per_token=figures.layers * 2 * figures.kv_heads * figures.head_size * bytes_per_value,
        activation_bytes=round(
            figures.activation_fixed_bytes + figures.activation_bytes_per_batched_token * max_num_batched_tokens
        ),
    )


def check_free_memory(utilization: float, free_bytes: int, total_bytes: int) -> None:
    """The check that vLLM makes first.

    :raises ValueError: less is free than it shall use.
    """
    if free_bytes < utilization * total_bytes:
        raise ValueError(
            f"Free memory on device cuda:0 ({_rounded(free_bytes)}/{_rounded(total_bytes)} GiB) on startup is less "
            f"than desired GPU memory utilization ({utilization}, {_rounded(utilization * total_bytes)} GiB). "
            "Decrease GPU memory utilization or reduce GPU memory used by other processes."
        )


def check_profiling(initial_free_bytes: int, free_bytes: int) -> None:
    """The check that vLLM makes after profiling.

    :raises AssertionError: more is free than before, so somebody else gave memory back meanwhile.
    """
    if initial_free_bytes <= free_bytes:
        raise AssertionError(
            f"Error in memory profiling. Initial free memory {_rounded(initial_free_bytes)} GiB, current free memory "
            f"{_rounded(free_bytes)} GiB. This happens when other processes sharing the same container release GPU "
            "memory while vLLM is profiling during initialization. To fix this, ensure consistent GPU memory "
            "allocation or isolate vLLM in its own container."
        )


def kv_blocks(sizes: EngineSizes, available_bytes: int, version: str) -> int:
    """How many blocks the available memory gives.

    :raises ValueError: too few to serve one request of the greatest length, in the words of this version of vLLM.
    """
    newer = _at_least(version, (0, 12))
    if available_bytes <= 0:
        flag = " (this flag also controls CPU memory reservation on the CPU backend, despite its name)"
        raise ValueError(
            "No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the "
            + (f"engine{flag}. {_DOCUMENTATION}" if newer else "engine.")
        )
    blocks = available_bytes // sizes.block_bytes
    needed = sizes.blocks(sizes.max_model_len)
    if needed > blocks:
        whose = "model's" if newer else "models's"
        flag = " (which also controls CPU memory on the CPU backend)" if newer else ""
        raise ValueError(
            f"To serve at least one request with the {whose} max seq len ({sizes.max_model_len}), "
            f"({_rounded(needed * sizes.block_bytes)} GiB KV cache is needed, which is larger than the available KV "
            f"cache memory ({_rounded(available_bytes)} GiB). Based on the available memory, the estimated maximum "
            f"model length is {blocks * sizes.block_size}. Try increasing `gpu_memory_utilization`{flag} or decreasing "
            "`max_model_len` when initializing the engine." + (f" {_DOCUMENTATION}" if newer else "")
        )
    return blocks


def _rounded(size: float) -> float:
    """Bytes as GiB with at most two decimals, as vLLM prints them."""
    return round(size / GIB, 2)


def _at_least(version: str, wanted: tuple[int, int]) -> bool:
    major, minor, *_ = version.split(".")
    return (int(major), int(minor)) >= wanted
