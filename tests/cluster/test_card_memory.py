"""Pods that Kubernetes has forgotten and whose processes live on, on a real kubelet: nothing is started beside them.

Operator and node agents are the chart's own, in the cluster; the cards and servers are SIMULATED. The kubelet of a
stage stands still while somebody deletes the stopped stack's pods by force: they are gone from the API server, and not
from the card.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from cotune.api.profile import StageStatus
from cotune.cluster.kinds import DEPLOYMENT, EVENT, POD, PROFILE
from cotune.cluster.objects import Object, Objects
from cotune_demo.cluster import Commands, start
from cotune_demo.preparation import prepare, services_ready
from cotune_demo.progress import Progress
from cotune_demo.scenes import LAB, SIMULATED, STAGING
from localcluster.binaries import CONTAINERD, ensure_built
from localcluster.locations import Cache, Instance
from support.leftovers import passing_instance
from support.node_faults import NodeFaults
from support.played_stage import stage_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

NODE, NAME, PATIENCE_SECONDS = "staging", "p", 120
FORGOTTEN_SECONDS = 5
"""How long the stage is looked at while nobody but NVML knows of its pods."""


@dataclass
class Seen:
    """What became of the stage."""

    forgotten: StageStatus | None = None
    """While the card was held by pods that the API server had no more."""
    replicas: list[int] = field(default_factory=list[int])
    """Of all workloads, at each look meanwhile."""
    uids: dict[str, str] = field(default_factory=dict[str, str])
    """Component to its pod before the stage began."""
    ended: StageStatus | None = None
    values: dict[str, str] = field(default_factory=dict[str, str])
    reasons: list[str] = field(default_factory=list[str])


def profile() -> Object:
    stage = {"name": "only", "namespace": STAGING, "readinessDeadlineSeconds": 200, "bakeSeconds": 1, "guardSeconds": 0}
    return {
        "apiVersion": PROFILE.api_version,
        "kind": PROFILE.name,
        "metadata": {"name": NAME, "namespace": LAB},
        "spec": {
            "changes": [{"component": "stt", "env": "ASR_WHISPER_SIZE", "to": "tiny"}],
            "startOrder": ["neighbour", "judge", "stt"],
            "rollout": {"stages": [stage]},
        },
    }


async def until(objects: Objects, holds: Callable[[StageStatus], bool], what: str) -> StageStatus:
    deadline = time.monotonic() + PATIENCE_SECONDS
    state: StageStatus | None = None
    while True:
        body = await objects.get(PROFILE, LAB, NAME)
        status: Object = body.get("status", {})
        if status.get("stages"):
            state = await stage_of(objects, LAB, NAME)
            if holds(state):
                return state
        assert time.monotonic() < deadline, f"{what}: {state}; {status}"
        await asyncio.sleep(0.1)


async def forget_stopped_pods(commands: Commands, objects: Objects) -> None:
    """As somebody in a hurry does, who sees them terminating for too long."""
    while True:
        for pod in await objects.list(POD, STAGING):
            if "deletionTimestamp" in pod["metadata"]:
                name = pod["metadata"]["name"]
                await commands.do(
                    "delete", "pod", name, "--namespace", STAGING, "--grace-period=0", "--force", "--ignore-not-found"
                )
        await asyncio.sleep(0.1)


async def replicas(objects: Objects) -> list[int]:
    return [int(it["spec"]["replicas"]) for it in await objects.list(DEPLOYMENT, STAGING)]


async def watched(commands: Commands, faults: NodeFaults) -> Seen:
    progress, seen = Progress(), Seen()
    objects = await Objects.connect(commands.kubeconfig)
    try:
        await prepare(commands, progress, replace(SIMULATED, target=None), node_agents=True)
        await services_ready(commands, progress, SIMULATED.site, SIMULATED.ready_seconds)
        seen.uids = {it["metadata"]["labels"]["app"]: it["metadata"]["uid"] for it in await objects.list(POD, STAGING)}
        with faults.held_kubelet(NODE):
            await objects.create(PROFILE, LAB, profile())
            forgetting = asyncio.create_task(forget_stopped_pods(commands, objects))
            try:
                await until(objects, lambda it: it.memory is not None and it.memory.reason is not None, "it is asked")
                assert not await objects.list(POD, STAGING)
                end = time.monotonic() + FORGOTTEN_SECONDS
                while time.monotonic() < end:
                    seen.replicas += await replicas(objects)
                    seen.forgotten = await stage_of(objects, LAB, NAME)
                    await asyncio.sleep(0.2)
            finally:
                forgetting.cancel()
        over = {"Promoted", "RolledBack", "Degraded"}
        seen.ended = await until(objects, lambda it: it.phase in over, "it is over")
        for body in await objects.list(DEPLOYMENT, STAGING):
            [container] = body["spec"]["template"]["spec"]["containers"]
            seen.values |= {it["name"]: it["value"] for it in container["env"]}
        events = await objects.list(EVENT, LAB)
        seen.reasons = [str(it["reason"]) for it in events if it["involvedObject"]["name"] == NAME]
    finally:
        await objects.close()
    return seen


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with passing_instance("memory") as made:
        yield made


@pytest.fixture(scope="module")
def seen(instance: Instance) -> Seen:
    commands = start(list(SIMULATED.images), instance.name)
    ctr = ensure_built(CONTAINERD, Cache.from_environment()) / "ctr"
    return asyncio.run(watched(commands, NodeFaults(instance, ctr)))


def test_nothing_is_started_beside_pods_that_only_the_card_remembers(seen: Seen) -> None:
    assert seen.replicas
    assert set(seen.replicas) == {0}
    assert seen.forgotten is not None
    assert seen.forgotten.phase == "Progressing"
    assert seen.forgotten.memory is not None
    assert seen.forgotten.memory.reason == "MemoryHeld"
    assert {it.node for it in seen.forgotten.memory.pods} == {NODE}
    assert {it.uid for it in seen.forgotten.memory.pods} == set(seen.uids.values())


def test_it_says_whose_the_memory_is(seen: Seen) -> None:
    assert seen.forgotten is not None
    said = seen.forgotten.message
    assert said.startswith("waiting for memory on the card, still held by pods that are gone: ")
    for component in ("neighbour", "judge", "stt"):
        assert f"{component} on {NODE}: " in said
    # Half of the card of 12 GiB, and what vLLM takes beside it.
    [judge] = [it for it in said.split("; ") if f"pod {seen.uids['judge']}" in it]
    assert 5_000 < float(judge.partition(f"on {NODE}: ")[2].partition(" MiB")[0].replace(",", "")) < 8_000
    assert "MemoryHeld" in seen.reasons


def test_once_the_kubelet_has_ended_them_the_stage_goes_on_to_its_end(seen: Seen) -> None:
    assert seen.ended is not None
    assert seen.ended.phase == "Promoted", seen.ended
    assert seen.ended.memory is None
    assert seen.values["ASR_WHISPER_SIZE"] == "tiny"
