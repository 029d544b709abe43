"""Runs by turns: every contender once a round, the order reversed from round to round.

A B C, C B A, A B C: what changes steadily meanwhile, a card that warms up say, falls on all of them alike. All progress
lies in the trials: a pass that dies repeats nothing.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass

from cotune.api.trial import TrialPhase
from cotune.experiments.observed import ObservedTrial
from cotune.search.space import Candidate

SECOND_CHANCES = 2
"""How many invalid runs of a candidate are made good, in the search and again in what follows it."""


@dataclass(frozen=True)
class Turn:
    """Who is next."""

    next: Candidate | None = None
    """None: a run is on its way, or no more are needed."""
    is_over: bool = False


def next_turn(
    contenders: Sequence[Candidate], runs: Sequence[ObservedTrial], repeats: int, dropped: Set[Candidate]
) -> Turn:
    """One run at a time, so that all of them meet the same card at about the same time.

    Args:
        contenders: the reference first.
        runs: what was run of them so far, for this purpose.
        repeats: measured runs that each is to have.
        dropped: those that are run no more.
    """
    if any(not it.phase.is_finished() or not it.is_judged for it in runs):
        return Turn()
    done = {it: len(measured(runs, it)) for it in contenders if it not in dropped}
    current = min(done.values(), default=repeats)
    if current >= repeats:
        return Turn(is_over=True)
    order = list(done) if current % 2 == 0 else list(reversed(done))
    return Turn(next(it for it in order if done[it] == current))


def measured(runs: Sequence[ObservedTrial], candidate: Candidate) -> list[ObservedTrial]:
    """A candidate's runs with a result, in the order in which they were made."""
    own = (it for it in runs if it.candidate == candidate and it.phase is TrialPhase.SUCCEEDED)
    return sorted(own, key=lambda it: it.repeat)


def failure(runs: Sequence[ObservedTrial], candidate: Candidate) -> ObservedTrial | None:
    """The run for which a candidate is run no more: it failed, or was invalid once too often."""
    own = [it for it in runs if it.candidate == candidate and it.phase.is_finished()]
    for it in own:
        if it.phase not in {TrialPhase.SUCCEEDED, TrialPhase.INVALID}:
            return it
    invalid = [it for it in own if it.phase is TrialPhase.INVALID]
    return invalid[-1] if len(invalid) > SECOND_CHANCES else None


def infeasible(runs: Sequence[ObservedTrial], candidate: Candidate) -> ObservedTrial | None:
    """A measured and judged run that breaks a constraint.

    Not asked of the baseline: it runs today all the same.
    """
    return next((it for it in measured(runs, candidate) if it.is_judged and not it.is_feasible), None)


def words(run: ObservedTrial) -> str:
    """What became of a run that counts against its candidate."""
    if run.phase is TrialPhase.SUCCEEDED:
        return f"{run.name} breaks a constraint, see its Feasible condition"
    return f"{run.name}: {run.reason}: {run.message}"
