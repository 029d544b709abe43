"""Latencies as a high dynamic range histogram: from the *scheduled* arrival to the last byte."""

from dataclasses import dataclass
from typing import Protocol, cast

from hdrh.histogram import HdrHistogram  # pyright: ignore[reportMissingTypeStubs]

_MICROSECONDS = 1_000_000
_LOWEST, _HIGHEST = 1, 3600 * _MICROSECONDS
_SIGNIFICANT_DIGITS = 3


class _Histogram(Protocol):
    """The part of HdrHistogram that is used; the package has no types."""

    def record_value(self, value: int) -> bool: ...

    def get_value_at_percentile(self, percentile: float) -> float: ...


@dataclass(frozen=True)
class Percentiles:
    """Latencies in milliseconds, and what they rest on."""

    p50: float
    p95: float
    p99: float
    samples: int
    """All requests, the censored ones among them."""
    censored: int
    """Requests unfinished at the end: their latency is at least what was recorded."""


class LatencyRecorder:
    """Collects the latencies of one stream; between 1 microsecond and 1 hour, to three significant digits."""

    def __init__(self) -> None:
        self._histogram = cast("_Histogram", HdrHistogram(_LOWEST, _HIGHEST, _SIGNIFICANT_DIGITS))
        self._samples = 0
        self._censored = 0

    def finished(self, scheduled: float, completed: float) -> None:
        """A request that was due at `scheduled` and whose last byte came at `completed`, both in seconds."""
        self._record(completed - scheduled)

    def unfinished(self, scheduled: float, end: float) -> None:
        """A request still open at the end of the measurement: left out, a stalled server would look fast."""
        self._record(end - scheduled)
        self._censored += 1

    def percentiles(self) -> Percentiles | None:
        """The percentiles so far; None without a single request."""
        if self._samples == 0:
            return None
        p50, p95, p99 = (self._histogram.get_value_at_percentile(it) / 1000 for it in (50, 95, 99))
        return Percentiles(p50, p95, p99, self._samples, self._censored)

    def _record(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError(f"a latency of {seconds} s: answered before it was due")
        self._histogram.record_value(min(max(round(seconds * _MICROSECONDS), _LOWEST), _HIGHEST))
        self._samples += 1
