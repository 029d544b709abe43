"""A real API server as the operator sees it; kubelets and logs are played by the test, and a pass may die at a call."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cotune.cluster.kinds import DEPLOYMENT, NODE, POD, Kind
from cotune.cluster.objects import ApiError, ConflictError, Object, Objects
from kubernetes.aio import client

from support.api_server import ApiServer

NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")

_PATIENCE_SECONDS = 30
_POLL_SECONDS = 0.02


class DiedError(Exception):
    """The operator's process ended before this call."""


@dataclass(frozen=True)
class Call:
    """One request."""

    method: str
    path: str
    is_dry_run: bool


class PlayedObjects(Objects):
    """Objects of a real API server; pods have the logs that the test gives them."""

    def __init__(self, api: client.ApiClient, timeout_seconds: float = 20) -> None:
        super().__init__(api, timeout_seconds)
        self.logs: dict[str, str] = {}
        """Pod's name to its log."""
        self.previous_logs: dict[str, str] = {}
        """The same, of the run before."""
        self.allowed_calls: int | None = None
        """How many calls go through before the process dies; None: all."""
        self.asked: list[tuple[str, str]] = []
        """Method and path of the calls that went through."""
        self.refuse: Callable[[Call], ApiError | None] = lambda _: None
        """What the API server, a webhook or a kubelet has against a call."""
        self.delay: Callable[[Call], Awaitable[None]] = _at_once
        """What a call waits for before it is answered."""
        self.created: list[str] = []
        """Kind, namespace and name of all that was created."""
        self.has_kubelet = False
        """The logs are a kubelet's."""

    def is_retried(self, error: Exception) -> bool:
        """Whether a pass may end with this, for the work queue looks again. It would with any; a test expects few."""
        return isinstance(error, ConflictError)

    async def _request(
        self, method: str, path: str, body: Object | None, query: list[tuple[str, str]], content_type: str
    ) -> bytes:
        if self.allowed_calls is not None:
            if self.allowed_calls == 0:
                raise DiedError(f"{method} {path}")
            self.allowed_calls -= 1
        self.asked.append((method, path))
        call = Call(method, path, ("dryRun", "All") in query)
        await self.delay(call)
        if (refusal := self.refuse(call)) is not None:
            raise refusal
        if path.endswith("/log") and not self.has_kubelet:
            played = self.previous_logs if ("previous", "true") in query else self.logs
            return played.get(path.split("/")[-2], "").encode()
        answer = await super()._request(method, path, body, query, content_type)
        if method == "POST" and ("dryRun", "All") not in query:
            made = json.loads(answer)
            self.created.append(f"{made['kind']}/{made['metadata'].get('namespace', '')}/{made['metadata']['name']}")
        return answer


def within(server: ApiServer, scenario: Callable[[PlayedObjects, str], Awaitable[None]]) -> None:
    """Run a scenario in a new namespace that is ready for pods."""

    async def run() -> None:
        async with connected(server.kubeconfig) as objects:
            await scenario(objects, await new_namespace(objects))

    asyncio.run(run())


@asynccontextmanager
async def connected(kubeconfig: Path) -> AsyncGenerator[PlayedObjects]:
    """A connection, closed afterwards."""
    objects = await PlayedObjects.connect(kubeconfig)
    assert isinstance(objects, PlayedObjects)
    try:
        yield objects
    finally:
        await objects.close()


async def new_namespace(objects: Objects) -> str:
    """A namespace that is ready for pods."""
    made = await objects.create(
        NAMESPACE, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "played-"}}
    )
    name = str(made["metadata"]["name"])

    async def has_account() -> bool:
        return await objects.find(SERVICE_ACCOUNT, name, "default") is not None

    await eventually(has_account, f"a service account in {name}")
    return name


async def eventually(
    holds: Callable[[], Awaitable[bool]], what: str, patience_seconds: float = _PATIENCE_SECONDS
) -> None:
    """Wait until something holds.

    :raises AssertionError: it does not for too long.
    """
    deadline = asyncio.get_running_loop().time() + patience_seconds
    while not await holds():
        assert asyncio.get_running_loop().time() < deadline, f"after {patience_seconds} s still not: {what}"
        await asyncio.sleep(_POLL_SECONDS)


async def play_node(objects: Objects, name: str, labels: dict[str, str], dedicated: bool = True) -> None:
    """A ready node whose card eight containers may share."""
    taint = {"key": "cotune.dev/dedicated", "value": "trials", "effect": "NoSchedule"}
    body: Object = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": [taint] if dedicated else []},
    }
    if await objects.find(NODE, None, name) is None:
        await objects.create(NODE, None, body)
    condition = {"type": "Ready", "status": "True", "reason": "Played", "message": "", "lastHeartbeatTime": _now()}
    amounts = {"cpu": "8", "memory": "16Gi", "pods": "50", "nvidia.com/gpu": "8"}
    status = {"conditions": [condition], "capacity": amounts, "allocatable": amounts}
    await objects.merge(NODE, "", name, {"status": status}, subresource="status")


async def play_ready(objects: Objects, pod: Object, card: str | None = None) -> None:
    """The kubelet says that a pod is ready and, with `card`, of which card it has given a share to it."""
    await _play(objects, pod, "Running", {"running": {"startedAt": _now()}}, ready=True)
    if card is not None:
        await play_card(objects, pod, card)


async def play_card(objects: Objects, pod: Object, card: str) -> None:
    """The kubelet says which share of which card the containers of a pod have been given."""
    metadata = pod["metadata"]
    found = await objects.get(POD, metadata["namespace"], metadata["name"])
    share = {"name": "nvidia.com/gpu", "resources": [{"resourceID": f"{card}::3", "health": "Healthy"}]}
    statuses = [it | {"allocatedResourcesStatus": [share]} for it in found["status"]["containerStatuses"]]
    patch = {"status": {"containerStatuses": statuses}}
    await objects.merge(POD, metadata["namespace"], metadata["name"], patch, subresource="status")


async def play_ended(objects: Objects, pod: Object, exit_code: int = 0, reason: str = "") -> None:
    """The kubelet says that a pod has ended."""
    reason = reason or ("Completed" if exit_code == 0 else "Error")
    state = {"terminated": {"exitCode": exit_code, "reason": reason, "startedAt": _now(), "finishedAt": _now()}}
    await _play(objects, pod, "Failed" if exit_code else "Succeeded", state, ready=False)


async def play_crashing(objects: Objects, pod: Object) -> None:
    """The kubelet says that a pod's containers end again and again."""
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting failed container"}}
    await _play(objects, pod, "Running", state, ready=False)


async def play_first_end(objects: Objects, pod: Object, exit_code: int = 1, reason: str = "Error") -> None:
    """The kubelet says that the containers of a pod have ended once, and run again."""
    ended = {"exitCode": exit_code, "reason": reason, "startedAt": _now(), "finishedAt": _now()}
    running: Object = {"running": {"startedAt": _now()}}
    await _play(objects, pod, "Running", running, ready=False, restartCount=1, lastState={"terminated": ended})


async def play_kubelet(objects: Objects, namespace: str) -> None:
    """Every pod that has no state yet becomes ready."""
    for pod in await objects.list(POD, namespace):
        if "containerStatuses" not in pod.get("status", {}) and "deletionTimestamp" not in pod["metadata"]:
            await play_ready(objects, pod)


def deployment(namespace: str, name: str, container: str, env: list[Any], replicas: int = 0) -> Object:
    """A workload as its owner applies it."""
    return {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": DEPLOYMENT.name,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": {"owner.example/note": "mine"}},
                "spec": {"containers": [{"name": container, "image": "example/server:1", "env": env}]},
            },
        },
    }


async def _at_once(_: Call) -> None:
    """Nothing."""


async def _play(objects: Objects, pod: Object, phase: str, state: Object, ready: bool, **more: object) -> None:
    metadata = pod["metadata"]
    containers = [
        {"name": it["name"], "image": "", "imageID": "", "ready": ready, "restartCount": 0, "state": state} | more
        for it in pod["spec"]["containers"]
    ]
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": _now()}
    status = {"phase": phase, "conditions": [condition], "containerStatuses": containers}
    await objects.merge(POD, metadata["namespace"], metadata["name"], {"status": status}, subresource="status")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
