"""A stage that a person takes to a stored revision, against a real API server and controller manager."""

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from cotune.cluster.kinds import CONTROLLER_REVISION, DEPLOYMENT, EVENT, GRANT, PROFILE
from cotune.cluster.objects import ApiError, ConflictError, Object
from cotune.cluster.revisions import LABELS
from support.api_server import ApiServer
from support.command_line import cotune
from support.played_cluster import DiedError, PlayedObjects, eventually, new_namespace, within
from support.played_stage import (
    SIZE,
    create_profile,
    create_stage,
    play_workloads,
    profile_reconciler,
    stage_of,
    templates,
)

pytestmark = pytest.mark.apiserver

NOBODYS = "cotune-0123456789"


async def passes(
    objects: PlayedObjects, namespace: str, until: Callable[[], Awaitable[bool]], name: str = "p", broken: bool = False
) -> None:
    """Passes of reconcilers that know nothing of the passes before; pods become ready in between."""

    async def is_there() -> bool:
        body = await objects.get(PROFILE, namespace, name)
        try:
            await profile_reconciler(objects).reconcile(body, datetime.now(UTC))
        except ConflictError:
            return False
        await play_workloads(objects, namespace, broken)
        return await until()

    await eventually(is_there, "what is waited for")


async def until_phase(
    objects: PlayedObjects, namespace: str, phase: str, name: str = "p", broken: bool = False
) -> None:
    async def is_in_it() -> bool:
        return (await objects.get(PROFILE, namespace, name)).get("status", {}).get("phase") == phase

    await passes(objects, namespace, is_in_it, name, broken)


async def until_answered(objects: PlayedObjects, namespace: str, outcome: str) -> Object:
    async def is_answered() -> bool:
        asked = (await stage_of(objects, namespace)).asked
        return asked is not None and asked.outcome == outcome

    await passes(objects, namespace, is_answered)
    return (await objects.get(PROFILE, namespace, "p"))["status"]["stages"][0]["asked"]


async def ask(objects: PlayedObjects, namespace: str, revision: str | None) -> None:
    """As a commit of the field does it."""
    stages = (await objects.get(PROFILE, namespace, "p"))["spec"]["rollout"]["stages"]
    stages[0]["toRevision"] = revision
    await objects.merge(PROFILE, namespace, "p", {"spec": {"rollout": {"stages": stages}}})


async def revisions(objects: PlayedObjects, namespace: str) -> dict[int, str]:
    found = await objects.list(CONTROLLER_REVISION, namespace, LABELS)
    return {int(it["revision"]): it["metadata"]["name"] for it in found}


async def size(objects: PlayedObjects, namespace: str) -> str:
    whisper = await objects.get(DEPLOYMENT, namespace, "whisper")
    (env,) = whisper["spec"]["template"]["spec"]["containers"][0]["env"]
    assert env["name"] == SIZE
    return env["value"]


async def promoted(
    objects: PlayedObjects, namespace: str, guard_seconds: int = 0, deadline: int = 300
) -> dict[str, object]:
    """A promoted stage; its templates before the change."""
    await create_stage(objects, namespace)
    before = await templates(objects, namespace)
    await create_profile(objects, namespace, namespace, guardSeconds=guard_seconds, readinessDeadlineSeconds=deadline)
    await until_phase(objects, namespace, "Promoted")
    return dict(before)


def said(server: ApiServer, namespace: str, *words: str) -> Callable[[], "Awaitable[tuple[int, str, str]]"]:
    async def run() -> tuple[int, str, str]:
        where = ("-n", namespace, "--kubeconfig", str(server.kubeconfig))
        done = await asyncio.to_thread(cotune, *words, *where)
        return done.returncode, done.stdout, done.stderr

    return run


def test_a_promoted_stage_goes_back_to_a_revision_and_forth_again(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        before = await promoted(objects, namespace, guard_seconds=3600)
        after = await templates(objects, namespace)
        known = await revisions(objects, namespace)
        say = functools.partial(said, api_server, namespace)

        assert await say("rollback", "p", "--to-revision", "0")() == (
            0,
            f"{namespace}/p: stage only is taken to revision {known[0]} (0)\n",
            "",
        )
        await until_phase(objects, namespace, "RolledBack")

        state = await stage_of(objects, namespace)
        assert await templates(objects, namespace) == before
        assert (state.last_good_revision, state.guarded) == (known[0], ())
        assert state.message == f"to revision {known[0]}, because {known[0]} was asked for"
        history = (await say("history", "p")())[1].splitlines()
        assert history[1].endswith(f"stt:{SIZE}=small  what it was taken to, as asked for")
        assert [line.split()[5] for line in history[1:]] == ["yes"] * 3
        body = await objects.get(PROFILE, namespace, "p")
        assert await profile_reconciler(objects).reconcile(body, datetime.now(UTC)) is None
        assert "finalizers" not in (await objects.get(PROFILE, namespace, "p"))["metadata"]

        code, out, _ = await say("rollback", "p", "--to-revision", known[1])()
        assert (code, out) == (0, f"{namespace}/p: stage only is taken to revision {known[1]} (1)\n")
        await passes(objects, namespace, functools.partial(_is_at, objects, namespace, "tiny"))
        await until_phase(objects, namespace, "RolledBack")

        assert {name: it[1] for name, it in (await templates(objects, namespace)).items()} == {
            name: it[1] for name, it in after.items()
        }
        assert (await stage_of(objects, namespace)).message.startswith(f"to revision {known[1]}, ")

    within(api_server, scenario)


async def _is_at(objects: PlayedObjects, namespace: str, value: str) -> bool:
    return await size(objects, namespace) == value


def test_a_revision_that_is_unknown_was_never_ready_or_is_the_present_one_touches_nothing(
    api_server: ApiServer,
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        await create_profile(objects, namespace, namespace)
        await until_phase(objects, namespace, "RolledBack", broken=True)
        known = await revisions(objects, namespace)
        generations = {it["metadata"]["generation"] for it in await objects.list(DEPLOYMENT, namespace)}
        objects.asked.clear()
        say = functools.partial(said, api_server, namespace, "rollback", "p", "--to-revision")
        only = f": there are {known[0]} (0)"

        for wanted, message in {
            "7": f"RevisionUnknown: namespace {namespace} has no revision 7{only}",
            NOBODYS: f"RevisionUnknown: namespace {namespace} has no revision {NOBODYS}{only}",
            "1": f"RevisionNotGood: nothing on record says that namespace {namespace} was ever ready "
            f"with revision {known[1]}{only}",
        }.items():
            assert await say(wanted)() == (1, "", f"cotune: error: {namespace}/p: {message}\n")
        assert await say("0")() == (
            0,
            f"{namespace}/p: namespace {namespace} has revision {known[0]} (0) already (nothing to change)\n",
            "",
        )

        for wanted, reason in ((NOBODYS, "RevisionUnknown"), (known[1], "RevisionNotGood")):
            await ask(objects, namespace, wanted)

            async def is_refused(wanted: str = wanted) -> bool:
                asked = (await stage_of(objects, namespace)).asked
                return asked is not None and asked.revision == wanted

            await passes(objects, namespace, is_refused)
            body = await objects.get(PROFILE, namespace, "p")
            asked = body["status"]["stages"][0]["asked"]
            assert (asked["outcome"], asked["reason"]) == ("Refused", reason)
            assert known[0] in asked["message"]
            stalled = next(it for it in body["status"]["conditions"] if it["type"] == "Stalled")
            assert (stalled["status"], stalled["reason"], stalled["message"]) == ("True", reason, asked["message"])
            assert await profile_reconciler(objects).reconcile(body, datetime.now(UTC)) == timedelta(seconds=5)
        await ask(objects, namespace, known[0])
        asked = await until_answered(objects, namespace, "AlreadyThere")
        assert asked["message"] == f"namespace {namespace} has revision {known[0]} already"
        body = await objects.get(PROFILE, namespace, "p")
        assert next(it for it in body["status"]["conditions"] if it["type"] == "Stalled")["status"] == "False"
        assert await profile_reconciler(objects).reconcile(body, datetime.now(UTC)) is None

        assert body["status"]["phase"] == "RolledBack"
        assert {it["metadata"]["generation"] for it in await objects.list(DEPLOYMENT, namespace)} == generations
        assert not [it for it in objects.asked if it[0] == "PATCH" and "/deployments/" in it[1]]
        told = {it["reason"]: it["type"] for it in await objects.list(EVENT, namespace)}
        assert told["RevisionUnknown"] == told["RevisionNotGood"] == "Warning"
        assert told["AlreadyThere"] == "Normal"

    within(api_server, scenario)


def test_a_stage_in_progress_is_taken_back_first_and_then_to_the_revision(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        before = await promoted(objects, namespace)
        known = await revisions(objects, namespace)
        await create_profile(objects, namespace, namespace, "newer", to="base", bakeSeconds=3600)
        await until_phase(objects, namespace, "Baking", "newer")
        assert await size(objects, namespace) == "base"

        # Whoever asks another profile waits for the one that is in the middle of its change.
        await ask(objects, namespace, known[0])
        asked = await until_answered(objects, namespace, "Waiting")
        assert asked["reason"] == "WaitingForProfile"
        assert asked["message"].startswith(f"profile {namespace}/newer is in the middle of its change")
        await ask(objects, namespace, None)
        say = functools.partial(said, api_server, namespace, "rollback", "newer", "--to-revision")
        code, out, error = await say(known[0])()
        assert code == 0, error
        assert out == f"{namespace}/newer: stage only is taken back, and then to revision {known[0]} (0)\n"
        seen: list[str] = []

        async def is_small() -> bool:
            seen.append(await size(objects, namespace))
            state = await stage_of(objects, namespace, "newer")
            return state.phase == "RolledBack" and state.asked is not None and state.asked.outcome == "Taken"

        await passes(objects, namespace, is_small, "newer")

        assert [it for number, it in enumerate(seen) if number == 0 or seen[number - 1] != it] == [
            *(["base"] if seen[0] == "base" else []),
            "tiny",
            "small",
        ]
        assert await templates(objects, namespace) == before

    within(api_server, scenario)


def test_a_stage_that_was_taken_to_a_revision_starts_anew_only_when_it_is_retried(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await promoted(objects, namespace)
        # What takes a stage up again by itself elsewhere.
        await objects.merge(PROFILE, namespace, "p", {"spec": {"rollout": {"retries": 2}}})
        await ask(objects, namespace, (await revisions(objects, namespace))[0])
        await until_phase(objects, namespace, "RolledBack")
        body = await objects.get(PROFILE, namespace, "p")
        assert await profile_reconciler(objects).reconcile(body, datetime.now(UTC)) is None

        assert (await said(api_server, namespace, "retry", "p")())[1] == f"{namespace}/p: stage only starts anew\n"
        await until_phase(objects, namespace, "Promoted")

        stage = (await objects.get(PROFILE, namespace, "p"))["spec"]["rollout"]["stages"][0]
        assert "toRevision" not in stage
        assert (await size(objects, namespace), (await stage_of(objects, namespace)).asked) == ("tiny", None)

    within(api_server, scenario)


def test_a_revision_that_does_not_come_up_is_degraded_and_another_one_helps(api_server: ApiServer) -> None:
    """Nothing takes a way back in its turn; where it leads, a person may say anew once it is overdue."""

    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        before = await promoted(objects, namespace, deadline=2)
        known = await revisions(objects, namespace)
        await ask(objects, namespace, known[0])
        await passes(objects, namespace, functools.partial(_is_at, objects, namespace, "small"))

        async def is_degraded() -> bool:
            body = await objects.get(PROFILE, namespace, "p")
            await profile_reconciler(objects).reconcile(body, datetime.now(UTC))
            return (await stage_of(objects, namespace)).phase == "Degraded"

        # No kubelet makes a pod ready meanwhile.
        await eventually(is_degraded, "a way back that is overdue")
        assert await size(objects, namespace) == "small"
        await ask(objects, namespace, known[1])
        await passes(objects, namespace, functools.partial(_is_at, objects, namespace, "tiny"))
        await until_phase(objects, namespace, "RolledBack")

        assert await templates(objects, namespace) != before
        state = await stage_of(objects, namespace)
        assert state.asked is not None
        assert (state.asked.revision, state.asked.outcome) == (known[1], "Taken")

    within(api_server, scenario)


async def withdraw_the_grant(objects: PlayedObjects, namespace: str) -> str:
    await objects.merge(GRANT, namespace, "from-the-lab", {"spec": {"from": [{"namespace": "somewhere-else"}]}})
    return "NoGrant"


async def mean_another_workload(objects: PlayedObjects, namespace: str) -> str:
    targets = (await objects.get(GRANT, namespace, "from-the-lab"))["spec"]["targets"]
    targets[-1]["workloadRef"]["name"] = "another"
    await objects.merge(GRANT, namespace, "from-the-lab", {"spec": {"targets": targets}})
    return "WorkloadNotFound"


async def delete_a_workload(objects: PlayedObjects, namespace: str) -> str:
    await objects.delete(DEPLOYMENT, namespace, "judge")
    return "WorkloadNotFound"


@pytest.mark.parametrize("disturb", [withdraw_the_grant, mean_another_workload, delete_a_workload])
def test_what_the_owner_does_not_let_or_have_is_refused_and_nothing_is_touched(
    api_server: ApiServer, disturb: Callable[[PlayedObjects, str], Awaitable[str]]
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await promoted(objects, namespace)
        reason = await disturb(objects, namespace)
        objects.asked.clear()
        await ask(objects, namespace, (await revisions(objects, namespace))[0])

        asked = await until_answered(objects, namespace, "Refused")

        assert asked["reason"] == reason, asked
        assert (await objects.get(PROFILE, namespace, "p"))["status"]["phase"] == "Promoted"
        assert not [it for it in objects.asked if it[0] == "PATCH" and "/deployments/" in it[1]]

    within(api_server, scenario)


def test_a_value_that_the_owner_no_longer_grants_is_refused_but_the_owners_own_is_not(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        before = await promoted(objects, namespace)
        known = await revisions(objects, namespace)
        await ask(objects, namespace, known[0])
        await until_phase(objects, namespace, "RolledBack")
        targets = (await objects.get(GRANT, namespace, "from-the-lab"))["spec"]["targets"]
        narrowed = [it | ({"values": ["base"]} if SIZE in it.get("env", ()) else {}) for it in targets]
        assert narrowed != targets
        await objects.merge(GRANT, namespace, "from-the-lab", {"spec": {"targets": narrowed}})
        assert await templates(objects, namespace) == before

        await ask(objects, namespace, known[1])
        asked = await until_answered(objects, namespace, "Refused")

        assert asked["reason"] == "ChangeNotGranted"
        assert asked["message"] == f"no grant in namespace {namespace} lets stt have {SIZE}=tiny"
        await objects.merge(GRANT, namespace, "from-the-lab", {"spec": {"targets": targets}})
        await passes(objects, namespace, functools.partial(_is_at, objects, namespace, "tiny"))
        await objects.merge(GRANT, namespace, "from-the-lab", {"spec": {"targets": narrowed}})
        await until_phase(objects, namespace, "RolledBack")
        await ask(objects, namespace, known[0])
        await passes(objects, namespace, functools.partial(_is_at, objects, namespace, "small"))

    within(api_server, scenario)


@pytest.mark.parametrize("calls", range(15))
def test_a_pass_that_dies_after_any_call_goes_there_all_the_same(api_server: ApiServer, calls: int) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        before = await promoted(objects, namespace)
        await ask(objects, namespace, (await revisions(objects, namespace))[0])
        body = await objects.get(PROFILE, namespace, "p")
        objects.allowed_calls = calls
        with pytest.raises(DiedError):
            await profile_reconciler(objects).reconcile(body, datetime.now(UTC))
        objects.allowed_calls = None

        await until_phase(objects, namespace, "RolledBack")

        assert await templates(objects, namespace) == before
        assert sorted(await revisions(objects, namespace)) == [0, 1, 2]

    within(api_server, scenario)


def test_a_question_that_the_server_fails_to_answer_keeps_no_other_stage_where_it_is(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await promoted(objects, namespace)
        wanted = (await revisions(objects, namespace))[0]
        other = await new_namespace(objects)
        await create_stage(objects, other, grant=False)
        grant = await objects.get(GRANT, namespace, "from-the-lab")
        invited = {"apiVersion": grant["apiVersion"], "kind": grant["kind"], "spec": grant["spec"]}
        await objects.create(GRANT, other, invited | {"metadata": {"name": "from-the-lab", "namespace": other}})
        await ask(objects, namespace, wanted)
        [first] = (await objects.get(PROFILE, namespace, "p"))["spec"]["rollout"]["stages"]
        stages = [first, {"name": "next", "namespace": other, "guardSeconds": 0}]
        await objects.merge(PROFILE, namespace, "p", {"spec": {"rollout": {"stages": stages}}})
        broken = ApiError(500, "InternalError", "etcdserver: request timed out")
        theirs = f"/namespaces/{namespace}/controllerrevisions"
        objects.refuse = lambda call: broken if theirs in call.path else None
        failures: list[ApiError] = []

        async def is_promoted() -> bool:
            body = await objects.get(PROFILE, namespace, "p")
            try:
                await profile_reconciler(objects).reconcile(body, datetime.now(UTC))
            except ApiError as error:
                failures.append(error)
            await play_workloads(objects, other, broken=False)
            found = (await objects.get(PROFILE, namespace, "p"))["status"]["stages"]
            return [it["phase"] for it in found] == ["Promoted", "Promoted"]

        await eventually(is_promoted, "the next stage promoted")
        [asked, _] = (await objects.get(PROFILE, namespace, "p"))["status"]["stages"]
        assert "asked" not in asked
        assert broken in failures  # It is looked at again, as after any failure.
        objects.refuse = lambda _: None
        await passes(objects, namespace, functools.partial(_is_at, objects, namespace, "small"))

    within(api_server, scenario)


def test_which_stage_must_be_said_where_several_have_begun(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        await create_profile(objects, namespace, namespace)
        say = functools.partial(said, api_server, namespace, "rollback", "p", "--to-revision", "0")

        none = await say()()
        await until_phase(objects, namespace, "Promoted")
        stages = (await objects.get(PROFILE, namespace, "p"))["spec"]["rollout"]["stages"]
        more = [*stages, {"name": "next", "namespace": "another"}]
        await objects.merge(PROFILE, namespace, "p", {"spec": {"rollout": {"stages": more}}})
        status = (await objects.get(PROFILE, namespace, "p"))["status"]["stages"]
        begun = {"status": {"stages": [*status, {"name": "next", "phase": "Baking"}]}}
        await objects.merge(PROFILE, namespace, "p", begun, subresource="status")
        several, wrong, right = await say()(), await say("--stage", "nobody")(), await say("--stage", "only")()

        error = f"cotune: error: {namespace}/p: "
        assert none == (1, "", f"{error}no stage has begun: there is nothing to take back\n")
        assert several == (1, "", f"{error}several stages have begun: say --stage, only or next\n")
        assert wrong == (1, "", f"{error}there is no stage nobody: it has only, next\n")
        assert re.fullmatch(rf"{namespace}/p: stage only is taken to revision cotune-\w{{10}} \(0\)\n", right[1])

    within(api_server, scenario)
