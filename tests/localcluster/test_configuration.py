"""Rendered configuration: the settings that are easy to lose and hard to debug."""

import json
import tomllib

from localcluster import configuration
from localcluster.certificates import KeyPair
from localcluster.topology import Topology

LAB, STAGING, _ = Topology().nodes


def test_containerd_lets_no_container_have_a_lower_oom_score_than_itself() -> None:
    document = tomllib.loads(configuration.containerd("/usr/sbin/runc"))
    runtime = document["plugins"]["io.containerd.cri.v1.runtime"]
    assert runtime["restrict_oom_score_adj"] is True
    assert runtime["containerd"]["runtimes"]["runc"]["options"] == {
        "BinaryName": "/usr/sbin/runc",
        "SystemdCgroup": False,
    }


def test_kubelet_accepts_this_kind_of_machine() -> None:
    document = json.loads(configuration.kubelet(LAB, "/cotune-test/lab"))
    assert document["failCgroupV1"] is False
    assert document["failSwapOn"] is False
    assert document["oomScoreAdj"] == 0
    assert document["cgroupRoot"] == "/cotune-test/lab"


def test_kubelets_of_one_network_namespace_listen_on_different_addresses() -> None:
    lab, staging = (json.loads(configuration.kubelet(node, "/x")) for node in (LAB, STAGING))
    assert lab["address"] != staging["address"]
    assert lab["healthzBindAddress"] != staging["healthzBindAddress"]


def test_imported_images_are_never_collected() -> None:
    assert json.loads(configuration.kubelet(LAB, "/x"))["imageGCHighThresholdPercent"] == 100


def test_pods_get_addresses_of_their_node_through_routed_links() -> None:
    plugin = json.loads(configuration.pod_network(STAGING))["plugins"][0]
    assert plugin["type"] == "ptp"
    assert plugin["ipam"]["ranges"] == [[{"subnet": "10.244.2.0/24"}]]


def test_service_proxy_leaves_the_hosts_connection_tracking_alone() -> None:
    conntrack = json.loads(configuration.kube_proxy(LAB, "/kubeconfig"))["conntrack"]
    assert all(value in {0, "0s"} for value in conntrack.values())


def test_kubeconfig_is_self_contained() -> None:
    text = configuration.kubeconfig("https://127.0.0.1:1", b"authority", KeyPair(b"certificate", b"key"))
    document = json.loads(text)
    assert document["clusters"][0]["cluster"] == {
        "server": "https://127.0.0.1:1",
        "certificate-authority-data": "YXV0aG9yaXR5",
    }
    assert document["users"][0]["user"]["client-key-data"] == "a2V5"
