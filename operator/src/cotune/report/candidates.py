"""All trials of one candidate together: what the pictures of the whole search show."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

from cotune.api.trial import TrialPhase
from cotune.report.resources import Experiment, Trial
from cotune.search.space import Candidate


class Role(StrEnum):
    """Who a candidate is in the comparison."""

    BASELINE = "baseline"
    CHALLENGER = "challenger"
    """Whom the search chose; the winner if the verdict is Better."""
    OTHER = "other"


class Standing(StrEnum):
    """What became of a candidate."""

    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    FAILED = "failed"
    SKIPPED = "skipped"
    INVALID = "without a valid run"
    UNFINISHED = "not finished"


@dataclass(frozen=True)
class CandidateSummary:
    """One candidate over all of its runs, whatever they were for."""

    candidate: Candidate
    role: Role
    standing: Standing
    trials: tuple[Trial, ...]
    means: Mapping[str, float]
    """Of every metric that all measured runs have."""
    fitness: float | None
    """The mean of its feasible runs; None unless all measured ones are."""

    @property
    def measured(self) -> tuple[Trial, ...]:
        """The runs with figures."""
        return tuple(it for it in self.trials if it.status.phase is TrialPhase.SUCCEEDED)


def summaries(experiment: Experiment) -> tuple[CandidateSummary, ...]:
    """Every candidate of which there is a trial: the best first, those without a fitness last."""
    groups: dict[Candidate, list[Trial]] = {}
    for it in experiment.trials:
        groups.setdefault(it.candidate, []).append(it)
    found = [_summary(experiment, candidate, tuple(trials)) for candidate, trials in groups.items()]
    return tuple(sorted(found, key=lambda it: (it.fitness is None, -(it.fitness or 0.0), named(it.candidate))))


def named(candidate: Candidate) -> str:
    """A candidate in one line."""
    return " ".join(f"{name}={value}" for name, value in candidate.assignments)


def role(experiment: Experiment, candidate: Candidate) -> Role:
    """Who it is; a challenger is never the baseline."""
    if candidate == experiment.baseline:
        return Role.BASELINE
    return Role.CHALLENGER if candidate == experiment.challenger else Role.OTHER


def _summary(experiment: Experiment, candidate: Candidate, trials: tuple[Trial, ...]) -> CandidateSummary:
    measured = [it for it in trials if it.status.phase is TrialPhase.SUCCEEDED]
    shared = set[str].intersection(*(set(it.measured) for it in measured)) if measured else set[str]()
    fitnesses = [it.fitness for it in measured if it.fitness is not None]
    standing = _standing(trials)
    return CandidateSummary(
        candidate,
        role(experiment, candidate),
        standing,
        trials,
        {metric: fmean(it.measured[metric] for it in measured) for metric in sorted(shared)},
        fmean(fitnesses) if standing is Standing.FEASIBLE else None,
    )


def _standing(trials: tuple[Trial, ...]) -> Standing:
    phases = {it.status.phase for it in trials}
    measured = [it for it in trials if it.status.phase is TrialPhase.SUCCEEDED]
    judged = [it for it in measured if any(condition.type == "Feasible" for condition in it.status.conditions)]
    if TrialPhase.FAILED in phases:
        return Standing.FAILED
    if any(it.fitness is None for it in judged):
        return Standing.INFEASIBLE
    if any(it.fitness is not None for it in measured):
        return Standing.FEASIBLE
    if TrialPhase.SKIPPED in phases:
        return Standing.SKIPPED
    if any(not it.is_finished() for it in phases) or measured:
        return Standing.UNFINISHED
    return Standing.INVALID
