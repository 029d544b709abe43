"""The challenger beside the baseline, by their confirming runs only: the search's figures flatter whom it chose."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

from cotune.api.experiment import Constraint, Goal, Objective, ObjectiveEffect
from cotune.api.quantities import canonical
from cotune.api.trial import Purpose, TrialPhase
from cotune.fitness.bootstrap import Interval
from cotune.fitness.score import violations
from cotune.report.request import bound
from cotune.report.resources import Experiment, Trial
from cotune.report.verdict import interval
from cotune.search.space import Candidate


class Direction(StrEnum):
    """What a change means for the objective."""

    BETTER = "better"
    WORSE = "worse"
    UNCLEAR = "no clear change"
    """The interval holds 0, or there is none."""


@dataclass(frozen=True)
class Effect:
    """One objective's metric on both sides."""

    metric: str
    weight: float
    """Its share of the fitness."""
    baseline: float
    candidate: float
    change: Interval | None
    """In the metric's unit; None: too few runs."""
    direction: Direction

    @property
    def relative(self) -> Interval | None:
        """The change as a share of the baseline; None: not known, or the baseline is 0."""
        if self.change is None or self.baseline <= 0:
            return None
        shares = (it / self.baseline for it in (self.change.estimate, self.change.lower, self.change.upper))
        return Interval(*shares)


@dataclass(frozen=True)
class KeptBound:
    """One constraint in the confirming runs."""

    metric: str
    bound: str
    baseline: tuple[float, float] | None
    """Smallest and largest value; None: not measured in all of the runs."""
    candidate: tuple[float, float] | None
    baseline_keeps: bool
    candidate_keeps: bool


@dataclass(frozen=True)
class Setting:
    """One parameter on both sides."""

    name: str
    baseline: str
    candidate: str

    @property
    def is_changed(self) -> bool:
        """Whether it differs by value; 0.4 and 0.40 do not."""
        return canonical(self.baseline) != canonical(self.candidate)


@dataclass(frozen=True)
class OtherMetric:
    """A metric that is no objective: means of the confirming runs."""

    metric: str
    baseline: float
    candidate: float


@dataclass(frozen=True)
class Comparison:
    """All that the confirming runs say."""

    settings: tuple[Setting, ...]
    effects: tuple[Effect, ...]
    bounds: tuple[KeptBound, ...]
    others: tuple[OtherMetric, ...]
    repeats: int
    baseline_repeats: int
    confidence: float


def comparison(experiment: Experiment) -> Comparison | None:
    """None: nobody was confirmed, or the confirmed candidate's trial is not known."""
    told, challenger = experiment.status.verdict, experiment.challenger
    if told is None or challenger is None:
        return None
    objectives = {it.metric: it for it in experiment.spec.objectives}
    total = sum(float(it.weight) for it in objectives.values())
    was, now = (confirming(experiment, it) for it in (experiment.baseline, challenger))
    values = challenger.values
    return Comparison(
        settings=tuple(Setting(it.name, it.baseline, values.get(it.name, "")) for it in experiment.spec.parameters),
        effects=tuple(_effect(objectives[it.metric], it, total) for it in told.objectives if it.metric in objectives),
        bounds=tuple(_kept(it, was, now) for it in experiment.spec.constraints),
        others=_others(was, now, without=set(objectives)),
        repeats=told.repeats,
        baseline_repeats=told.baseline_repeats,
        confidence=float(told.confidence),
    )


def confirming(experiment: Experiment, candidate: Candidate) -> tuple[Trial, ...]:
    """The measured runs of a candidate on which the verdict rests."""
    return tuple(
        it
        for it in experiment.trials
        if it.candidate == candidate
        and it.spec.purpose is Purpose.CONFIRMATION
        and it.status.phase is TrialPhase.SUCCEEDED
    )


def _effect(objective: Objective, told: ObjectiveEffect, total: float) -> Effect:
    change = interval(told.change) if told.change is not None else None
    was, now = float(told.baseline), float(told.candidate)
    direction = _direction(objective, was, now, change)
    return Effect(told.metric, float(objective.weight) / total, was, now, change, direction)


def _direction(objective: Objective, was: float, now: float, change: Interval | None) -> Direction:
    if change is None or change.lower <= 0 <= change.upper:
        return Direction.UNCLEAR
    match objective.goal:
        case Goal.MINIMIZE:
            is_better = change.estimate < 0
        case Goal.MAXIMIZE:
            is_better = change.estimate > 0
        case Goal.TARGET:
            target = float(objective.target or 0)
            is_better = abs(now - target) < abs(was - target)
    return Direction.BETTER if is_better else Direction.WORSE


def _kept(constraint: Constraint, was: Sequence[Trial], now: Sequence[Trial]) -> KeptBound:
    (was_span, was_keeps), (now_span, now_keeps) = (_side(constraint, it) for it in (was, now))
    return KeptBound(constraint.metric, bound(constraint), was_span, now_span, was_keeps, now_keeps)


def _side(constraint: Constraint, runs: Sequence[Trial]) -> tuple[tuple[float, float] | None, bool]:
    values = [it.measured[constraint.metric] for it in runs if constraint.metric in it.measured]
    span = (min(values), max(values)) if values and len(values) == len(runs) else None
    return span, bool(runs) and not any(violations((constraint,), it.measured) for it in runs)


def _others(was: Sequence[Trial], now: Sequence[Trial], without: set[str]) -> tuple[OtherMetric, ...]:
    if not was or not now:
        return ()
    shared = set[str].intersection(*(set(it.measured) for it in (*was, *now))) - without
    return tuple(
        OtherMetric(it, fmean(run.measured[it] for run in was), fmean(run.measured[it] for run in now))
        for it in sorted(shared)
    )
