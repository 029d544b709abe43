"""The answer in one sentence: better, not better, or not known, by how much and how sure."""

from dataclasses import dataclass

from cotune.api.conditions import Condition, ConditionStatus
from cotune.api.experiment import Estimate, ExperimentPhase, Outcome
from cotune.fitness.bootstrap import Interval
from cotune.report.candidates import named
from cotune.report.resources import Experiment
from cotune.report.units import percent, signed

_OF_CONDITION = {
    ConditionStatus.TRUE: Outcome.BETTER,
    ConditionStatus.FALSE: Outcome.NOT_BETTER,
    ConditionStatus.UNKNOWN: Outcome.CANNOT_TELL,
}
_LABELS = {Outcome.BETTER: "Better", Outcome.NOT_BETTER: "Not better", Outcome.CANNOT_TELL: "Cannot tell"}


@dataclass(frozen=True)
class Verdict:
    """What a reader wants to know first."""

    outcome: Outcome | None
    """None: nothing is concluded."""
    label: str
    sentence: str
    gain: Interval | None = None
    """In fitness."""
    confidence: float | None = None
    notes: tuple[str, ...] = ()
    """What makes the answer less than it seems."""


def verdict(experiment: Experiment) -> Verdict:
    """The experiment's own verdict, in words."""
    status = experiment.status
    outcome = status.verdict.outcome if status.verdict is not None else _told(experiment)
    notes = _notes(experiment)
    if outcome is None:
        return _undecided(experiment, notes)
    label = _LABELS[outcome]
    if status.verdict is None or status.verdict.gain is None:
        return Verdict(outcome, label, f"{_ended(experiment)}.", notes=notes)
    confidence = float(status.verdict.confidence)
    gain = interval(status.verdict.gain)
    runs = f"{status.verdict.repeats} fresh runs against {status.verdict.baseline_repeats} of the baseline"
    effect = (
        f"the gain in fitness is {signed(gain.estimate)} ({percent(confidence)} interval {signed(gain.lower)} to "
        f"{signed(gain.upper)}; {runs})"
    )
    who = named(experiment.challenger) if experiment.challenger is not None else status.verdict.trial
    said = {
        Outcome.BETTER: f"{who} is better than what runs today ({named(experiment.baseline)}): {effect}.",
        Outcome.NOT_BETTER: f"{who}, the best of the search, is not better than what runs today: {effect}.",
        Outcome.CANNOT_TELL: f"Whether {who} is better than what runs today cannot be told: {effect}; 0 lies within.",
    }
    return Verdict(outcome, label, said[outcome], gain, confidence, notes)


def interval(estimate: Estimate) -> Interval:
    """As figures."""
    return Interval(float(estimate.value), float(estimate.lower), float(estimate.upper))


def _undecided(experiment: Experiment, notes: tuple[str, ...]) -> Verdict:
    status = experiment.status
    if status.phase is ExperimentPhase.FAILED:
        return Verdict(None, "Failed", f"{_ended(experiment)}.", notes=notes)
    counts = status.trials
    said = f"The experiment is {status.phase}: {counts.finished} of {counts.total} trials finished"
    stalled = _condition(experiment, "Stalled")
    if stalled is not None and stalled.status is ConditionStatus.TRUE:
        said += f"; it is stalled: {stalled.reason}: {stalled.message}"
    return Verdict(None, "Not decided yet", f"{said}.", notes=notes)


def _ended(experiment: Experiment) -> str:
    """The operator's own words on how it ended."""
    for kind in ("Better", "Ready", "Stalled"):
        condition = _condition(experiment, kind)
        if condition is not None and condition.message:
            return f"{condition.reason}: {condition.message}"
    return f"The experiment is {experiment.status.phase}, and says nothing more"


def _told(experiment: Experiment) -> Outcome | None:
    found = _condition(experiment, "Better")
    return _OF_CONDITION[found.status] if found is not None else None


def _notes(experiment: Experiment) -> tuple[str, ...]:
    found: list[str] = []
    steady, told = _condition(experiment, "Steady"), experiment.status.validation
    if experiment.status.phase is ExperimentPhase.VALIDATING:
        found.append("Its changes are still being validated one by one: until then there is no profile.")
    if told is not None and not all(it.kept for it in told.changes):
        kept = " ".join(f"{it.parameter}={it.value}" for it in told.changes if it.kept)
        left = ", ".join(f"{it.parameter}={it.value} ({it.reason})" for it in told.changes if not it.kept)
        found.append(f"The profile makes {f'{kept} only' if kept else 'none of its changes'}; left out: {left}.")
    if steady is not None and steady.status is ConditionStatus.FALSE:
        found.append(f"The baseline drifted while the search ran: {steady.message}")
    return tuple(found)


def _condition(experiment: Experiment, kind: str) -> Condition | None:
    return next((it for it in experiment.status.conditions if it.type == kind), None)
