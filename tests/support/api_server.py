"""kubectl against a real API server."""

import json
import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcluster import cluster
from localcluster.binaries import KUBERNETES, api_programs, ensure_built
from localcluster.locations import Cache, Instance
from localcluster.topology import DEFAULT_CARD, Topology


@dataclass(frozen=True)
class Answer:
    """What kubectl said."""

    accepted: bool
    text: str


@dataclass(frozen=True)
class ApiServer:
    """kubectl against the API server, as its administrator."""

    kubectl: Path
    kubeconfig: Path

    def run(self, *arguments: str, text: str = "") -> Answer:
        done = subprocess.run(
            [self.kubectl, "--kubeconfig", self.kubeconfig, *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Answer(done.returncode == 0, done.stdout + done.stderr)

    def apply(self, manifest: dict[str, Any], *options: str) -> Answer:
        return self.run("apply", *options, "-f", "-", text=json.dumps(manifest))

    def define_resources(self, crds: Path) -> None:
        """Apply a folder of CRDs, and wait until they are served."""
        applied = self.run("apply", "-f", str(crds))
        assert applied.accepted, applied.text
        waited = self.run("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        assert waited.accepted, waited.text
        # An established kind is still refused with 429 for a moment; kubectl asks again until it is served.
        served = self.run("get", "gae,gt,gpp,gtg", "--all-namespaces")
        assert served.accepted, served.text


@contextmanager
def running_api_server(name: str, crds: Path) -> Generator[ApiServer]:
    """A control plane of its own with these CRDs, gone afterwards."""
    cache = Cache.from_environment()
    instance = Instance.named(f"{name}-{os.getpid()}")
    try:
        cluster.up(instance, Topology(node_names=(), card=DEFAULT_CARD), cache)
        server = ApiServer(api_programs(ensure_built(KUBERNETES, cache)) / "kubectl", instance.kubeconfig)
        server.define_resources(crds)
        yield server
    finally:
        cluster.down(instance)
