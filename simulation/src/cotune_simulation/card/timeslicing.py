"""How processes share the card's processing time: one after the other, a time slice each.

As on a real card under time-slicing, only one process computes at any moment. One that has nothing to compute gives
up the rest of its slice, and one that comes back a moment later has to wait until the others had their turns. So many
short kernels suffer most beside a process that always has work.

Everything here runs on the caller's clock (seconds): `advance(now)` catches up exactly, however late it is called.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

_EPSILON = 1e-9


@dataclass(eq=False)
class Job:
    """A series of equal kernels of one client, with pauses in which the client's host part works."""

    client: int
    kernel_seconds: float
    launches: int
    gap_seconds: float
    ready_at: float
    """When the next kernel can start: the past for one that waits or computes."""
    remaining: float = field(init=False)
    """What is left of the current kernel, in seconds."""

    def __post_init__(self) -> None:
        self.remaining = self.kernel_seconds

    def ends_not_before(self, now: float) -> float:
        """When the job would end if it were alone from `now` on."""
        rest = (self.launches - 1) * (self.kernel_seconds + self.gap_seconds)
        return max(now, self.ready_at) + self.remaining + rest


class TimeSlicedProcessor:
    """The processing time of one card.

    :param slice_seconds: how long a client computes before another one's turn.
    :param on_busy: called as `on_busy(client, start, end)` for each stretch in which a client computed.
    """

    def __init__(self, slice_seconds: float, now: float, on_busy: Callable[[int, float, float], None]) -> None:
        self._slice = slice_seconds
        self._now = now
        self._on_busy = on_busy
        self._streams: dict[int, deque[Job]] = {}
        self._turns: deque[int] = deque()
        self._current: int | None = None
        self._slice_end = now

    def submit(self, now: float, client: int, kernel_seconds: float, launches: int, gap_seconds: float) -> Job:
        """Queue a job behind the earlier jobs of the same client; call `advance(now)` first."""
        job = Job(client, kernel_seconds, launches, gap_seconds, ready_at=now)
        if client not in self._streams:
            self._streams[client] = deque()
            self._turns.append(client)
        self._streams[client].append(job)
        return job

    def remove(self, client: int) -> None:
        """Forget a client that has ended, with all its jobs."""
        if self._streams.pop(client, None) is not None:
            self._turns.remove(client)
        if self._current == client:
            self._current = None

    def advance(self, now: float) -> list[Job]:
        """Compute until `now`; returns the jobs that ended, in order."""
        finished: list[Job] = []
        while self._now < now:
            if self._current is None and not self._begin_slice():
                self._now = min(now, self._next_ready(now))
                continue
            assert self._current is not None
            job = self._streams[self._current][0]
            end = min(now, self._slice_end, self._now + job.remaining)
            self._on_busy(self._current, self._now, end)
            job.remaining -= end - self._now
            self._now = end
            if job.remaining <= _EPSILON:
                if self._end_kernel(job):
                    finished.append(job)
            elif self._now >= self._slice_end:
                self._end_slice()
        return finished

    def next_end(self) -> float | None:
        """A time before which no job can end; None without jobs."""
        ends = [stream[0].ends_not_before(self._now) for stream in self._streams.values()]
        return min(ends, default=None)

    def _begin_slice(self) -> bool:
        for client in self._turns:
            if self._streams[client][0].ready_at <= self._now:
                self._current = client
                self._slice_end = self._now + self._slice
                return True
        return False

    def _end_slice(self) -> None:
        if self._current in self._streams:
            self._turns.remove(self._current)
            self._turns.append(self._current)
        self._current = None

    def _end_kernel(self, job: Job) -> bool:
        """Account for a kernel's end; true if it was the job's last one."""
        job.launches -= 1
        if job.launches > 0:
            job.remaining = job.kernel_seconds
            job.ready_at = self._now + job.gap_seconds
            if job.gap_seconds > 0:
                self._end_slice()
            return False
        stream = self._streams[job.client]
        stream.popleft()
        if stream:
            stream[0].ready_at = max(stream[0].ready_at, self._now)
        else:
            del self._streams[job.client]
            self._turns.remove(job.client)
            self._current = None
        return True

    def _next_ready(self, now: float) -> float:
        return min((stream[0].ready_at for stream in self._streams.values()), default=now)
