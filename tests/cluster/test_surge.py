"""A stack that is changed behind a bridge, on real kubelets and with the real scheduler; the cards are SIMULATED.

The passes are made here, by a reconciler that knows nothing of the passes before; what is asked of Kubernetes is real.
"""

import asyncio
import copy
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from cotune.api.profile import ProfileStatus, StageStatus
from cotune.cluster.kinds import DEPLOYMENT, POD, PROFILE
from cotune.cluster.objects import ConflictError, Object, Objects
from cotune.rollout.bridge import LABEL_BRIDGE
from cotune_demo.cluster import Commands, start
from cotune_demo.preparation import apply_cards, dedicate, define_resources, make_namespace, wait_for_cards
from cotune_demo.progress import Progress
from localcluster.locations import Instance
from support.leftovers import passing_instance
from support.played_stage import profile_reconciler
from support.resources import manifest
from support.small_stacks import SERVERS, component

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

NAMESPACE, PATIENCE_SECONDS = "voice-surge", 150
STACK = ("first", "second")


@dataclass
class Outcome:
    """What was seen of one stage."""

    state: StageStatus | None = None
    original_nodes: set[str] = field(default_factory=set[str])
    nodes_after: set[str] = field(default_factory=set[str])
    bridge_nodes: set[str] = field(default_factory=set[str])
    down: list[str] = field(default_factory=list[str])
    """Components of which no pod was ready at a look."""
    replicas: dict[str, int] = field(default_factory=dict[str, int])
    """Deployment to the most pods that its controller counted as its own while the bridge served."""
    left: list[str] = field(default_factory=list[str])
    """Deployments and pods of a bridge that are there in the end."""


def deployment(name: str, beside: str | None) -> Object:
    """A service that holds a share of a card, on the node of another one."""
    spec = component(name, "HTTP", 8080, "neighbour", HOLD_MIB="256", KERNEL_MS="1")["template"]["spec"]
    if beside is not None:
        term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": beside}}}
        spec["affinity"] = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    return {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": DEPLOYMENT.name,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        },
    }


def grant() -> Object:
    made = copy.deepcopy(manifest("GpuTuningGrant"))
    made["metadata"]["namespace"] = NAMESPACE
    targets = [
        {
            "component": name,
            "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "container": "server",
            "env": ["KERNEL_MS"],
        }
        for name in STACK
    ]
    made["spec"] = {"from": [{"namespace": NAMESPACE}], "allow": ["Rollout", "Surge"], "targets": targets}
    return made


def profile(name: str, to: str) -> Object:
    stage = {"name": "only", "namespace": NAMESPACE, "readinessDeadlineSeconds": 120, "guardSeconds": 0}
    return {
        "apiVersion": PROFILE.api_version,
        "kind": PROFILE.name,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "changes": [{"component": "first", "env": "KERNEL_MS", "to": to}],
            "startOrder": list(STACK),
            "rollout": {"stages": [stage]},
        },
    }


def is_of_a_bridge(it: Object) -> bool:
    return LABEL_BRIDGE in (it["metadata"].get("labels") or {})


async def nodes(objects: Objects, of_a_bridge: bool) -> set[str]:
    found = [it for it in await objects.list(POD, NAMESPACE) if is_of_a_bridge(it) == of_a_bridge]
    return {str(it["spec"]["nodeName"]) for it in found if it["spec"].get("nodeName")}


async def not_served(objects: Objects) -> list[str]:
    """Components to which a Service would send nobody."""
    ready: set[str] = set()
    for pod in await objects.list(POD, NAMESPACE):
        conditions = {it["type"]: it["status"] for it in pod.get("status", {}).get("conditions", ())}
        if conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]:
            ready.add(pod["metadata"]["labels"]["app"])
    return [it for it in STACK if it not in ready]


async def until_ready(objects: Objects) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while await not_served(objects):
        assert time.monotonic() < deadline, "the stack is not ready"
        await asyncio.sleep(0.2)


async def run(objects: Objects, name: str, to: str) -> Outcome:
    """One stage to its end, looked at all the time."""
    outcome = Outcome(original_nodes=await nodes(objects, of_a_bridge=False))
    await objects.create(PROFILE, NAMESPACE, profile(name, to))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while outcome.state is None or outcome.state.phase not in {"Promoted", "RolledBack", "Degraded"}:
        assert time.monotonic() < deadline, f"not over: {outcome.state}"
        body = await objects.get(PROFILE, NAMESPACE, name)
        with suppress(ConflictError):
            await profile_reconciler(objects).reconcile(body, datetime.now(UTC))
        status = ProfileStatus.model_validate((await objects.get(PROFILE, NAMESPACE, name)).get("status", {}))
        outcome.state = status.stages[0] if status.stages else None
        outcome.bridge_nodes |= await nodes(objects, of_a_bridge=True)
        outcome.down += await not_served(objects)
        if outcome.state is not None and outcome.state.surge is not None and outcome.state.surge.phase == "Serving":
            for it in await objects.list(DEPLOYMENT, NAMESPACE):
                known = outcome.replicas.get(it["metadata"]["name"], 0)
                outcome.replicas[it["metadata"]["name"]] = max(known, it["status"].get("replicas", 0))
        await asyncio.sleep(0.1)
    outcome.nodes_after = await nodes(objects, of_a_bridge=False)
    while left := [it for it in await objects.list(POD, NAMESPACE) if is_of_a_bridge(it)]:
        assert time.monotonic() < deadline, f"pods of the bridge do not go: {[it['metadata']['name'] for it in left]}"
        await asyncio.sleep(0.2)
    outcome.left = [it["metadata"]["name"] for it in await objects.list(DEPLOYMENT, NAMESPACE) if is_of_a_bridge(it)]
    return outcome


async def both(commands: Commands) -> dict[str, Outcome]:
    """A stage with room on another card, and one without."""
    progress = Progress()
    await define_resources(commands)
    await apply_cards(commands)
    await dedicate(commands, "lab")
    await wait_for_cards(commands, progress)
    await make_namespace(commands, NAMESPACE)
    await commands.apply(deployment(STACK[0], None), deployment(STACK[1], STACK[0]), grant())
    objects = await Objects.connect(commands.kubeconfig)
    try:
        await until_ready(objects)
        outcomes = {"room": await run(objects, "with-room", "2")}
        [mine] = outcomes["room"].nodes_after
        other = {"staging", "production"} - {mine}
        await commands.do("cordon", *other)
        outcomes["no room"] = await run(objects, "without-room", "3")
        await commands.do("uncordon", *other)
    finally:
        await objects.close()
    return outcomes


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with passing_instance("surge") as made:
        yield made


@pytest.fixture(scope="module")
def outcomes(instance: Instance) -> dict[str, Outcome]:
    image = SERVERS.rpartition("/")[2].partition(":")[0]
    return asyncio.run(both(start(["simulated-card", image], instance.name)))


def surge_of(outcome: Outcome) -> Any:
    assert outcome.state is not None
    assert outcome.state.surge is not None
    return outcome.state.surge


def test_with_room_no_service_was_down_for_a_moment(outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes["room"]

    assert outcome.state is not None
    assert outcome.state.phase == "Promoted", outcome.state
    assert surge_of(outcome).phase == "Done"
    assert outcome.down == []
    assert outcome.state.downtime is not None
    assert outcome.state.downtime.measured_seconds == 0


def test_the_bridge_was_on_one_node_and_the_stack_kept_off_it(outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes["room"]

    assert len(outcome.original_nodes) == len(outcome.bridge_nodes) == 1
    assert outcome.original_nodes == outcome.nodes_after
    assert not outcome.bridge_nodes & outcome.original_nodes
    assert "lab" not in outcome.bridge_nodes


def test_no_controller_counted_a_pod_of_the_other(outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes["room"]

    assert len(outcome.replicas) == 2 * len(STACK)
    assert set(outcome.replicas.values()) == {1}


def test_nothing_of_a_bridge_is_left(outcomes: dict[str, Outcome]) -> None:
    assert [it.left for it in outcomes.values()] == [[], []]


def test_without_room_the_scheduler_says_so_and_the_stage_goes_on(outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes["no room"]

    assert outcome.state is not None
    assert outcome.state.phase == "Promoted", outcome.state
    surge = surge_of(outcome)
    assert (surge.phase, surge.reason) == ("NoRoom", "NoRoom")
    assert "nodes are available" in surge.message
    assert outcome.bridge_nodes == set()
    assert set(outcome.down) == set(STACK)
    assert outcome.state.downtime is not None
    assert outcome.state.downtime.measured_seconds
