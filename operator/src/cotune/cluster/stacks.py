"""The pods and services of a trial: read into a snapshot, created once, deleted when the trial is over."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from cotune.cluster.kinds import POD, SERVICE, Kind
from cotune.cluster.objects import AlreadyExistsError, ApiError, ForbiddenError, Object, Objects
from cotune.trials.lifecycle import ObservedPod, PodState
from cotune.trials.out_of_memory import Ends
from cotune.trials.outcome import ComponentRun
from cotune.trials.placement import GPU_RESOURCE
from cotune.trials.pod_failure import hindrance, pod_failure
from cotune.trials.probe_pod import PROBE
from cotune.trials.render import ANNOTATION_DIGEST, LABEL_COMPONENT, LABEL_TRIAL, Manifest, TrialIdentity
from cotune.trials.tenancy import PodIdentity
from cotune.trials.truth import ComponentEvidence

_TAIL_LINES = 2000
_HEAD_BYTES = 1 << 20
_OOM_KILLED = "OOMKilled"
"""The reason that a kubelet gives for a container's end when the kernel wanted its memory."""
_KEPT_LINES, _KEPT_CHARACTERS = 200, 1 << 15


class NameTakenError(Exception):
    """An object of the name that a trial needs exists, and is not the trial's."""


@dataclass(frozen=True)
class ObservedStack:
    """The pods of a trial, read in one pass."""

    pods: tuple[Object, ...]
    probe: ObservedPod | None
    components: dict[str, ObservedPod]

    def probe_evidence(self) -> ComponentEvidence:
        """What the kubelet says of the probe's own share of the card."""
        found = next((it for it in self.pods if _component(it) == PROBE), None)
        if found is None:
            return ComponentEvidence()
        return ComponentEvidence(allocated_cards(found), identity=_pod_identity(found))

    def cards(self) -> dict[str, frozenset[str]]:
        """Which cards the kubelet has given to whom; nobody, where it does not say."""
        return {_component(it): allocated_cards(it) for it in self.pods}


class Stacks:
    """The pods and services of trials."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def observe(self, trial: TrialIdentity) -> ObservedStack:
        """The trial's pods, with the logs of those that have ended."""
        pods = await self._pods(trial)
        observed = {_component(it): await self._observed(it) for it in pods}
        probe = observed.pop(PROBE, None)
        return ObservedStack(pods, probe, observed)

    async def ensure(self, trial: TrialIdentity, manifests: Sequence[Manifest]) -> None:
        """Create what is missing; what an earlier attempt created is adopted.

        Raises:
            NameTakenError: an object of a name is not this trial's, or was made from something else.
        """
        for manifest in manifests:
            kind = {POD.name: POD, SERVICE.name: SERVICE}[manifest["kind"]]
            try:
                await self._objects.create(kind, trial.namespace, manifest)
            except AlreadyExistsError:
                await self._adopt(kind, trial, manifest)

    async def last_line(self, stack: ObservedStack, component: str) -> str:
        """What a component, or the probe, said last; empty when it has not said anything, or its log is not given."""
        for pod in stack.pods:
            if _component(pod) == component:
                log = await self._logs(pod) or ""
                return next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "")
        return ""

    async def tails(self, stack: ObservedStack) -> dict[str, str]:
        """The last lines of every pod, by component; without those that a kubelet does not give."""
        found = {_component(it): await self._logs(it, _KEPT_LINES) for it in stack.pods}
        return {name: log[-_KEPT_CHARACTERS:] for name, log in found.items() if log}

    async def clean_up(self, trial: TrialIdentity) -> bool:
        """Delete all of it; True when nothing is left."""
        pods = await self._pods(trial)
        services = await self._objects.list(SERVICE, trial.namespace, {LABEL_TRIAL: trial.name})
        mine = [
            (kind, it) for kind, found in ((SERVICE, services), (POD, pods)) for it in found if _is_owned(it, trial)
        ]
        for kind, found in mine:
            if "deletionTimestamp" not in found["metadata"]:
                await self._objects.delete(
                    kind, trial.namespace, found["metadata"]["name"], uid=found["metadata"]["uid"]
                )
        return not mine

    async def runs(self, stack: ObservedStack) -> dict[str, ComponentRun]:
        """Logs, restarts and start-up times of the components.

        Raises:
            ApiError: a kubelet does not give a log.
        """
        return {_component(it): await self._run(it) for it in stack.pods if _component(it) != PROBE}

    async def _pods(self, trial: TrialIdentity) -> tuple[Object, ...]:
        found = await self._objects.list(POD, trial.namespace, {LABEL_TRIAL: trial.name})
        return tuple(it for it in found if _is_owned(it, trial))

    async def _adopt(self, kind: Kind, trial: TrialIdentity, manifest: Manifest) -> None:
        name = manifest["metadata"]["name"]
        found = await self._objects.get(kind, trial.namespace, name)
        if not _is_owned(found, trial) or _digest(found) != _digest(manifest):
            raise NameTakenError(f"{kind.name} {trial.namespace}/{name} exists and is not this trial's")

    async def _observed(self, pod: Object) -> ObservedPod:
        status = pod.get("status", {})
        match status.get("phase"):
            case "Succeeded":
                return ObservedPod(PodState.SUCCEEDED, await self._logs(pod))
            case "Failed":
                log = await self._logs(pod)
                said = str(status.get("message") or status.get("reason") or "")
                return ObservedPod(PodState.FAILED, said if log == "" else log, oom_killed=_oom_killed(pod))
            case _:
                pass
        containers = status.get("containerStatuses", ())
        exits = [it["state"]["terminated"]["exitCode"] for it in containers if "terminated" in it.get("state", {})]
        if exits:  # The pod's phase follows a moment later; where one of several has ended, the others wait in vain.
            is_whole = len(exits) == len(containers) and not any(exits)
            state = PodState.SUCCEEDED if is_whole else PodState.FAILED
            return ObservedPod(state, await self._logs(pod), oom_killed=_oom_killed(pod))
        if (failure := pod_failure(pod, {})) is not None and failure.is_decisive:
            return ObservedPod(PodState.FAILED, f"{failure.reason}: {failure.message}")
        if _ready_since(pod):
            return ObservedPod(PodState.READY)
        return ObservedPod(PodState.WAITING, hindrance=hindrance(pod))

    async def _logs(self, pod: Object, lines: int = _TAIL_LINES) -> str | None:
        try:
            return await self._log_ends(pod, lines)
        except ForbiddenError:
            raise
        except ApiError:
            return None

    async def _log_ends(self, pod: Object, lines: int = _TAIL_LINES) -> str:
        names = [it["name"] for it in pod["spec"]["containers"]]
        metadata = pod["metadata"]
        logs = [await self._objects.log(metadata["namespace"], metadata["name"], it, lines) for it in names]
        return "\n".join(logs)

    async def _whole_log(self, pod: Object) -> str:
        """Beginning and end: in between, a server may have logged every request."""
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        containers = [it["name"] for it in pod["spec"]["containers"]]
        heads = [await self._objects.log_head(namespace, name, it, _HEAD_BYTES) for it in containers]
        # A short log is its own end: what stands in it twice would be counted twice.
        if all(len(it.encode()) < _HEAD_BYTES for it in heads):
            return "\n".join(heads)
        return "\n".join([*heads, await self._log_ends(pod)])

    async def _run(self, pod: Object) -> ComponentRun:
        statuses = pod.get("status", {}).get("containerStatuses", ())
        started = [it["state"]["running"]["startedAt"] for it in statuses if "running" in it.get("state", {})]
        ready = _ready_since(pod)
        startup = (_time(ready) - _time(min(started))).total_seconds() if started and ready else None
        log = await self._whole_log(pod)
        previous = await self._previous_logs(pod)
        evidence = ComponentEvidence(allocated_cards(pod), _moments(pod), log, _pod_identity(pod))
        restarts = sum(it.get("restartCount", 0) for it in _containers(pod))
        return ComponentRun(log, restarts, startup, evidence, previous, _ends(pod))

    async def _previous_logs(self, pod: Object) -> tuple[str, ...]:
        """The ends of what containers said in the run before their present one; sidecars among them."""
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        again = [it["name"] for it in _containers(pod) if it.get("restartCount", 0) > 0]
        return tuple([await self._objects.log(namespace, name, it, _TAIL_LINES, previous=True) for it in again])


def _component(pod: Object) -> str:
    return str(pod["metadata"]["labels"].get(LABEL_COMPONENT, ""))


def _is_owned(found: Object, trial: TrialIdentity) -> bool:
    return any(it["uid"] == trial.uid for it in found["metadata"].get("ownerReferences", ()))


def _digest(manifest: Object) -> str | None:
    return manifest["metadata"].get("annotations", {}).get(ANNOTATION_DIGEST)


def _ready_since(pod: Object) -> str | None:
    for condition in pod.get("status", {}).get("conditions", ()):
        if condition["type"] == "Ready" and condition["status"] == "True":
            return str(condition["lastTransitionTime"])
    return None


def allocated_cards(pod: Object) -> frozenset[str]:
    """UUIDs of the cards that the kubelet has given to the pod's containers; empty where it does not say.

    The replicas of a shared card are `UUID::n`. A kubelet says it where its gate ResourceHealthStatus is on.
    """
    return frozenset(
        str(device["resourceID"]).partition("::")[0]
        for container in pod.get("status", {}).get("containerStatuses", ())
        for resource in container.get("allocatedResourcesStatus", ())
        for device in resource.get("resources", ())
        if resource["name"] == GPU_RESOURCE and str(device["resourceID"]).startswith("GPU-")
    )


def _containers(pod: Object) -> tuple[Object, ...]:
    """What the kubelet says of its containers; sidecars (init containers that restart) among them."""
    status = pod.get("status", {})
    return (*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ()))


def _pod_identity(pod: Object) -> PodIdentity:
    ids = [
        str(found)
        for it in _containers(pod)
        for found in (
            it.get("containerID"),
            *(state.get("containerID") for which in ("state", "lastState") for state in it.get(which, {}).values()),
        )
        if found
    ]
    # `containerd://3f2a...`
    return PodIdentity(pod["metadata"]["uid"], frozenset(it.rpartition("//")[2] for it in ids))


def _ended(pod: Object) -> Iterator[tuple[str, Object]]:
    """Name of the container and how it has ended, for each end that the kubelet still knows of."""
    for it in _containers(pod):
        for which in ("state", "lastState"):
            if (ended := it.get(which, {}).get("terminated")) is not None:
                yield it["name"], ended


def _oom_killed(pod: Object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name, it in _ended(pod) if it.get("reason") == _OOM_KILLED))


def _ends(pod: Object) -> Ends:
    ended = [it for _, it in _ended(pod)]
    return Ends(
        messages=tuple(str(it["message"]) for it in ended if it.get("message")),
        killed=tuple(
            str(it.get("containerID", "")).rpartition("//")[2] for it in ended if it.get("reason") == _OOM_KILLED
        ),
    )


def _moments(pod: Object) -> tuple[datetime, ...]:
    """When its containers have ended, or started again; sidecars (init containers that restart) among them.

    A first start is none of them: the pod was ready before anything was measured, and these times are cut to the
    second, so that one shortly before the window could be taken for one in it.
    """
    moments: list[str | None] = []
    for it in _containers(pod):
        states = [state for which in ("state", "lastState") for state in it.get(which, {}).values()]
        moments += [state.get("finishedAt") for state in states]
        if it.get("restartCount", 0) > 0:
            moments += [state.get("startedAt") for state in states]
    return tuple(_time(it) for it in moments if it is not None)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
