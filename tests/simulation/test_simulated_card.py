"""The card's daemon through its socket, with real processes as its clients."""

import asyncio
import subprocess
import sys
from collections.abc import Callable

import pytest
from cotune_simulation.card.client import CardClient, NoCardError
from cotune_simulation.card.ledger import OutOfMemoryError
from support.simulated_card import RunningCard, wait_for_free

MIB = 1024 * 1024
FREE = (12_288 - 200) * MIB
HOLDER = """
import asyncio
from cotune_simulation.card import socket_path
from cotune_simulation.card.client import CardClient
async def hold():
    client = await CardClient.connect(socket_path())
    await client.allocate(1024 * 1024 * 1024)
    print("holding", flush=True)
    await asyncio.sleep(60)
asyncio.run(hold())
"""


def test_an_idle_card_is_as_large_as_its_product_less_what_the_driver_keeps(card: RunningCard) -> None:
    async def free() -> int:
        async with card.client() as client:
            return await client.free_bytes()

    assert asyncio.run(free()) == FREE


def test_sharers_are_not_kept_from_each_other_and_too_much_is_refused(card: RunningCard) -> None:
    async def run() -> OutOfMemoryError:
        async with card.client() as one, card.client() as other:
            await one.allocate(8192 * MIB)
            with pytest.raises(OutOfMemoryError) as refused:
                await other.allocate(4096 * MIB)
            await other.allocate(FREE - 8192 * MIB)
            assert await one.free_bytes() == 0
            return refused.value

    assert asyncio.run(run()).free_bytes == FREE - 8192 * MIB


def test_memory_comes_back_when_a_process_is_killed_and_not_before(card: RunningCard) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True, env=card.environment())
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "holding"

        async def run() -> None:
            async with card.client() as client:
                assert await client.free_bytes() == FREE - 1024 * MIB
                holder.kill()
                await wait_for_free(client, FREE)

        asyncio.run(run())
    finally:
        holder.kill()
        holder.communicate()


def test_a_client_keeps_what_it_holds_over_a_restart_of_the_daemon(
    card: RunningCard, restart: Callable[[], None]
) -> None:
    async def run() -> None:
        async with card.client() as client:
            allocation = await client.allocate(2048 * MIB)
            await asyncio.to_thread(restart)
            await wait_for_free(client, FREE - 2048 * MIB)
            await client.free(allocation)
            assert await client.free_bytes() == FREE

    asyncio.run(run())


def test_kernels_of_two_processes_take_turns(card: RunningCard) -> None:
    """Compared within one run, since machines differ: beside a busy neighbour kernels take about twice as long."""

    async def timed(client: CardClient) -> float:
        loop = asyncio.get_running_loop()
        start = loop.time()
        await client.run(kernel_ms=3.0, launches=30)
        return loop.time() - start

    async def run() -> tuple[float, float]:
        async with card.client() as one, card.client() as other:
            alone = await timed(one)
            busy = asyncio.create_task(other.run(kernel_ms=3.0, launches=300))
            await asyncio.sleep(0.02)
            beside = await timed(one)
            busy.cancel()
            return alone, beside

    alone, beside = asyncio.run(run())

    assert alone >= 0.09
    assert beside / alone > 1.5


def test_without_a_card_there_is_no_context(card: RunningCard) -> None:
    with pytest.raises(NoCardError, match="no simulated card"):
        asyncio.run(CardClient.connect(card.socket.with_name("other.sock")))
