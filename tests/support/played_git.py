"""Argo CD and Flux as the API server sees them: their writes to the two workloads of a played stage."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from cotune.cluster.kinds import DEPLOYMENT, POD
from cotune.cluster.objects import Object

from support.played_cluster import PlayedObjects, deployment, play_crashing, play_ready
from support.played_stage import SIZE

TRACKING_ID = "argocd.argoproj.io/tracking-id"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_CONTAINERS = {"judge": "vllm", "whisper": "asr"}


@dataclass(frozen=True)
class GitOpsTool:
    """One tool, and how it writes."""

    manager: str
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])
    is_server_side: bool = True
    """It applies at the API server's side; else as `kubectl apply` did, with what it applied last as an annotation."""

    async def sync(
        self, objects: PlayedObjects, namespace: str, size: str | None = "small", replicas: int | None = 1
    ) -> None:
        """Make the workloads what Git has; None: Git does not have the field."""
        for name, container in _CONTAINERS.items():
            env = [{"name": SIZE, "value": size}] if name == "whisper" and size is not None else []
            body = deployment(namespace, name, container, env, replicas or 1)
            if replicas is None:
                del body["spec"]["replicas"]
            body["metadata"] |= {"labels": dict(self.labels), "annotations": dict(self.annotations)}
            await (self._apply if self.is_server_side else self._merge)(objects, namespace, body)

    async def _apply(self, objects: PlayedObjects, namespace: str, body: Object) -> None:
        path = DEPLOYMENT.path(namespace, body["metadata"]["name"])
        await self._send(objects, "PATCH", path, body, "application/apply-patch+yaml", [("force", "true")])

    async def _merge(self, objects: PlayedObjects, namespace: str, body: Object) -> None:
        name = body["metadata"]["name"]
        body["metadata"]["annotations"] |= {LAST_APPLIED: json.dumps(body)}
        if await objects.find(DEPLOYMENT, namespace, name) is None:
            await self._send(objects, "POST", DEPLOYMENT.path(namespace), body, "application/json", [])
            return
        patch, path = "application/strategic-merge-patch+json", DEPLOYMENT.path(namespace, name)
        await self._send(objects, "PATCH", path, body, patch, [])

    async def _send(
        self, objects: PlayedObjects, method: str, path: str, body: Object, kind: str, query: list[tuple[str, str]]
    ) -> None:
        query = [("fieldManager", self.manager), *query]
        await objects._request(method, path, body, query, kind)  # pyright: ignore[reportPrivateUsage]


ARGO_CD = GitOpsTool("argocd-controller", annotations={TRACKING_ID: "voice:apps/Deployment:voice/whisper"})
ARGO_CD_AT_ITS_SIDE = GitOpsTool("argocd-controller", annotations=ARGO_CD.annotations, is_server_side=False)
KUSTOMIZE = GitOpsTool(
    "kustomize-controller",
    labels={"kustomize.toolkit.fluxcd.io/name": "voice", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"},
)
HELM = GitOpsTool(
    "helm-controller",
    labels={"helm.toolkit.fluxcd.io/name": "voice", "helm.toolkit.fluxcd.io/namespace": "voice"},
)


async def play_values(objects: PlayedObjects, namespace: str, broken: str | None = None) -> None:
    """Pods become ready; those whose variable is `broken` crash."""
    for pod in await objects.list(POD, namespace):
        if "containerStatuses" in pod.get("status", {}) or "deletionTimestamp" in pod["metadata"]:
            continue
        env = pod["spec"]["containers"][0].get("env", [])
        is_broken = broken is not None and {"name": SIZE, "value": broken} in env
        await (play_crashing if is_broken else play_ready)(objects, pod)
