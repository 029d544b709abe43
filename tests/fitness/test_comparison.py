"""Intervals and verdicts: against published quantiles, known experiments and simulated ones without a difference."""

import random

import pytest
from cotune.api.experiment import Evaluation, Goal, Objective, Outcome
from cotune.fitness.bootstrap import bootstrap, least_repeats, student_quantile
from cotune.fitness.comparison import compare
from cotune.fitness.noise import drift, spread
from cotune.fitness.score import MissingMetricError
from cotune_bench.verdict import recorded_noise, simulated_experiment, upper_bound
from hypothesis import given
from hypothesis import strategies as st

LATENCY = Objective(metric="stt.latency.p95", goal=Goal.MINIMIZE, weight="1")


def runs(*milliseconds: float) -> list[dict[str, float]]:
    return [{"stt.latency.p95": it} for it in milliseconds]


@pytest.mark.parametrize(
    ("probability", "degrees", "quantile"),
    [
        (0.975, 1, 12.706),
        (0.975, 2, 4.303),
        (0.975, 5, 2.571),
        (0.95, 4, 2.132),
        (0.995, 10, 3.169),
        (0.975, 30, 2.042),
    ],
)
def test_students_quantiles_are_those_of_the_tables(probability: float, degrees: int, quantile: float) -> None:
    assert student_quantile(probability, degrees) == pytest.approx(quantile, abs=5e-4)


@pytest.mark.parametrize(("confidence", "repeats"), [(0.66, 2), (0.9, 3), (0.95, 4), (0.97, 4), (0.99, 5)])
def test_the_rule_of_the_resource_is_what_an_interval_needs(confidence: float, repeats: int) -> None:
    assert least_repeats(confidence) == repeats


@pytest.mark.parametrize(
    ("baseline", "candidate", "outcome"),
    [
        ((300, 310, 290, 305), (80, 85, 82, 90), Outcome.BETTER),
        ((80, 85, 82, 90), (300, 310, 290, 305), Outcome.NOT_BETTER),
        ((300, 310, 290, 305), (295, 308, 301, 299), Outcome.CANNOT_TELL),
        ((300, 310, 290), (80, 85, 82), Outcome.CANNOT_TELL),
    ],
)
def test_the_verdict(baseline: tuple[float, ...], candidate: tuple[float, ...], outcome: Outcome) -> None:
    assert compare([LATENCY], runs(*baseline), runs(*candidate), 0.95).outcome is outcome


def test_too_few_repeats_have_effects_and_no_interval() -> None:
    found = compare([LATENCY], runs(300), runs(80), 0.95)

    assert (found.gain, found.effects[0].change, found.effects[0].baseline) == (None, None, 300)


def test_an_open_question_says_how_many_repeats_would_answer_it() -> None:
    found = compare([LATENCY], runs(300, 340, 280, 320), runs(290, 320, 270, 300), 0.95)

    assert found.outcome is Outcome.CANNOT_TELL
    assert found.enough_repeats is not None
    assert found.enough_repeats > 4


def test_a_metric_that_one_repeat_lacks_is_named() -> None:
    with pytest.raises(MissingMetricError, match=r"stt\.latency\.p95"):
        compare([LATENCY], [*runs(300, 310, 290), {}], runs(80, 81, 82, 83), 0.95)


ROWS = st.lists(st.floats(1, 1000), min_size=4, max_size=6)


@given(first=ROWS, second=ROWS, shift=st.floats(1, 100))
def test_an_interval_holds_its_estimate_moves_with_the_data_and_is_the_same_each_time(
    first: list[float], second: list[float], shift: float
) -> None:
    def of(more: float) -> tuple[float, float, float]:
        (found,) = bootstrap(
            [[it] for it in first], [[it + more] for it in second], lambda was, now: [now[0] - was[0]], 0.95, draws=200
        )
        return found.estimate, found.lower, found.upper

    estimate, lower, upper = of(0)
    assert lower - 1e-9 <= estimate <= upper + 1e-9
    assert of(0) == (estimate, lower, upper)
    assert of(shift) == pytest.approx((estimate + shift, lower + shift, upper + shift))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    draw, held = random.Random(1), 0
    for _ in range(300):
        first, second = ([[draw.gauss(10, 1)] for _ in range(5)] for _ in range(2))
        (found,) = bootstrap(first, second, lambda was, now: [now[0] - was[0]], 0.90, draws=500)
        held += found.lower <= 0 <= found.upper

    assert held / 300 > 0.87


def test_alike_experiments_seldom_name_a_winner_though_the_best_of_fifteen_was_lucky() -> None:
    noise, repeats = recorded_noise(), Evaluation().repeats

    outcomes = [simulated_experiment(noise, repeats, 0.0, 0.95, seed) for seed in range(60)]

    assert outcomes.count(Outcome.BETTER) <= 5


def test_the_upper_bound_of_a_rate_is_the_exact_one() -> None:
    assert upper_bound(0, 100) == pytest.approx(1 - 0.05 ** (1 / 100))
    assert upper_bound(25, 1000) == pytest.approx(0.0349, abs=2e-4)


def test_spread_is_pooled_over_candidates_and_drift_is_a_line() -> None:
    found = spread([[1.0, 3.0], [5.0], [10.0, 12.0]])
    assert found is not None
    assert (found.deviation**2, found.degrees) == (pytest.approx(2.0), 2)
    assert spread([[1.0], [2.0]]) is None

    line = drift([0, 10, 20, 40], [1.0, 2.0, 3.0, 5.0], 0.95)
    assert line is not None
    assert (line.estimate, line.lower, line.upper) == (pytest.approx(4), pytest.approx(4), pytest.approx(4))
    assert drift([0, 10, 20], [1.0, 2.0, 3.0], 0.95) is None
