"""What runs of the same settings differ by: the spread of repeats, and the drift of the baseline over the search."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from cotune.fitness.bootstrap import Interval, student_quantile

_LEAST_FOR_DRIFT = 4


@dataclass(frozen=True)
class Spread:
    """The standard deviation of one run, and how well it is known."""

    deviation: float
    degrees: int

    def of_mean(self, repeats: int) -> float:
        """The standard error of a mean of so many runs."""
        return self.deviation / math.sqrt(repeats)


def spread(groups: Sequence[Sequence[float]]) -> Spread | None:
    """Pooled over groups of repeats of the same settings; None when nothing was measured twice."""
    degrees = sum(len(it) - 1 for it in groups if it)
    if degrees < 1:
        return None
    squares = math.fsum((value - fmean(group)) ** 2 for group in groups if group for value in group)
    return Spread(math.sqrt(squares / degrees), degrees)


def drift(times: Sequence[float], values: Sequence[float], confidence: float) -> Interval | None:
    """The change from the first to the last run, by least squares over time; None with fewer than 4 of them.

    Student's interval of a straight line's slope: with so few runs there is nothing to draw again.
    """
    count, span = len(values), max(times, default=0.0) - min(times, default=0.0)
    if count < _LEAST_FOR_DRIFT or span == 0:
        return None
    middle, mean = fmean(times), fmean(values)
    squares = math.fsum((it - middle) ** 2 for it in times)
    slope = math.fsum((it - middle) * value for it, value in zip(times, values, strict=True)) / squares
    rest = math.fsum((value - mean - slope * (it - middle)) ** 2 for it, value in zip(times, values, strict=True))
    half = student_quantile((1 + confidence) / 2, count - 2) * math.sqrt(rest / (count - 2) / squares) * span
    change = slope * span
    return Interval(change, change - half, change + half)
