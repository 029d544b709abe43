"""Intervals from few repeats, by the bootstrap.

Whole repeats are drawn again, each arm from its own: what happened in one window stays together. With few repeats the
plain percentile interval is too narrow, so its quantiles are moved outwards until it is as wide as Student's
(Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69, 2015, section 5.2).
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

_DRAWS, _SEED = 4_000, 20_261_124

Row = Sequence[float]
"""The values of one repeat, always in the same order."""

Statistic = Callable[[Row, Row], Sequence[float]]
"""Of the means of both arms."""


@dataclass(frozen=True)
class Interval:
    """An estimate and where the true value lies with the confidence that was asked for."""

    estimate: float
    lower: float
    upper: float


def least_repeats(confidence: float) -> int:
    """With how few repeats in each arm a two-sided interval of this confidence can exclude "no difference".

    Were both arms alike, all of the one would still lie above all of the other in 1 of (2n over n) orders. No
    resampling tells more than that, so this must be no more than what the interval leaves out on one side.
    """
    repeats = 2
    while 1 / math.comb(2 * repeats, repeats) > (1 - confidence) / 2 + 1e-12:
        repeats += 1
    return repeats


def bootstrap(
    first: Sequence[Row], second: Sequence[Row], statistic: Statistic, confidence: float, draws: int = _DRAWS
) -> tuple[Interval, ...]:
    """One interval for each value of the statistic; the same for the same repeats, whoever computes it.

    Args:
        first: the repeats of one arm, at least 2.
        second: those of the other, at least 2.
        statistic: what is to be known, of the means of both arms.
        confidence: between 0 and 1, two-sided.
        draws: how often both arms are drawn again.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("a single repeat says nothing of the noise")
    estimates = statistic(_mean(first), _mean(second))
    draw = random.Random(_SEED)
    drawn = [
        statistic(_mean(draw.choices(first, k=len(first))), _mean(draw.choices(second, k=len(second))))
        for _ in range(draws)
    ]
    rank = math.floor(_tail(len(first), len(second), confidence) * draws)
    found: list[Interval] = []
    for index, estimate in enumerate(estimates):
        ordered = sorted(it[index] for it in drawn)
        found.append(Interval(estimate, ordered[rank], ordered[-1 - rank]))
    return tuple(found)


def student_quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's t; `probability` between 0.5 and 1."""
    low, high = 0.0, 1.0
    while _student(high, degrees) < probability:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _student(middle, degrees) < probability else (low, middle)
    return high


def _student(t: float, degrees: int) -> float:
    """The distribution function for t >= 0 (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = 0.0
    for index in range(degrees // 2):
        total += term
        term *= cosine**2 * ((2 * index + 2) / (2 * index + 3) if odd else (2 * index + 1) / (2 * index + 2))
    within = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return 0.5 + within / 2


def _tail(first: int, second: int, confidence: float) -> float:
    """The share of the draws that is left out on each side.

    As many degrees of freedom as the smaller arm alone has, the fewest that Welch's formula can give: nobody says that
    a candidate is as noisy as the baseline.
    """
    smaller = min(first, second)
    t = student_quantile((1 + confidence) / 2, smaller - 1)
    return NormalDist().cdf(-t * math.sqrt(smaller / (smaller - 1)))


def _mean(rows: Sequence[Row]) -> Row:
    return [sum(it) / len(rows) for it in zip(*rows, strict=True)]
