"""The declared processes form a cluster that can start."""

from pathlib import Path

import pytest
from localcluster.locations import Instance
from localcluster.processes import HOST, ProcessSpec, Programs, cluster_processes, view_name
from localcluster.topology import Topology

PROGRAMS = Programs(kubernetes=Path("/k"), api=Path("/a"), containerd=Path("/c"), coredns=Path("/d"), layers=Path("/l"))
INSTANCE = Instance("test", Path("/state/test"))


def specs_of(topology: Topology) -> dict[str, ProcessSpec]:
    return {spec.name: spec for spec in cluster_processes(INSTANCE, topology, PROGRAMS, api_socket=7)}


@pytest.mark.parametrize("topology", [Topology(), Topology(("lab",)), Topology(())])
def test_every_process_waits_only_for_processes_that_start_without_it(topology: Topology) -> None:
    specs = specs_of(topology)
    started: set[str] = set()
    while len(started) < len(specs):
        startable = {name for name, spec in specs.items() if set(spec.after) <= started}
        assert startable > started, f"never started: {set(specs) - started}"
        started |= startable


def test_without_nodes_only_the_api_runs() -> None:
    assert set(specs_of(Topology(()))) == {"relay", "etcd", "kube-apiserver", "kube-controller-manager"}


def test_the_api_runs_from_the_chosen_folder_and_the_rest_from_the_built_one() -> None:
    programs = {name: spec.argv[0] for name, spec in specs_of(Topology(())).items() if name != "relay"}
    assert programs == {
        "etcd": "/a/etcd",
        "kube-apiserver": "/a/kube-apiserver",
        "kube-controller-manager": "/k/kube-controller-manager",
    }


def test_a_node_is_a_view_a_runtime_and_a_kubelet() -> None:
    added = set(specs_of(Topology(("lab", "staging")))) - set(specs_of(Topology(("lab",))))
    assert added == {view_name("staging"), "staging-containerd", "staging-kubelet"}


def test_only_the_relay_touches_the_hosts_network() -> None:
    assert [name for name, spec in specs_of(Topology()).items() if spec.place == HOST] == ["relay"]


def test_the_relay_inherits_the_listening_socket() -> None:
    relay = specs_of(Topology(()))["relay"]
    assert relay.inherited == (7,)
    assert relay.argv[relay.argv.index("--socket") + 1] == "7"


def test_processes_enter_a_nodes_view_only_after_it_is_made() -> None:
    specs = specs_of(Topology())
    for name, spec in specs.items():
        if spec.place.node is not None:
            waits = {name, *spec.after}
            waits |= {further for waited in waits for further in specs[waited].after}
            assert view_name(spec.place.node) in waits


def test_hidden_sources_are_mounted_before_they_are_hidden() -> None:
    script = specs_of(Topology(("lab",)))[view_name("lab")].argv[-1].splitlines()
    hiding = [position for position, line in enumerate(script) if line.endswith((" /var/lib", " /var/log", " /run"))]
    reading = [position for position, line in enumerate(script) if "mount" in line and str(INSTANCE.root) in line]
    assert len(hiding) == 3
    assert max(reading) < min(hiding)
