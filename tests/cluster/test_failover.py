"""Two replicas of the operator on real kubelets: the leader is held, another one follows, and the first comes back."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from cotune.cluster.kinds import CONTROLLER_REVISION, DEPLOYMENT, EXPERIMENT, LEASE, POD, PROFILE, SERVICE, TRIAL
from cotune.cluster.objects import Object, Objects
from cotune.handlers.process import LOST
from cotune_demo.cluster import Commands, start
from cotune_demo.preparation import OPERATOR, define_resources, install_operator, make_namespace
from localcluster.binaries import CONTAINERD, ensure_built
from localcluster.locations import Cache, Instance
from support.leftovers import passing_instance
from support.node_faults import NodeFaults
from support.resources import manifest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

LAB, LEADER = "failover", "cotune-leader"
PATIENCE_SECONDS = 120
WRITTEN = (EXPERIMENT, TRIAL, PROFILE, SERVICE, DEPLOYMENT, CONTROLLER_REVISION, LEASE)


@dataclass
class Outcome:
    """What was seen."""

    nodes: set[str] = field(default_factory=set[str])
    """On which the replicas ran."""
    ready: list[bool] = field(default_factory=list[bool])
    failover: dict[str, float] = field(default_factory=dict[str, float])
    """What befell the leader, to the seconds until an experiment was looked at by the next one."""
    versions_before: dict[str, str] = field(default_factory=dict[str, str])
    """Of what the operator writes, before the first leader goes on."""
    versions_after: dict[str, str] = field(default_factory=dict[str, str])
    last_state: Object = field(default_factory=dict[str, Any])
    """Of the first leader's container, once it has restarted."""
    restarts: int = 0


@dataclass
class Scene:
    """The cluster and its two replicas."""

    objects: Objects
    faults: NodeFaults
    outcome: Outcome = field(default_factory=Outcome)

    async def all_of_it(self) -> None:
        await self._until(self._both_ready, "two replicas are ready")
        pods = await self._replicas()
        self.outcome.nodes = {it["spec"]["nodeName"] for it in pods}
        await self._looked_at("before")
        first = await self._leader()

        process = self.faults.process_of(first, "operator")
        os.kill(process, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            await self._looked_at("paused")
            self.outcome.failover["paused"] = time.monotonic() - begun
            second = await self._leader()
            assert second["metadata"]["name"] != first["metadata"]["name"]
            self.outcome.versions_before = await self._versions()
        finally:
            os.kill(process, signal.SIGCONT)
        await self._until(lambda: self._has_restarted(first), "the first leader's container has restarted")
        await self._until(self._both_ready, "it stands by")
        self.outcome.versions_after = await self._versions()

        begun = time.monotonic()
        await self.objects.delete(POD, OPERATOR, second["metadata"]["name"])
        await self._looked_at("deleted")
        self.outcome.failover["deleted"] = time.monotonic() - begun

    async def _looked_at(self, name: str) -> None:
        """An experiment, for which there is no node, is made, and whoever leads has said so."""
        body = manifest("GpuAllocationExperiment") | {"metadata": {"name": name, "namespace": LAB}}
        await self.objects.create(EXPERIMENT, LAB, body)

        async def is_stalled() -> bool:
            conditions = (await self.objects.get(EXPERIMENT, LAB, name)).get("status", {}).get("conditions", ())
            return any(it["type"] == "Stalled" and it["status"] == "True" for it in conditions)

        await self._until(is_stalled, f"{name} is looked at")

    async def _replicas(self) -> tuple[Object, ...]:
        return await self.objects.list(POD, OPERATOR, {"app.kubernetes.io/name": "cotune"})

    async def _both_ready(self) -> bool:
        pods = await self._replicas()
        self.outcome.ready = [
            any(it["type"] == "Ready" and it["status"] == "True" for it in pod["status"].get("conditions", ()))
            for pod in pods
        ]
        return self.outcome.ready == [True, True]

    async def _leader(self) -> Object:
        holder = (await self.objects.get(LEASE, OPERATOR, LEADER))["spec"]["holderIdentity"]
        [pod] = [it for it in await self._replicas() if holder.endswith(it["metadata"]["uid"])]
        return pod

    async def _has_restarted(self, pod: Object) -> bool:
        found = await self.objects.get(POD, OPERATOR, pod["metadata"]["name"])
        [status] = found["status"]["containerStatuses"]
        self.outcome.restarts, self.outcome.last_state = status["restartCount"], status["lastState"]
        return bool(self.outcome.restarts)

    async def _versions(self) -> dict[str, str]:
        found = [it for kind in WRITTEN for it in await self.objects.list(kind)]
        return {
            f"{it['kind']}/{it['metadata']['namespace']}/{it['metadata']['name']}": it["metadata"]["resourceVersion"]
            for it in found
            # The leader's own, and those of Kubernetes: its nodes' and its parts'.
            if it["kind"] != "Lease" or it["metadata"]["name"].startswith("card-")
            if it["kind"] != "Deployment" or it["metadata"]["namespace"] != OPERATOR
        }

    async def _until(self, holds: Callable[[], Awaitable[bool]], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not await holds():
            assert time.monotonic() < deadline, f"after {PATIENCE_SECONDS} s still not: {what}"
            await asyncio.sleep(0.1)


async def played(commands: Commands, faults: NodeFaults) -> Outcome:
    await define_resources(commands)
    await make_namespace(commands, LAB)
    await install_operator(commands, "--set", f"labNamespaces={{{LAB}}}", "--set", "replicaCount=2")
    objects = await Objects.connect(commands.kubeconfig)
    try:
        scene = Scene(objects, faults)
        await scene.all_of_it()
    except BaseException:
        logs = ("logs", "--namespace", OPERATOR, "-l", "app.kubernetes.io/name=cotune", "--prefix", "--tail=50")
        print(await commands.do(*logs))
        raise
    finally:
        await objects.close()
    return scene.outcome


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with passing_instance("failover") as made:
        yield made


@pytest.fixture(scope="module")
def outcome(instance: Instance) -> Outcome:
    commands = start(["operator"], instance.name)
    ctr = ensure_built(CONTAINERD, Cache.from_environment()) / "ctr"
    return asyncio.run(played(commands, NodeFaults(instance, ctr)))


def test_both_replicas_are_ready_and_on_nodes_of_their_own(outcome: Outcome) -> None:
    assert outcome.ready == [True, True]
    assert len(outcome.nodes) == 2


def test_another_one_leads_when_the_leader_is_held(outcome: Outcome) -> None:
    """How long that takes is told, and not asserted closely: the machine may be busy."""
    print("; ".join(f"{what}: {seconds:.1f} s" for what, seconds in outcome.failover.items()))

    assert 0 < outcome.failover["paused"] < 60


def test_what_was_held_writes_nothing_when_it_goes_on(outcome: Outcome) -> None:
    assert outcome.versions_before
    assert outcome.versions_after == outcome.versions_before


def test_what_was_held_ends_by_itself_and_stands_by(outcome: Outcome) -> None:
    assert outcome.last_state["terminated"]["exitCode"] == LOST
    assert "leads no more" in outcome.last_state["terminated"]["message"]
    assert outcome.restarts == 1


def test_a_leader_that_is_told_to_end_is_followed_without_waiting_for_its_lease(outcome: Outcome) -> None:
    assert outcome.failover["deleted"] < outcome.failover["paused"]
