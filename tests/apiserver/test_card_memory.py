"""A stage that starts nothing beside what its own pods still hold, against a real API server; kubelets are played.

Every pass is made by a reconciler that knows nothing of the passes before; node agents are asked over HTTP, and played.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from cotune.cluster.events import Events
from cotune.cluster.kinds import EVENT, POD, PROFILE
from cotune.cluster.objects import ConflictError, Object
from cotune.handlers.card_memory import Agents, CardMemory
from cotune.handlers.profile import ProfileReconciler
from cotune.measurement.agent.client import NodeAgents
from support.api_server import ApiServer
from support.played_agents import CARD, PlayedAgent, answering
from support.played_cluster import DiedError, PlayedObjects, eventually, play_node, within
from support.played_stage import create_profile, create_stage, play_pods_on_a_node, stage_of, templates
from support.simulated_server import free_port

pytestmark = pytest.mark.apiserver

NODE = "gpu-1"

Scenario = Callable[[PlayedObjects, str, PlayedAgent, NodeAgents], Awaitable[None]]


async def create(objects: PlayedObjects, namespace: str, seconds: int = 120) -> None:
    """A stage whose pods have shares of the card of a node, all of it ready, and a profile for it."""
    await play_node(objects, NODE, {"kubernetes.io/hostname": NODE}, dedicated=False)
    await create_stage(objects, namespace, card_node=NODE)
    await create_profile(objects, namespace, namespace, readinessDeadlineSeconds=seconds)


async def one_pass(objects: PlayedObjects, namespace: str, agents: Agents | None, later: float = 0) -> None:
    reconciler = ProfileReconciler(objects, Events(objects, "test"), memory=CardMemory(agents))
    body = await objects.get(PROFILE, namespace, "p")
    try:
        await reconciler.reconcile(body, datetime.now(UTC) + timedelta(seconds=later))
    except ConflictError:
        return


async def first_stage(objects: PlayedObjects, namespace: str) -> Object:
    """The stage's status; empty before it has begun."""
    stages: list[Object] = (await objects.get(PROFILE, namespace, "p")).get("status", {}).get("stages", [])
    return stages[0] if stages else {}


async def until(
    objects: PlayedObjects,
    namespace: str,
    agents: Agents | None,
    holds: Callable[[Object], bool],
    what: str,
    is_broken: bool = False,
) -> None:
    """Passes until something holds of the stage's status."""

    async def is_there() -> bool:
        await play_pods_on_a_node(objects, namespace, is_broken)
        await one_pass(objects, namespace, agents)
        seen.append(await first_stage(objects, namespace))
        return holds(seen[-1])

    seen: list[Object] = []
    try:
        await eventually(is_there, what)
    except AssertionError as error:
        raise AssertionError(f"{error}: {seen[-1]}") from error


async def uids(objects: PlayedObjects, namespace: str) -> dict[str, str]:
    """Workload to the uid of its only pod."""
    return {it["metadata"]["labels"]["app"]: it["metadata"]["uid"] for it in await objects.list(POD, namespace)}


async def replicas(objects: PlayedObjects, namespace: str) -> dict[str, int]:
    return {name: count for name, (_, count) in (await templates(objects, namespace)).items()}


async def reasons(objects: PlayedObjects, namespace: str) -> list[str]:
    return [
        str(it["reason"]) for it in await objects.list(EVENT, namespace) if it["involvedObject"]["kind"] == "GpuProfile"
    ]


def is_in(phase: str) -> Callable[[Object], bool]:
    return lambda stage: stage.get("phase") == phase


def waits_for_memory(stage: Object) -> bool:
    return stage.get("memory", {}).get("reason") == "MemoryHeld"


def with_agent(server: ApiServer, scenario: Scenario) -> None:
    async def run(objects: PlayedObjects, namespace: str) -> None:
        agent = PlayedAgent(NODE)
        async with answering(agent) as agents:
            await create(objects, namespace)

            async def both_are_there() -> bool:
                await play_pods_on_a_node(objects, namespace)
                return len(await uids(objects, namespace)) == 2

            await eventually(both_are_there, "two pods")
            await scenario(objects, namespace, agent, agents)

    within(server, run)


def test_what_nobody_holds_holds_up_nothing_and_each_pod_is_asked_about_before_the_first_start(
    api_server: ApiServer,
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str, agent: PlayedAgent, agents: NodeAgents) -> None:
        before = await uids(objects, namespace)

        await until(objects, namespace, agents, is_in("Promoted"), "it is promoted")

        assert agent.asked == [frozenset(before.values())]
        assert (await stage_of(objects, namespace)).memory is None
        assert not {"MemoryHeld", "MemoryUnknown"} & set(await reasons(objects, namespace))

    with_agent(api_server, scenario)


def test_a_pod_is_on_record_before_it_is_stopped(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str, _: PlayedAgent, agents: NodeAgents) -> None:
        before = await uids(objects, namespace)
        recorded: list[set[str]] = []

        def sees_a_stop(stage: Object) -> bool:
            recorded.append({it["uid"] for it in stage.get("memory", {}).get("pods", ())})
            return "to stop" in stage.get("message", "") and recorded[-1] == set(before.values())

        await until(objects, namespace, agents, sees_a_stop, "its pods are on record")

        # The pass that wrote them down has stopped nothing yet.
        assert await replicas(objects, namespace) == {"judge": 1, "whisper": 1}
        assert await uids(objects, namespace) == before

    with_agent(api_server, scenario)


def test_a_start_waits_until_memory_is_free_and_says_whose_it_is(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str, agent: PlayedAgent, agents: NodeAgents) -> None:
        before = await uids(objects, namespace)
        agent.held[before["judge"]] = 4200.0

        await until(objects, namespace, agents, waits_for_memory, "it waits for the memory")
        for _ in range(3):
            await play_pods_on_a_node(objects, namespace)
            await one_pass(objects, namespace, agents, later=20)

        state = await stage_of(objects, namespace)
        assert await replicas(objects, namespace) == {"judge": 0, "whisper": 0}
        what = f"judge on {NODE}: 4,200 MiB on {CARD} by python3 4711 of pod {before['judge']}"
        assert state.message == f"waiting for memory on the card, still held by pods that are gone: {what}"
        assert state.memory is not None
        # The other one, which holds nothing, is asked about no more.
        assert [it.uid for it in state.memory.pods] == [before["judge"]]
        agent.held.clear()
        await until(objects, namespace, agents, is_in("Promoted"), "it is promoted")
        assert (await reasons(objects, namespace)).count("MemoryHeld") == 1

    with_agent(api_server, scenario)


def test_memory_that_stays_held_takes_the_stage_back_and_the_way_back_waits_no_second_time(
    api_server: ApiServer,
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str, agent: PlayedAgent, agents: NodeAgents) -> None:
        before = await templates(objects, namespace)
        judge = (await uids(objects, namespace))["judge"]
        agent.held[judge] = 4200.0
        await until(objects, namespace, agents, waits_for_memory, "it waits for the memory")

        await one_pass(objects, namespace, agents, later=60)
        turned = await stage_of(objects, namespace)

        assert turned.phase == "RollingBack"
        assert turned.message.startswith("MemoryHeld: after ")
        body = await objects.get(PROFILE, namespace, "p")
        [stage] = body["status"]["stages"]
        earlier = (datetime.now(UTC) - timedelta(seconds=61)).isoformat()
        memory = stage["memory"] | {"waitingSince": earlier}
        await objects.merge(
            PROFILE, namespace, "p", {"status": {"stages": [stage | {"memory": memory}]}}, subresource="status"
        )
        await until(objects, namespace, agents, is_in("RolledBack"), "it is back")
        assert await templates(objects, namespace) == before
        assert "MemoryStillHeld" in await reasons(objects, namespace)

    with_agent(api_server, scenario)


def test_without_an_agent_of_the_node_it_starts_at_once_and_says_so(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str, agent: PlayedAgent, agents: NodeAgents) -> None:
        agent.node = "gpu-2"

        await until(objects, namespace, agents, is_in("Promoted"), "it is promoted")

        events = await objects.list(EVENT, namespace)
        [told] = [it for it in events if it["reason"] == "MemoryUnknown"]
        assert f"judge on {NODE}: no node agent of {NODE} answers, of 1 there" in told["message"]
        assert agent.asked == []

    with_agent(api_server, scenario)


def test_an_agent_that_fails_or_is_gone_holds_up_nothing(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str, agent: PlayedAgent, agents: NodeAgents) -> None:
        agent.status, agent.held = 500, dict.fromkeys((await uids(objects, namespace)).values(), 1.0)
        gone = NodeAgents(f"127.0.0.1:{free_port()}")

        await until(objects, namespace, gone, is_in("Promoted"), "it is promoted")

        assert "MemoryUnknown" in await reasons(objects, namespace)

    with_agent(api_server, scenario)


def test_a_way_back_asks_too(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str, agent: PlayedAgent, agents: NodeAgents) -> None:
        before = await templates(objects, namespace)
        old = set((await uids(objects, namespace)).values())

        def is_going_back(stage: Object) -> bool:
            return stage.get("phase") == "RollingBack"

        await until(objects, namespace, agents, is_going_back, "it goes back", is_broken=True)
        broken = set((await uids(objects, namespace)).values()) - old
        await until(objects, namespace, agents, is_in("RolledBack"), "it is back")

        assert broken
        assert broken <= frozenset().union(*agent.asked[1:])
        assert await templates(objects, namespace) == before

    with_agent(api_server, scenario)


def test_a_pass_that_dies_after_any_call_starts_nothing_beside_what_is_held(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str, agent: PlayedAgent, agents: NodeAgents) -> None:
        before = await uids(objects, namespace)
        agent.held[before["judge"]] = 4200.0
        deaths = 0

        async def waits() -> bool:
            nonlocal deaths
            await play_pods_on_a_node(objects, namespace)
            objects.allowed_calls = deaths % 12 + 1
            try:
                await one_pass(objects, namespace, agents)
            except DiedError:
                deaths += 1
            finally:
                objects.allowed_calls = None
            if deaths % 13 == 0:
                await one_pass(objects, namespace, agents)
                deaths += 1
            return waits_for_memory(await first_stage(objects, namespace))

        await eventually(waits, "it waits for the memory", patience_seconds=90)

        assert deaths > 12
        assert await replicas(objects, namespace) == {"judge": 0, "whisper": 0}
        agent.held.clear()
        await until(objects, namespace, agents, is_in("Promoted"), "it is promoted")

    with_agent(api_server, scenario)
