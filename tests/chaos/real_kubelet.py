"""The same rollouts on a local cluster whose kubelet is a real one, which is itself held for a minute now and then.

Two servers of which one reads the variable that the profile sets; the operator's passes run in this process, for it has
to die at a call that is named.
"""

import os
import signal
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from chaos.campaign import Undisturbed
from chaos.faults import Fault, Plan
from chaos.jobs import Job, roll_out
from cotune.cluster.kinds import DEPLOYMENT, GRANT, NODE, POD
from cotune.cluster.objects import Object, Objects
from localcluster import cluster
from localcluster.binaries import CONTAINERD, KUBERNETES, ensure_built
from localcluster.images import ImageBuilder, load, reference
from localcluster.locations import Cache, Instance, repository_root
from localcluster.supervisor import read_records
from localcluster.topology import DEFAULT_CARD, Topology
from support.api_server import ApiServer
from support.played_cluster import PlayedObjects, connected, deployment, eventually
from support.resources import manifest

NODE_NAME = "lab"
_IMAGE = "probe"
_SIZE = "ASR_WHISPER_SIZE"
_PATIENCE_SECONDS = 300
_SERVER = """
if test "$ASR_WHISPER_SIZE" = tiny && test -n "$REFUSES_TINY"; then exit 1; fi
trap "exit 0" TERM
touch /tmp/ready
sleep infinity &
wait
"""


@dataclass
class Kubelet:
    """The kubelet of the only node."""

    instance: Instance
    held_seconds: float = 60
    times_held: int = 0
    _holding: list[threading.Thread] = field(default_factory=list[threading.Thread])

    def hold(self) -> None:
        """Let it stand still, and end it then: its supervisor starts a new one, as an init system would."""
        process = read_records(self.instance)[f"{NODE_NAME}-kubelet"].pid
        assert process is not None
        os.kill(process, signal.SIGSTOP)
        self.times_held += 1

        def end() -> None:
            time.sleep(self.held_seconds)
            os.kill(process, signal.SIGKILL)

        self._holding.append(threading.Thread(target=end))
        self._holding[-1].start()

    def wait(self) -> None:
        """Until nothing is held."""
        while self._holding:
            self._holding.pop().join()


async def create_servers(objects: Objects, namespace: str, refuses_tiny: bool) -> None:
    """Two servers, ready, and their owner's grant."""
    for name, container in (("judge", "vllm"), ("whisper", "asr")):
        env = [{"name": _SIZE, "value": "small"}] if name == "whisper" else []
        env += [{"name": "REFUSES_TINY", "value": "yes"}] if name == "whisper" and refuses_tiny else []
        body = deployment(namespace, name, container, env, replicas=1)
        pod = body["spec"]["template"]["spec"]
        pod["terminationGracePeriodSeconds"] = 2
        pod["containers"][0] |= {
            "image": reference(_IMAGE),
            "imagePullPolicy": "Never",
            "command": ["sh", "-c", _SERVER],
            "readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1},
        }
        await objects.create(DEPLOYMENT, namespace, body)
    grant = manifest("GpuTuningGrant")
    grant["metadata"]["namespace"] = namespace
    await objects.create(GRANT, namespace, grant)

    async def are_ready() -> bool:
        found = await objects.list(DEPLOYMENT, namespace)
        return all(it.get("status", {}).get("readyReplicas") == 1 for it in found)

    await eventually(are_ready, "the servers are ready", _PATIENCE_SECONDS)


async def rollout(objects: PlayedObjects, namespace: str, refuses_tiny: bool = False) -> Object:
    """One stage, to its promotion."""
    await create_servers(objects, namespace, refuses_tiny)
    stages = {"only": namespace}
    try:
        return await roll_out(
            objects, namespace, stages, refuses_tiny, is_made=True, patience_seconds=_PATIENCE_SECONDS
        )
    finally:
        for it in await objects.list(DEPLOYMENT, namespace):
            await objects.delete(DEPLOYMENT, namespace, it["metadata"]["name"])


async def rollback(objects: PlayedObjects, namespace: str) -> Object:
    """The same with a value that the server ends at."""
    return await rollout(objects, namespace, refuses_tiny=True)


JOBS: Mapping[str, Job] = {"rollout on a real kubelet": rollout, "rollback on a real kubelet": rollback}


def plans(undisturbed: Undisturbed) -> Iterator[Plan]:
    """Death at every call that writes, and the kubelet held at each that a workload is changed by."""
    for point in undisturbed.passed:
        if point.call.startswith("list ") or point.call.endswith(", dry run"):
            continue
        yield Plan(Fault.DIES_BEFORE, point, 0)
        yield Plan(Fault.DIES_AFTER, point, 0)
    for point, times in undisturbed.passed.items():
        if point.call in ("patch deployments/scale", "apply deployments"):
            for occurrence in sorted({0, times - 1}):
                yield Plan(Fault.KUBELET, point, occurrence)


@contextmanager
def node(name: str = "chaos-kubelet") -> Generator[Kubelet]:
    """A cluster of one node with cotune's resources and the servers' image; gone afterwards."""
    cache, instance = Cache.from_environment(), Instance.named(f"{name}-{os.getpid()}")
    kubelet = Kubelet(instance)
    try:
        cluster.up(instance, Topology(node_names=(NODE_NAME,), card=DEFAULT_CARD), cache)
        built = ImageBuilder(cache).build([_IMAGE])
        load(built, {NODE_NAME: instance.node(NODE_NAME)}, ensure_built(CONTAINERD, cache) / "ctr", cache)
        server = ApiServer(ensure_built(KUBERNETES, cache) / "kubectl", instance.kubeconfig)
        server.define_resources(repository_root() / "crds")
        yield kubelet
    finally:
        kubelet.wait()
        cluster.down(instance)


async def until_idle(kubelet: Kubelet) -> None:
    """Until the node is ready and has none of the servers' pods left: every run begins with the same."""
    kubelet.wait()
    async with connected(kubelet.instance.kubeconfig) as objects:

        async def is_idle() -> bool:
            [found] = await objects.list(NODE)
            ready: list[Any] = [it["status"] for it in found["status"]["conditions"] if it["type"] == "Ready"]
            pods = [it for it in await objects.list(POD) if it["metadata"]["namespace"].startswith("played-")]
            return ready == ["True"] and not pods

        await eventually(is_idle, "the node is idle", _PATIENCE_SECONDS)
