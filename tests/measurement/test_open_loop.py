"""The open loop against a real HTTP server on loopback."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, web
from cotune.measurement.open_loop import StreamResult, run_open_loop


@asynccontextmanager
async def serving(answer: Callable[[], Awaitable[web.Response]]) -> AsyncGenerator[Callable[[], Awaitable[None]]]:
    """A server that answers by `answer`, and a client's `send` for it."""

    async def handle(_: web.Request) -> web.Response:
        return await answer()

    application = web.Application()
    application.router.add_get("/", handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with ClientSession() as session:

            async def send() -> None:
                async with session.get(f"http://127.0.0.1:{port}/", raise_for_status=True) as response:
                    await response.read()

            yield send
    finally:
        await runner.cleanup()


def measured(answer: Callable[[], Awaitable[web.Response]], schedule: list[float], grace: float = 10.0) -> StreamResult:
    async def run() -> StreamResult:
        async with serving(answer) as send:
            return await run_open_loop(schedule, send, grace)

    return asyncio.run(run())


EVERY_20_MS = [number * 0.02 for number in range(20)]


def test_a_server_with_one_slot_shows_its_queue() -> None:
    """Each answer takes 60 ms and requests come every 20 ms: a closed loop would report 60 ms for all of them."""
    slot = asyncio.Semaphore(1)

    async def slow() -> web.Response:
        async with slot:
            await asyncio.sleep(0.06)
        return web.Response(text="ok")

    result = measured(slow, EVERY_20_MS)

    assert result.latency is not None
    assert result.latency.samples == 20
    assert result.latency.p95 > 500, "the last request waits for 19 others"
    assert result.latency.p50 < result.latency.p95


def test_a_late_answer_does_not_delay_the_next_request() -> None:
    begun: list[float] = []

    async def stalled() -> web.Response:
        begun.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.5)
        return web.Response(text="ok")

    result = measured(stalled, EVERY_20_MS)

    assert len(begun) == 20
    assert begun[-1] - begun[0] < 0.5, "all were sent before the first was answered"
    assert result.errors == 0


def test_errors_are_counted_and_have_no_latency() -> None:
    answered = 0

    async def every_second_fails() -> web.Response:
        nonlocal answered
        answered += 1
        return web.Response(status=500 if answered % 2 else 200)

    result = measured(every_second_fails, EVERY_20_MS)

    assert (result.requests, result.errors) == (20, 10)
    assert result.error_rate == 0.5
    assert result.latency is not None
    assert result.latency.samples == 10


def test_what_is_open_at_the_end_is_censored() -> None:
    async def never() -> web.Response:
        await asyncio.sleep(60)
        return web.Response(text="ok")

    result = measured(never, [0.0, 0.01], grace=0.2)

    assert result.latency is not None
    assert (result.latency.samples, result.latency.censored, result.errors) == (2, 2, 0)
    assert result.latency.p50 == pytest.approx(200, abs=100)


def test_an_empty_schedule_measures_nothing() -> None:
    async def ok() -> web.Response:
        return web.Response(text="ok")

    result = measured(ok, [])

    assert (result.latency, result.requests, result.error_rate) == (None, 0, 0.0)
