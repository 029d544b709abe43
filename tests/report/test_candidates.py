"""Candidates over the whole search: standing, Pareto front, parallel coordinates, the table of trials."""

from dataclasses import replace
from functools import cache

import pytest
from cotune.api.experiment import Goal, Objective
from cotune.api.trial import Assignment, Measurement, TrialPhase
from cotune.report.candidates import Role, Standing, summaries
from cotune.report.parallel import MOST_LINES, parallel_coordinates
from cotune.report.pareto import pareto_front
from cotune.report.resources import Experiment
from cotune.report.trial_table import trial_table
from hypothesis import given
from hypothesis import strategies as st
from support.played_experiment import Played, played
from support.told_report import experiment

STT, JUDGE = "stt.latency.p95", "judge.latency.p95"


def test_every_candidate_has_one_standing(voice: Played) -> None:
    found = {tuple(it.candidate.values.values()): it for it in summaries(experiment(voice))}

    assert len(found) == 15
    assert sum(it.standing is Standing.SKIPPED for it in found.values()) == 6
    assert found["0.60", "small"].standing is Standing.FAILED
    assert found["0.55", "base"].standing is Standing.FEASIBLE, "its invalid run was made good"
    assert (found["0.60", "tiny"].role, found["0.50", "small"].role) == (Role.CHALLENGER, Role.BASELINE)


def test_the_best_come_first_and_those_without_a_fitness_last(voice: Played) -> None:
    fitnesses = [it.fitness for it in summaries(experiment(voice))]
    known = [it for it in fitnesses if it is not None]

    assert known == sorted(known, reverse=True)
    assert fitnesses[: len(known)] == known


def test_a_measured_candidate_that_breaks_a_constraint_has_no_fitness(voice: Played) -> None:
    whole = experiment(voice)
    broken = tuple(
        replace(it, status=it.status.model_copy(update={"fitness": None})) if it.candidate == whole.challenger else it
        for it in whole.trials
    )

    found = next(it for it in summaries(replace(whole, trials=broken)) if it.role is Role.CHALLENGER)

    assert (found.standing, found.fitness) == (Standing.INFEASIBLE, None)


def test_a_candidate_on_its_way_is_not_finished(voice: Played) -> None:
    whole = experiment(voice)
    first = whole.trials[0]
    running = replace(first, status=first.status.model_copy(update={"phase": TrialPhase.MEASURING}))

    assert summaries(replace(whole, trials=(running,)))[0].standing is Standing.UNFINISHED


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=30))
def test_the_front_is_what_no_other_beats_in_both(costs: list[tuple[int, int]]) -> None:
    whole = _measured([{STT: float(x), JUDGE: float(y)} for x, y in costs], (Goal.MINIMIZE, Goal.MINIMIZE))

    found = pareto_front(whole, summaries(whole))

    if found is None:
        return
    for point in found.points:
        beaten = any(
            other.x <= point.x and other.y <= point.y and (other.x, other.y) != (point.x, point.y)
            for other in found.points
        )
        assert point.is_on_front is not beaten


@pytest.mark.parametrize(
    ("goals", "best"),
    [
        ((Goal.MINIMIZE, Goal.MINIMIZE), {(0.1, 0.9), (0.5, 0.5)}),
        ((Goal.MAXIMIZE, Goal.MINIMIZE), {(0.9, 0.6), (0.5, 0.5)}),
        ((Goal.TARGET, Goal.MINIMIZE), {(0.5, 0.5)}),
    ],
)
def test_each_goal_says_what_is_better(goals: tuple[Goal, Goal], best: set[tuple[float, float]]) -> None:
    whole = _measured([{STT: x, JUDGE: y} for x, y in ((0.1, 0.9), (0.5, 0.5), (0.9, 0.6))], goals)

    found = pareto_front(whole, summaries(whole))

    assert found is not None
    assert {(it.x, it.y) for it in found.front} == best


def test_the_two_heaviest_objectives_that_differ_are_drawn(voice: Played) -> None:
    whole = experiment(voice)

    found = pareto_front(whole, summaries(whole))

    assert found is not None
    assert (found.x.metric, found.y.metric) == (STT, JUDGE)
    assert sum(it.role is Role.CHALLENGER for it in found.points) == 1


def test_an_objective_alone_has_no_front(voice: Played) -> None:
    whole = experiment(voice)
    alone = whole.spec.model_copy(update={"objectives": whole.spec.objectives[:1]})

    assert pareto_front(replace(whole, spec=alone), summaries(whole)) is None


def test_lines_go_through_their_values_and_only_the_feasible_reach_the_fitness(voice: Played) -> None:
    whole = experiment(voice)

    found = parallel_coordinates(whole, summaries(whole))

    assert found is not None
    best = next(it for it in found.lines if it.role is Role.CHALLENGER)
    assert best.places == (1.0, 0.0), "0.60 is the highest share, tiny the first of the words"
    assert found.fitness_range is not None
    assert best.fitness == found.fitness_range[1]
    assert {it.standing for it in found.lines if it.fitness is None} == {Standing.SKIPPED, Standing.FAILED}


def test_of_very_many_candidates_the_best_are_drawn_and_the_rest_counted(voice: Played) -> None:
    whole = experiment(voice)
    many = summaries(whole) * 40

    found = parallel_coordinates(whole, many)

    assert found is not None
    assert found.left_out == len(many) - len(found.lines)
    assert MOST_LINES <= len(found.lines) < len(many)
    assert any(it.role is Role.BASELINE for it in found.lines[MOST_LINES:]), "baseline and challenger are always drawn"


def test_a_metric_that_was_not_measured_is_unknown_in_the_table(voice: Played) -> None:
    whole = experiment(voice)

    found = trial_table(whole, summaries(whole))

    assert len(found.rows) == len(whole.trials)
    skipped = next(it for it in found.rows if it.phase == "Skipped")
    assert set(skipped.metrics) == {None}
    assert (skipped.fitness, skipped.seconds) == (None, None)
    assert all(it.seconds for it in found.rows if it.phase == "Succeeded")


def test_a_running_experiment_has_no_challenger() -> None:
    found = summaries(experiment(played(stop_after=6)))

    assert not [it for it in found if it.role is Role.CHALLENGER]


def _measured(metrics: list[dict[str, float]], goals: tuple[Goal, Goal]) -> Experiment:
    """One candidate for each, with nothing but these metrics."""
    whole = _base()
    objectives = tuple(
        Objective(metric=metric, goal=goal, target="0.5" if goal is Goal.TARGET else None, weight="1")
        for metric, goal in zip((STT, JUDGE), goals, strict=True)
    )
    feasible = next(it for it in whole.trials if it.fitness is not None)
    trials = tuple(
        replace(
            feasible,
            name=f"t{number}",
            spec=feasible.spec.model_copy(update={"candidate": _candidate(number)}),
            status=feasible.status.model_copy(update={"measurements": _measurements(it)}),
        )
        for number, it in enumerate(metrics)
    )
    return replace(whole, spec=whole.spec.model_copy(update={"objectives": objectives}), trials=trials)


@cache
def _base() -> Experiment:
    return experiment(played(stop_after=8))


def _candidate(number: int) -> tuple[Assignment, ...]:
    return (Assignment(name="judgeMemory", value=str(number)), Assignment(name="whisperModel", value="tiny"))


def _measurements(values: dict[str, float]) -> tuple[Measurement, ...]:
    return tuple(Measurement(metric=metric, value=f"{value:.3f}", samples=200) for metric, value in values.items())
