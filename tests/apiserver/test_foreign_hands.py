"""What others do to a stage in progress and after it, against a real API server and controller manager.

Each hand has one outcome; docs/how-to/foreign-hands.md has the table. Kubelets are played, and every pass is made by a
reconciler that knows nothing of the passes before.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from apiserver.test_rollback import kill_the_judge, one_pass, promoted, until_phase
from cotune.cluster.kinds import DEPLOYMENT, GRANT, HORIZONTAL_POD_AUTOSCALER, POD, PROFILE
from cotune.cluster.objects import ConflictError, Object
from support.api_server import ApiServer
from support.played_cluster import (
    NAMESPACE,
    PlayedObjects,
    deployment,
    eventually,
    new_namespace,
    play_crashing,
    within,
)
from support.played_stage import SIZE, create_profile, create_stage, play_workloads, stage_of, templates

pytestmark = pytest.mark.apiserver

Hand = Callable[[PlayedObjects, str], Awaitable[None]]


async def change_whisper(objects: PlayedObjects, namespace: str, **container: Any) -> None:
    """As `kubectl edit` does: the whole object goes back, with whatever else is in it."""

    async def is_stored() -> bool:
        found = await objects.get(DEPLOYMENT, namespace, "whisper")
        found["spec"]["template"]["spec"]["containers"][0] |= container
        try:
            await objects.replace(DEPLOYMENT, found)
        except ConflictError:
            return False  # Its controller has written its status meanwhile: kubectl has it edited again.
        return True

    await eventually(is_stored, "the edit is stored")


async def edit_the_variable(objects: PlayedObjects, namespace: str) -> None:
    await change_whisper(objects, namespace, env=[{"name": SIZE, "value": "base"}])


async def edit_the_image(objects: PlayedObjects, namespace: str) -> None:
    await change_whisper(objects, namespace, image="example/server:2")


async def scale_whisper(objects: PlayedObjects, namespace: str, replicas: int = 2) -> None:
    await objects.merge(DEPLOYMENT, namespace, "whisper", {"spec": {"replicas": replicas}})


async def delete_whisper(objects: PlayedObjects, namespace: str) -> None:
    await objects.delete(DEPLOYMENT, namespace, "whisper")


async def make_whisper_again(objects: PlayedObjects, namespace: str) -> None:
    env = [{"name": SIZE, "value": "small"}]
    await objects.create(DEPLOYMENT, namespace, deployment(namespace, "whisper", "asr", env, replicas=1))


async def add_an_autoscaler(objects: PlayedObjects, namespace: str) -> None:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "whisper"}
    body: Object = {
        "apiVersion": HORIZONTAL_POD_AUTOSCALER.api_version,
        "kind": HORIZONTAL_POD_AUTOSCALER.name,
        "metadata": {"name": "busy", "namespace": namespace},
        "spec": {"minReplicas": 2, "maxReplicas": 3, "scaleTargetRef": reference},
    }
    await objects.create(HORIZONTAL_POD_AUTOSCALER, namespace, body)


async def status_of(objects: PlayedObjects, namespace: str) -> Object:
    return (await objects.get(PROFILE, namespace, "p"))["status"]


async def stalled(objects: PlayedObjects, namespace: str) -> tuple[str, str]:
    """Whether the condition Stalled holds, and its reason."""
    conditions = (await status_of(objects, namespace))["conditions"]
    [found] = [it for it in conditions if it["type"] == "Stalled"]
    return found["status"], found["reason"]


def size(found: dict[str, tuple[Any, int]]) -> str:
    template, _ = found["whisper"]
    return template["spec"]["containers"][0]["env"][0]["value"]


async def until(objects: PlayedObjects, namespace: str, holds: Callable[[dict[str, tuple[Any, int]]], bool]) -> None:
    """Passes, with kubelets that make every pod ready, until the Deployments are as they shall be."""

    async def is_so() -> bool:
        await one_pass(objects, namespace)
        await play_workloads(objects, namespace, broken=False)
        return holds(await templates(objects, namespace))

    await eventually(is_so, "the Deployments as the test wants them")


async def begun(objects: PlayedObjects, namespace: str) -> dict[str, tuple[Any, int]]:
    """A stage whose values were just written, all of it stopped; its templates before."""
    await create_stage(objects, namespace)
    before = await templates(objects, namespace)
    await create_profile(objects, namespace, namespace)
    await until(objects, namespace, lambda found: size(found) == "tiny")
    return before


async def baking(objects: PlayedObjects, namespace: str) -> dict[str, tuple[Any, int]]:
    """A stage that is ready and bakes; its templates before."""
    await create_stage(objects, namespace)
    before = await templates(objects, namespace)
    await create_profile(objects, namespace, namespace, bakeSeconds=3600)
    await until_phase(objects, namespace, "Baking")
    return before


def test_a_tuned_variable_that_is_edited_before_the_stage_is_ready_takes_it_back(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        before = await begun(objects, namespace)
        await edit_the_variable(objects, namespace)

        await until_phase(objects, namespace, "RolledBack")

        assert (await stage_of(objects, namespace)).message == "stt: somebody else has changed its variables"
        assert await templates(objects, namespace) == before

    within(api_server, scenario)


def test_a_mark_that_was_there_before_the_stage_is_no_sign_of_an_edit(api_server: ApiServer) -> None:
    """The values were promoted, then edited by hand; the same profile, applied anew, puts them back."""

    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        await create_profile(objects, namespace, namespace)
        await until_phase(objects, namespace, "Promoted")
        await one_pass(objects, namespace)
        await edit_the_variable(objects, namespace)
        await objects.delete(PROFILE, namespace, "p")
        await create_profile(objects, namespace, namespace)

        await until_phase(objects, namespace, "Promoted")

        assert size(await templates(objects, namespace)) == "tiny"

    within(api_server, scenario)


def test_a_tuned_variable_that_is_edited_while_the_stage_bakes_takes_it_back(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        before = await baking(objects, namespace)
        await edit_the_variable(objects, namespace)

        await until_phase(objects, namespace, "RolledBack")

        message = "while baking: stt: somebody else has changed its variables"
        assert (await stage_of(objects, namespace)).message == message
        assert await templates(objects, namespace) == before

    within(api_server, scenario)


@pytest.mark.parametrize("is_broken", [False, True])
def test_an_edit_of_another_part_of_the_template_stays_however_the_stage_ends(
    api_server: ApiServer, is_broken: bool
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await begun(objects, namespace)
        await edit_the_image(objects, namespace)

        if is_broken:
            await until_phase(objects, namespace, "RolledBack", play_crashing)
        else:
            await until_phase(objects, namespace, "Promoted")

        template, replicas = (await templates(objects, namespace))["whisper"]
        container = template["spec"]["containers"][0]
        value = "small" if is_broken else "tiny"
        assert (container["image"], container["env"], replicas) == (
            "example/server:2",
            [{"name": SIZE, "value": value}],
            1,
        )

    within(api_server, scenario)


def test_an_edit_of_another_part_of_the_template_is_waited_for_while_the_stage_bakes(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await baking(objects, namespace)
        await edit_the_image(objects, namespace)

        async def is_restarted() -> bool:
            await one_pass(objects, namespace)
            await play_workloads(objects, namespace, broken=False)
            images = [it["spec"]["containers"][0]["image"] for it in await objects.list(POD, namespace)]
            unready = (await stage_of(objects, namespace)).unready_since
            return "example/server:2" in images and unready is None

        await eventually(is_restarted, "whisper ready again with its new image")
        assert (await stage_of(objects, namespace)).phase == "Baking"
        await one_pass(objects, namespace, later=3601)

        assert (await stage_of(objects, namespace)).phase == "Promoted"
        assert size(await templates(objects, namespace)) == "tiny"

    within(api_server, scenario)


def test_replicas_that_are_set_before_the_stage_is_ready_are_set_back(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await begun(objects, namespace)
        await scale_whisper(objects, namespace)

        await until_phase(objects, namespace, "Promoted")

        assert {replicas for _, replicas in (await templates(objects, namespace)).values()} == {1}

    within(api_server, scenario)


def test_replicas_that_are_set_while_the_stage_bakes_stay(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await baking(objects, namespace)
        await scale_whisper(objects, namespace, 0)
        await one_pass(objects, namespace)
        assert await stalled(objects, namespace) == ("True", "ScaledByOthers")
        await one_pass(objects, namespace, later=3601)
        assert (await stage_of(objects, namespace)).phase == "Baking"
        await scale_whisper(objects, namespace, 2)

        async def is_ready() -> bool:
            await one_pass(objects, namespace)
            await play_workloads(objects, namespace, broken=False)
            return (await objects.get(DEPLOYMENT, namespace, "whisper"))["status"].get("readyReplicas") == 2

        await eventually(is_ready, "two replicas ready")
        await one_pass(objects, namespace, later=3601)

        assert (await stage_of(objects, namespace)).phase == "Promoted"
        assert await stalled(objects, namespace) == ("False", "Promoted")
        assert (await templates(objects, namespace))["whisper"][1] == 2

    within(api_server, scenario)


def test_an_autoscaler_that_appears_has_the_replicas_of_what_it_scales(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await begun(objects, namespace)
        await add_an_autoscaler(objects, namespace)
        await until(objects, namespace, lambda found: found["whisper"][1] == 1)
        await scale_whisper(objects, namespace, 2)  # As the autoscaler does, which leaves zero alone.
        objects.asked.clear()

        await until_phase(objects, namespace, "Promoted")

        assert not [it for it in objects.asked if it[0] == "PATCH" and it[1].endswith("/whisper/scale")]
        assert {it: replicas for it, (_, replicas) in (await templates(objects, namespace)).items()} == {
            "judge": 1,
            "whisper": 2,
        }

    within(api_server, scenario)


def test_on_the_way_back_an_autoscaler_has_the_replicas_too(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await baking(objects, namespace)
        await add_an_autoscaler(objects, namespace)
        await edit_the_variable(objects, namespace)
        await until(objects, namespace, lambda found: size(found) == "small" and found["whisper"][1] == 1)
        await scale_whisper(objects, namespace, 3)

        await until_phase(objects, namespace, "RolledBack")

        assert (await templates(objects, namespace))["whisper"][1] == 3

    within(api_server, scenario)


@pytest.mark.parametrize("is_baking", [False, True])
def test_a_workload_that_is_deleted_is_waited_for_and_the_others_come_back(
    api_server: ApiServer, is_baking: bool
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        before = await (baking if is_baking else begun)(objects, namespace)
        await delete_whisper(objects, namespace)
        await one_pass(objects, namespace)
        waiting = "waiting for stt to be ready again" if is_baking else "waiting for workload of stt"
        assert (await stage_of(objects, namespace)).message == waiting

        await one_pass(objects, namespace, later=301)
        state = await stage_of(objects, namespace)
        assert state.phase == "RollingBack"
        assert "stt" in state.message
        await until(objects, namespace, lambda found: {it: n for it, (_, n) in found.items()} == {"judge": 1})
        await one_pass(objects, namespace, later=700)
        assert await stalled(objects, namespace) == ("True", "Degraded")
        assert await objects.find(DEPLOYMENT, namespace, "whisper") is None, "it is not cotune's to make"

        await make_whisper_again(objects, namespace)
        await until_phase(objects, namespace, "RolledBack")
        assert await templates(objects, namespace) == before

    within(api_server, scenario)


def test_a_profile_whose_stage_has_lost_its_namespace_is_degraded_and_can_be_deleted(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        target = await new_namespace(objects)
        await create_stage(objects, target)
        [grant] = await objects.list(GRANT, target)
        invited = {"spec": {"from": [{"namespace": namespace}]}}
        await objects.merge(GRANT, target, grant["metadata"]["name"], invited)
        await create_profile(objects, namespace, target)

        async def is_changed() -> bool:
            await one_pass(objects, namespace)
            await play_workloads(objects, target, broken=False)
            return size(await templates(objects, target)) == "tiny"

        await eventually(is_changed, "the values written")
        await delete_namespace(objects, target)
        objects.asked.clear()
        for _ in range(3):
            await one_pass(objects, namespace)

        assert await stalled(objects, namespace) == ("True", "RevisionGone")
        assert (await status_of(objects, namespace))["phase"] == "Degraded"
        assert not [it for it in objects.asked if it[0] != "GET" and f"/{target}/" in it[1]]
        await objects.delete(PROFILE, namespace, "p")
        await one_pass(objects, namespace)
        assert await objects.find(PROFILE, namespace, "p") is None

    within(api_server, scenario)


def test_a_namespace_that_is_deleted_with_its_profile_does_not_hang(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await begun(objects, namespace)
        await objects.delete(NAMESPACE, "", namespace)

        async def is_gone() -> bool:
            if await objects.find(PROFILE, namespace, "p") is not None:
                await one_pass(objects, namespace)
            return await objects.find(PROFILE, namespace, "p") is None

        await eventually(is_gone, "the profile gone")

    within(api_server, scenario)


def test_a_newer_profile_waits_until_the_stage_in_progress_has_ended(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await baking(objects, namespace)
        await create_profile(objects, namespace, namespace, "newer", to="base")
        await one_pass(objects, namespace, "newer")
        conditions = (await objects.get(PROFILE, namespace, "newer"))["status"]["conditions"]
        [progressing] = [it for it in conditions if it["type"] == "Progressing"]
        assert (progressing["reason"], progressing["message"]) == (
            "WaitingForProfile",
            f"profile {namespace}/p goes first in namespace {namespace}",
        )
        await one_pass(objects, namespace, later=3601)
        assert (await stage_of(objects, namespace)).phase == "Promoted"

        await one_pass(objects, namespace, "newer")

        assert (await stage_of(objects, namespace, "newer")).phase == "Progressing"

    within(api_server, scenario)


def test_an_edit_of_the_profile_holds_from_the_next_look_on(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await baking(objects, namespace)
        await edit_the_stage(objects, namespace, bakeSeconds=0)

        await one_pass(objects, namespace)

        assert (await stage_of(objects, namespace)).phase == "Promoted"

    async def shortened(objects: PlayedObjects, namespace: str) -> None:
        await begun(objects, namespace)
        await edit_the_stage(objects, namespace, readinessDeadlineSeconds=10)

        await one_pass(objects, namespace, later=60)

        state = await stage_of(objects, namespace)
        assert state.phase == "RollingBack"
        assert state.message.startswith("not ready within 10 s")

    within(api_server, scenario)
    within(api_server, shortened)


async def edit_the_stage(objects: PlayedObjects, namespace: str, **fields: int) -> None:
    stages = (await objects.get(PROFILE, namespace, "p"))["spec"]["rollout"]["stages"]
    await objects.merge(PROFILE, namespace, "p", {"spec": {"rollout": {"stages": [stages[0] | fields]}}})


async def delete_namespace(objects: PlayedObjects, name: str) -> None:
    """And wait until nothing of it is left. Nobody plays a kubelet that would end its pods."""
    await objects.delete(NAMESPACE, "", name)

    async def is_gone() -> bool:
        for pod in await objects.list(POD, name):
            await objects.delete(POD, name, pod["metadata"]["name"], grace=0)
        return await objects.find(NAMESPACE, "", name) is None

    await eventually(is_gone, f"namespace {name} gone")


@pytest.mark.parametrize("hand", [edit_the_variable, edit_the_image, scale_whisper, delete_whisper])
def test_whoever_changes_a_promoted_workload_has_taken_over_and_keeps_it(api_server: ApiServer, hand: Hand) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await promoted(objects, namespace)
        await hand(objects, namespace)
        await kill_the_judge(objects, namespace)
        theirs = await templates(objects, namespace)

        await one_pass(objects, namespace)

        state = await stage_of(objects, namespace)
        why = "no longer guarded: somebody else has changed stt"
        assert (state.phase, state.guarded, state.message) == ("Promoted", (), why)
        assert await one_pass(objects, namespace) is None
        assert await templates(objects, namespace) == theirs

    within(api_server, scenario)


def test_an_autoscaler_ends_a_guard_only_when_it_scales(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await promoted(objects, namespace)
        await add_an_autoscaler(objects, namespace)
        await one_pass(objects, namespace)
        assert len((await stage_of(objects, namespace)).guarded) == 2
        await scale_whisper(objects, namespace, 2)

        await one_pass(objects, namespace)

        assert (await stage_of(objects, namespace)).guarded == ()
        assert (await templates(objects, namespace))["whisper"][1] == 2

    within(api_server, scenario)


def test_a_guard_ends_with_its_namespace(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        target = await new_namespace(objects)
        await create_stage(objects, target)
        [grant] = await objects.list(GRANT, target)
        invited = {"spec": {"from": [{"namespace": namespace}]}}
        await objects.merge(GRANT, target, grant["metadata"]["name"], invited)
        await create_profile(objects, namespace, target, guardSeconds=3600)

        async def is_promoted() -> bool:
            await one_pass(objects, namespace)
            await play_workloads(objects, target, broken=False)
            return (await status_of(objects, namespace))["phase"] == "Promoted"

        await eventually(is_promoted, "promoted")
        await delete_namespace(objects, target)
        await one_pass(objects, namespace)

        state = await stage_of(objects, namespace)
        assert (state.phase, state.message) == ("Promoted", "no longer guarded: its ControllerRevisions are gone")

    within(api_server, scenario)
