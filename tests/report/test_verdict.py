"""The answer in one sentence, for every way in which an experiment may stand."""

from dataclasses import replace
from datetime import UTC, datetime

from cotune.api.conditions import Condition, ConditionStatus
from cotune.api.experiment import ExperimentPhase, Outcome
from cotune.report.resources import Experiment
from cotune.report.verdict import verdict
from support.played_experiment import Played, played
from support.told_report import experiment


def test_a_winner_is_named_with_effect_and_interval(voice: Played) -> None:
    found = verdict(experiment(voice))

    assert (found.outcome, found.label) == (Outcome.BETTER, "Better")
    assert found.sentence.startswith("judgeMemory=0.60 whisperModel=tiny is better than what runs today")
    assert "7 fresh runs against 7 of the baseline" in found.sentence
    assert found.gain is not None
    assert 0 < found.gain.lower <= found.gain.estimate <= found.gain.upper


def test_without_a_real_difference_no_gain_is_claimed(alike: Played) -> None:
    found = verdict(experiment(alike))

    assert found.outcome in {Outcome.CANNOT_TELL, Outcome.NOT_BETTER}
    assert "is better than what runs today: " not in found.sentence.replace("not better", "")


def test_a_running_experiment_is_not_decided() -> None:
    found = verdict(experiment(played(stop_after=1)))

    assert (found.outcome, found.label) == (None, "Not decided yet")
    assert "1 of 1 trials finished" in found.sentence


def test_a_failed_experiment_says_the_operators_reason(voice: Played) -> None:
    found = verdict(_with(_bare(voice, ExperimentPhase.FAILED), "Stalled", ConditionStatus.TRUE, "NothingFeasible"))

    assert (found.outcome, found.label) == (None, "Failed")
    assert found.sentence == "NothingFeasible: words."


def test_an_end_without_confirming_runs_is_told_by_the_condition(voice: Played) -> None:
    bare = _bare(voice, ExperimentPhase.SUCCEEDED)

    found = verdict(_with(bare, "Better", ConditionStatus.FALSE, "NotBetter"))

    assert (found.outcome, found.sentence, found.gain) == (Outcome.NOT_BETTER, "NotBetter: words.", None)


def test_a_drift_of_the_baseline_is_a_note_on_the_answer(voice: Played) -> None:
    drifted = _with(experiment(voice), "Steady", ConditionStatus.FALSE, "BaselineDrifts")

    note = "The baseline drifted while the search ran: words"
    assert note not in verdict(experiment(voice)).notes
    assert note in verdict(drifted).notes


def test_a_change_that_the_profile_does_not_make_is_a_note_with_its_reason(voice: Played) -> None:
    found = verdict(experiment(voice))

    assert found.notes == ("The profile makes whisperModel=tiny only; left out: judgeMemory=0.60 (CudaOutOfMemory).",)


def test_before_the_changes_are_validated_it_is_said_that_there_is_no_profile_yet(voice: Played) -> None:
    whole = experiment(voice)
    status = whole.status.model_copy(update={"phase": ExperimentPhase.VALIDATING, "validation": None})

    (note,) = verdict(replace(whole, status=status)).notes

    assert note.startswith("Its changes are still being validated")


def _bare(voice: Played, phase: ExperimentPhase) -> Experiment:
    """Nothing was confirmed, and no condition is known."""
    found = experiment(voice)
    status = found.status.model_copy(update={"phase": phase, "verdict": None, "winner": None, "conditions": ()})
    return replace(found, status=status)


def _with(found: Experiment, kind: str, status: ConditionStatus, reason: str) -> Experiment:
    condition = Condition(
        type=kind,
        status=status,
        observed_generation=1,
        last_transition_time=datetime(2026, 11, 24, tzinfo=UTC),
        reason=reason,
        message="words",
    )
    conditions = (*found.status.conditions, condition)
    return replace(found, status=found.status.model_copy(update={"conditions": conditions}))
