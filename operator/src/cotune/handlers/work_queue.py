"""A keyed work queue, as controller-runtime has it: a key is in work once at a time, and never lost meanwhile."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic

from prometheus_client import Counter, Histogram

from cotune.cluster.objects import ApiError

LONGEST_PASS = 600.0
"""Seconds: a pass has about twenty calls, each of which gives up by itself after 20 s."""

_FIRST_BACK_OFF, _LONGEST_BACK_OFF = 0.5, 60.0

RECONCILE_SECONDS = Histogram("cotune_reconcile_seconds", "Duration of one pass over one resource.", ["kind"])
RECONCILE_ERRORS = Counter(
    "cotune_reconcile_errors_total", "Passes that ended with an error, to be repeated.", ["kind"]
)


@dataclass(frozen=True, order=True)
class Key:
    """The resource to look at."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


Reconcile = Callable[[Key], Awaitable[timedelta | None]]
"""One pass over one resource; the answer says when to look again, None: at its next event."""


def back_off_seconds(failures: int) -> float:
    """How long a key waits after so many failures in a row: twice as long each time, up to a minute."""
    doublings = min(failures - 1, 16)  # Bounded before it is a power: a night without an API server has many failures.
    return min(_FIRST_BACK_OFF * 2**doublings, _LONGEST_BACK_OFF)


class WorkQueue:
    """Calls `reconcile` for every key that was added, at the soonest moment that was asked for."""

    def __init__(self, kind: str, reconcile: Reconcile, workers: int) -> None:
        self._kind = kind
        self._reconcile = reconcile
        self._workers = workers
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: set[Key] = set()
        self._in_work: dict[Key, float] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._is_finishing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._logger = logging.getLogger(f"cotune.{kind}")

    def add(self, key: Key) -> None:
        """Look at the key as soon as possible; a key that is in work is looked at once more afterwards."""
        self._drop_timer(key)
        if key not in self._queued:
            self._queued.add(key)
            if key not in self._in_work:
                self._ready.put_nowait(key)

    def add_after(self, key: Key, delay: timedelta) -> None:
        """Look at the key after a while, unless it is asked for sooner."""
        if key in self._queued:
            return
        self._drop_timer(key)
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(delay.total_seconds(), self.add, key)

    def hurry(self) -> None:
        """Look now at whatever was to be looked at after a while."""
        for key in list(self._timers):
            self.add(key)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Workers as long as the context lasts."""
        tasks = [asyncio.create_task(self._work(), name=f"{self._kind}-{it}") for it in range(self._workers)]
        self._tasks = tasks
        try:
            yield
        finally:
            self._tasks = []
            for timer in self._timers.values():
                timer.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def finish(self, seconds: float) -> bool:
        """Begin no pass any more, and let those in work end; whether they have within so many seconds."""
        self._is_finishing = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        return self._idle.is_set()

    def trouble(self) -> str:
        """What only a restart mends: a worker that has ended, or a pass that does not; empty when there is none."""
        if not self._is_finishing and (dead := [it.get_name() for it in self._tasks if it.done()]):
            return f"workers have ended: {', '.join(dead)}"
        now = monotonic()
        stuck = [f"{key} for {now - since:.0f} s" for key, since in self._in_work.items() if now - since > LONGEST_PASS]
        return f"passes do not end: {', '.join(stuck)}" if stuck else ""

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            if self._is_finishing:
                return
            self._queued.discard(key)
            self._in_work[key] = monotonic()
            self._idle.clear()
            try:
                await self._one(key)
            finally:
                del self._in_work[key]
                if not self._in_work:
                    self._idle.set()
                if key in self._queued:
                    self._ready.put_nowait(key)

    async def _one(self, key: Key) -> None:
        started = monotonic()
        try:
            again = await self._reconcile(key)
        except Exception as error:  # Whatever went wrong, the level is looked at again; a bug must not end the queue.
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            delay = back_off_seconds(failures)
            if isinstance(error, ApiError):
                delay = max(delay, min(error.retry_after, _LONGEST_BACK_OFF))
            self._logger.warning("%s: %s: %s; again in %g s", key, type(error).__name__, error, delay)
            self._logger.debug("%s", key, exc_info=error)
            RECONCILE_ERRORS.labels(self._kind).inc()
            self.add_after(key, timedelta(seconds=delay))
        else:
            self._failures.pop(key, None)
            if again is not None:
                self.add_after(key, again)
        finally:
            RECONCILE_SECONDS.labels(self._kind).observe(monotonic() - started)

    def _drop_timer(self, key: Key) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()
