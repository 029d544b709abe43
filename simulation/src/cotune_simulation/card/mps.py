"""How processes share the card's processing time under MPS: beside each other, none waiting for another.

Modelled: every client computes as if it were alone. That the device plugin's MPS lets each client have only its share
of the card's threads is not simulated.

Everything here runs on the caller's clock (seconds), as in `cotune_simulation.card.timeslicing`.
"""

from collections import deque
from collections.abc import Callable

from cotune_simulation.card.timeslicing import Job

_EPSILON = 1e-9
_STEP_SECONDS = 0.01
"""All clients are caught up by so much at a time: who hears of busy stretches gets them about in their order."""


class ConcurrentProcessor:
    """The processing time of one card under MPS.

    :param on_busy: called as `on_busy(client, start, end)` for each stretch in which a client computed.
    """

    def __init__(self, now: float, on_busy: Callable[[int, float, float], None]) -> None:
        self._now = now
        self._on_busy = on_busy
        self._streams: dict[int, deque[Job]] = {}

    def submit(self, now: float, client: int, kernel_seconds: float, launches: int, gap_seconds: float) -> Job:
        """Queue a job behind the earlier jobs of the same client; call `advance(now)` first."""
        job = Job(client, kernel_seconds, launches, gap_seconds, ready_at=now)
        self._streams.setdefault(client, deque()).append(job)
        return job

    def remove(self, client: int) -> None:
        """Forget a client that has ended, with all its jobs."""
        self._streams.pop(client, None)

    def advance(self, now: float) -> list[Job]:
        """Compute until `now`; returns the jobs that ended, in order."""
        finished: list[Job] = []
        while self._now < now:
            if not self._streams:
                self._now = now
                break
            until = min(now, self._now + _STEP_SECONDS)
            ended = [it for client in list(self._streams) for it in self._catch_up(client, until)]
            finished += [job for _, job in sorted(ended, key=lambda it: it[0])]
            self._now = until
        return finished

    def next_end(self) -> float | None:
        """A time before which no job can end; None without jobs."""
        return min((stream[0].ends_not_before(self._now) for stream in self._streams.values()), default=None)

    def _catch_up(self, client: int, until: float) -> list[tuple[float, Job]]:
        """Compute one client's jobs; those that ended, and when."""
        stream, now, ended = self._streams[client], self._now, list[tuple[float, Job]]()
        while stream and (start := max(now, stream[0].ready_at)) < until:
            job = stream[0]
            now = min(until, start + job.remaining)
            self._on_busy(client, start, now)
            job.remaining -= now - start
            if job.remaining > _EPSILON:
                break
            job.launches -= 1
            if job.launches > 0:
                job.remaining, job.ready_at = job.kernel_seconds, now + job.gap_seconds
                continue
            ended.append((now, job))
            stream.popleft()
            if stream:
                stream[0].ready_at = max(stream[0].ready_at, now)
        if not stream:
            del self._streams[client]
        return ended
