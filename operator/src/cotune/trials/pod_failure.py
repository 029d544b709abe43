"""What Kubernetes already says about a pod that will not become ready, long before a deadline has passed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from cotune.trials.root_cause import Cause, root_cause


@dataclass(frozen=True)
class PodFailure:
    """Why a pod will not become ready."""

    reason: str
    message: str


_DECISIVE_WAITING = frozenset(
    {
        "InvalidImageName",
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "CrashLoopBackOff",
    }
)
"""Reasons that no waiting mends. A failed pull is not among them: registries have bad moments."""


def pod_failure(pod: Mapping[str, Any], previous_logs: Mapping[str, str]) -> PodFailure | None:
    """Why this pod cannot become ready, or None as long as it may.

    Args:
        pod: the Pod as the API server gives it.
        previous_logs: container name to the end of the log of its last ended run.

    A container that ended with an error before it was ever ready has said enough: CrashLoopBackOff would only come with
    the second crash. Known accidents (a neighbour that freed memory meanwhile) are left to the restart.
    """
    status = cast("Mapping[str, Any]", pod.get("status", {}))
    for container in cast("Sequence[Mapping[str, Any]]", status.get("containerStatuses", ())):
        name = str(container["name"])
        if container.get("ready"):
            continue
        waiting = _state(container, "state", "waiting")
        ended = _state(container, "state", "terminated") or _state(container, "lastState", "terminated")
        if ended and int(ended.get("exitCode", 0)) != 0:
            found = root_cause(previous_logs.get(name, ""))
            if found.cause is not Cause.PROFILING_DISTURBED or int(container.get("restartCount", 0)) > 1:
                reason = str(ended.get("reason", "Error")) if found.cause is Cause.UNKNOWN else str(found.cause)
                return PodFailure(
                    reason, f"container {name} exited with {ended['exitCode']}: {found.line}".rstrip(": ")
                )
        if waiting and waiting.get("reason") in _DECISIVE_WAITING:
            return PodFailure(str(waiting["reason"]), str(waiting.get("message", "")))
    return None


_FAILED_PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable"})


def hindrance(pod: Mapping[str, Any]) -> PodFailure | None:
    """What keeps a pod from starting that is not its containers' doing, and may pass: no node, or no image."""
    status = cast("Mapping[str, Any]", pod.get("status", {}))
    for condition in cast("Sequence[Mapping[str, Any]]", status.get("conditions", ())):
        if (condition["type"], condition["status"], condition.get("reason")) == (
            "PodScheduled",
            "False",
            "Unschedulable",
        ):
            return PodFailure("Unschedulable", str(condition.get("message", "")))
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in cast("Sequence[Mapping[str, Any]]", status.get(kind, ())):
            waiting = _state(container, "state", "waiting")
            if waiting.get("reason") in _FAILED_PULL:
                why = waiting.get("message") or waiting["reason"]
                return PodFailure("ImagePullFailed", f"container {container['name']}: {why}")
    return None


def _state(container: Mapping[str, Any], which: str, kind: str) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", cast("Mapping[str, Any]", container.get(which, {})).get(kind, {}))
