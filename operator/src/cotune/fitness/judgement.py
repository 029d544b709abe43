"""One trial judged: feasible or not, and how good beside the baseline."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from cotune.api.experiment import ExperimentSpec
from cotune.api.quantities import DecimalString
from cotune.fitness.score import Measurements, MissingMetricError, score, violations


@dataclass(frozen=True)
class Judgement:
    """What is said of a trial that was measured."""

    feasible: bool
    reason: str
    message: str
    fitness: DecimalString | None = None
    """Between 0 and 1, with six decimals."""


def judge(spec: ExperimentSpec, measured: Measurements, baseline: Sequence[Measurements]) -> Judgement:
    """Constraints first, then the fitness against the mean of the baseline's repeats."""
    broken = violations(spec.constraints, measured)
    if broken:
        return Judgement(False, "ConstraintViolated", "; ".join(str(it) for it in broken))
    if not baseline:
        return Judgement(False, "BaselineFailed", "the baseline has no result to compare with")
    try:
        scored = score(spec.objectives, measured, mean(baseline))
    except MissingMetricError as error:
        return Judgement(False, "MetricMissing", str(error))
    parts = ", ".join(f"{metric} {value:.3f}" for metric, value in scored.scores.items())
    return Judgement(True, "WithinConstraints", parts, f"{scored.fitness:.6f}")


def mean(repeats: Sequence[Measurements]) -> Measurements:
    """The mean of every metric that all repeats have."""
    shared = set[str].intersection(*(set(it) for it in repeats))
    return {metric: fmean(it[metric] for it in repeats) for metric in sorted(shared)}
