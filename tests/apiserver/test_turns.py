"""Rollouts beside each other, as the operator's queue makes their passes, against a real API server.

Kubelets are played, and calls are answered when the test likes.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from cotune.cluster.events import Events
from cotune.cluster.kinds import PROFILE
from cotune.cluster.objects import Object
from cotune.handlers.operator import profile_queue
from cotune.handlers.profile import ProfileReconciler
from cotune.handlers.turns import Turns
from cotune.handlers.work_queue import Key, WorkQueue
from support.api_server import ApiServer
from support.played_cluster import Call, PlayedObjects, eventually, new_namespace, within
from support.played_stage import create_profile, create_stage, play_workloads

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(300)]


@asynccontextmanager
async def rollouts(objects: PlayedObjects) -> AsyncGenerator[WorkQueue]:
    """The operator's queue of profiles, at work; nobody has a turn when it has ended."""
    turns = Turns()
    queue = profile_queue(objects, ProfileReconciler(objects, Events(objects, "test")), turns)
    async with queue.running():
        yield queue
    assert not turns.at_work


async def status_of(objects: PlayedObjects, namespace: str, name: str = "p") -> Object:
    return (await objects.get(PROFILE, namespace, name)).get("status", {})


async def until_promoted(objects: PlayedObjects, namespace: str, name: str = "p") -> None:
    async def is_promoted() -> bool:
        await play_workloads(objects, namespace, broken=False)
        return (await status_of(objects, namespace, name)).get("phase") == "Promoted"

    await eventually(is_promoted, f"{name} in {namespace} is promoted")


def test_a_namespace_that_does_not_answer_holds_up_no_other_however_many_wait_for_it(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        slow, answers = await new_namespace(objects), asyncio.Event()
        waiting = [f"p{it}" for it in range(9)]
        for it in (namespace, slow):
            await create_stage(objects, it)
            await create_profile(objects, it, it)
        for it in waiting:
            await create_profile(objects, slow, slow, it, to="base")

        async def delay(call: Call) -> None:
            if f"/namespaces/{slow}/deployments" in call.path:
                await answers.wait()

        objects.delay = delay
        async with rollouts(objects) as queue:
            for it in ("p", *waiting):
                queue.add(Key(slow, it))
            await asyncio.sleep(0.5)
            queue.add(Key(namespace, "p"))
            await until_promoted(objects, namespace)
            for it in ("p", *waiting):
                assert await status_of(objects, slow, it) == {}

            answers.set()
            await until_promoted(objects, slow)

    within(api_server, scenario)


def test_a_stage_does_not_begin_while_another_ones_pass_is_about_to_begin_there(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        await create_profile(objects, namespace, namespace, "older", to="base")
        await objects.merge(PROFILE, namespace, "older", {"spec": {"rollout": {"paused": True}}})
        await create_profile(objects, namespace, namespace, "newer")
        is_rehearsed, goes_on = asyncio.Event(), asyncio.Event()

        async def delay(call: Call) -> None:
            if call.is_dry_run and not is_rehearsed.is_set():
                is_rehearsed.set()
                await goes_on.wait()

        objects.delay = delay
        async with rollouts(objects) as queue:
            queue.add(Key(namespace, "newer"))

            async def is_about_to_begin() -> bool:
                await play_workloads(objects, namespace, broken=False)
                return is_rehearsed.is_set()

            await eventually(is_about_to_begin, "the newer one has found that nobody is before it")
            await objects.merge(PROFILE, namespace, "older", {"spec": {"rollout": {"paused": False}}})
            queue.add(Key(namespace, "older"))
            await asyncio.sleep(3)  # Its patience is over more than once.
            assert await status_of(objects, namespace, "older") == {}

            goes_on.set()
            await until_promoted(objects, namespace, "newer")
            await until_promoted(objects, namespace, "older")

        ended = {it: (await status_of(objects, namespace, it))["stages"][0] for it in ("newer", "older")}
        assert ended["newer"]["finishedAt"] <= ended["older"]["startedAt"]

    within(api_server, scenario)
