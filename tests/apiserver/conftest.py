"""A real etcd and kube-apiserver with cotune's CRDs, for this folder's tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from localcluster import cluster
from localcluster.binaries import KUBERNETES, ensure_built
from localcluster.locations import Cache, Instance
from localcluster.topology import DEFAULT_CARD, Topology
from support.api_server import ApiServer

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    cache = Cache.from_environment()
    instance = Instance.named(f"apitest-{os.getpid()}")
    try:
        cluster.up(instance, Topology(node_names=(), card=DEFAULT_CARD), cache)
        server = ApiServer(ensure_built(KUBERNETES, cache) / "kubectl", instance.kubeconfig)
        applied = server.run("apply", "-f", str(REPOSITORY / "crds"))
        assert applied.accepted, applied.text
        waited = server.run("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        assert waited.accepted, waited.text
        yield server
    finally:
        cluster.down(instance)
