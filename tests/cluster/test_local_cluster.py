"""The local cluster end to end: a pod behind a Service on a real kubelet, and nothing left behind."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from localcluster import cluster
from localcluster.binaries import CONTAINERD, KUBERNETES, ensure_built
from localcluster.images import ImageBuilder, load, reference
from localcluster.locations import Cache, Instance
from localcluster.topology import DEFAULT_CARD, Topology
from support.api_server import ApiServer
from support.leftovers import interfaces, processes_of, wait_until_gone

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = """\
ARG BASE_IMAGE=python:3.11-slim-bookworm
FROM ${BASE_IMAGE}
WORKDIR /pages
COPY page.html index.html
USER 65532
CMD ["python3", "-m", "http.server", "8000"]
"""

PROBE = {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1}
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
    "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {
                "name": "web",
                "image": reference("web"),
                "imagePullPolicy": "Never",
                "readinessProbe": PROBE,
            }
        ],
    },
}
SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8000}]},
}
FETCH = "import urllib.request; print(urllib.request.urlopen('http://web.default.svc', timeout=10).read().decode())"


@pytest.fixture
def image_sources(tmp_path: Path) -> Path:
    """A folder with one Dockerfile of its own on the repository's base image."""
    for name in ("base", "web"):
        (tmp_path / "images" / name).mkdir(parents=True)
    shutil.copy(REPOSITORY / "images" / "base" / "Dockerfile", tmp_path / "images" / "base")
    (tmp_path / "images" / "web" / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "page.html").write_text("from the image")
    return tmp_path


def test_a_pod_answers_behind_a_service_and_down_leaves_nothing(image_sources: Path) -> None:
    cache = Cache.from_environment()
    instance = Instance.named(f"e2e-{os.getpid()}")
    before = interfaces()
    try:
        cluster.up(instance, Topology(node_names=("lab",), card=DEFAULT_CARD), cache)
        images = ImageBuilder(cache, image_sources).build(["web"])
        load(images, {"lab": instance.node("lab")}, ensure_built(CONTAINERD, cache) / "ctr", cache)
        server = ApiServer(ensure_built(KUBERNETES, cache) / "kubectl", instance.kubeconfig)
        for manifest in (POD, SERVICE):
            answer = server.apply(manifest)
            assert answer.accepted, answer.text
        ready = server.run("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
        assert ready.accepted, ready.text + server.run("describe", "pod", "web").text

        fetched = server.run("exec", "web", "--", "python3", "-c", FETCH)
        assert (fetched.accepted, fetched.text.strip()) == (True, "from the image")
        node = json.loads(server.run("get", "pod", "web", "-o", "json").text)["spec"]["nodeName"]
        assert node == "lab"
        assert processes_of(instance)
    finally:
        cluster.down(instance)

    wait_until_gone(instance)
    assert str(instance.root) not in Path("/proc/mounts").read_text()
    assert interfaces() == before
    assert not instance.root.exists()


def test_a_cluster_whose_supervisor_was_killed_is_removed_whole() -> None:
    cache = Cache.from_environment()
    instance = Instance.named(f"killed-{os.getpid()}")
    try:
        cluster.up(instance, Topology(node_names=(), card=DEFAULT_CARD), cache)
        supervisor = json.loads(instance.supervisor.read_text())
        pid = next(value for key, value in supervisor.items() if "pid" in key)
        subprocess.run(["kill", "-9", str(pid)], check=True, timeout=10)
    finally:
        cluster.down(instance)

    wait_until_gone(instance)
    assert not instance.root.exists()
