"""What neighbours do to a start of vLLM while it profiles: moments are chosen through its waiting times."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest
from cotune_simulation.card.client import CardClient
from cotune_simulation.vllm.arguments import parse_arguments
from cotune_simulation.vllm.figures import model_figures
from cotune_simulation.vllm.startup import StartedEngine, start_engine
from support.simulated_card import RunningCard

MODEL = "Qwen/Qwen2.5-7B-Instruct-AWQ"
MIB = 1024 * 1024
PROFILING = 4
"""The fourth wait is the one while profiling: after imports, weights and compilation."""


def start_with_neighbour(
    card: RunningCard, held: int, while_profiling: Callable[[CardClient], Awaitable[object]], utilization: str = "0.5"
) -> StartedEngine:
    async def run() -> StartedEngine:
        async with card.client() as neighbour, card.client() as server:
            await neighbour.allocate(held)
            waits = 0

            async def wait(_: float) -> None:
                nonlocal waits
                waits += 1
                if waits == PROFILING:
                    await while_profiling(neighbour)

            figures = model_figures(MODEL, server.product.product)
            arguments = parse_arguments(
                ["serve", MODEL, "--max-model-len=2048", f"--gpu-memory-utilization={utilization}"]
            )
            return await start_engine(server, arguments, figures, wait)

    return asyncio.run(run())


async def nothing(_: CardClient) -> None:
    pass


def test_a_quiet_neighbour_changes_nothing(card: RunningCard) -> None:
    assert start_with_neighbour(card, 1000 * MIB, nothing).blocks == 436


def test_what_a_neighbour_takes_meanwhile_is_missing_from_the_cache(card: RunningCard) -> None:
    async def take_more(neighbour: CardClient) -> None:
        await neighbour.allocate(200 * MIB)

    started = start_with_neighbour(card, 1000 * MIB, take_more)
    assert started.blocks == pytest.approx(436 - 200 * MIB / started.sizes.block_bytes, abs=1)


def test_a_neighbour_that_gives_back_more_than_was_taken_ends_the_start(card: RunningCard) -> None:
    async def end(neighbour: CardClient) -> None:
        await neighbour.close()
        async with card.client() as anyone, asyncio.timeout(5):
            while await anyone.free_bytes() < 6000 * MIB:
                await asyncio.sleep(0.01)

    message = re.escape("Error in memory profiling. Initial free memory 5.65 GiB, current free memory 5.93 GiB.")
    with pytest.raises(AssertionError, match=message):
        start_with_neighbour(card, 6050 * MIB, end, utilization="0.47")
