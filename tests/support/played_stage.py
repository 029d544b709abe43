"""Two workloads, a grant and a profile for them, against a real API server: the controller manager makes the pods."""

import copy
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cotune.api.profile import ProfileStatus, StageStatus
from cotune.cluster.events import Events
from cotune.cluster.kinds import DEPLOYMENT, GRANT, POD, PROFILE
from cotune.cluster.objects import Object, Objects
from cotune.cluster.workloads import ANNOTATION_REVISION
from cotune.handlers.profile import ProfileReconciler
from cotune.handlers.turns import namespaces_of_pass

from support.played_cluster import PlayedObjects, deployment, play_crashing, play_ready
from support.resources import manifest

SIZE = "ASR_WHISPER_SIZE"


@dataclass(frozen=True)
class WatchedReconciler(ProfileReconciler):
    """One whose passes stay in the namespaces in which they would have their turn, and in the profile's own."""

    async def reconcile(self, body: Object, now: datetime) -> timedelta | None:
        """One pass.

        :raises AssertionError: it has looked elsewhere, where another pass may be at work.
        """
        assert isinstance(self.objects, PlayedObjects)
        before = len(self.objects.asked)
        again = await super().reconcile(body, now)
        paths = [path for _, path in self.objects.asked[before:]]
        seen = {found[1] for it in paths if (found := re.search("/namespaces/([^/]+)/", it)) is not None}
        beyond = seen - namespaces_of_pass(body) - {body["metadata"]["namespace"]}
        assert not beyond, f"a pass without its turn there was in {beyond}"
        return again


def profile_reconciler(objects: Objects) -> ProfileReconciler:
    """A reconciler that knows nothing but the cluster."""
    reconciler = WatchedReconciler if isinstance(objects, PlayedObjects) else ProfileReconciler
    return reconciler(objects, Events(objects, "test"))


async def create_stage(
    objects: PlayedObjects, namespace: str, grant: bool = True, card_node: str | None = None
) -> None:
    """Two workloads and a grant from their owner, all in one namespace.

    Args:
        objects: of the API server.
        namespace: which exists.
        grant: whether there is one.
        card_node: where pods have a share of a card; None: they have none, and no node.
    """
    for name, container, env in (("judge", "vllm", []), ("whisper", "asr", [{"name": SIZE, "value": "small"}])):
        body = deployment(namespace, name, container, env, replicas=1)
        if card_node is not None:
            pod = body["spec"]["template"]["spec"]
            pod["nodeName"] = card_node
            pod["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
        await objects.create(DEPLOYMENT, namespace, body)
    if grant:
        body = copy.deepcopy(manifest("GpuTuningGrant"))
        body["metadata"]["namespace"] = namespace
        body["spec"]["from"] = [{"namespace": namespace}]
        await objects.create(GRANT, namespace, body)


async def create_profile(
    objects: PlayedObjects,
    namespace: str,
    stage: str,
    name: str = "p",
    to: str = "tiny",
    starts: dict[str, int] | None = None,
    **stage_fields: Any,
) -> None:
    """A profile of one stage, which is not guarded unless `stage_fields` say so."""
    body = copy.deepcopy(manifest("GpuProfile"))
    body["metadata"] = {"name": name, "namespace": namespace}
    body["spec"]["changes"][0] |= {"from": "small", "to": to}
    body["spec"]["rollout"] = {"stages": [{"name": "only", "namespace": stage, "guardSeconds": 0} | stage_fields]}
    if starts is not None:
        body["spec"]["expect"] = {"startupSeconds": [{"component": it, "seconds": s} for it, s in starts.items()]}
    await objects.create(PROFILE, namespace, body)


async def play_workloads(objects: PlayedObjects, namespace: str, broken: bool) -> None:
    """Pods become ready; with `broken`, those of a template that cotune has marked crash."""
    for pod in await objects.list(POD, namespace):
        if "containerStatuses" in pod.get("status", {}) or "deletionTimestamp" in pod["metadata"]:
            continue
        is_marked = ANNOTATION_REVISION in pod["metadata"].get("annotations", {})
        await (play_crashing if broken and is_marked else play_ready)(objects, pod)


async def play_pods_on_a_node(objects: PlayedObjects, namespace: str, broken: bool = False) -> None:
    """The same for pods that have a node: those that are to end stay until a kubelet says that they have."""
    for pod in await objects.list(POD, namespace):
        if "deletionTimestamp" in pod["metadata"]:
            await objects.delete(POD, namespace, pod["metadata"]["name"], grace=0)
    await play_workloads(objects, namespace, broken)


async def templates(objects: PlayedObjects, namespace: str) -> dict[str, tuple[Any, int]]:
    """Deployment to its pod template and its replicas."""
    found = await objects.list(DEPLOYMENT, namespace)
    return {it["metadata"]["name"]: (it["spec"]["template"], it["spec"]["replicas"]) for it in found}


async def stage_of(objects: Objects, namespace: str, name: str = "p") -> StageStatus:
    """The state of a profile's only stage."""
    body = await objects.get(PROFILE, namespace, name)
    (state,) = ProfileStatus.model_validate(body["status"]).stages
    return state
