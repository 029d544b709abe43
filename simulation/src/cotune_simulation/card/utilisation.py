"""Utilisation as NVML samples it: the share of a sample period in which some kernel ran."""

from collections import defaultdict, deque
from dataclasses import dataclass

SAMPLE_SECONDS = 1 / 6
"""NVML's documentation: the sample period is between 1/6 second and 1 second, depending on the product."""

_KEPT_SAMPLES = 100


@dataclass(frozen=True)
class ProcessSample:
    """One process's share of one sample period."""

    ended_at: float
    pid: int
    percent: int


class UtilisationSampler:
    """Busy time per sample period and process id; the caller's clock in seconds, never going back."""

    def __init__(self) -> None:
        self._period = 0
        self._busy: dict[int, float] = defaultdict(float)
        self._percent = 0
        self._samples: deque[ProcessSample] = deque(maxlen=_KEPT_SAMPLES)

    def add(self, pid: int, start: float, end: float) -> None:
        """The process computed from `start` to `end`."""
        while start < end:
            self._close_periods_before(start)
            stop = min(end, (self._period + 1) * SAMPLE_SECONDS)
            self._busy[pid] += max(stop - start, 0)
            start = max(stop, start + 1e-9)

    def percent(self, now: float) -> int:
        """The card's utilisation in the last whole sample period, 0 to 100."""
        self._close_periods_before(now)
        return self._percent

    def process_samples(self, now: float) -> list[ProcessSample]:
        """Samples of processes that computed, oldest first."""
        self._close_periods_before(now)
        return list(self._samples)

    def _close_periods_before(self, time: float) -> None:
        period = int(time / SAMPLE_SECONDS)
        if period <= self._period:
            return
        ended_at = (self._period + 1) * SAMPLE_SECONDS
        for pid, busy in self._busy.items():
            self._samples.append(ProcessSample(ended_at, pid, round(100 * busy / SAMPLE_SECONDS)))
        only_the_last = period == self._period + 1
        self._percent = round(100 * min(1.0, sum(self._busy.values()) / SAMPLE_SECONDS)) if only_the_last else 0
        self._busy.clear()
        self._period = period
