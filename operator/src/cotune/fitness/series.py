"""Means of series taken one sample after the other, and how sure they are.

Samples of a series hang together: what was slow a moment ago is slow still. So a series counts as fewer independent
samples than it has, by the correlation of each with the next (Bayley and Hammersley, "The 'Effective' Number of
Independent Observations in an Autocorrelated Time Series", 1946, for a process of first order).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

from cotune.fitness.bootstrap import student_quantile

_MOST_DEGREES = 200
"""More change the quantile by less than half a percent."""


@dataclass(frozen=True)
class Mean:
    """The mean of a series."""

    value: float
    variance: float
    """Of `value`, with the samples counted as the independent ones that they amount to."""
    independent: float
    """How many those are."""

    def scaled(self, factor: float) -> "Mean":
        """The mean of the series, each sample times `factor`."""
        return Mean(self.value * factor, self.variance * factor**2, self.independent)


def mean(samples: Sequence[float]) -> Mean:
    """The mean of a series of at least 2 finite samples, in their order."""
    count = len(samples)
    if count < 2:
        raise ValueError("a single sample says nothing of the noise")
    middle = fmean(samples)
    deviations = [it - middle for it in samples]
    squares = math.fsum(it * it for it in deviations)
    if squares == 0:
        return Mean(middle, 0.0, count)
    together = math.fsum(a * b for a, b in itertools.pairwise(deviations))
    correlation = min(max(together / squares, 0.0), 1.0)
    independent = max(count * (1 - correlation) / (1 + correlation), 2.0)
    return Mean(middle, squares / (count - 1) / independent, independent)


@dataclass(frozen=True)
class Difference:
    """A mean less what it is held against."""

    estimate: float
    error: float
    """The standard error."""
    degrees: int

    def lower(self, confidence: float) -> float:
        """What the true difference is not less than, one-sided."""
        return self.estimate - self._margin(confidence)

    def upper(self, confidence: float) -> float:
        """What the true difference is not more than, one-sided."""
        return self.estimate + self._margin(confidence)

    def _margin(self, confidence: float) -> float:
        return _quantile(confidence, self.degrees) * self.error if self.error else 0.0


def less_number(mean: Mean, number: float) -> Difference:
    """A mean against a number."""
    return Difference(mean.value - number, math.sqrt(mean.variance), _degrees(mean.independent - 1))


def less_mean(mean: Mean, other: Mean) -> Difference:
    """A mean against another of its own noise, as Welch does it."""
    variance = mean.variance + other.variance
    degrees = 0.0
    if variance:
        parts = ((it.variance / variance) ** 2 / max(it.independent - 1, 1.0) for it in (mean, other))
        degrees = 1 / math.fsum(parts)
    return Difference(mean.value - other.value, math.sqrt(variance), _degrees(degrees))


_quantile = lru_cache(maxsize=4 * _MOST_DEGREES)(student_quantile)
"""Kept: the same few are asked for again and again, and each takes a millisecond."""


def _degrees(degrees: float) -> int:
    return min(max(math.floor(degrees), 1), _MOST_DEGREES)
