"""What a request for a cluster means in nodes and addresses."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from localcluster.errors import LocalClusterError
from localcluster.topology import ALL_NODE_NAMES, NODE_NETWORK, POD_NETWORK, SERVICE_NETWORK, Topology

_KIND: Any = yaml.safe_load((Path(__file__).parents[2] / "kind-config.yaml").read_text())


def test_every_node_has_an_address_and_pods_of_its_own() -> None:
    nodes = Topology().nodes
    assert [node.name for node in nodes] == ["lab", "staging", "production"]
    assert len({node.address for node in nodes}) == 3
    assert len({node.pods for node in nodes}) == 3


def test_a_node_keeps_its_addresses_when_others_are_left_out() -> None:
    alone = Topology(node_names=("production",)).nodes[0]
    assert alone == Topology().nodes[2]


def test_nodes_of_a_second_site_are_there_for_whoever_asks_and_change_nothing_of_the_others() -> None:
    nodes = Topology(ALL_NODE_NAMES).nodes

    assert nodes[:3] == Topology().nodes
    assert [it.name for it in nodes] == list(ALL_NODE_NAMES)
    assert len({it.address for it in nodes} | {it.pods for it in nodes}) == 2 * len(nodes)


def test_a_topology_includes_one_with_fewer_nodes_of_the_same_card() -> None:
    assert Topology(ALL_NODE_NAMES).includes(Topology())
    assert not Topology().includes(Topology(ALL_NODE_NAMES))
    assert not Topology(ALL_NODE_NAMES, card="NVIDIA-H200").includes(Topology())


def test_kind_gets_the_same_nodes_with_the_same_labels() -> None:
    workers = [it["labels"] for it in _KIND["nodes"] if it["role"] == "worker"]

    assert workers == [it.labels for it in Topology(ALL_NODE_NAMES).nodes]


def test_networks_do_not_overlap() -> None:
    networks = (NODE_NETWORK, POD_NETWORK, SERVICE_NETWORK)
    assert not any(a.overlaps(b) for a in networks for b in networks if a is not b)
    for node in Topology(ALL_NODE_NAMES).nodes:
        assert node.address in NODE_NETWORK
        assert node.pods.subnet_of(POD_NETWORK)


def test_the_order_of_the_request_does_not_matter() -> None:
    assert Topology(("staging", "lab")).nodes == Topology(("lab", "staging")).nodes


@pytest.mark.parametrize("names", [("attic",), ("lab", "lab"), ("lab", "attic")])
def test_unknown_or_repeated_nodes_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(LocalClusterError, match="choose from lab, staging, production, lab-2"):
        Topology(names)


def test_labels_name_node_and_card() -> None:
    node = Topology(("lab",), card="NVIDIA-H200").nodes[0]
    assert node.labels == {"cotune.dev/local-node": "lab", "simulation.cotune.dev/card": "NVIDIA-H200"}


def test_json_round_trip() -> None:
    topology = Topology(("lab",), card="NVIDIA-H200")
    assert Topology.from_json(topology.to_json()) == topology
