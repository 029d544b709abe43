"""Sends requests when they are due, whatever became of the ones before."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from cotune.measurement.latency import LatencyRecorder, Percentiles


@dataclass(frozen=True)
class StreamResult:
    """What one stream measured."""

    latency: Percentiles | None
    """None without a request that was answered or still open."""
    requests: int
    errors: int
    """Requests that failed; they have no latency."""
    schedule_error_p99: float
    """How late the probe itself sent, in milliseconds: a starved probe measures itself."""

    @property
    def error_rate(self) -> float:
        """Errors over all requests, 0 without any."""
        return self.errors / self.requests if self.requests else 0.0


async def run_open_loop(
    schedule: Sequence[float], send: Callable[[], Awaitable[None]], grace_seconds: float
) -> StreamResult:
    """Call `send` at every time of the schedule (seconds from now) and measure until all have answered.

    Args:
        schedule: ascending times; an answer that comes late never delays the next request.
        send: one request; returns at the last byte of a good answer and raises on any other.
        grace_seconds: how long after the last arrival answers are waited for; what is open then is censored.
    """
    loop = asyncio.get_running_loop()
    start = loop.time()
    latency, lateness = LatencyRecorder(), LatencyRecorder()
    errors = 0

    async def one(due: float) -> None:
        nonlocal errors
        try:
            await send()
        except asyncio.CancelledError:
            latency.unfinished(due, loop.time())
            raise
        except Exception:  # Whatever a client raises is an error of the service, and is counted as one.
            errors += 1
        else:
            latency.finished(due, loop.time())

    tasks: list[asyncio.Task[None]] = []
    for offset in schedule:
        due = start + offset
        await asyncio.sleep(max(0.0, due - loop.time()))
        lateness.finished(due, max(due, loop.time()))
        tasks.append(asyncio.create_task(one(due)))
    if tasks:
        _, pending = await asyncio.wait(tasks, timeout=grace_seconds)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    late = lateness.percentiles()
    return StreamResult(latency.percentiles(), len(tasks), errors, late.p99 if late else 0.0)
