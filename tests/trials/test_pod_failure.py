from typing import Any

import pytest
from cotune.trials.pod_failure import PodFailure, hindrance, pod_failure

NO_BLOCKS = "ValueError: No available memory for the cache blocks."
DISTURBED = "AssertionError: Error in memory profiling. Initial free memory 1 GiB"


def pod(ready: bool = False, restarts: int = 0, **states: dict[str, Any]) -> dict[str, Any]:
    status = {"name": "vllm", "ready": ready, "restartCount": restarts, **states}
    return {"status": {"containerStatuses": [status]}}


ENDED: dict[str, Any] = {"terminated": {"exitCode": 1, "reason": "Error"}}
FINE: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    (pod(state={"waiting": {"reason": "ContainerCreating"}}), ""),
    (pod(state={"waiting": {"reason": "ErrImagePull"}}), ""),
    (pod(state={"running": {}}), ""),
    (pod(ready=True, restarts=1, state={"running": {}}, lastState=ENDED), NO_BLOCKS),
    (pod(restarts=1, state={"running": {}}, lastState=ENDED), DISTURBED),
]
BROKEN: list[tuple[dict[str, Any], str, str]] = [
    (pod(state={"waiting": {"reason": "ErrImageNeverPull", "message": "no image"}}), "", "ErrImageNeverPull"),
    (pod(state={"waiting": {"reason": "InvalidImageName"}}), "", "InvalidImageName"),
    (pod(state={"waiting": {"reason": "CreateContainerConfigError"}}), "", "CreateContainerConfigError"),
    (pod(state=ENDED), NO_BLOCKS, "NoCacheBlocks"),
    (pod(restarts=1, state={"running": {}}, lastState=ENDED), NO_BLOCKS, "NoCacheBlocks"),
    (pod(state={"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), "", "OOMKilled"),
    (pod(restarts=2, state={"running": {}}, lastState=ENDED), DISTURBED, "ProfilingDisturbed"),
]


@pytest.mark.parametrize(("observed", "log"), FINE)
def test_a_pod_that_may_still_become_ready_is_waited_for(observed: dict[str, Any], log: str) -> None:
    assert pod_failure(observed, {"vllm": log}) is None


@pytest.mark.parametrize(("observed", "log", "reason"), BROKEN)
def test_what_no_waiting_mends_is_told_at_once(observed: dict[str, Any], log: str, reason: str) -> None:
    failure = pod_failure(observed, {"vllm": log})

    assert failure is not None
    assert failure.reason == reason


def test_a_failure_names_the_container_its_exit_code_and_the_line_of_its_log() -> None:
    failure = pod_failure(pod(state=ENDED), {"vllm": f"INFO\n{NO_BLOCKS}\n"})

    assert failure is not None
    assert failure.message == f"container vllm exited with 1: {NO_BLOCKS}"


def test_a_pod_without_a_node_or_an_image_is_hindered() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "1 Insufficient cpu"}
    pull = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}

    nowhere = hindrance({"status": {"phase": "Pending", "conditions": [condition]}})
    without_image = hindrance(pod(state=pull))

    assert nowhere == PodFailure("Unschedulable", "1 Insufficient cpu")
    assert without_image == PodFailure("ImagePullFailed", "container vllm: not found")
    assert hindrance(pod(state={"waiting": {"reason": "ContainerCreating"}})) is None
    assert hindrance({"status": {"conditions": [condition | {"status": "True", "reason": None}]}}) is None
