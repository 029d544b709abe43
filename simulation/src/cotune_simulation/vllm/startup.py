"""vLLM's start: what it takes on the card in which order, what it checks and what it logs."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cotune_simulation.card.client import CardClient
from cotune_simulation.figures import GIB
from cotune_simulation.torch_memory import take
from cotune_simulation.vllm.arguments import ServeArguments
from cotune_simulation.vllm.figures import ModelFigures
from cotune_simulation.vllm.log import Log
from cotune_simulation.vllm.memory import (
    EngineSizes,
    check_free_memory,
    check_profiling,
    engine_sizes,
    kv_blocks,
)

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True)
class StartedEngine:
    """What a successful start leaves behind."""

    sizes: EngineSizes
    blocks: int
    """Blocks of the KV cache."""


async def start_engine(
    card: CardClient, arguments: ServeArguments, figures: ModelFigures, sleep: Sleep = asyncio.sleep
) -> StartedEngine:
    """Take memory and time as vLLM does; ends with a filled card.

    :raises ValueError, AssertionError: vLLM's own checks fail, in its words.
    :raises TorchOutOfMemoryError: the card is full.
    """
    log = Log("EngineCore_DP0")
    times = figures.startup
    sizes = engine_sizes(arguments, figures)
    log.info("core.py:77", f"Initializing a V1 LLM engine (v{figures.version}) with config: model='{figures.model}'")
    await sleep(times.imports)

    await take(card, card.product.context_bytes)
    initial_free = await card.free_bytes()
    total = card.product.torch_total_bytes
    check_free_memory(arguments.gpu_memory_utilization, initial_free, total)
    log.info("gpu_model_runner.py:2602", f"Starting to load model {figures.model}...")
    others_free = initial_free + card.held_bytes
    await take(card, figures.weights_bytes)
    await sleep(times.weights)
    log.info(
        "gpu_model_runner.py:2653",
        f"Model loading took {figures.weights_bytes / GIB:.4f} GiB and {times.weights:.6f} seconds",
    )
    await take(card, sizes.activation_bytes + figures.non_torch_bytes)
    if not arguments.enforce_eager:
        await sleep(times.compilation)
        log.info("monitor.py:34", f"torch.compile takes {times.compilation:.2f} s in total")
    await sleep(times.profiling)

    free = await card.free_bytes()
    check_profiling(initial_free, free)
    # vLLM takes what its neighbours took or gave back meanwhile for memory of its own outside torch.
    non_torch = figures.non_torch_bytes + others_free - (free + card.held_bytes)
    requested = int(arguments.gpu_memory_utilization * total)
    available = requested - figures.weights_bytes - sizes.activation_bytes - non_torch
    log.info("gpu_worker.py:298", f"Available KV cache memory: {available / GIB:.2f} GiB")
    blocks = kv_blocks(sizes, available, figures.version)
    log.info("kv_cache_utils.py:1087", f"GPU KV cache size: {blocks * sizes.block_size:,} tokens")
    log.info(
        "kv_cache_utils.py:1091",
        f"Maximum concurrency for {sizes.max_model_len:,} tokens per request: "
        f"{blocks / sizes.blocks(sizes.max_model_len):.2f}x",
    )
    await take(card, blocks * sizes.block_bytes + figures.fragmentation_bytes)

    graphs = 0 if arguments.enforce_eager else figures.cuda_graph_bytes
    if graphs:
        await take(card, graphs)
        await sleep(times.graphs)
        log.info(
            "gpu_model_runner.py:3480",
            f"Graph capturing finished in {times.graphs:.0f} secs, took {graphs / GIB:.2f} GiB",
        )
    log.info(
        "gpu_worker.py:391",
        f"Free memory on device ({initial_free / GIB:.2f}/{total / GIB:.2f} GiB) on startup. Desired GPU memory "
        f"utilization is ({arguments.gpu_memory_utilization}, {requested / GIB:.2f} GiB). Actual usage is "
        f"{_short(figures.weights_bytes)} GiB for weight, {_short(sizes.activation_bytes)} GiB for peak activation, "
        f"{_short(non_torch)} GiB for non-torch memory, and {_short(graphs)} GiB for CUDAGraph memory.",
    )
    return StartedEngine(sizes, blocks)


def _short(size: float) -> float:
    return round(size / GIB, 2)
