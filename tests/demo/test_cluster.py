"""Which cluster the demonstration asks for, and which it takes."""

from collections.abc import Mapping
from pathlib import Path

import cotune_demo.cluster
import pytest
from cotune_demo.cluster import start
from cotune_demo.scenes import REAL, SIMULATED
from localcluster.topology import ALL_NODE_NAMES, Topology


class Played:
    """The local cluster: whatever runs there, and what was asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, running: Topology | None) -> None:
        self.asked: list[Topology] = []
        self.loaded: set[str] = set()
        self._running = running
        monkeypatch.setattr(cotune_demo.cluster, "cluster", self)
        monkeypatch.setattr(cotune_demo.cluster, "load", self.load)
        monkeypatch.setattr(cotune_demo.cluster, "ensure_built", built)

    def running(self, _: object) -> Topology | None:
        return self._running

    def up(self, _: object, topology: Topology, __: object) -> None:
        self.asked.append(topology)

    def load(self, images: list[str], nodes: Mapping[str, object], ctr: Path, cache: object) -> None:
        self.loaded = set(nodes)


def built(module: object, cache: object) -> Path:
    return Path("programs")


def test_the_simulated_story_asks_for_the_nodes_of_both_sites(monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(monkeypatch, running=None)

    start([], nodes=SIMULATED.nodes)

    assert [it.nodes for it in played.asked] == [Topology(ALL_NODE_NAMES).nodes]
    assert played.loaded == set(ALL_NODE_NAMES)


def test_a_cluster_that_runs_with_more_is_taken_as_it_is_and_every_node_has_the_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    played = Played(monkeypatch, running=Topology(ALL_NODE_NAMES))

    start([], nodes=REAL.nodes)

    assert played.asked == [Topology(ALL_NODE_NAMES)]
    assert played.loaded == set(ALL_NODE_NAMES)


def test_of_one_that_runs_with_fewer_what_is_needed_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The local cluster refuses that, and says what to do."""
    played = Played(monkeypatch, running=Topology())

    start([], nodes=SIMULATED.nodes)

    assert [set(it.node_names) for it in played.asked] == [set(ALL_NODE_NAMES)]
