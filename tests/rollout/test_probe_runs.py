"""Runs of a stage's probe: when the next is due, which count, and when all are made anew."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from cotune.api.stage_probe import MOST_SPOILED, ProbeRun, StageProbeStatus
from cotune.rollout.probe_runs import (
    current,
    figures,
    is_baseline_run_due,
    is_complete,
    is_given_up,
    is_run_due,
    is_stale,
    load_of,
    wanted,
    wants_baseline,
)
from rollout.probed_stage import BAKE_SECONDS, END, P95, SINCE, probe_of, probed_stage, run
from support.probed_stages import AGAINST, PROBE, gate

STAGE = probed_stage()
PROBED = probe_of(STAGE)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def due_after(runs: Sequence[ProbeRun], step: int = 5) -> float | None:
    """How many seconds into the bake time the next run is due; None: none is."""
    for number in range(0, 2 * BAKE_SECONDS, step):
        if is_run_due(STAGE, PROBED, runs, SINCE, SINCE + seconds(number)):
            return number
    return None


def test_the_runs_lie_evenly_in_the_bake_time() -> None:
    assert due_after([]) == 0
    assert due_after([run(1)]) == BAKE_SECONDS / 3
    assert due_after([run(1), run(2)]) == 2 * BAKE_SECONDS / 3
    assert due_after([run(1), run(2), run(3)]) is None


def test_a_run_that_is_late_is_followed_by_the_next_one_at_once() -> None:
    late = run(1).model_copy(update={"ended_at": SINCE + seconds(170)})

    assert due_after([late]) == 170 or due_after([late]) == BAKE_SECONDS / 3
    assert is_run_due(STAGE, PROBED, [late], SINCE, late.ended_at)


def test_a_run_that_says_nothing_of_one_gate_is_made_again_after_the_last_slot() -> None:
    runs = [run(1), run(2, errors=None), run(3)]

    assert [len(figures(it, runs)) for it in STAGE.gates] == [3, 2]
    assert not is_complete(STAGE, PROBED, runs)
    assert is_run_due(STAGE, PROBED, runs, SINCE, runs[-1].ended_at + seconds(20))
    assert is_complete(STAGE, PROBED, [*runs, run(4)])


def test_after_a_run_that_failed_the_next_one_waits_for_half_a_minute() -> None:
    failed = run(5, error="no such host")

    assert not is_run_due(STAGE, PROBED, [failed], SINCE, failed.ended_at + seconds(29))
    assert is_run_due(STAGE, PROBED, [failed], SINCE, failed.ended_at + seconds(30))


def test_no_further_run_is_made_when_too_many_have_come_to_nothing() -> None:
    failed = [run(number, error="no such host") for number in range(1, PROBED.runs + MOST_SPOILED + 1)]

    assert is_given_up(STAGE, PROBED, failed)
    assert not is_given_up(STAGE, PROBED, failed[:-1])
    assert not is_run_due(STAGE, PROBED, failed, SINCE, END + timedelta(hours=1))
    assert not is_baseline_run_due(STAGE, PROBED, failed, SINCE, END + timedelta(hours=1))


def test_a_run_whose_figure_rests_on_too_few_requests_does_not_count() -> None:
    assert figures(STAGE.gates[0], [run(1, 300), run(2, 310, samples=29), run(3, 320)]) == [300, 320]


def test_the_runs_of_a_baseline_follow_one_another() -> None:
    assert is_baseline_run_due(STAGE, PROBED, [run(1)], SINCE, run(1).ended_at)
    assert not is_baseline_run_due(STAGE, PROBED, [run(1), run(2), run(3)], SINCE, END)


def test_only_a_gate_of_the_probe_that_compares_wants_a_baseline() -> None:
    of_prometheus = {"name": "x", "promQL": {"query": "x"}, "againstBaseline": AGAINST}

    assert wants_baseline(probed_stage(gate(againstBaseline=AGAINST)))
    assert not wants_baseline(probed_stage(gate(), of_prometheus))


def test_a_baseline_is_good_for_an_hour_after_its_last_run() -> None:
    runs = [run(1), run(3)]

    assert not is_stale(runs, runs[-1].ended_at + timedelta(minutes=59))
    assert is_stale(runs, runs[-1].ended_at + timedelta(minutes=61))
    assert not is_stale([], END)


def test_only_what_the_gates_name_is_kept() -> None:
    of_latency_only = probed_stage(gate())

    assert [it.metric for it in wanted(of_latency_only, run(1).measurements)] == [P95]


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (probed_stage(runs=4), True),
        (probed_stage(gate(), gate("stt.errorRate", 10, name="errors", max="3")), True),
        (probed_stage(gate(), gate("stt.latency.p50", name="median")), False),
        (
            STAGE.model_copy(update={"probe": PROBED.model_copy(update={"duration_seconds": 21})}),
            False,
        ),
    ],
)
def test_runs_of_another_load_or_other_figures_are_made_anew_and_those_of_other_bounds_are_not(
    other: object, is_same: bool
) -> None:
    assert isinstance(other, type(STAGE))
    record = StageProbeStatus(
        load=load_of(STAGE, PROBED), begun=2, pod="p-2", pod_since=SINCE, baseline=(run(1),), runs=(run(2),)
    )

    found = current(other, probe_of(other), record)

    assert (found == record) is is_same
    if not is_same:
        # The pod of the former load is still to be deleted, and is no run of the new one.
        assert (found.pod, found.begun, found.runs, found.baseline) == ("p-2", 3, (), ())


def test_the_example_is_the_one_of_the_api_servers_tests() -> None:
    assert PROBED.load_seconds == 25
    assert PROBE["runs"] == PROBED.runs
