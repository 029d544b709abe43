"""How good a trial is beside the baseline.

Every objective becomes a score between 0 and 1 (the larger the better), and the fitness is their weighted mean:

- Minimize: b / (b + x), so that the baseline itself scores 0.5 and half its value two thirds;
- Maximize: x / (x + b);
- Target: 1 - |x - t| / max(t, 1 - t), for metrics between 0 and 1.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cotune.api.experiment import Constraint, Goal, Objective

Measurements = Mapping[str, float]
"""Metric name to value; a metric that could not be known is absent."""


@dataclass(frozen=True)
class Violation:
    """A constraint that a trial does not keep."""

    metric: str
    value: float | None
    """None: the metric was not measured. What is not known cannot be feasible."""
    bound: str
    """Such as `max 0.15`."""

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.metric} was not measured ({self.bound})"
        return f"{self.metric} is {self.value:g} ({self.bound})"


@dataclass(frozen=True)
class Scored:
    """A feasible trial's fitness and what it is made of."""

    fitness: float
    """Between 0 and 1; the baseline's own depends on its Target objectives only, the others score 0.5."""
    scores: Mapping[str, float]


class MissingMetricError(ValueError):
    """An objective's metric was not measured, in the trial or in the baseline."""


def violations(constraints: Sequence[Constraint], measured: Measurements) -> tuple[Violation, ...]:
    """Every constraint that is not kept; not-a-number keeps none."""
    found: list[Violation] = []
    for constraint in constraints:
        value = measured.get(constraint.metric)
        if constraint.min is not None and (value is None or not value >= float(constraint.min)):
            found.append(Violation(constraint.metric, value, f"min {constraint.min}"))
        if constraint.max is not None and (value is None or not value <= float(constraint.max)):
            found.append(Violation(constraint.metric, value, f"max {constraint.max}"))
    return tuple(found)


def score(objectives: Sequence[Objective], measured: Measurements, baseline: Measurements) -> Scored:
    """The weighted mean of the objectives' scores.

    Raises:
        MissingMetricError: a metric is absent, negative or not a finite number, in the trial or in the baseline.
    """
    scores = {
        it.metric: _one(it, _value(it.metric, measured, "trial"), _value(it.metric, baseline, "baseline"))
        for it in objectives
    }
    weights = {it.metric: float(it.weight) for it in objectives}
    total = math.fsum(weights.values())
    fitness = math.fsum(scores[metric] * weight for metric, weight in weights.items()) / total
    return Scored(fitness, scores)


def _value(metric: str, measured: Measurements, whose: str) -> float:
    value = measured.get(metric)
    if value is None or not math.isfinite(value) or value < 0:
        raise MissingMetricError(f"{metric} of the {whose} is no usable number: {value}")
    return value


def _one(objective: Objective, value: float, baseline: float) -> float:
    match objective.goal:
        case Goal.MINIMIZE:
            return _share(baseline, value)
        case Goal.MAXIMIZE:
            return _share(value, baseline)
        case Goal.TARGET:
            if objective.target is None:
                raise ValueError(f"objective {objective.metric} has goal Target and no target")
            target = float(objective.target)
            return max(0.0, 1.0 - abs(value - target) / max(target, 1.0 - target))


def _share(part: float, other: float) -> float:
    """part / (part + other), and one half where both are 0: neither is better."""
    return 0.5 if part == other == 0 else part / (part + other)
