"""Two processes of the operator on a real API server: one stands by, and takes over whatever befalls the other."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from cotune.handlers.process import LOST
from support.api_server import ApiServer, running_api_server
from support.helm import CRDS
from support.played_cluster import connected
from support.replicas import HOME, LAB, LEADER, RunningReplica, eventually, install, replica_pod, running
from support.resources import manifest

pytestmark = [pytest.mark.apiserver, pytest.mark.helm, pytest.mark.timeout(400)]

TIMES = {"COTUNE_LEASE_SECONDS": "6", "COTUNE_RENEW_DEADLINE_SECONDS": "4", "COTUNE_RETRY_SECONDS": "0.25"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[ApiServer]:
    with running_api_server("failover", CRDS) as server:
        install(server)
        yield server


class Pair:
    """Two replicas, of which one leads."""

    def __init__(self, server: ApiServer, one: RunningReplica, other: RunningReplica) -> None:
        self.server = server
        self.replicas = (one, other)
        eventually(lambda: self.holder() != "", "one of them leads")
        self.leader, self.standby = (one, other) if self.holder() == one.pod.identity else (other, one)

    def holder(self) -> str:
        return self.server.run(
            *("get", "lease", LEADER, "-n", HOME, "--ignore-not-found", "-o", "jsonpath={.spec.holderIdentity}")
        ).text

    def failover(self) -> float:
        """Seconds until the standby holds the Lease."""
        return eventually(lambda: self.holder() == self.standby.pod.identity, "the standby leads")

    def says_what_became_of(self, name: str) -> None:
        """An experiment for which there is no node is told so by whoever leads."""
        body: dict[str, Any] = manifest("GpuAllocationExperiment")
        applied = self.server.apply(body | {"metadata": {"name": name, "namespace": LAB}})
        assert applied.accepted, applied.text
        eventually(lambda: "Stalled" in self._of(name), f"{name} was looked at")

    def versions(self) -> dict[str, str]:
        """Of all that the operator writes; Leases of cards among them."""
        kinds = "gae,gt,gpp,pods,services,deployments,controllerrevisions"
        listed = yaml.safe_load(self.server.run("get", kinds, "-A", "-o", "yaml").text)["items"]
        return {f"{it['kind']}/{it['metadata']['name']}": it["metadata"]["resourceVersion"] for it in listed}

    def _of(self, name: str) -> str:
        return self.server.run("get", "gae", name, "-n", LAB, "-o", "jsonpath={.status.conditions[*].type}").text


@pytest.fixture
def pair(cluster: ApiServer, tmp_path: Path) -> Iterator[Pair]:
    async def pods() -> list[Any]:
        async with connected(cluster.kubeconfig) as administrator:
            return [await replica_pod(cluster, administrator, tmp_path, it) for it in ("one", "other")]

    cluster.run("delete", "lease", LEADER, "-n", HOME)
    cluster.run("delete", "gae", "--all", "-n", LAB)
    with ExitStack() as stack:
        one, other = [stack.enter_context(running(pod, **TIMES)) for pod in asyncio.run(pods())]
        try:
            yield Pair(cluster, one, other)
        except BaseException:
            print(one.log.read_text()[-5000:], other.log.read_text()[-5000:], sep="\n-----\n")
            raise


def test_a_standby_is_alive_and_ready_and_does_nothing(pair: Pair) -> None:
    pair.says_what_became_of("voice")

    eventually(lambda: pair.standby.answers("readyz") == 200, "the standby is ready")
    assert [it.answers("healthz") for it in pair.replicas] == [200, 200]
    assert pair.leader.answers("readyz") == 200
    assert "leads: watching" in pair.leader.log.read_text()
    assert "leads" not in pair.standby.log.read_text()


def test_a_leader_that_is_told_to_end_gives_its_lease_back(pair: Pair) -> None:
    pair.says_what_became_of("before")
    pair.leader.signal(signal.SIGTERM)

    took = pair.failover()
    print(f"failover after SIGTERM: {took:.1f} s")

    assert pair.leader.exit_code() == 0
    assert "has given the Lease back" in pair.leader.log.read_text()
    pair.says_what_became_of("after")


def test_a_leader_that_is_killed_is_followed_once_its_lease_has_ended(pair: Pair) -> None:
    pair.says_what_became_of("before")
    pair.leader.signal(signal.SIGKILL)

    took = pair.failover()
    print(f"failover after SIGKILL: {took:.1f} s with a Lease of 6 s")

    pair.says_what_became_of("after")


def test_a_leader_that_was_paused_writes_nothing_when_it_goes_on_and_ends(pair: Pair) -> None:
    pair.says_what_became_of("before")
    pair.leader.signal(signal.SIGSTOP)
    took = pair.failover()
    print(f"failover after SIGSTOP: {took:.1f} s with a Lease of 6 s")
    pair.says_what_became_of("after")
    before = pair.versions()

    pair.leader.signal(signal.SIGCONT)

    assert pair.leader.exit_code() == LOST
    assert "leads no more" in pair.leader.log.read_text()
    assert pair.versions() == before
    assert pair.standby.process.poll() is None


def test_a_standby_that_is_told_to_end_does_so_at_once(pair: Pair) -> None:
    eventually(lambda: pair.standby.answers("healthz") == 200, "the standby runs")
    pair.standby.signal(signal.SIGTERM)

    assert pair.standby.exit_code() == 0
    assert pair.holder() == pair.leader.pod.identity
