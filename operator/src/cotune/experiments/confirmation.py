"""After the search: its best candidate and the baseline are run again, by turns, and compared by these runs only.

The search chose the candidate by its figures, so they flatter it; fresh repeats do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cotune.api.experiment import Evaluation, Objective, Outcome
from cotune.api.trial import TrialPhase
from cotune.experiments.observed import ObservedTrial
from cotune.experiments.turns import Turn, failure, infeasible, measured, next_turn, words
from cotune.fitness.comparison import Comparison, compare
from cotune.fitness.score import MissingMetricError
from cotune.search.space import Candidate


@dataclass(frozen=True)
class Conclusion:
    """What the confirming runs say."""

    outcome: Outcome
    message: str
    comparison: Comparison | None = None
    """None: the runs cannot be compared."""
    has_failed: bool = False
    """The candidate itself failed or broke a constraint when it was run again."""


def proceed(baseline: Candidate, challenger: Candidate, runs: Sequence[ObservedTrial], repeats: int) -> Turn:
    """Whose turn it is."""
    turn = next_turn((baseline, challenger), runs, repeats, frozenset())
    lost = infeasible(runs, challenger) or failure(runs, challenger) or failure(runs, baseline)
    return Turn(is_over=True) if lost and turn.next is not None else turn


def conclude(
    objectives: Sequence[Objective],
    evaluation: Evaluation,
    baseline: Candidate,
    challenger: Candidate,
    runs: Sequence[ObservedTrial],
) -> Conclusion:
    """The verdict on the confirming runs once they are over."""
    failed = infeasible(runs, challenger) or failure(runs, challenger)
    if failed is not None and failed.phase is not TrialPhase.INVALID:
        why = f"the best candidate failed when it was run again: {words(failed)}"
        return Conclusion(Outcome.NOT_BETTER, why, None, True)
    failed = failed or failure(runs, baseline)
    if failed is not None:
        return Conclusion(Outcome.CANNOT_TELL, f"a confirming run has no result: {words(failed)}")
    was, now = ([run.measurements for run in measured(runs, it)] for it in (baseline, challenger))
    try:
        found = compare(objectives, was, now, float(evaluation.confidence))
    except MissingMetricError as error:
        return Conclusion(Outcome.CANNOT_TELL, f"a confirming run lacks a metric: {error}")
    return Conclusion(found.outcome, _told(found, float(evaluation.confidence)), found)


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
