"""What Kubernetes already says about a pod that is not ready, long before a deadline has passed.

Each sign says whether waiting may mend it: by another run of the container, by another pull, by room on a node, or not
at all. Whether that chance is still there is for whoever watches the pods to know.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast

from cotune.api.profile import Mend
from cotune.trials.root_cause import Cause, RootCause, root_cause


@dataclass(frozen=True)
class PodFailure:
    """Why a pod is not ready."""

    reason: str
    message: str
    mend: Mend | None = None
    """What may mend it; None: nothing does, and it is decisive."""
    pod_since: datetime | None = None
    """When the pod was made, where that is known."""

    @property
    def is_decisive(self) -> bool:
        """Whether no waiting mends it."""
        return self.mend is None


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

_ACCIDENTS = frozenset({Cause.PROFILING_DISTURBED, Cause.CARD_TAKEN, Cause.UNKNOWN})
"""Ends that the next run may not meet: a neighbour was just freeing memory, or nobody knows what it was."""

_OOM_KILLED = "OOMKilled"


def pod_failure(pod: Mapping[str, Any], previous_logs: Mapping[str, str]) -> PodFailure | None:
    """What the containers of a pod that is not ready have shown; None: nothing yet.

    A known line in the log of a first end is decisive: CrashLoopBackOff would only come with the second. So is the
    kernel's OOM kill, and the second end of the same container whatever it said. Any other first end, an exit code of
    137 without OOMKilled among them, may have been an accident.

    Args:
        pod: the Pod as the API server gives it.
        previous_logs: container name to the end of the log of its last ended run.
    """
    found: PodFailure | None = None
    for container, is_init in _containers(pod):
        if container.get("ready"):
            continue
        sign = _end(container, is_init, previous_logs.get(str(container["name"]), "")) or _waiting(container)
        if sign is not None and (found is None or (sign.is_decisive and not found.is_decisive)):
            found = sign
    return replace(found, pod_since=_made_at(pod)) if found is not None else None


def _end(container: Mapping[str, Any], is_init: bool, log: str) -> PodFailure | None:
    ended = _state(container, "state", "terminated") or _state(container, "lastState", "terminated")
    if not ended:
        return None
    code, reason = int(ended.get("exitCode", 0)), str(ended.get("reason", "Error"))
    if code == 0 and is_init:
        return None
    found = root_cause(log) if code != 0 else RootCause(Cause.UNKNOWN, "")
    # While a container runs, the end is that of the run before; `restartCount` counts the runs after the first.
    ends = int(container.get("restartCount", 0)) + (0 if _runs(container) else 1)
    times = f", {ends} times" if ends > 1 else ""
    message = f"container {container['name']} exited with {code}{times}: {found.line}".rstrip(": ")
    may_be_an_accident = found.cause in _ACCIDENTS
    said = reason if found.cause is Cause.UNKNOWN or (reason == _OOM_KILLED and may_be_an_accident) else found.cause
    mends = may_be_an_accident and reason != _OOM_KILLED and ends == 1
    return PodFailure(str(said), message, Mend.RESTART if mends else None)


def _waiting(container: Mapping[str, Any]) -> PodFailure | None:
    waiting = _state(container, "state", "waiting")
    if waiting.get("reason") not in _DECISIVE_WAITING:
        return None
    why = waiting.get("message") or waiting["reason"]
    return PodFailure(str(waiting["reason"]), f"container {container['name']}: {why}")


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
            return PodFailure("Unschedulable", str(condition.get("message", "")), Mend.ROOM, _made_at(pod))
    for container, _ in _containers(pod):
        waiting = _state(container, "state", "waiting")
        if waiting.get("reason") in _FAILED_PULL:
            why = waiting.get("message") or waiting["reason"]
            message = f"container {container['name']}: {why}"
            return PodFailure("ImagePullFailed", message, Mend.PULL, _made_at(pod))
    return None


def unready(pod: Mapping[str, Any]) -> str:
    """Which containers of a pod are not ready, and what they do meanwhile; empty when all are."""
    found: list[str] = []
    for container, is_init in _containers(pod):
        waiting = _state(container, "state", "waiting").get("reason")
        if container.get("ready") or (is_init and waiting == "PodInitializing"):
            continue
        doing = "runs and is not ready" if _runs(container) else str(waiting or "has ended")
        restarts = int(container.get("restartCount", 0))
        found.append(f"container {container['name']}: {doing}" + (f", {restarts} restarts" if restarts else ""))
    return "; ".join(found)


def _containers(pod: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """What the kubelet says of each container, and whether it is an init container."""
    status = cast("Mapping[str, Any]", pod.get("status", {}))
    for kind, is_init in (("initContainerStatuses", True), ("containerStatuses", False)):
        for container in cast("Sequence[Mapping[str, Any]]", status.get(kind, ())):
            yield container, is_init


def _runs(container: Mapping[str, Any]) -> bool:
    return "running" in container.get("state", {})


def _state(container: Mapping[str, Any], which: str, kind: str) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", cast("Mapping[str, Any]", container.get(which, {})).get(kind, {}))


def _made_at(pod: Mapping[str, Any]) -> datetime | None:
    made = cast("Mapping[str, Any]", pod.get("metadata", {})).get("creationTimestamp")
    return datetime.fromisoformat(str(made)) if made is not None else None
