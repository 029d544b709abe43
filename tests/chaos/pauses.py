"""The leader is held by SIGSTOP in the middle of a rollout, and goes on when the other replica has finished it.

Both are the operator's own process on a real API server, with the chart's roles and its fence; kubelets are played. The
moments are spread evenly over a rollout: which call it is about to make when it is held is as it comes.
"""

import asyncio
import signal
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cotune.cluster.kinds import GRANT
from cotune.handlers.process import LOST
from support.api_server import ApiServer
from support.played_cluster import connected
from support.played_stage import create_profile, create_stage, play_workloads
from support.replicas import HOME, LAB, LEADER, STAGING, RunningReplica, eventually, install, replica_pod, running
from support.resources import manifest

TIMES = {"COTUNE_LEASE_SECONDS": "4", "COTUNE_RENEW_DEADLINE_SECONDS": "3", "COTUNE_RETRY_SECONDS": "0.25"}
_VALUES = ("tiny", "base")
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Pause:
    """One rollout whose leader was held."""

    at_seconds: float
    """Into the rollout."""
    failover_seconds: float
    """From then until the other replica held the Lease."""
    outcome: str
    """`same` as without; else `differs`."""
    detail: str


@dataclass(frozen=True)
class _End:
    """What a rollout leaves behind, whoever led."""

    phase: str
    value: str
    replicas: int
    generations: int
    """By which the workload was changed."""


class Pauses:
    """A stage, two replicas, and one rollout after the other."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._number = 0
        self._stack = ExitStack()
        self._replicas: list[RunningReplica] = []

    def run(self, points: int) -> "list[Pause]":
        """So many rollouts with a pause, after one without."""
        install(self._server)
        asyncio.run(self._create())
        with self._stack, _kubelet(self._server):
            self._replicas = [self._replica(), self._replica()]
            eventually(lambda: self._holder() != "", "one of them leads")
            self._rollout(None)  # The first one of a process imports what the others find imported.
            begin = time.monotonic()
            undisturbed = self._rollout(None)[0]
            seconds = time.monotonic() - begin
            return [self._paused(seconds * (it + 0.5) / points, undisturbed) for it in range(points)]

    def _paused(self, at_seconds: float, undisturbed: _End) -> Pause:
        leader = next(it for it in self._replicas if it.pod.identity == self._holder())
        end, took = self._rollout((leader, at_seconds))
        before = self._versions()
        leader.signal(signal.SIGCONT)
        code = leader.exit_code()
        faults = [f"{end}, not {undisturbed}"] if end != undisturbed else []
        if code != LOST:
            faults.append(f"what was held ended with {code}")
        if (after := self._versions()) != before:
            faults.append(f"it has written: {sorted(set(before.items()) ^ set(after.items()))}")
        self._replicas.remove(leader)
        self._replicas.append(self._replica())
        return Pause(round(at_seconds, 2), round(took, 2), "differs" if faults else "same", "; ".join(faults))

    def _rollout(self, held: "tuple[RunningReplica, float] | None") -> "tuple[_End, float]":
        self._number += 1
        name, value = f"p-{self._number}", _VALUES[self._number % 2]
        generation = self._workload()["metadata"]["generation"]
        asyncio.run(self._apply(name, value))
        took = 0.0
        if held is not None:
            leader, seconds = held
            time.sleep(seconds)
            leader.signal(signal.SIGSTOP)
            took = eventually(lambda: self._holder() not in ("", leader.pod.identity), "the other one leads")
        eventually(lambda: self._phase(name) in ("Promoted", "RolledBack", "Degraded"), f"{name} is over")
        eventually(lambda: self._workload().get("status", {}).get("readyReplicas") == 1, "its pod is ready")
        body = self._workload()
        (container,) = body["spec"]["template"]["spec"]["containers"]
        values = {it["name"]: it["value"] for it in container["env"]}
        is_set = "as asked" if values["ASR_WHISPER_SIZE"] == value else values["ASR_WHISPER_SIZE"]
        changes = body["metadata"]["generation"] - generation
        return _End(self._phase(name), is_set, body["spec"]["replicas"], changes), took

    async def _create(self) -> None:
        async with connected(self._server.kubeconfig) as administrator:
            await create_stage(administrator, STAGING, grant=False)
            body = manifest("GpuTuningGrant")
            body["metadata"]["namespace"] = STAGING
            body["spec"]["from"] = [{"namespace": LAB}]
            await administrator.create(GRANT, STAGING, body)

    async def _apply(self, name: str, value: str) -> None:
        async with connected(self._server.kubeconfig) as administrator:
            await create_profile(administrator, LAB, STAGING, name, value)

    def _replica(self) -> RunningReplica:
        async def pod() -> Any:
            async with connected(self._server.kubeconfig) as administrator:
                return await replica_pod(self._server, administrator, self._folder, "operator")

        return self._stack.enter_context(running(asyncio.run(pod()), **TIMES))

    def _holder(self) -> str:
        path = "jsonpath={.spec.holderIdentity}"
        return self._server.run("get", "lease", LEADER, "-n", HOME, "--ignore-not-found", "-o", path).text

    def _phase(self, name: str) -> str:
        return self._server.run("get", "gpp", name, "-n", LAB, "-o", "jsonpath={.status.phase}").text

    def _workload(self) -> "dict[str, Any]":
        return yaml.safe_load(self._server.run("get", "deployment", "whisper", "-n", STAGING, "-o", "json").text)

    def _versions(self) -> "dict[str, str]":
        kinds = "gpp,pods,deployments,controllerrevisions"
        listed = yaml.safe_load(self._server.run("get", kinds, "-A", "-o", "json").text)["items"]
        return {f"{it['kind']}/{it['metadata']['name']}": it["metadata"]["resourceVersion"] for it in listed}


@contextmanager
def _kubelet(server: ApiServer) -> Generator[None]:
    """Pods of the stage become ready as soon as they are there."""
    stop = threading.Event()

    async def play() -> None:
        async with connected(server.kubeconfig) as administrator:
            while not stop.is_set():
                await play_workloads(administrator, STAGING, broken=False)
                await asyncio.sleep(0.1)

    thread = threading.Thread(target=lambda: asyncio.run(play()), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_PATIENCE_SECONDS)
