from datetime import UTC, datetime
from typing import Any

import pytest
from cotune.api.profile import Mend
from cotune.trials.pod_failure import PodFailure, hindrance, pod_failure, unready

NO_BLOCKS = "ValueError: No available memory for the cache blocks."
DISTURBED = "AssertionError: Error in memory profiling. Initial free memory 1 GiB"
TAKEN = "ValueError: Free memory on device cuda:0 (3.1/11.6 GiB) on startup is less than desired GPU memory utilization"


def pod(ready: bool = False, restarts: int = 0, kind: str = "containerStatuses", **states: object) -> dict[str, Any]:
    status = {"name": "vllm", "ready": ready, "restartCount": restarts, **states}
    return {"status": {kind: [status]}}


def ended(code: int = 1, reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


RUNS: dict[str, Any] = {"running": {}}
FINE: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    (pod(state=waiting("ContainerCreating")), ""),
    (pod(state=waiting("ErrImagePull")), ""),
    (pod(state=RUNS), ""),
    (pod(ready=True, restarts=1, state=RUNS, lastState=ended()), NO_BLOCKS),
    (pod(ready=True, state=ended(0, "Completed"), kind="initContainerStatuses"), ""),
    (pod(restarts=1, state=RUNS, lastState=ended(0, "Completed"), kind="initContainerStatuses"), ""),
]
ACCIDENTS: list[tuple[dict[str, Any], str, str]] = [
    (pod(state=ended()), DISTURBED, "ProfilingDisturbed"),
    (pod(restarts=1, state=RUNS, lastState=ended()), DISTURBED, "ProfilingDisturbed"),
    (pod(restarts=1, state=RUNS, lastState=ended()), TAKEN, "CardTaken"),
    (pod(restarts=1, state=RUNS, lastState=ended(137)), "", "Error"),
    (pod(restarts=1, state=RUNS, lastState=ended(0, "Completed")), "", "Completed"),
    (pod(state=ended()), "ConnectionError: the database is away", "Error"),
    (pod(state=ended(), kind="initContainerStatuses"), "", "Error"),
]
BROKEN: list[tuple[dict[str, Any], str, str]] = [
    (pod(state=waiting("ErrImageNeverPull", "no image")), "", "ErrImageNeverPull"),
    (pod(state=waiting("InvalidImageName")), "", "InvalidImageName"),
    (pod(state=waiting("CreateContainerConfigError")), "", "CreateContainerConfigError"),
    (pod(state=ended()), NO_BLOCKS, "NoCacheBlocks"),
    (pod(restarts=1, state=RUNS, lastState=ended()), NO_BLOCKS, "NoCacheBlocks"),
    (pod(state=ended(137, "OOMKilled")), "", "OOMKilled"),
    (pod(restarts=1, state=RUNS, lastState=ended(137, "OOMKilled")), DISTURBED, "OOMKilled"),
    (pod(restarts=1, state=ended()), DISTURBED, "ProfilingDisturbed"),
    (pod(restarts=1, state=waiting("CrashLoopBackOff"), lastState=ended()), TAKEN, "CardTaken"),
    (pod(restarts=2, state=RUNS, lastState=ended(137)), "", "Error"),
    (pod(restarts=1, state=ended(0, "Completed")), "", "Completed"),
    (pod(restarts=1, state=ended(), kind="initContainerStatuses"), "", "Error"),
]


@pytest.mark.parametrize(("observed", "log"), FINE)
def test_a_pod_that_shows_no_sign_is_waited_for(observed: dict[str, Any], log: str) -> None:
    assert pod_failure(observed, {"vllm": log}) is None


@pytest.mark.parametrize(("observed", "log", "reason"), ACCIDENTS)
def test_a_first_end_that_may_be_an_accident_is_mended_by_the_next_run(
    observed: dict[str, Any], log: str, reason: str
) -> None:
    failure = pod_failure(observed, {"vllm": log})

    assert failure is not None
    assert (failure.reason, failure.mend) == (reason, Mend.RESTART)


@pytest.mark.parametrize(("observed", "log", "reason"), BROKEN)
def test_what_no_waiting_mends_is_told_at_once(observed: dict[str, Any], log: str, reason: str) -> None:
    failure = pod_failure(observed, {"vllm": log})

    assert failure is not None
    assert (failure.reason, failure.is_decisive) == (reason, True)


@pytest.mark.parametrize(
    ("observed", "said"),
    [
        (pod(state=ended()), "container vllm exited with 1: "),
        (
            pod(restarts=1, state=waiting("CrashLoopBackOff"), lastState=ended()),
            "container vllm exited with 1, 2 times: ",
        ),
    ],
)
def test_a_failure_names_the_container_its_exit_code_and_the_line_of_its_log(
    observed: dict[str, Any], said: str
) -> None:
    failure = pod_failure(observed, {"vllm": f"INFO\n{NO_BLOCKS}\n"})

    assert failure is not None
    assert failure.message == f"{said}{NO_BLOCKS}"


def test_of_several_containers_the_decisive_sign_counts() -> None:
    both = pod(state=ended())
    both["status"]["containerStatuses"].append({"name": "side", "ready": False, "state": waiting("InvalidImageName")})
    both["metadata"] = {"creationTimestamp": "2026-01-01T00:00:00Z"}

    failure = pod_failure(both, {})

    assert failure is not None
    assert (failure.reason, failure.message) == ("InvalidImageName", "container side: InvalidImageName")
    assert failure.pod_since == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_pod_without_a_node_or_an_image_is_hindered() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "1 Insufficient cpu"}

    nowhere = hindrance({"status": {"phase": "Pending", "conditions": [condition]}})
    without_image = hindrance(pod(state=waiting("ImagePullBackOff", "not found")))

    assert nowhere == PodFailure("Unschedulable", "1 Insufficient cpu", Mend.ROOM)
    assert without_image == PodFailure("ImagePullFailed", "container vllm: not found", Mend.PULL)
    assert hindrance(pod(state=waiting("ContainerCreating"))) is None
    assert hindrance({"status": {"conditions": [condition | {"status": "True", "reason": None}]}}) is None


@pytest.mark.parametrize(
    ("observed", "said"),
    [
        (pod(state=RUNS), "container vllm: runs and is not ready"),
        (pod(state=RUNS, restarts=3), "container vllm: runs and is not ready, 3 restarts"),
        (pod(state=waiting("ContainerCreating")), "container vllm: ContainerCreating"),
        (pod(state=ended()), "container vllm: has ended"),
        (pod(ready=True, state=RUNS), ""),
        ({}, ""),
    ],
)
def test_what_a_pod_that_is_not_ready_does_is_said(observed: dict[str, Any], said: str) -> None:
    assert unready(observed) == said
