"""What has no figures: candidates that were never run, trials that failed, and trials that say nothing."""

from collections import Counter
from dataclasses import dataclass

from cotune.api.trial import TrialPhase
from cotune.report.candidates import named
from cotune.report.resources import Experiment, Trial


@dataclass(frozen=True)
class SkippedReason:
    """Candidates that cannot start for the same reason."""

    reason: str
    count: int
    """That the planner says so of."""
    skipped: int
    """Of them, those that were not run."""
    example: str
    """With its figures."""


@dataclass(frozen=True)
class SkippedCandidate:
    """One of them that is recorded as a trial."""

    name: str
    reason: str
    message: str


@dataclass(frozen=True)
class Skipped:
    """All that was not run."""

    reasons: tuple[SkippedReason, ...]
    listed: tuple[SkippedCandidate, ...]
    is_planned: bool
    """Whether the planner had a word at all."""
    gpu_seconds_saved: float | None


@dataclass(frozen=True)
class Ending:
    """A trial without a result."""

    trial: str
    candidate: str
    reason: str
    message: str


def skipped(experiment: Experiment) -> Skipped:
    """By reason, the most frequent first."""
    trials = [it for it in experiment.trials if it.status.phase is TrialPhase.SKIPPED]
    plan, saved = experiment.status.plan, experiment.status.gpu_seconds_saved
    told = (
        tuple(SkippedReason(it.reason, it.count, it.skipped, it.example) for it in plan.refused)
        if plan is not None
        else _counted(trials)
    )
    return Skipped(
        tuple(sorted(told, key=lambda it: -it.count)),
        tuple(SkippedCandidate(named(it.candidate), it.status.reason, it.status.message) for it in trials),
        plan is not None or bool(trials),
        float(saved) if saved is not None else None,
    )


def endings(experiment: Experiment, phase: TrialPhase) -> tuple[Ending, ...]:
    """All trials that ended in a phase."""
    return tuple(
        Ending(it.name, named(it.candidate), it.status.reason, it.status.message)
        for it in experiment.trials
        if it.status.phase is phase
    )


def _counted(trials: "list[Trial]") -> tuple[SkippedReason, ...]:
    examples = {it.status.reason: f"{named(it.candidate)}: {it.status.message}" for it in reversed(trials)}
    counts = Counter(it.status.reason for it in trials)
    return tuple(SkippedReason(reason, count, count, examples[reason]) for reason, count in counts.items())
