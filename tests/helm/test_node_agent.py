"""The node agent in the chart: in the process id namespace of its node, and with nothing else of the node."""

from typing import Any

import pytest
from cotune.measurement.agent.contract import API_PORT, METRICS_PORT, NODE_VARIABLE
from cotune.trials.probe_pod import PROBE
from cotune.trials.render import LABEL_COMPONENT
from support.helm import Rendered, render

pytestmark = pytest.mark.helm

ON = ("--set", "nodeAgent.enabled=true")


@pytest.fixture(scope="module")
def release() -> Rendered:
    return render(*ON)


def pod(release: Rendered) -> dict[str, Any]:
    return release.one("DaemonSet", "cotune-node-agent")["spec"]["template"]


def operator_environment(release: Rendered) -> dict[str, Any]:
    (container,) = release.one("Deployment", "cotune")["spec"]["template"]["spec"]["containers"]
    return {it["name"]: it.get("value") for it in container["env"]}


def test_it_is_there_when_asked_for_and_the_operator_knows_where() -> None:
    without = render()

    assert not without.all("DaemonSet")
    assert not without.all("NetworkPolicy")
    assert "COTUNE_NODE_AGENT" not in operator_environment(without)
    assert operator_environment(render(*ON))["COTUNE_NODE_AGENT"] == f"cotune-node-agent.cotune-system.svc:{API_PORT}"


def test_it_sees_the_nodes_processes_and_has_no_other_privilege(release: Rendered) -> None:
    spec = pod(release)["spec"]
    (container,) = spec["containers"]

    assert spec["hostPID"] is True
    assert not {"hostNetwork", "hostIPC"} & spec.keys()
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [it.get("hostPath", {}).get("path") for it in spec["volumes"]] == ["/sys/fs/cgroup"]
    assert all(it["readOnly"] for it in container["volumeMounts"])
    assert not any("hostPort" in it for it in container["ports"])


def test_it_has_no_right_in_kubernetes(release: Rendered) -> None:
    account = release.one("ServiceAccount", "cotune-node-agent")
    subjects = [
        it for kind in ("RoleBinding", "ClusterRoleBinding") for found in release.all(kind) for it in found["subjects"]
    ]

    assert account["automountServiceAccountToken"] is False
    assert pod(release)["spec"]["automountServiceAccountToken"] is False
    assert pod(release)["spec"]["serviceAccountName"] == "cotune-node-agent"
    assert not [it for it in subjects if it["name"] == "cotune-node-agent"]


def test_it_sees_all_cards_and_takes_no_share_of_one(release: Rendered) -> None:
    (container,) = pod(release)["spec"]["containers"]
    variables = {it["name"]: it.get("value") for it in container["env"]}

    assert variables["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert NODE_VARIABLE in variables
    assert not [it for amounts in container["resources"].values() for it in amounts if "nvidia.com" in it]


def test_it_runs_where_cards_are_and_where_trials_run(release: Rendered) -> None:
    spec = pod(release)["spec"]

    assert spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert {"key": "cotune.dev/dedicated", "operator": "Exists"} in spec["tolerations"]


def test_the_operator_does_not_take_its_pods_for_its_own(release: Rendered) -> None:
    labels = pod(release)["metadata"]["labels"]

    assert not release.one("Deployment", "cotune")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert not release.one("Service", "cotune-metrics")["spec"]["selector"].items() <= labels.items()
    assert release.one("Service", "cotune-node-agent")["spec"]["selector"].items() <= labels.items()


def test_probes_and_the_operator_may_ask_it_and_it_asks_nobody(release: Rendered) -> None:
    (policy,) = release.all("NetworkPolicy")
    probes, others = policy["spec"]["ingress"]
    ports = {it["name"]: it["containerPort"] for it in pod(release)["spec"]["containers"][0]["ports"]}

    assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod(release)["metadata"]["labels"].items()
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy["spec"]
    probe, operator = probes["from"]
    assert probe == {"namespaceSelector": {}, "podSelector": {"matchLabels": {LABEL_COMPONENT: PROBE}}}
    deployment = release.one("Deployment", "cotune")
    namespace = {"kubernetes.io/metadata.name": deployment["metadata"]["namespace"]}
    assert operator["namespaceSelector"] == {"matchLabels": namespace}
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert operator["podSelector"]["matchLabels"].items() <= labels.items()
    assert ([it["port"] for it in probes["ports"]], [it["port"] for it in others["ports"]]) == (["api"], ["metrics"])
    assert ports == {"api": API_PORT, "metrics": METRICS_PORT}
    assert not render(*ON, "--set", "nodeAgent.networkPolicy=false").all("NetworkPolicy")


def test_it_may_live_in_a_namespace_of_its_own_and_under_another_runtime() -> None:
    release = render(*ON, "--set", "nodeAgent.namespace=gpu-agents", "--set", "nodeAgent.runtimeClassName=nvidia")

    assert {it["metadata"]["namespace"] for it in release.objects if it["metadata"]["name"] == "cotune-node-agent"} == {
        "gpu-agents"
    }
    assert operator_environment(release)["COTUNE_NODE_AGENT"] == f"cotune-node-agent.gpu-agents.svc:{API_PORT}"
    assert pod(release)["spec"]["runtimeClassName"] == "nvidia"


def test_prometheus_reads_it_where_it_reads_the_operator() -> None:
    release = render(*ON, "--set", "serviceMonitor.create=true")
    monitor = release.one("ServiceMonitor", "cotune-node-agent")

    labels = release.one("Service", "cotune-node-agent")["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
