"""The node agent of the chart against a real API server: valid manifests, and the Pod Security level that they need."""

import json
from typing import Any

import pytest
import yaml
from cotune_demo.preparation import NODE_AGENTS
from support.api_server import ApiServer
from support.helm import Rendered, render
from support.simulated_card import REPOSITORY

pytestmark = [pytest.mark.apiserver, pytest.mark.helm]

SIMULATED = ("--values", str(REPOSITORY / "simulation" / "manifests" / "node-agent-values.yaml"))


def namespace(name: str, level: str) -> dict[str, Any]:
    labels = {"pod-security.kubernetes.io/enforce": level}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def agents(release: Rendered) -> list[dict[str, Any]]:
    return [it for it in release.objects if it["metadata"]["name"] == "cotune-node-agent"]


def test_its_manifests_are_what_the_api_server_knows(api_server: ApiServer) -> None:
    made = agents(render(*SIMULATED))
    assert api_server.apply(namespace(NODE_AGENTS, "privileged")).accepted

    answer = api_server.run("apply", "--server-side", "--validate=strict", "-f", "-", text=yaml.safe_dump_all(made))

    assert answer.accepted, answer.text
    assert {it["kind"] for it in made} == {"ServiceAccount", "DaemonSet", "Service", "NetworkPolicy"}
    stored = json.loads(
        api_server.run("get", "daemonset/cotune-node-agent", "--namespace", NODE_AGENTS, "-o", "json").text
    )
    (container,) = stored["spec"]["template"]["spec"]["containers"]
    variables = [it["name"] for it in container["env"]]
    assert variables.index("COTUNE_NODE") < variables.index("LD_LIBRARY_PATH"), "which refers to it"


@pytest.mark.parametrize(("level", "is_let_in"), [("privileged", True), ("baseline", False), ("restricted", False)])
def test_its_pods_need_a_privileged_namespace(api_server: ApiServer, level: str, is_let_in: bool) -> None:
    name = f"agents-{level}"
    assert api_server.apply(namespace(name, level)).accepted
    template = render("--set", "nodeAgent.enabled=true").one("DaemonSet", "cotune-node-agent")["spec"]["template"]
    spec = template["spec"] | {"serviceAccountName": "default"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agent", "namespace": name}, "spec": spec}

    answer = api_server.run("create", "--dry-run=server", "-f", "-", text=json.dumps(pod))

    assert answer.accepted is is_let_in, answer.text
    assert is_let_in or "hostPID=true" in answer.text
