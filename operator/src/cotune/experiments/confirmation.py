"""After the search: its best candidate and the baseline are run again, by turns, and compared by these runs only.

The search chose the candidate by its figures, so they flatter it; fresh repeats do not. They go A B, B A, A B, ...:
what changes steadily meanwhile falls on both alike. All progress lies in the trials: a pass that dies repeats nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cotune.api.experiment import Evaluation, Objective, Outcome
from cotune.api.trial import TrialPhase
from cotune.experiments.observed import ObservedTrial
from cotune.fitness.comparison import Comparison, compare
from cotune.fitness.score import MissingMetricError
from cotune.search.space import Candidate

SECOND_CHANCES = 2
"""How many invalid runs of a candidate are made good, in the search and again in the confirmation."""


@dataclass(frozen=True)
class Confirmation:
    """How far it is."""

    next: Candidate | None = None
    """Whom to run next; None: a run is on its way, or no more are needed."""
    is_over: bool = False


@dataclass(frozen=True)
class Conclusion:
    """What the confirming runs say."""

    outcome: Outcome
    message: str
    comparison: Comparison | None = None
    """None: the runs cannot be compared."""
    has_failed: bool = False
    """The candidate itself failed or broke a constraint when it was run again."""


def proceed(baseline: Candidate, challenger: Candidate, runs: Sequence[ObservedTrial], repeats: int) -> Confirmation:
    """One run at a time, so that both meet the same card at about the same time."""
    if any(not it.phase.is_finished() or not it.is_judged for it in runs):
        return Confirmation()
    if _infeasible(runs, challenger) or _failure(runs, challenger) or _failure(runs, baseline):
        return Confirmation(is_over=True)
    done = {it: sum(_is_measured(run, it) for run in runs) for it in (baseline, challenger)}
    pair = min(done.values())
    first, second = (baseline, challenger) if pair % 2 == 0 else (challenger, baseline)
    due = first if done[first] == pair else second
    return Confirmation(due) if pair < repeats else Confirmation(is_over=True)


def conclude(
    objectives: Sequence[Objective],
    evaluation: Evaluation,
    baseline: Candidate,
    challenger: Candidate,
    runs: Sequence[ObservedTrial],
) -> Conclusion:
    """The verdict on the confirming runs once they are over."""
    failed = _infeasible(runs, challenger) or _failure(runs, challenger)
    if failed is not None and failed.phase is not TrialPhase.INVALID:
        words = _words(failed)
        return Conclusion(Outcome.NOT_BETTER, f"the best candidate failed when it was run again: {words}", None, True)
    failed = failed or _failure(runs, baseline)
    if failed is not None:
        return Conclusion(Outcome.CANNOT_TELL, f"a confirming run has no result: {_words(failed)}")
    was, now = ([run.measurements for run in runs if _is_measured(run, it)] for it in (baseline, challenger))
    try:
        found = compare(objectives, was, now, float(evaluation.confidence))
    except MissingMetricError as error:
        return Conclusion(Outcome.CANNOT_TELL, f"a confirming run lacks a metric: {error}")
    return Conclusion(found.outcome, _told(found, float(evaluation.confidence)), found)


def _is_measured(run: ObservedTrial, candidate: Candidate) -> bool:
    return run.candidate == candidate and run.phase is TrialPhase.SUCCEEDED


def _failure(runs: Sequence[ObservedTrial], candidate: Candidate) -> ObservedTrial | None:
    """The run for which a candidate is run no more: it failed, or was invalid once too often."""
    own = [it for it in runs if it.candidate == candidate]
    for it in own:
        if it.phase not in {TrialPhase.SUCCEEDED, TrialPhase.INVALID}:
            return it
    invalid = [it for it in own if it.phase is TrialPhase.INVALID]
    return invalid[-1] if len(invalid) > SECOND_CHANCES else None


def _infeasible(runs: Sequence[ObservedTrial], candidate: Candidate) -> ObservedTrial | None:
    """A measured run that breaks a constraint; asked of the challenger only: the baseline runs today all the same."""
    return next((it for it in runs if _is_measured(it, candidate) and not it.is_feasible), None)


def _words(run: ObservedTrial) -> str:
    if run.phase is TrialPhase.SUCCEEDED:
        return f"{run.name} breaks a constraint, see its Feasible condition"
    return f"{run.name}: {run.reason}: {run.message}"


def _told(found: Comparison, confidence: float) -> str:
    runs = f"{found.candidate_repeats} fresh runs against {found.baseline_repeats} of the baseline"
    if found.gain is None:
        return f"{runs} are too few for an interval of {confidence:.0%}"
    text = (
        f"gain in fitness {found.gain.estimate:+.3f} ({found.gain.lower:+.3f} to {found.gain.upper:+.3f} at "
        f"{confidence:.0%}), {runs}; {', '.join(str(it) for it in found.effects)}"
    )
    if found.enough_repeats is not None:
        text += f"; were the gain what it seems, about {found.enough_repeats} runs of each would tell"
    return text
