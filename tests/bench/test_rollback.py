"""What the bench takes for a sign, for a decision and for the old state."""

from typing import Any

import pytest
from cotune_bench.rollback import (
    Lane,
    Times,
    decided_by_argo,
    decided_by_cotune,
    due,
    figure,
    is_restored,
    late,
    rows,
    sign,
)
from cotune_bench.rollback_scene import CASES, Case, pod_template

CRASH = next(it for it in CASES if it.mode == "crash")
UNREADY = next(it for it in CASES if it.mode == "unready")


def pod(mode: str = "good", ready: bool = False, **state: Any) -> dict[str, Any]:
    status = {"conditions": [{"type": "Ready", "status": str(ready)}], "containerStatuses": [{"state": state}]}
    return {"spec": pod_template("lane", "image", mode)["spec"], "status": status}


@pytest.mark.parametrize(
    ("case", "observed", "shows"),
    [
        (CRASH, pod(terminated={"exitCode": 1}), True),
        (CRASH, pod(waiting={"reason": "ErrImagePull"}), True),
        (CRASH, pod(waiting={"reason": "ContainerCreating"}), False),
        (CRASH, pod(running={}), False),
        (UNREADY, pod(running={}), True),
        (CRASH, {"status": {"conditions": [{"type": "PodScheduled", "reason": "Unschedulable"}]}}, True),
        (CRASH, {}, False),
    ],
)
def test_a_sign_is_what_a_pod_shows(case: Case, observed: dict[str, Any], shows: bool) -> None:
    assert sign(observed, case) == shows


@pytest.mark.parametrize(
    ("pods", "restored"),
    [
        ([pod(ready=True)], True),
        ([pod(ready=False)], False),
        ([pod("crash", ready=True)], False),
        ([pod(ready=True), pod("crash")], False),
        ([], False),
    ],
)
def test_the_old_state_is_the_old_server_alone_and_ready(pods: list[dict[str, Any]], restored: bool) -> None:
    assert is_restored(pods) == restored


def restarted(times: int, **state: Any) -> dict[str, Any]:
    return {"status": {"containerStatuses": [{"restartCount": times, "state": state}]}}


@pytest.mark.parametrize(
    ("mode", "pods", "now", "first_sign", "expected"),
    [
        ("no-cache-blocks", [], 4.0, 3.0, 3.0),
        ("no-cache-blocks", [], 4.0, None, None),
        ("oom", [], 4.0, 3.0, 3.0),
        ("crash", [restarted(0, terminated={})], 4.0, 3.0, None),
        ("crash", [restarted(1, running={})], 4.0, 3.0, None),
        ("crash", [restarted(1, terminated={})], 5.0, 3.0, 5.0),
        ("crash", [restarted(2, waiting={})], 6.0, 3.0, 6.0),
        ("unready", [], 59.9, 3.0, None),
        ("unready", [], 60.2, 3.0, 60.0),
    ],
)
def test_a_decision_is_due_when_nothing_is_left_to_wait_for(
    mode: str, pods: list[dict[str, Any]], now: float, first_sign: float | None, expected: float | None
) -> None:
    case = next(it for it in CASES if it.mode == mode)

    assert due(case, pods, now, first_sign, 60.0) == expected


@pytest.mark.parametrize(("name", "waits"), [("unpullable image", 30.0), ("unschedulable", 15.0)])
def test_an_image_and_a_node_may_still_come(name: str, waits: float) -> None:
    case = next(it for it in CASES if it.name == name)

    assert due(case, [], 3.0 + waits - 0.1, 3.0, 60.0) is None
    assert due(case, [], 3.0 + waits, 3.0, 60.0) == 3.0 + waits


def test_lateness_is_told_as_median_and_95th_percentile() -> None:
    runs = [Times(decided=10.0 + late_by, due=10.0) for late_by in range(20)]

    assert late(runs) == "9.5 (p95 18.0)"
    assert late([Times(decided=10.0)]) == "-"


def test_a_decision_is_read_from_each_controllers_own_status() -> None:
    stages = [{"phase": "RollingBack", "message": "server: Error"}]

    assert decided_by_cotune({"status": {"stages": stages}}) == "server: Error"
    assert decided_by_cotune({"status": {"stages": [{"phase": "Progressing", "message": ""}]}}) is None
    assert decided_by_cotune({}) is None
    assert decided_by_argo({"status": {"abort": True, "message": "RolloutAborted"}}) == "RolloutAborted"
    assert decided_by_argo({"status": {"message": "more replicas need to be updated"}}) is None


def test_the_table_has_median_and_range_and_says_what_it_does_not_know() -> None:
    lane = Lane("cotune", CRASH, [Times(1, 2, 3), Times(2, 4, 5), Times(None, 9, 10)])

    median_and_range = ("1.5 (1.0 to 2.0)", "4.0 (2.0 to 9.0)", "-", "5.0 (3.0 to 10.0)")
    assert rows([lane]) == [[CRASH.name, "cotune", "3", *median_and_range]]
    assert figure([None]) == "-"
