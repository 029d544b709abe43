"""The loops against real HTTP servers on loopback."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import ClientSession, web
from cotune.measurement.clients import ErrorKind, HttpClient
from cotune.measurement.latency import Percentiles
from cotune.measurement.load import Step, Target, run_closed_loop, run_open_loop
from cotune.measurement.pacing import Pacer
from cotune.measurement.record import StreamRecord, Window
from cotune.measurement.requests import Request

Respond = Callable[[], Awaitable[web.Response]]


def ok() -> web.Response:
    return web.Response(text="ok")


@asynccontextmanager
async def serving(respond: Respond) -> AsyncGenerator[HttpClient]:
    """A server that answers by `respond`, and a client for it."""

    async def handle(_: web.Request) -> web.Response:
        return await respond()

    application = web.Application()
    application.router.add_get("/", handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with ClientSession() as session:
            yield HttpClient(session, f"http://127.0.0.1:{runner.addresses[0][1]}/")
    finally:
        await runner.cleanup()


def numbered() -> Iterator[Request]:
    return (Request(it, it) for it in itertools.count())


def open_loop(
    respond: Respond, schedule: list[float], seconds: float, grace: float = 10.0, timeout: float = 60.0
) -> StreamRecord:
    async def run() -> StreamRecord:
        async with serving(respond) as client:
            record = StreamRecord(Window(time.monotonic() + 0.1 - min([0.0, *schedule]), seconds, grace))
            await run_open_loop(zip(schedule, numbered(), strict=False), Target(client, timeout), record)
            return record

    return asyncio.run(run())


def closed_loop(
    respond: Respond, concurrencies: list[int], seconds: float, begin: float = 0.0
) -> tuple[StreamRecord, tuple[Step, ...]]:
    async def run() -> tuple[StreamRecord, tuple[Step, ...]]:
        async with serving(respond) as client:
            record = StreamRecord(Window(time.monotonic() + 0.05 - begin, seconds, 10.0))
            return record, await run_closed_loop(concurrencies, numbered(), Target(client, 60.0), record, begin)

    return asyncio.run(run())


def latency_of(record: StreamRecord) -> Percentiles:
    found = record.latency.percentiles()
    assert found is not None
    return found


EVERY_20_MS = [number * 0.02 for number in range(20)]


def test_a_server_with_one_slot_shows_its_queue() -> None:
    """Each answer takes 60 ms and requests come every 20 ms: a closed loop would report 60 ms for all of them."""
    slot = asyncio.Semaphore(1)

    async def slow() -> web.Response:
        async with slot:
            await asyncio.sleep(0.06)
        return ok()

    latency = latency_of(open_loop(slow, EVERY_20_MS, 0.4))

    assert latency.samples == 20
    assert latency.p95 > 500, "the last request waits for 19 others"
    assert latency.p50 < latency.p95


def stalling(period: float, stall: float, answer: float = 0.002) -> Respond:
    """Answers fast, but for a stall of everything at the end of every period."""
    begun = 0.0

    async def respond() -> web.Response:
        nonlocal begun
        begun = begun or time.monotonic()
        within = (time.monotonic() - begun) % period
        await asyncio.sleep(period - within + answer if within >= period - stall else answer)
        return ok()

    return respond


def test_a_stall_shows_in_p99_of_the_open_loop_and_a_closed_loop_is_blind_to_it() -> None:
    """A stall of 2 s every 10 s at a fifth of the scale: 20 % of what users send meets it, and so it is at p99.

    The closed loop's client meets each stall once and sends nothing during it: of hundreds of requests a handful.
    """
    schedule = [number * 0.02 for number in range(200)]
    seen = latency_of(open_loop(stalling(2.0, 0.4), schedule, 4.0))
    blind_record, _ = closed_loop(stalling(2.0, 0.4), [1], 4.0)
    blind = latency_of(blind_record)

    assert seen.p95 > 250
    assert seen.p99 > 320
    assert blind.samples > 200
    assert blind.p95 < seen.p95 / 2, "the same server, and its 95th percentile looks as if there were no stall"


def test_a_late_answer_does_not_delay_the_next_request() -> None:
    begun: list[float] = []

    async def stalled() -> web.Response:
        begun.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.5)
        return ok()

    record = open_loop(stalled, EVERY_20_MS, 0.4)

    assert len(begun) == 20
    assert begun[-1] - begun[0] < 0.5, "all were sent before the first was answered"
    assert not record.errors


def test_the_windows_requests_run_under_the_load_of_warm_up_and_cool_down_and_only_they_are_counted() -> None:
    served = 0

    async def count() -> web.Response:
        nonlocal served
        served += 1
        return ok()

    record = open_loop(count, [-0.2, -0.1, 0.0, 0.1, 0.2, 0.3], 0.2)

    assert served == 6
    assert record.requests == latency_of(record).samples == 2


def test_errors_are_counted_by_kind_and_have_no_latency() -> None:
    answered = 0

    async def every_second_fails() -> web.Response:
        nonlocal answered
        answered += 1
        return web.Response(status=500 if answered % 2 else 200)

    record = open_loop(every_second_fails, EVERY_20_MS, 0.4)

    assert (record.requests, record.errors) == (20, {ErrorKind.STATUS: 10})
    assert record.error_rate == 0.5
    assert latency_of(record).samples == 10


def test_a_time_out_is_an_error_and_counts_in_the_latencies_with_the_time_it_was_waited_for() -> None:
    async def never() -> web.Response:
        await asyncio.sleep(60)
        return ok()

    record = open_loop(never, [0.0, 0.01], 0.1, timeout=0.3)

    assert record.errors == {ErrorKind.TIMEOUT: 2}
    assert latency_of(record).p50 == pytest.approx(300, abs=100)
    assert latency_of(record).censored == 2


def test_a_server_that_is_not_there_is_an_error_of_the_connection() -> None:
    async def run() -> StreamRecord:
        async with ClientSession() as session:
            record = StreamRecord(Window(time.monotonic(), 0.1, 1.0))
            await run_open_loop([(0.0, Request(0, 0))], Target(HttpClient(session, "http://127.0.0.1:1/"), 5.0), record)
            return record

    assert asyncio.run(run()).errors == {ErrorKind.CONNECTION: 1}


def test_what_is_open_at_the_end_is_censored() -> None:
    async def never() -> web.Response:
        await asyncio.sleep(60)
        return ok()

    record = open_loop(never, [0.0, 0.01], 0.1, grace=0.2)
    latency = latency_of(record)

    assert (latency.samples, latency.censored, record.errors) == (2, 2, {})
    assert latency.p50 == pytest.approx(300, abs=100)


def test_an_empty_schedule_measures_nothing() -> None:
    async def respond() -> web.Response:
        return ok()

    record = open_loop(respond, [], 0.1)

    assert (record.latency.percentiles(), record.requests, record.error_rate) == (None, 0, 0.0)


def test_a_sweep_shows_where_more_clients_no_longer_bring_more_answers() -> None:
    slots = asyncio.Semaphore(2)

    async def two_at_a_time() -> web.Response:
        async with slots:
            await asyncio.sleep(0.02)
        return ok()

    record, (one, two, eight) = closed_loop(two_at_a_time, [1, 2, 8], 1.8, begin=-0.1)

    assert two.answered > 1.4 * one.answered
    assert eight.answered < 1.5 * two.answered
    assert eight.latency is not None
    assert one.latency is not None
    assert eight.latency.p50 > 2 * one.latency.p50
    assert record.lateness.percentiles() is None


def test_a_closed_loops_pauses_after_errors_are_told() -> None:
    async def broken() -> web.Response:
        return web.Response(status=503)

    record, _ = closed_loop(broken, [2], 0.5)

    assert 4 <= record.requests <= 12
    assert record.errors == {ErrorKind.REFUSED: record.requests}
    assert record.backoff_seconds == pytest.approx(1.0, abs=0.3), "two clients, nearly all of the time"


def test_the_timer_never_wakes_up_early_and_seldom_late() -> None:
    async def run() -> list[float]:
        late: list[float] = []
        async with Pacer() as pacer:
            for _ in range(200):
                due = time.monotonic() + 0.0013
                await pacer.until(due)
                late.append(time.monotonic() - due)
        return sorted(late)

    late = asyncio.run(run())

    assert late[0] >= 0
    assert late[len(late) // 4] < 0.0006, "the event loop's own timers make 2 ms of 1.3 ms, every time"
