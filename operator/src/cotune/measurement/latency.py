"""Latencies as a high dynamic range histogram: from the *scheduled* arrival to the last byte."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, Self, cast

from hdrh.histogram import HdrHistogram  # pyright: ignore[reportMissingTypeStubs]

_MICROSECONDS = 1_000_000
_LOWEST, _HIGHEST = 1, 3600 * _MICROSECONDS
_SIGNIFICANT_DIGITS = 3


class _Histogram(Protocol):
    """The part of HdrHistogram that is used; the package has no types."""

    def record_value(self, value: int) -> bool: ...

    def get_value_at_percentile(self, percentile: float) -> float: ...

    def get_max_value(self) -> float: ...

    def get_total_count(self) -> int: ...

    def add(self, other: Self) -> None: ...

    def encode(self) -> bytes: ...

    def get_recorded_iterator(self) -> Iterator["_Bucket"]: ...


class _Bucket(Protocol):
    """What an iterator of HdrHistogram gives."""

    value_iterated_to: int
    count_added_in_this_iter_step: int


@dataclass(frozen=True)
class Percentiles:
    """Latencies in milliseconds, and what they rest on."""

    p50: float
    p95: float
    p99: float
    samples: int
    """All requests, the censored ones among them."""
    censored: int
    """Requests unfinished at the end, or given up after their time-out: their latency is at least what was recorded."""
    largest: float = 0.0


@dataclass(frozen=True)
class Distribution:
    """All values of one quantity, as what share of them is at most so large."""

    steps: tuple[tuple[float, float], ...]
    """Milliseconds and share, both ascending; the last share is 1."""
    percentiles: Percentiles


class LatencyRecorder:
    """Collects the latencies of one stream; between 1 microsecond and 1 hour, to three significant digits."""

    def __init__(self) -> None:
        self._histogram = cast("_Histogram", HdrHistogram(_LOWEST, _HIGHEST, _SIGNIFICANT_DIGITS))
        self._samples = 0
        self._censored = 0

    @classmethod
    def merged(cls, several: Iterable["LatencyRecorder"]) -> Self:
        """All of them as one, without loss."""
        one = cls()
        for it in several:
            if it._samples:
                one._histogram.add(it._histogram)
                one._samples += it._samples
                one._censored += it._censored
        return one

    @classmethod
    def decoded(cls, encoded: str) -> Self:
        """What `encoded` had made into text; which of the values were censored, it does not hold.

        Raises:
            ValueError: it is no such histogram.
        """
        one = cls()
        try:
            one._histogram.add(cast("_Histogram", HdrHistogram.decode(encoded)))  # pyright: ignore[reportUnknownMemberType]
        except Exception as error:  # The library raises whatever its parts raise: zlib, base64, ctypes, its own.
            raise ValueError(f"no histogram: {type(error).__name__}: {error}") from error
        one._samples = one._histogram.get_total_count()
        return one

    def finished(self, scheduled: float, completed: float) -> None:
        """A request that was due at `scheduled` and whose last byte came at `completed`, both in seconds."""
        self._record(completed - scheduled)

    def unfinished(self, scheduled: float, end: float) -> None:
        """A request still open when it was given up: left out, a stalled server would look fast."""
        self._record(end - scheduled)
        self._censored += 1

    def percentiles(self) -> Percentiles | None:
        """The percentiles so far; None without a single request."""
        if self._samples == 0:
            return None
        p50, p95, p99 = (self._histogram.get_value_at_percentile(it) / 1000 for it in (50, 95, 99))
        return Percentiles(p50, p95, p99, self._samples, self._censored, self._histogram.get_max_value() / 1000)

    def distribution(self) -> Distribution | None:
        """Every value that was recorded, with the share of those that are no larger; None without a single request."""
        if (found := self.percentiles()) is None:
            return None
        steps, before = list[tuple[float, float]](), 0
        for it in self._histogram.get_recorded_iterator():
            before += it.count_added_in_this_iter_step
            steps.append((it.value_iterated_to / 1000, before / found.samples))
        return Distribution(tuple(steps), found)

    def encoded(self) -> str:
        """The whole histogram in microseconds, in the compressed V2 format that all HdrHistogram libraries read."""
        return self._histogram.encode().decode("ascii")

    def _record(self, seconds: float) -> None:
        if seconds < 0:
            raise ValueError(f"a latency of {seconds} s: answered before it was due")
        self._histogram.record_value(min(max(round(seconds * _MICROSECONDS), _LOWEST), _HIGHEST))
        self._samples += 1
