"""Stages in batches of stacks, against a real API server and controller manager; kubelets are played.

Every pass is made by a reconciler that knows nothing of the passes before.
"""

import asyncio
from datetime import datetime, timedelta

import pytest
from apiserver.test_reconcilers import drive
from cotune.cluster.downtimes import Downtimes
from cotune.cluster.kinds import DEPLOYMENT, GRANT, POD, PROFILE
from cotune.cluster.objects import ForbiddenError, Object
from support.api_server import ApiServer
from support.command_line import cotune
from support.played_cluster import Call, PlayedObjects, eventually, play_crashing, play_ended, within
from support.played_stacks import (
    PART,
    STACK,
    create_profile_in_batches,
    create_selecting_grant,
    create_stack,
    create_stacks,
    down,
    one_pass,
    play_stacks,
    sizes,
    status_of,
    touched,
    until,
    until_reason,
)
from support.played_stage import SIZE, profile_reconciler, templates

pytestmark = pytest.mark.apiserver


def batches_of(state: Object) -> list[tuple[str, bool]]:
    """The stacks of each batch, and whether it has begun."""
    return [("".join(it["stacks"]), it.get("startedAt") is not None) for it in state["batches"]]


async def set_rollout(objects: PlayedObjects, namespace: str, **fields: object) -> None:
    await objects.merge(PROFILE, namespace, "p", {"spec": {"rollout": fields}})


async def commit(objects: PlayedObjects, namespace: str, stack: str, value: str) -> None:
    """Somebody else gives a stack's Deployment another value."""
    container = {"name": "asr", "image": "example/server:1", "env": [{"name": SIZE, "value": value}]}
    body = {"spec": {"template": {"spec": {"containers": [container]}}}}
    await objects.merge(DEPLOYMENT, namespace, f"stt-{stack}", body)


def test_stacks_change_batch_by_batch_and_no_two_batches_are_down_at_once(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stacks(objects, namespace, "abcd")
        await until(objects, namespace, "Progressing")
        order: list[str] = []

        async def is_over() -> bool:
            await one_pass(objects, namespace)
            await play_stacks(objects, namespace)
            stopped = "".join(sorted(await down(objects, namespace)))
            assert stopped in {"", "a", "b", "c", "d", "cd"}
            for it in stopped:
                if it not in order:
                    order.append(it)
            return (await status_of(objects, namespace))["phase"] == "Promoted"

        await eventually(is_over, "the stage is promoted")
        state = (await status_of(objects, namespace))["stages"][0]

        assert (order[:2], set(order)) == (["a", "b"], set("abcd"))
        assert await sizes(objects, namespace) == dict.fromkeys("abcd", "tiny")
        assert (state["batch"], batches_of(state)) == (3, [("a", True), ("b", True), ("cd", True)])
        outages = await Downtimes(objects, namespace).outages()
        assert len(outages) == 3
        assert sum(it.seconds for it in outages) == state["downtime"]["measuredSeconds"]
        assert {it["component"] for it in state["downtime"]["starts"]} == {"judge", "stt"}

    within(api_server, scenario)


def test_a_failure_in_a_batch_takes_back_what_was_changed_and_touches_nothing_else(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stacks(objects, namespace, "abcd")
        before = await templates(objects, namespace)
        await until(objects, namespace, "Progressing", 2, broken_in="b")
        state = await until(objects, namespace, "RollingBack", broken_in="b")
        assert "b/stt: CrashLoopBackOff" in state["message"]
        await until(objects, namespace, "RollingBack", 1, broken_in="b")
        assert not {"b", "c", "d"} & await down(objects, namespace), "a goes back when b serves again"
        state = await until(objects, namespace, "RolledBack", broken_in="b")

        assert await templates(objects, namespace) == before
        assert await touched(objects, namespace) == {"a", "b"}
        assert batches_of(state) == [("a", True), ("b", True), ("cd", False)]

    within(api_server, scenario)


@pytest.mark.parametrize("broken_in", ["", "c"])
@pytest.mark.parametrize("dies_after", [4, 9, 11, 16])
def test_an_operator_that_dies_in_the_middle_of_a_batch_comes_to_the_same_end(
    api_server: ApiServer, dies_after: int, broken_in: str
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stacks(objects, namespace, "abc", ["1", "100%"])
        before = await templates(objects, namespace)

        async def pass_over(body: Object, now: datetime) -> timedelta | None:
            return await profile_reconciler(objects).reconcile(body, now)

        async def play() -> None:
            await play_stacks(objects, namespace, broken_in)
            if (await status_of(objects, namespace)).get("stages"):
                stopped = await down(objects, namespace)
                assert "a" not in stopped or not {"b", "c"} & stopped, "two batches are down at once"

        driven = await drive(objects, PROFILE, namespace, "p", pass_over, play, dies_after)
        status = await status_of(objects, namespace)

        assert driven.deaths > 3
        assert status["phase"] == ("RolledBack" if broken_in else "Promoted")
        if broken_in:
            assert await templates(objects, namespace) == before
        else:
            assert await sizes(objects, namespace) == dict.fromkeys("abc", "tiny")
        outages = await Downtimes(objects, namespace).outages()
        assert len(outages) == 2
        generations = [
            it["metadata"]["generation"] for it in await objects.list(DEPLOYMENT, namespace, {PART: "judge"})
        ]
        most = 5 if broken_in else 3  # Stopped and started, and in a stack that goes back once more; never twice.
        assert max(generations) <= most

    within(api_server, scenario)


def test_stacks_that_are_not_whole_keep_the_stage_from_beginning_and_are_named(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stacks(objects, namespace, "a")
        await create_stack(objects, namespace, "b", parts=["judge"])

        message = await until_reason(objects, namespace, "StackIncomplete")
        assert message == f"namespace {namespace}: stack b has no Deployment of stt"
        await create_stack(objects, namespace, "b", parts=["stt"])
        await create_stack(objects, namespace, "c")
        await objects.merge(DEPLOYMENT, namespace, "stt-c", {"metadata": {"labels": {STACK: "b"}}})
        await objects.delete(DEPLOYMENT, namespace, "judge-c")
        message = await until_reason(objects, namespace, "StackAmbiguous")
        assert message == f"namespace {namespace}: stack b has 2 Deployments of stt: stt-b, stt-c"
        await objects.merge(DEPLOYMENT, namespace, "stt-c", {"metadata": {"labels": {STACK: None}}})
        message = await until_reason(objects, namespace, "StackIncomplete")
        assert "Deployment stt-c is selected and lacks the grant's stackLabel" in message
        await objects.delete(DEPLOYMENT, namespace, "stt-c")
        assert await touched(objects, namespace) == set()
        await until(objects, namespace, "Promoted")

    within(api_server, scenario)


def test_without_the_right_to_list_deployments_a_selecting_grant_says_so(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stacks(objects, namespace, "a")

        def refuse(call: Call) -> ForbiddenError | None:
            is_list = call.method == "GET" and call.path.endswith("/deployments")
            return ForbiddenError(403, "Forbidden", "cotune may not list deployments") if is_list else None

        objects.refuse = refuse
        await one_pass(objects, namespace)
        objects.refuse = lambda _: None
        found = {it["type"]: it["reason"] for it in (await status_of(objects, namespace))["conditions"]}
        assert found["Stalled"] == "Forbidden"

    within(api_server, scenario)


def test_a_pause_lets_the_batch_end_and_the_next_one_wait(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stacks(objects, namespace, "ab", ["1", "100%"])
        await until(objects, namespace, "Progressing", 1)
        await set_rollout(objects, namespace, paused=True)
        await until(objects, namespace, "Baking", 1)
        for _ in range(5):
            await one_pass(objects, namespace, 60)
            await play_stacks(objects, namespace)

        (state,) = (await status_of(objects, namespace))["stages"]
        assert (state["phase"], state["batch"]) == ("Baking", 1)
        assert state["message"] == "batch 1 of 2 is through; paused: no further one begins"
        assert await sizes(objects, namespace) == {"a": "tiny", "b": "small"}
        await set_rollout(objects, namespace, paused=False)
        await until(objects, namespace, "Promoted")

    within(api_server, scenario)


def test_an_abort_takes_back_the_batches_that_have_begun(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stacks(objects, namespace, "abc")
        before = await templates(objects, namespace)
        await until(objects, namespace, "Baking", 1)
        await until(objects, namespace, "Progressing", 2)
        await set_rollout(objects, namespace, abort=True)
        await until(objects, namespace, "RolledBack")

        assert await templates(objects, namespace) == before
        assert "c" not in await touched(objects, namespace)

    within(api_server, scenario)


def test_a_profile_that_is_deleted_in_a_later_batch_takes_all_of_them_back_first(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stacks(objects, namespace, "ab", ["1", "100%"])
        before = await templates(objects, namespace)
        await until(objects, namespace, "Progressing", 2)
        await objects.delete(PROFILE, namespace, "p")

        async def is_gone() -> bool:
            if await objects.find(PROFILE, namespace, "p") is None:
                return True
            await one_pass(objects, namespace)
            await play_stacks(objects, namespace)
            return False

        await eventually(is_gone, "the profile is gone")
        assert await templates(objects, namespace) == before

    within(api_server, scenario)


def test_a_stack_that_appears_in_the_middle_is_left_alone_and_said(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stacks(objects, namespace, "bc", ["1", "100%"])
        await until(objects, namespace, "Progressing", 1)
        await create_stack(objects, namespace, "a")
        await create_stack(objects, namespace, "half", parts=["judge"])
        state = await until(objects, namespace, "Promoted")

        assert batches_of(state) == [("b", True), ("c", True)]
        assert "stack a, half has appeared since the stage began, and is left alone" in state["message"]
        assert await sizes(objects, namespace) == {"a": "small", "b": "tiny", "c": "tiny"}
        assert await touched(objects, namespace) == {"b", "c"}

    within(api_server, scenario)


@pytest.mark.parametrize("label", [STACK, PART])
def test_a_stack_that_is_selected_no_more_takes_the_stage_back(api_server: ApiServer, label: str) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stacks(objects, namespace, "ab", ["1", "100%"], bakeSeconds=3600)
        await until(objects, namespace, "Baking", 1)
        await objects.merge(DEPLOYMENT, namespace, "stt-b", {"metadata": {"labels": {label: "other"}}})
        state = await until(objects, namespace, "RolledBack")

        assert f"no grant in namespace {namespace} selects Deployment stt-b for b/stt any more" in state["message"]
        assert set((await sizes(objects, namespace)).values()) == {"small"}

    within(api_server, scenario)


def test_a_guarded_stage_goes_back_with_the_last_batch_first(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stacks(objects, namespace, "ab", ["1", "100%"], guardSeconds=3600)
        before = await templates(objects, namespace)
        state = await until(objects, namespace, "Promoted")
        assert {it["component"] for it in state["guarded"]} == {"a/judge", "a/stt", "b/judge", "b/stt"}
        (pod,) = await objects.list(POD, namespace, {"app": "stt-b"})
        await play_crashing(objects, pod)
        state = await until(objects, namespace, "RollingBack", 2)
        assert "while guarded: b/stt: CrashLoopBackOff" in state["message"]
        await until(objects, namespace, "RollingBack", 1)
        assert "b" not in await down(objects, namespace)
        await until(objects, namespace, "RolledBack")
        assert await templates(objects, namespace) == before

    within(api_server, scenario)


def test_stacks_on_one_node_go_together(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        for stack, node in (("a", "node-2"), ("b", "node-1"), ("c", "node-2")):
            await create_stack(objects, namespace, stack, node)
        await create_selecting_grant(objects, namespace)
        await create_profile_in_batches(objects, namespace, ["1", "100%"], batchesBy="Node")
        state = await until(objects, namespace, "Progressing")

        assert batches_of(state) == [("b", True), ("ac", False)]

    within(api_server, scenario)


def test_an_evicted_pod_ties_its_stack_to_no_node(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        for stack, node in (("a", "node-1"), ("b", "node-2")):
            await create_stack(objects, namespace, stack, node)
        container = {"name": "asr", "image": "example/server:1"}
        pod: Object = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "evicted", "namespace": namespace, "labels": {"app": "stt-b"}},
            "spec": {"containers": [container], "nodeName": "node-1"},
        }
        await play_ended(objects, await objects.create(POD, namespace, pod), exit_code=137, reason="Evicted")
        await create_selecting_grant(objects, namespace)
        await create_profile_in_batches(objects, namespace, ["1", "100%"], batchesBy="Node")
        state = await until(objects, namespace, "Progressing")

        assert batches_of(state) == [("a", True), ("b", False)]

    within(api_server, scenario)


def test_a_revision_that_is_asked_for_is_for_all_stacks_the_last_batch_first(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stacks(objects, namespace, "ab", ["1", "100%"])
        before = await templates(objects, namespace)
        state = await until(objects, namespace, "Promoted")
        stages = (await objects.get(PROFILE, namespace, "p"))["spec"]["rollout"]["stages"]
        await set_rollout(objects, namespace, stages=[stages[0] | {"toRevision": state["lastGoodRevision"]}])
        await until(objects, namespace, "RollingBack", 2)
        await until(objects, namespace, "RollingBack", 1)
        assert "b" not in await down(objects, namespace)
        state = await until(objects, namespace, "RolledBack")

        assert state["asked"]["outcome"] == "Taken"
        assert await templates(objects, namespace) == before

    within(api_server, scenario)


def test_what_all_batches_will_cost_is_said_before_the_approval(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stacks(objects, namespace, "abc", approval="Manual")
        expect = {"startupSeconds": [{"component": "judge", "seconds": 70}, {"component": "stt", "seconds": 10}]}
        body = await objects.get(PROFILE, namespace, "p")
        await objects.delete(PROFILE, namespace, "p")
        body["metadata"] = {"name": "p", "namespace": namespace}
        body["spec"]["expect"] = expect
        await objects.create(PROFILE, namespace, body)

        message = await until_reason(objects, namespace, "AwaitingApproval")

        # Each of three batches: two stops of 30 s at most, and both starts.
        assert "its expected downtime is 420 s in 3 batches, each at most 140 s" in message
        assert (await status_of(objects, namespace))["expectedDowntime"]["seconds"] == 420

    within(api_server, scenario)


def test_through_git_all_stacks_are_waited_for(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        for stack in "ab":
            await create_stack(objects, namespace, stack)
        await create_selecting_grant(objects, namespace)
        await create_profile_in_batches(objects, namespace, ["100%"])
        await set_rollout(objects, namespace, strategy="Git")
        message = await until_reason(objects, namespace, "AwaitingCommit")
        assert "Deployment stt-a, container asr" in message
        assert "Deployment stt-b, container asr" in message
        await commit(objects, namespace, "a", "tiny")
        message = await until_reason(objects, namespace, "AwaitingCommit")
        await commit(objects, namespace, "b", "tiny")
        state = await until(objects, namespace, "Promoted")

        assert "batch" not in state
        writes = [path for method, path in objects.asked if method == "PATCH" and "/deployments/" in path]
        assert len(writes) == 2, "the two commits of this test"

    within(api_server, scenario)


def test_the_commands_tell_of_batches(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        async def told(*words: str) -> str:
            where = ("-n", namespace, "--kubeconfig", str(api_server.kubeconfig))
            done = await asyncio.to_thread(cotune, *words, *where)
            assert done.returncode == 0, done.stderr
            return done.stdout

        await create_stacks(objects, namespace, "abcd", bakeSeconds=3600)
        assert "batch 3 of 3: stack c (stopped and started again), stack d (stopped" in await told("diff", "p")
        await until(objects, namespace, "Baking", 1)

        tree = await told("get", "profile", "p")
        assert "batch 1 of 3, 1 of 4 stacks; " in tree
        assert [it.split()[1:] for it in tree.splitlines()[-3:]] == [
            ["batch", "1", "Baking", "a"],
            ["batch", "2", "-", "b"],
            ["batch", "3", "-", "c,", "d"],
        ]
        assert "batch 1 of 3: stack a (nothing changes)" in await told("diff", "p")
        assert "a/stt:ASR_WHISPER_SIZE=tiny b/stt:ASR_WHISPER_SIZE=tiny" in await told("history", "p")
        assert (await told("export", "p", "-o", "patch")).count("value: tiny") == 4
        (grant,) = await objects.list(GRANT, namespace)
        assert grant["spec"]["stackLabel"] == STACK

    within(api_server, scenario)


def test_a_grant_that_names_its_workloads_lists_no_deployments(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stacks(objects, namespace, "a")
        (grant,) = await objects.list(GRANT, namespace)
        targets = [
            {key: value for key, value in it.items() if key != "workloadSelector"}
            | {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"{it['component']}-a"}}
            for it in grant["spec"]["targets"]
        ]
        spec = {"targets": targets, "stackLabel": None}
        await objects.merge(GRANT, namespace, grant["metadata"]["name"], {"spec": spec})
        objects.asked.clear()
        state = await until(objects, namespace, "Promoted")

        assert not [path for method, path in objects.asked if method == "GET" and path.endswith("/deployments")]
        assert ("batch" in state, state["batches"]) == (False, [])

    within(api_server, scenario)
