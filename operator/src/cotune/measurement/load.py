"""The load on one service: requests sent when they are due, or by clients that wait for their answers."""

import asyncio
import bisect
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cotune.measurement.clients import Answer, Client, Prepared
from cotune.measurement.latency import LatencyRecorder, Percentiles
from cotune.measurement.pacing import Pacer
from cotune.measurement.record import StreamRecord
from cotune.measurement.requests import Request

_PAUSE_SECONDS = 0.1
"""Of a closed loop's client after an error: one that is refused at once would ask thousands of times a second."""


@dataclass(frozen=True)
class Target:
    """Where a stream's requests go, and how long each may take."""

    client: Client
    timeout_seconds: float
    is_streamed: bool = False
    """Whether a request that is still open at the end was waiting for its first token."""


async def run_open_loop(plan: Iterable[tuple[float, Request]], target: Target, record: StreamRecord) -> None:
    """Send every request when it is due, whatever became of the ones before.

    Args:
        plan: due times in seconds from the start of the window (before it: the warm-up), ascending, and requests.
        target: where they go.
        record: takes what they came to.
    """
    loop = asyncio.get_running_loop()
    window = record.window
    tasks: set[asyncio.Task[bool]] = set()
    async with Pacer() as pacer:
        for offset, request in plan:
            due = window.start + offset
            prepared = target.client.prepare(request)
            await pacer.until(due)
            task = loop.create_task(_one(due, prepared, target, record, scheduled=True))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    await _finish(tasks, window.end + window.grace_seconds)


async def _one(due: float, prepared: Prepared, target: Target, record: StreamRecord, *, scheduled: bool) -> bool:
    """One request, to its record; True after a good answer."""
    sent = time.monotonic()
    record.sent(due, sent, scheduled=scheduled)
    answer = Answer()
    try:
        async with asyncio.timeout(target.timeout_seconds):
            await target.client.send(prepared, answer)
    except asyncio.CancelledError:
        record.open_at_end(due, time.monotonic(), answer, is_streamed=target.is_streamed)
        raise
    except Exception as error:  # Whatever a client raises is an error of the service, and is counted as one.
        record.failed(due, time.monotonic(), error, answer, is_streamed=target.is_streamed)
        return False
    record.answered(due, sent, time.monotonic(), answer)
    return True


@dataclass(frozen=True)
class Step:
    """One part of a sweep over concurrencies, as it was measured."""

    concurrency: int
    seconds: float
    answered: int
    """Within the step."""
    latency: Percentiles | None


async def run_closed_loop(
    concurrencies: Sequence[int], requests: Iterator[Request], target: Target, record: StreamRecord, begin: float
) -> tuple[Step, ...]:
    """So many clients, each of which sends when its last request was answered: latencies are from then.

    The window is split evenly between the concurrencies; a request belongs to the step in which it was sent.

    Args:
        concurrencies: how many clients, step by step.
        requests: without end.
        target: where they go.
        record: takes what they came to.
        begin: when the first step's clients begin, in seconds from the start of the window: the warm-up, if negative.
    """
    window = record.window
    length = window.seconds / len(concurrencies)
    begins = [window.start + length * it for it in range(len(concurrencies))]
    latencies = [LatencyRecorder() for _ in concurrencies]
    answered = [0] * len(concurrencies)

    def step_at(moment: float) -> int:
        return max(bisect.bisect_right(begins, moment) - 1, 0)

    async def client(number: int) -> None:
        await asyncio.sleep(max(window.start + begin - time.monotonic(), 0.0))
        while (now := time.monotonic()) < window.end:
            step = step_at(now)
            if number >= concurrencies[step]:
                following = begins[step + 1] if step + 1 < len(begins) else window.end
                await asyncio.sleep(max(following - now, 0.0))
                continue
            good = await _one(now, target.client.prepare(next(requests)), target, record, scheduled=False)
            ended = time.monotonic()
            if not good:
                pause = min(_PAUSE_SECONDS, max(window.end - ended, 0.0))
                record.backoff_seconds += pause if window.has(ended) else 0.0
                await asyncio.sleep(pause)
                continue
            if window.has(now):
                latencies[step].finished(now, ended)
            if window.has(ended):
                answered[step_at(ended)] += 1

    tasks = {asyncio.create_task(client(it)) for it in range(max(concurrencies))}
    await _finish(tasks, window.end + window.grace_seconds)
    return tuple(
        Step(concurrency, length, count, recorder.percentiles())
        for concurrency, count, recorder in zip(concurrencies, answered, latencies, strict=True)
    )


async def _finish(tasks: Iterable[asyncio.Task[Any]], deadline: float) -> None:
    """Wait for what is open until the deadline, then give it up."""
    open_tasks = set(tasks)
    if open_tasks:
        _, pending = await asyncio.wait(open_tasks, timeout=max(deadline - time.monotonic(), 0.0))
        for task in pending:
            task.cancel()
        for outcome in await asyncio.gather(*open_tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
