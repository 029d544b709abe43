"""What befalls a node of the local cluster and what runs there, done from the host: for tests of what survives it."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cotune_simulation.card.client import CardClient
from localcluster import cluster
from localcluster.cgroups import InstanceGroup
from localcluster.locations import Instance
from localcluster.processes import view_name
from localcluster.supervisor import read_records

_MIB = 1 << 20
_LOGS, _BALLAST = "/var/log/pods", "/var/log/pods/ballast"


@dataclass(frozen=True)
class NodeFaults:
    """Faults of one running cluster's nodes."""

    instance: Instance
    ctr: Path
    """containerd's own client."""

    def give_logs_a_small_disk(self, node: str, mib: int) -> None:
        """Let the logs of all pods have a file system of their own; before the node has any pod."""
        self._inside(node, "mkdir", "-p", _LOGS)
        self._inside(node, "mount", "-t", "tmpfs", "-o", f"size={mib}m", "logs", _LOGS)

    @contextmanager
    def full_disk(self, node: str) -> Generator[None]:
        """Not one page is left for the logs of the node's pods, nor comes free while the kubelet removes old ones."""
        fill = f"cat /dev/zero >> {_BALLAST} 2>/dev/null"
        self._inside(node, "sh", "-c", f"! {fill}")
        again = cluster.inside_node(self.instance, node, ["sh", "-c", f"while :; do {fill}; sleep 0.01; done"])
        with subprocess.Popen(again, start_new_session=True) as filling:
            try:
                yield
            finally:
                os.killpg(filling.pid, signal.SIGKILL)
                filling.wait()
                self._inside(node, "rm", "-f", _BALLAST)

    def said(self, pod: dict[str, Any], container: str) -> str:
        """What a pod's container has written, read from the node's disk: sooner than any kubelet answers."""
        view = read_records(self.instance)[view_name(pod["spec"]["nodeName"])].pid
        metadata = pod["metadata"]
        folder = f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"
        return Path(f"/proc/{view}/root{_LOGS}/{folder}/{container}/0.log").read_text()

    def process_of(self, pod: dict[str, Any], container: str) -> int:
        """The first process of a pod's container, as the node's runtime knows it."""
        kinds = ("containerStatuses", "initContainerStatuses")
        statuses = [it for kind in kinds for it in pod["status"].get(kind, ())]
        [identity] = [it["containerID"].partition("://")[2] for it in statuses if it["name"] == container]
        socket = self.instance.node(pod["spec"]["nodeName"]).containerd_socket
        listed = _run(str(self.ctr), "--address", str(socket), "--namespace", "k8s.io", "tasks", "ls")
        [process] = [int(line.split()[1]) for line in listed.splitlines() if line.startswith(identity)]
        return process

    @contextmanager
    def lost(self, node: str) -> Generator[None]:
        """Kubelet, container runtime and everything in the node's pods stand still, as if its power were off.

        They are held, not ended: their supervisor would start them again. What they find when they go on is what a node
        finds that was cut off.
        """
        records = read_records(self.instance)
        held = [records[f"{node}-{name}"].pid for name in ("kubelet", "containerd")]
        pids = [it for it in held if it is not None]
        pids += sorted(InstanceGroup(f"{self.instance.cgroup}/{node}").processes())
        try:
            for pid in pids:
                _signal(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                _signal(pid, signal.SIGCONT)

    @contextmanager
    def held_kubelet(self, node: str) -> Generator[None]:
        """The kubelet stands still, and what its containers do goes on."""
        process = read_records(self.instance)[f"{node}-kubelet"].pid
        assert process is not None
        _signal(process, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(process, signal.SIGCONT)

    @asynccontextmanager
    async def card(self, node: str) -> AsyncGenerator[CardClient]:
        """This process as a user of the node's simulated card: one outside of Kubernetes, as far as the node knows."""
        folder = self.instance.node(node).var_lib / "cotune-simulation" / node / "run"
        client = await CardClient.connect(folder / "card.sock")
        try:
            yield client
        finally:
            await client.close()

    def _inside(self, node: str, *command: str) -> None:
        _run(*cluster.inside_node(self.instance, node, list(command)))


async def hold(client: CardClient, mib: int, seconds: float) -> None:
    """Hold memory of the card for a while."""
    allocation = await client.allocate(mib * _MIB)
    await asyncio.sleep(seconds)
    await client.free(allocation)


async def held_up(process: int, seconds: float) -> None:
    """Let a process get no processor for a while."""
    _signal(process, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        _signal(process, signal.SIGCONT)


def kill(process: int) -> None:
    """End a process at once; one that has ended is no error."""
    _signal(process, signal.SIGKILL)


def _signal(process: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout
