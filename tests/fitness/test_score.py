import math

import pytest
from cotune.api.experiment import Constraint, Goal, Objective
from cotune.fitness.score import MissingMetricError, score, violations
from hypothesis import given
from hypothesis import strategies as st

LATENCY = Objective(metric="stt.latency.p95", goal=Goal.MINIMIZE, weight="0.75")
ROOM = Objective(metric="judge.kvCache.tokens", goal=Goal.MAXIMIZE, weight="0.25")
BUSY = Objective(metric="gpu.utilization", goal=Goal.TARGET, target="0.70", weight="1")
POSITIVE = st.floats(0.001, 1e9)


def test_each_objective_is_scored_as_documented() -> None:
    scored = score(
        (LATENCY, ROOM),
        {"stt.latency.p95": 100.0, "judge.kvCache.tokens": 9000.0},
        {"stt.latency.p95": 300.0, "judge.kvCache.tokens": 3000.0},
    )

    assert scored.scores == {"stt.latency.p95": 0.75, "judge.kvCache.tokens": 0.75}
    assert scored.fitness == pytest.approx(0.75)


def test_weights_are_normalised() -> None:
    measured = {"stt.latency.p95": 100.0, "judge.kvCache.tokens": 3000.0}
    baseline = {"stt.latency.p95": 300.0, "judge.kvCache.tokens": 3000.0}

    assert score((LATENCY, ROOM), measured, baseline).fitness == pytest.approx(0.75 * 0.75 + 0.25 * 0.5)


@pytest.mark.parametrize(("value", "expected"), [(0.7, 1.0), (0.35, 0.5), (0.0, 0.0), (1.0, 1 - 0.3 / 0.7)])
def test_a_target_is_best_when_met(value: float, expected: float) -> None:
    measured = {"gpu.utilization": value}

    assert score((BUSY,), measured, measured).fitness == pytest.approx(expected)


@given(baseline=POSITIVE, value=POSITIVE)
def test_the_baseline_scores_one_half_and_better_values_more(baseline: float, value: float) -> None:
    scored = score((LATENCY,), {"stt.latency.p95": value}, {"stt.latency.p95": baseline}).fitness

    assert 0 <= scored <= 1
    assert (scored > 0.5) == (value < baseline) or math.isclose(scored, 0.5)


def test_two_zeros_are_equally_good() -> None:
    assert score((LATENCY,), {"stt.latency.p95": 0.0}, {"stt.latency.p95": 0.0}).fitness == 0.5


@pytest.mark.parametrize("broken", [{}, {"stt.latency.p95": math.nan}, {"stt.latency.p95": -1.0}])
def test_a_metric_that_is_not_known_never_scores(broken: dict[str, float]) -> None:
    good = {"stt.latency.p95": 1.0}
    with pytest.raises(MissingMetricError, match="of the trial"):
        score((LATENCY,), broken, good)
    with pytest.raises(MissingMetricError, match="of the baseline"):
        score((LATENCY,), good, broken)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ({"stt.wer": 0.15}, []),
        ({"stt.wer": 0.151}, ["stt.wer is 0.151 (max 0.15)"]),
        ({}, ["stt.wer was not measured (min 0.01)", "stt.wer was not measured (max 0.15)"]),
        ({"stt.wer": math.nan}, ["stt.wer is nan (min 0.01)", "stt.wer is nan (max 0.15)"]),
        ({"stt.wer": 0.0}, ["stt.wer is 0 (min 0.01)"]),
    ],
)
def test_a_constraint_is_kept_or_says_why_not(measured: dict[str, float], expected: list[str]) -> None:
    constraint = Constraint(metric="stt.wer", min="0.01", max="0.15")

    assert [str(it) for it in violations((constraint,), measured)] == expected
