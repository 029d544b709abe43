"""A candidate against the baseline, both measured again after the search: better, not better, or who can tell.

The best of many candidates has also had luck: its figures of the search flatter it. So they decide only whom to
confirm; what is said of the gain rests on fresh repeats of both, one after the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from cotune.api.experiment import Objective, Outcome
from cotune.fitness.bootstrap import Interval, Row, bootstrap, least_repeats
from cotune.fitness.score import Measurements, score


@dataclass(frozen=True)
class Effect:
    """What a candidate changes in one objective's metric, in the metric's unit."""

    metric: str
    baseline: float
    """The mean of the baseline's repeats."""
    candidate: float
    change: Interval | None
    """Candidate less baseline; None: too few repeats to say how sure that is."""

    def __str__(self) -> str:
        text = f"{self.metric} {self.baseline:.4g} -> {self.candidate:.4g}"
        if self.change is None or self.baseline == 0:
            return text
        share, lower, upper = (
            100 * it / self.baseline for it in (self.change.estimate, self.change.lower, self.change.upper)
        )
        return f"{text} ({share:+.1f} %, {lower:+.1f} to {upper:+.1f})"


@dataclass(frozen=True)
class Comparison:
    """The verdict and what it rests on."""

    outcome: Outcome
    fitness: float
    """Of the candidate's mean against the baseline's."""
    baseline_fitness: float
    gain: Interval | None
    """In fitness; None: too few repeats."""
    effects: tuple[Effect, ...]
    baseline_repeats: int
    candidate_repeats: int
    enough_repeats: int | None = None
    """CannotTell: about so many repeats of each would tell, were the gain what it seems; None: none would."""


def compare(
    objectives: Sequence[Objective],
    baseline: Sequence[Measurements],
    candidate: Sequence[Measurements],
    confidence: float,
) -> Comparison:
    """The candidate's repeats against the baseline's.

    Better: the whole interval of the gain in fitness lies above 0. NotBetter: none of it does. CannotTell: 0 lies
    within, or there are too few repeats for an interval.

    Raises:
        MissingMetricError: an objective's metric was not measured in one of the repeats, or there is none.
    """
    metrics = [it.metric for it in objectives]
    for measured in (*baseline, *candidate):
        score(objectives, measured, measured)
    return _compared(tuple(objectives), _rows(metrics, baseline), _rows(metrics, candidate), confidence)


@lru_cache(maxsize=256)
def _compared(
    objectives: tuple[Objective, ...], befores: tuple[Row, ...], afters: tuple[Row, ...], confidence: float
) -> Comparison:
    """Kept, for every pass over an experiment asks the same again, and drawing takes a tenth of a second."""
    metrics = [it.metric for it in objectives]

    def of_means(reference: Row, other: Row) -> Sequence[float]:
        was, now = dict(zip(metrics, reference, strict=True)), dict(zip(metrics, other, strict=True))
        gain = score(objectives, now, was).fitness - score(objectives, was, was).fitness
        return [gain, *(after - before for before, after in zip(reference, other, strict=True))]

    was, now = _mean(metrics, befores), _mean(metrics, afters)
    fitness, reference = score(objectives, now, was).fitness, score(objectives, was, was).fitness
    repeats = len(befores), len(afters)
    if min(repeats) < least_repeats(confidence):
        effects = tuple(Effect(it, was[it], now[it], None) for it in metrics)
        return Comparison(Outcome.CANNOT_TELL, fitness, reference, None, effects, *repeats)
    gain, *changes = bootstrap(befores, afters, of_means, confidence)
    effects = tuple(Effect(it, was[it], now[it], change) for it, change in zip(metrics, changes, strict=True))
    outcome, enough = _outcome(gain), None
    if outcome is Outcome.CANNOT_TELL and gain.estimate > 0:
        enough = math.ceil(min(repeats) * ((gain.estimate - gain.lower) / gain.estimate) ** 2)
    return Comparison(outcome, fitness, reference, gain, effects, *repeats, enough)


def _outcome(gain: Interval) -> Outcome:
    if gain.lower > 0:
        return Outcome.BETTER
    return Outcome.NOT_BETTER if gain.upper <= 0 else Outcome.CANNOT_TELL


def _rows(metrics: Sequence[str], repeats: Sequence[Measurements]) -> tuple[Row, ...]:
    return tuple(tuple(measured[it] for it in metrics) for measured in repeats)


def _mean(metrics: Sequence[str], rows: Sequence[Row]) -> Measurements:
    return {metric: math.fsum(row[index] for row in rows) / len(rows) for index, metric in enumerate(metrics)}
