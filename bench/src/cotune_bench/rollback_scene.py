"""The stage of `make bench-rollback`: one server on one node, and five ways in which a change breaks it.

The server obeys its variable MODE. What a variable cannot bring about, an image that is gone or a node without room, is
brought about beside the change, in the moment in which it is made.
"""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster import cluster
from localcluster.binaries import ARGO_ROLLOUTS, CONTAINERD, KUBERNETES, Module, ensure_built
from localcluster.errors import LocalClusterError
from localcluster.images import ImageBuilder, load, reference
from localcluster.locations import Cache, Instance, repository_root
from localcluster.topology import DEFAULT_CARD, Topology

NODE = "lab"
IMAGE = "probe"
GOOD = "good"
_START_SECONDS = 180

_SERVER = """
import http.server, os, signal, sys, time
mode = os.environ.get("MODE", "good")
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
if mode == "no-cache-blocks":
    sys.exit("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`.")
if mode == "crash":
    sys.exit("something that nobody has seen before")
if mode == "oom":
    held = []
    while True:
        held.append(bytearray(os.urandom(1 << 20)))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503 if mode == "unready" else 200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("", 8000), Handler).serve_forever()
"""


@dataclass(frozen=True)
class Case:
    """One way in which a change is bad."""

    name: str
    mode: str
    """The value of MODE that the change sets."""
    waits_for: str | float = 0.0
    """What a decision may still wait for after the first sign, for it may mend the pod: seconds, or `second end`."""
    takes_away: str = ""
    """What is taken away from the node as the change is made, and given back at the decision: `image` or `label`."""
    note: str = ""


SECOND_END = "second end"
CASES = (
    Case("crash, known line", "no-cache-blocks", note="exits with vLLM's `No available memory for the cache blocks`"),
    Case("crash, unknown line", "crash", SECOND_END, note="exits with 1 and a line that nobody knows"),
    Case("OOM", "oom", note="takes memory until the kernel ends it (limit 64 MiB)"),
    Case("never ready", "unready", note="runs and answers its readiness probe with 503"),
    Case(
        "unpullable image",
        "other",
        30.0,
        "image",
        "a profile changes no image: its tag is taken from the node with the change, and given back at the decision",
    ),
    Case(
        "unschedulable",
        "other",
        15.0,
        "label",
        "a profile changes no placement: the node loses the label that the pods select with the change, and gets it "
        "back at the decision",
    ),
)


def pod_template(lane: str, image: str, mode: str = GOOD) -> dict[str, Any]:
    """The server's pods in one lane."""
    return {
        "metadata": {"labels": {"lane": lane}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "nodeSelector": {f"bench.cotune.dev/{lane}": "here"},
            "containers": [
                {
                    "name": "server",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python", "-c", _SERVER],
                    "env": [{"name": "MODE", "value": mode}],
                    "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "10m"}},
                    "readinessProbe": {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1},
                }
            ],
        },
    }


@dataclass(frozen=True)
class Machine:
    """The cluster and its node."""

    kubectl: Path
    kubeconfig: Path
    _ctr: tuple[str, ...]

    def do(self, *arguments: str, text: str = "") -> str:
        """`kubectl` with these arguments.

        Raises:
            LocalClusterError: it failed.
        """
        command = [str(self.kubectl), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LocalClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def image(self, lane: str) -> str:
        """The image by a name of the lane's own."""
        return f"localhost/bench/{lane}:1"

    def give(self, lane: str) -> None:
        """What the lane's pods need of the node, be it there or not: the image by its name, and the label."""
        self._images("tag", "--force", reference(IMAGE), self.image(lane))
        self.do("label", "node", NODE, f"bench.cotune.dev/{lane}=here", "--overwrite")

    def take(self, case: Case, lane: str) -> None:
        """Take away what the case takes away."""
        if case.takes_away == "image":
            self._images("rm", "--sync", self.image(lane))
        elif case.takes_away == "label":
            self.do("label", "node", NODE, f"bench.cotune.dev/{lane}-")

    def _images(self, *arguments: str) -> None:
        subprocess.run([*self._ctr, *arguments], capture_output=True, text=True, check=True)


@contextmanager
def machine() -> Generator[Machine]:
    """A cluster of one node with the server's image, gone afterwards."""
    cache, instance = Cache.from_environment(), Instance.named(f"rollback-{os.getpid()}")
    try:
        cluster.up(instance, Topology(node_names=(NODE,), card=DEFAULT_CARD), cache)
        ctr = ensure_built(CONTAINERD, cache) / "ctr"
        load(ImageBuilder(cache).build([IMAGE]), {NODE: instance.node(NODE)}, ctr, cache)
        command = (str(ctr), f"--address={instance.node(NODE).containerd_socket}", "--namespace=k8s.io", "images")
        yield Machine(ensure_built(KUBERNETES, cache) / "kubectl", instance.kubeconfig, command)
    finally:
        cluster.down(instance)


@contextmanager
def process(command: Sequence[str], environment: Mapping[str, str], log: Path, health: str) -> Generator[int]:
    """A controller beside the cluster, from when it answers at `health` on; ended afterwards. Yields its process id.

    Raises:
        LocalClusterError: it does not answer in time.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as said:
        running = subprocess.Popen(command, env=os.environ | environment, stdout=said, stderr=subprocess.STDOUT)
        try:
            _await_health(health)
            yield running.pid
        finally:
            running.terminate()
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def _await_health(url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise LocalClusterError(f"{url} does not answer within {_START_SECONDS} s: {error}") from error
            time.sleep(0.2)


def source_of(program: Module, module: str) -> Path:
    """The folder of a Go module that a program was built from.

    Raises:
        LocalClusterError: it is not there.
    """
    listed = ["go", "list", "-m", "-f", "{{.Dir}}", module]
    found = subprocess.run(listed, cwd=program.folder, capture_output=True, text=True, check=False)
    if found.returncode != 0 or not found.stdout.strip():
        raise LocalClusterError(f"the source of {module} is not there: {found.stderr.strip()}")
    return Path(found.stdout.strip())


@contextmanager
def cotune_operator(where: Machine, logs: Path) -> Generator[int]:
    """This checkout's operator. Yields its process id."""
    where.do("apply", "--server-side", "-f", str(repository_root() / "crds"))
    where.do("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    environment = {
        "KUBECONFIG": str(where.kubeconfig),
        "PYTHONPATH": os.pathsep.join(it for it in sys.path if it),
        "COTUNE_NAMESPACE": "default",
        "COTUNE_PROBE_IMAGE": reference(IMAGE),
        "COTUNE_LIVENESS_PORT": "18080",
        "COTUNE_METRICS_PORT": "19090",
    }
    with process(
        [sys.executable, "-m", "cotune.handlers"], environment, logs / "cotune.log", "http://127.0.0.1:18080/healthz"
    ) as process_id:
        yield process_id


@contextmanager
def argo_controller(where: Machine, logs: Path) -> Generator[None]:
    """The controller of Argo Rollouts, built from its Go module.

    Raises:
        LocalClusterError: it cannot be fetched or built.
    """
    program = ensure_built(ARGO_ROLLOUTS, Cache.from_environment()) / "rollouts-controller"
    source = source_of(ARGO_ROLLOUTS, "github.com/argoproj/argo-rollouts")
    crds = sorted((source / "manifests" / "crds").glob("*-crd.yaml"))
    where.do("apply", "--server-side", *(word for it in crds for word in ("-f", str(it))))
    where.do("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    command = [
        *(str(program), f"--kubeconfig={where.kubeconfig}", "--leader-elect=false", "--namespace=default"),
        *("--metricsPort=18090", "--healthzPort=18091", "--loglevel=warn"),
    ]
    with process(command, {}, logs / "argo-rollouts.log", "http://127.0.0.1:18091/healthz"):
        yield
