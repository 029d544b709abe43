"""What a request for a cluster means in nodes and addresses."""

import pytest
from localcluster.errors import LocalClusterError
from localcluster.topology import NODE_NETWORK, POD_NETWORK, SERVICE_NETWORK, Topology


def test_every_node_has_an_address_and_pods_of_its_own() -> None:
    nodes = Topology().nodes
    assert [node.name for node in nodes] == ["lab", "staging", "production"]
    assert len({node.address for node in nodes}) == 3
    assert len({node.pods for node in nodes}) == 3


def test_a_node_keeps_its_addresses_when_others_are_left_out() -> None:
    alone = Topology(node_names=("production",)).nodes[0]
    assert alone == Topology().nodes[2]


def test_networks_do_not_overlap() -> None:
    networks = (NODE_NETWORK, POD_NETWORK, SERVICE_NETWORK)
    assert not any(a.overlaps(b) for a in networks for b in networks if a is not b)
    for node in Topology().nodes:
        assert node.address in NODE_NETWORK
        assert node.pods.subnet_of(POD_NETWORK)


def test_the_order_of_the_request_does_not_matter() -> None:
    assert Topology(("staging", "lab")).nodes == Topology(("lab", "staging")).nodes


@pytest.mark.parametrize("names", [("attic",), ("lab", "lab"), ("lab", "attic")])
def test_unknown_or_repeated_nodes_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(LocalClusterError, match="choose from lab, staging, production"):
        Topology(names)


def test_labels_name_node_and_card() -> None:
    node = Topology(("lab",), card="NVIDIA-H200").nodes[0]
    assert node.labels == {"cotune.dev/local-node": "lab", "simulation.cotune.dev/card": "NVIDIA-H200"}


def test_json_round_trip() -> None:
    topology = Topology(("lab",), card="NVIDIA-H200")
    assert Topology.from_json(topology.to_json()) == topology
