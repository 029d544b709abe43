"""The operator's replicas on a real API server: pods that no kubelet runs, and the tokens that it would give them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import yaml
from cotune.cluster.kinds import POD
from cotune.cluster.objects import Object, Objects

from support.api_server import ApiServer
from support.helm import render

HOME, LAB, STAGING = "cotune-system", "voice-lab", "voice-staging"
LEADER = "cotune-leader"
_SOURCES = Path(__file__).parents[2] / "operator" / "src"


def install(server: ApiServer) -> None:
    """The chart, with the operator invited into the lab and into staging."""
    for namespace in (HOME, LAB, STAGING):
        assert server.run("create", "namespace", namespace).accepted
    release = render("--set", f"labNamespaces={{{LAB}}}", "--set", f"tunedNamespaces={{{STAGING}}}")
    applied = server.run(
        *("apply", "--server-side", "--force-conflicts", "-f", "-"), text=yaml.safe_dump_all(release.objects)
    )
    assert applied.accepted, applied.text


@dataclass(frozen=True)
class ReplicaPod:
    """One of the operator's pods."""

    name: str
    uid: str
    kubeconfig: Path
    """With the token that is bound to it."""

    @property
    def identity(self) -> str:
        return f"{self.name}_{self.uid}"


async def replica_pod(server: ApiServer, administrator: Objects, folder: Path, name: str) -> ReplicaPod:
    """A pod of the operator's service account; nothing runs in it."""
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": f"{name}-", "namespace": HOME},
        "spec": {"serviceAccountName": "cotune", "containers": [{"name": "operator", "image": "x"}]},
    }
    metadata = (await administrator.create(POD, HOME, pod))["metadata"]
    name, uid = metadata["name"], metadata["uid"]
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={name}", f"--bound-object-uid={uid}")
    return ReplicaPod(name, uid, token_file(server, folder / f"{name}.yaml", *bound))


def token_file(server: ApiServer, path: Path, *options: str) -> Path:
    """A kubeconfig with a token of the operator's service account."""
    made = server.run("create", "token", "cotune", "-n", HOME, *options)
    assert made.accepted, made.text
    config: Any = yaml.safe_load(server.kubeconfig.read_text())
    for user in config["users"]:
        user["user"] = {"token": made.text.strip()}
    path.write_text(yaml.safe_dump(config))
    return path


@dataclass(frozen=True)
class RunningReplica:
    """The operator's process, as it runs in such a pod."""

    pod: ReplicaPod
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def answers(self, path: str) -> int:
        """Status of its health endpoint; 0: nothing answers."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=2) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code
        except (URLError, TimeoutError, ConnectionError):
            return 0

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def exit_code(self, patience: float = 60) -> int:
        return self.process.wait(timeout=patience)


@contextmanager
def running(pod: ReplicaPod, **environment: str) -> Generator[RunningReplica]:
    """The process in a pod, which is gone afterwards."""
    port, metrics = _free_port(), _free_port()
    log = pod.kubeconfig.with_suffix(f".{port}.log")
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(_SOURCES),
        "KUBECONFIG": str(pod.kubeconfig),
        "COTUNE_NAMESPACE": HOME,
        "COTUNE_PROBE_IMAGE": "example/probe:1",
        "COTUNE_POD_NAME": pod.name,
        "COTUNE_POD_UID": pod.uid,
        "COTUNE_LIVENESS_PORT": str(port),
        "COTUNE_METRICS_PORT": str(metrics),
    }
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "cotune.handlers"], env=variables | environment, stdout=file, stderr=file
        )
        try:
            yield RunningReplica(pod, process, port, log)
        finally:
            process.kill()
            process.wait()


def eventually(holds: Callable[[], bool], what: str, patience: float = 120) -> float:
    """Wait until something holds; how long that took, in seconds.

    :raises AssertionError: it does not for too long.
    """
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < patience, f"after {patience:g} s still not: {what}"
        time.sleep(0.05)
    return time.monotonic() - begun


def _free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return int(it.getsockname()[1])
