"""The Deployments of a stage: read into a snapshot, changed by as little as a change needs.

cotune owns the variables that it sets and one annotation of the pod template, through server-side apply, and no more:
what it takes away again falls back to what the workload's owner has said.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from cotune.api.grant import GrantTarget
from cotune.api.profile import Mend
from cotune.cluster.kinds import DEPLOYMENT, HORIZONTAL_POD_AUTOSCALER, POD
from cotune.cluster.objects import FIELD_MANAGER, ApiError, ForbiddenError, Object, Objects
from cotune.rollout.bridge import LABEL_BRIDGE
from cotune.rollout.downtime import Stop
from cotune.rollout.stacks import stack_of
from cotune.rollout.state import ObservedWorkload
from cotune.trials.placement import GPU_RESOURCE
from cotune.trials.pod_failure import PodFailure, hindrance, pod_failure, unready

ANNOTATION_REVISION = "cotune.dev/revision"

_TAIL_LINES = 500
_GRACE_SECONDS = 30
"""Of a pod that does not say."""


@dataclass(frozen=True)
class Workload:
    """A Deployment and what was seen of it."""

    target: GrantTarget
    deployment: Object
    observed: ObservedWorkload
    marker: str | None
    """The revision that its pod template names."""
    card_pods: Mapping[str, str] = field(default_factory=dict[str, str])
    """Of its pods with a share of a card, those that have a node: uid to node."""

    @property
    def card_nodes(self) -> frozenset[str]:
        """Nodes on which its pods have a share of a card."""
        return frozenset(self.card_pods.values())

    @property
    def name(self) -> str:
        """The Deployment's name."""
        return self.target.workload.name

    @property
    def container(self) -> Object:
        """The target's container in the pod template; empty when there is none of its name."""
        containers: list[Object] = self.deployment["spec"]["template"]["spec"]["containers"]
        empty: Object = {}
        return next((it for it in containers if it["name"] == self.target.container), empty)

    @property
    def grace_seconds(self) -> int:
        """Within which its pods are gone once they are to end."""
        return int(self.deployment["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", _GRACE_SECONDS))

    @property
    def version(self) -> str:
        """The `resourceVersion` that was read: who writes on the strength of it must not write over a newer one."""
        return str(self.deployment["metadata"]["resourceVersion"])


class Workloads:
    """The Deployments of one namespace."""

    def __init__(self, objects: Objects, namespace: str) -> None:
        self._objects = objects
        self._namespace = namespace

    async def observe(
        self, targets: Mapping[str, GrantTarget], variables: Mapping[str, frozenset[str]]
    ) -> dict[str, Workload]:
        """The workloads that exist, by component.

        Args:
            targets: component to workload.
            variables: component to the names that the profile sets; those that cotune has set before are added.
        """
        found: dict[str, Workload] = {}
        for component, target in targets.items():
            deployment = await self._objects.find(DEPLOYMENT, self._namespace, target.workload.name)
            if deployment is not None:
                found[component] = await self._workload(target, deployment, variables.get(component, frozenset()))
        return found

    async def stops(
        self, targets: Mapping[str, GrantTarget], wanted: Mapping[str, Mapping[str, str]]
    ) -> dict[str, Stop]:
        """What is known of the workloads that exist before they are stopped, by component; no pod is read.

        Args:
            targets: component to workload.
            wanted: component to the values that it shall have.
        """
        found: dict[str, Stop] = {}
        for component, target in targets.items():
            deployment = await self._objects.find(DEPLOYMENT, self._namespace, target.workload.name)
            if deployment is not None:
                values = wanted.get(component, {})
                today = _values(target, deployment, frozenset(values))
                pod = deployment["spec"]["template"]["spec"]
                found[component] = Stop(
                    int(pod.get("terminationGracePeriodSeconds", _GRACE_SECONDS)),
                    any(today.get(name) != value for name, value in values.items()),
                )
        return found

    async def nodes(self, targets: Mapping[str, GrantTarget]) -> dict[str, set[str]]:
        """The nodes on which each stack has pods."""
        found: dict[str, set[str]] = {}
        for key, target in targets.items():
            deployment = await self._objects.find(DEPLOYMENT, self._namespace, target.workload.name)
            if deployment is None:
                continue
            pods = await self._objects.list(POD, self._namespace, deployment["spec"]["selector"]["matchLabels"])
            present = (it for it in pods if not _has_ended(it))
            names = (str(it["spec"].get("nodeName", "")) for it in present)
            found.setdefault(stack_of(key), set()).update(it for it in names if it)
        return found

    async def autoscalers(self, targets: Mapping[str, GrantTarget]) -> dict[str, str]:
        """The HorizontalPodAutoscaler of each component that has one; none is known without the right to list them."""
        try:
            found = await self._objects.list(HORIZONTAL_POD_AUTOSCALER, self._namespace)
        except ForbiddenError:
            return {}
        scaled = {_scaled(it): str(it["metadata"]["name"]) for it in found}
        workloads = {component: ("Deployment", it.workload.name) for component, it in targets.items()}
        return {component: scaled[it] for component, it in workloads.items() if it in scaled}

    async def rehearse(self, workload: Workload, values: Mapping[str, str | None], marker: str | None) -> None:
        """Do everything that a change will need, without storing any of it.

        An admission webhook that cannot be asked without side effects refuses every rehearsal: that says nothing.

        Raises:
            ApiError: the change would be refused.
            ConflictError: the Deployment is not the one that was read.
        """
        try:
            await self._scale(workload, 0, dry_run=True)
            if any(workload.observed.values.get(name) != value for name, value in values.items()):
                await self._set_values(workload, values, marker, dry_run=True)
        except ApiError as error:
            if error.status != 400 or "does not support dry run" not in error.message:
                raise

    async def scale(self, workload: Workload, replicas: int) -> None:
        """Set the number of replicas.

        Raises:
            ConflictError: the Deployment is not the one that was read.
        """
        await self._scale(workload, replicas)

    async def set_values(self, workload: Workload, values: Mapping[str, str | None], marker: str | None) -> None:
        """Own exactly these variables, and the mark of the revision; None gives a variable back to its owner.

        Raises:
            ConflictError: the Deployment is not the one that was read.
        """
        await self._set_values(workload, values, marker)

    async def _scale(self, workload: Workload, replicas: int, dry_run: bool = False) -> None:
        patch: Object = {"metadata": {"resourceVersion": workload.version}, "spec": {"replicas": replicas}}
        await self._objects.merge(
            DEPLOYMENT, self._namespace, workload.name, patch, subresource="scale", dry_run=dry_run
        )

    async def _set_values(
        self, workload: Workload, values: Mapping[str, str | None], marker: str | None, dry_run: bool = False
    ) -> None:
        container: Object = {
            "name": workload.target.container,
            "env": [{"name": name, "value": value} for name, value in values.items() if value is not None],
        }
        template: Object = {"spec": {"containers": [container]}}
        if marker is not None:
            template["metadata"] = {"annotations": {ANNOTATION_REVISION: marker}}
        await self._objects.apply(
            DEPLOYMENT,
            {
                "apiVersion": DEPLOYMENT.api_version,
                "kind": DEPLOYMENT.name,
                "metadata": {
                    "name": workload.name,
                    "namespace": self._namespace,
                    "resourceVersion": workload.version,
                },
                "spec": {"template": template},
            },
            dry_run,
        )

    async def _workload(self, target: GrantTarget, deployment: Object, variables: frozenset[str]) -> Workload:
        template = deployment["spec"]["template"]
        marker = template["metadata"].get("annotations", {}).get(ANNOTATION_REVISION)
        selector = deployment["spec"]["selector"]["matchLabels"]
        found = await self._objects.list(POD, self._namespace, selector)
        # A bridge's pods have one label more.
        pods = [
            it
            for it in found
            if not _has_ended(it) and it["metadata"].get("labels", {}).get(LABEL_BRIDGE) == selector.get(LABEL_BRIDGE)
        ]
        replicas = int(deployment["spec"].get("replicas", 1))
        unbindable = _unbindable(target, deployment, variables)
        present = [it for it in pods if _marker(it) == marker and "deletionTimestamp" not in it["metadata"]]
        observed = ObservedWorkload(
            values=_values(target, deployment, variables) if not unbindable else {},
            replicas=replicas,
            pods=len(pods),
            is_ready=_is_ready(deployment, replicas, len(pods)),
            failure=await self._failure(present) or (_not_created(deployment) if len(pods) < replicas else None),
            leaving=len(pods) - len(present),
            unready="; ".join(f"pod {it['metadata']['name']}: {doing}" for it in present if (doing := unready(it))),
            generation=int(deployment["metadata"]["generation"]),
            uid=str(deployment["metadata"]["uid"]),
            unbindable=unbindable,
            made_at=min((_moment(it["metadata"]["creationTimestamp"]) for it in present), default=None),
            ready_at=_ready_at(present),
        )
        card_pods = {str(it["metadata"]["uid"]): node for it in pods if (node := _card_node(it))}
        return Workload(target, deployment, observed, marker, card_pods)

    async def _failure(self, pods: "list[Object]") -> PodFailure | None:
        """The worst sign: a decisive one of any pod, else the first."""
        worst: PodFailure | None = None
        for pod in pods:
            logs = {name: await self._ended_log(pod, name, status) for name, status in _ended(pod).items()}
            found = pod_failure(pod, logs) or hindrance(pod)
            if found is not None and (worst is None or found.is_decisive):
                worst = replace(found, message=f"pod {pod['metadata']['name']}: {found.message}")
                if worst.is_decisive:
                    break
        return worst

    async def _ended_log(self, pod: Object, container: str, status: Object) -> str:
        previous = "terminated" not in status.get("state", {})
        name = pod["metadata"]["name"]
        try:
            return await self._objects.log(self._namespace, name, container, _TAIL_LINES, previous=previous)
        except ForbiddenError:
            raise
        except ApiError:
            return ""  # The exit code has said enough: no rollout waits for a kubelet.


def _unbindable(target: GrantTarget, deployment: Object, variables: frozenset[str]) -> str:
    """Why variables cannot be set without breaking the workload: no such container, or a value from elsewhere."""
    name = deployment["metadata"]["name"]
    entries = _entries(target, deployment)
    if entries is None:
        return f"Deployment {name} has no container {target.container}"
    wanted = variables | _owned(deployment, target.container)
    if indirect := sorted(it for it in wanted if "valueFrom" in entries.get(it, {})):
        return (
            f"Deployment {name}, container {target.container}: {', '.join(indirect)} has valueFrom, "
            "and a variable may have a value or a source, not both"
        )
    return ""


def _values(target: GrantTarget, deployment: Object, variables: frozenset[str]) -> dict[str, str | None]:
    """The variables as they stand in the template; None: the template has no entry of that name."""
    entries = _entries(target, deployment) or {}
    wanted = variables | _owned(deployment, target.container)
    return {it: entries[it].get("value", "") if it in entries else None for it in sorted(wanted)}


def _entries(target: GrantTarget, deployment: Object) -> dict[str, Object] | None:
    """The container's variables by name; None: there is no such container."""
    containers: list[Object] = deployment["spec"]["template"]["spec"]["containers"]
    container = next((it for it in containers if it["name"] == target.container), None)
    return None if container is None else {it["name"]: it for it in container.get("env", ())}


def _owned(deployment: Object, container: str) -> frozenset[str]:
    """The variables that cotune has set, as the API server remembers."""
    names: set[str] = set()
    for entry in deployment["metadata"].get("managedFields", ()):
        if entry.get("manager") != FIELD_MANAGER or entry.get("operation") != "Apply":
            continue
        fields: Any = entry.get("fieldsV1", {})
        path = ("f:spec", "f:template", "f:spec", "f:containers", f'k:{{"name":"{container}"}}', "f:env")
        for step in path:
            fields = fields.get(step, {})
        names |= {str(it).removeprefix('k:{"name":"').removesuffix('"}') for it in fields if str(it).startswith("k:")}
    return frozenset(names)


def _is_ready(deployment: Object, replicas: int, pods: int) -> bool:
    status = deployment.get("status", {})
    seen = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    counts = (status.get("readyReplicas", 0), status.get("updatedReplicas", 0), pods)
    return seen and all(it == replicas for it in counts)


def _ready_at(pods: "list[Object]") -> datetime | None:
    """When the last of them became ready; None: one is not, or there is none."""
    conditions = [it for pod in pods for it in pod.get("status", {}).get("conditions", ()) if it["type"] == "Ready"]
    if not pods or len(conditions) < len(pods) or any(it["status"] != "True" for it in conditions):
        return None
    return max(_moment(it["lastTransitionTime"]) for it in conditions)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _not_created(deployment: Object) -> PodFailure | None:
    """What keeps the controller from making a pod at all, such as a quota that pods which are leaving still fill."""
    status = deployment.get("status", {})
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return None
    for it in status.get("conditions", ()):
        if (it["type"], it["status"], it.get("reason")) == ("ReplicaFailure", "True", "FailedCreate"):
            return PodFailure("FailedCreate", str(it.get("message", "")), Mend.ROOM)
    return None


def _has_ended(pod: Object) -> bool:
    """As an evicted pod has, which stays for ever, and holds nothing any more."""
    return pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}


def _ended(pod: Object) -> dict[str, Object]:
    """The containers that have ended once and are not ready again: only their logs are worth a call."""
    status = pod.get("status", {})
    statuses: list[Object] = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return {
        it["name"]: it
        for it in statuses
        if not it.get("ready") and ("terminated" in it.get("state", {}) or "terminated" in it.get("lastState", {}))
    }


def _scaled(autoscaler: Object) -> tuple[str, str]:
    reference = autoscaler["spec"]["scaleTargetRef"]
    return str(reference["kind"]), str(reference["name"])


def _card_node(pod: Object) -> str:
    """The node on which a pod has a share of a card, under whatever name the device plugin offers it; else empty."""
    limits = (it.get("resources", {}).get("limits", {}) for it in pod["spec"]["containers"])
    has_share = any(str(name).startswith(GPU_RESOURCE) for it in limits for name in it)
    return str(pod["spec"].get("nodeName", "")) if has_share else ""


def _marker(pod: Object) -> str | None:
    return pod["metadata"].get("annotations", {}).get(ANNOTATION_REVISION)
