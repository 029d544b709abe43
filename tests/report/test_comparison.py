"""Both sides by their confirming runs."""

import pytest
from cotune.api.experiment import Goal
from cotune.report.comparison import Direction, comparison, confirming
from cotune.report.validation import validation
from support.played_experiment import Played, played
from support.told_report import experiment


def test_effects_are_those_of_the_verdict_with_their_direction(voice: Played) -> None:
    found = comparison(experiment(voice))

    assert found is not None
    by_metric = {it.metric: it for it in found.effects}
    assert (found.repeats, found.baseline_repeats, found.confidence) == (7, 7, 0.95)
    assert by_metric["stt.latency.p95"].direction is Direction.BETTER
    assert by_metric["stability"].direction is Direction.UNCLEAR
    assert by_metric["gpu.utilization"].direction is Direction.WORSE, "12 % is farther from 70 % than 52 % is"
    assert sum(it.weight for it in found.effects) == pytest.approx(1)


def test_a_change_is_relative_to_the_baseline_and_unknown_beside_zero(voice: Played) -> None:
    found = comparison(experiment(voice))
    assert found is not None
    faster = next(it for it in found.effects if it.metric == "stt.latency.p95")

    assert faster.relative is not None
    assert faster.change is not None
    assert faster.relative.estimate == pytest.approx(faster.change.estimate / faster.baseline)
    assert type(faster)(faster.metric, 0.25, 0.0, 1.0, faster.change, faster.direction).relative is None


def test_constraints_are_looked_at_over_all_confirming_runs(voice: Played) -> None:
    whole = experiment(voice)
    found = comparison(whole)
    assert found is not None
    wer = next(it for it in found.bounds if it.metric == "stt.wer")
    assert whole.challenger is not None
    values = [it.measured["stt.wer"] for it in confirming(whole, whole.challenger)]

    assert wer.candidate == (min(values), max(values))
    assert (wer.baseline_keeps, wer.candidate_keeps, wer.bound) == (True, True, "at most 15\N{NO-BREAK SPACE}%")


def test_only_settings_that_differ_by_value_are_changed(voice: Played) -> None:
    found = comparison(experiment(voice))

    assert found is not None
    assert [(it.name, it.is_changed) for it in found.settings] == [("judgeMemory", True), ("whisperModel", True)]


def test_every_change_is_told_alone_with_its_gain_or_why_it_has_none(voice: Played) -> None:
    found = validation(experiment(voice))

    assert found is not None
    memory, model = found.changes
    assert (memory.name, memory.is_kept, memory.reason, memory.gain) == (
        "judgeMemory=0.60",
        False,
        "CudaOutOfMemory",
        None,
    )
    assert model.gain is not None
    assert (model.is_kept, model.gain.lower > 0, found.gain) == (True, True, model.gain)
    assert found.is_partial


def test_nothing_is_compared_before_anybody_was_confirmed() -> None:
    assert comparison(experiment(played(stop_after=8))) is None


def test_every_goal_is_known_to_the_story(voice: Played) -> None:
    assert {it.goal for it in experiment(voice).spec.objectives} == set(Goal)
