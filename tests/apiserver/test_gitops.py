"""Workloads that Argo CD or Flux keeps as Git has them, against a real API server, which remembers who wrote what."""

import asyncio
import copy
import functools
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import yaml
from apiserver.test_reconcilers import drive
from apiserver.test_rollback import kill_the_judge, one_pass
from cotune.cluster.kinds import CONTROLLER_REVISION, DEPLOYMENT, GRANT, PROFILE
from cotune.cluster.objects import Object
from cotune.cluster.revisions import Revisions
from support.api_server import ApiServer
from support.command_line import cotune
from support.played_cluster import PlayedObjects, connected, deployment, eventually, new_namespace, within
from support.played_git import (
    ARGO_CD,
    ARGO_CD_AT_ITS_SIDE,
    HELM,
    KUSTOMIZE,
    TRACKING_ID,
    GitOpsTool,
    play_values,
)
from support.played_stage import SIZE, create_profile, profile_reconciler, stage_of, templates
from support.resources import manifest

pytestmark = pytest.mark.apiserver

TOOLS = [ARGO_CD, ARGO_CD_AT_ITS_SIDE, KUSTOMIZE, HELM]
BY = {
    ARGO_CD.manager: ("ArgoCD", f"Argo CD (Application voice, annotation {TRACKING_ID})"),
    KUSTOMIZE.manager: ("Flux", "Flux (Kustomization flux-system/voice, label kustomize.toolkit.fluxcd.io/name)"),
    HELM.manager: ("Flux", "Flux (HelmRelease voice/voice, label helm.toolkit.fluxcd.io/name)"),
}
OURS = {"app.kubernetes.io/managed-by": "cotune"}


async def kept_stage(
    objects: PlayedObjects,
    namespace: str,
    tool: GitOpsTool,
    strategy: str = "Direct",
    bake_seconds: int = 0,
    guard_seconds: int = 0,
) -> None:
    """A grant and a profile for workloads that a tool has made, as Git has them: with replicas and the variable."""
    await tool.sync(objects, namespace)
    grant = copy.deepcopy(manifest("GpuTuningGrant"))
    grant["metadata"]["namespace"] = namespace
    grant["spec"]["from"] = [{"namespace": namespace}]
    await objects.create(GRANT, namespace, grant)
    await create_profile(objects, namespace, namespace, bakeSeconds=bake_seconds, guardSeconds=guard_seconds)
    if strategy != "Direct":
        await objects.merge(PROFILE, namespace, "p", {"spec": {"rollout": {"strategy": strategy}}})


async def conditions_of(objects: PlayedObjects, namespace: str) -> dict[str, tuple[str, str, str]]:
    found = (await objects.get(PROFILE, namespace, "p")).get("status", {}).get("conditions", ())
    return {it["type"]: (it["status"], it["reason"], it["message"]) for it in found}


async def phase_of(objects: PlayedObjects, namespace: str) -> str:
    return (await objects.get(PROFILE, namespace, "p")).get("status", {}).get("phase", "")


async def until(
    objects: PlayedObjects, namespace: str, holds: Callable[[], Awaitable[bool]], broken: str | None = None
) -> None:
    """Passes until something holds."""

    async def is_so() -> bool:
        await one_pass(objects, namespace)
        await play_values(objects, namespace, broken)
        return await holds()

    await eventually(is_so, "what the test waits for")


async def until_phase(objects: PlayedObjects, namespace: str, phase: str, broken: str | None = None) -> None:
    async def is_there() -> bool:
        return await phase_of(objects, namespace) == phase

    await until(objects, namespace, is_there, broken)


async def until_reason(objects: PlayedObjects, namespace: str, type_: str, reason: str) -> str:
    """Passes until a condition has a reason; its message."""

    async def is_said() -> bool:
        return (await conditions_of(objects, namespace)).get(type_, ("", "", ""))[1] == reason

    await until(objects, namespace, is_said)
    return (await conditions_of(objects, namespace))[type_][2]


def writes_to_workloads(objects: PlayedObjects) -> list[tuple[str, str]]:
    """Of the operator, since the test has last forgotten them; the tool's are not among them, for it writes before."""
    return [it for it in objects.asked if it[0] != "GET" and "/deployments/" in it[1]]


@pytest.mark.parametrize("tool", TOOLS)
def test_a_workload_whose_touched_fields_are_in_git_is_refused_to_a_direct_rollout(
    api_server: ApiServer, tool: GitOpsTool
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await kept_stage(objects, namespace, tool)
        objects.asked.clear()

        for _ in range(3):
            await one_pass(objects, namespace)

        reason, by = BY[tool.manager]
        where = f"managedFields of {tool.manager}"
        found = await conditions_of(objects, namespace)
        assert found["Stalled"] == (
            "True",
            "ManagedByGitOps",
            f"namespace {namespace}: {by} keeps Deployment judge and has in Git: spec.replicas ({where}); "
            f"{by} keeps Deployment whisper and has in Git: spec.replicas ({where}), "
            f"env {SIZE} of container asr ({where}). Take them out of Git, or roll out with strategy Git",
        )
        assert found["ManagedByGitOps"] == (
            "True",
            reason,
            f"stage only, namespace {namespace}: Deployment judge by {by}; Deployment whisper by {by}",
        )
        assert await phase_of(objects, namespace) == "Pending"
        assert writes_to_workloads(objects) == []
        assert await objects.list(CONTROLLER_REVISION, namespace, OURS) == ()

    within(api_server, scenario)


def test_replicas_that_somebody_took_from_a_tool_are_still_in_what_it_applied_last(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await kept_stage(objects, namespace, ARGO_CD_AT_ITS_SIDE)
        await objects.merge(DEPLOYMENT, namespace, "judge", {"spec": {"replicas": 2}}, manager="kubectl")

        message = await until_reason(objects, namespace, "Stalled", "ManagedByGitOps")

        assert "keeps Deployment judge and has in Git: spec.replicas (last-applied-configuration);" in message

    within(api_server, scenario)


@pytest.mark.parametrize("tool", [ARGO_CD, KUSTOMIZE])
def test_a_stage_begins_once_git_lacks_the_fields_and_a_sync_leaves_its_values_alone(
    api_server: ApiServer, tool: GitOpsTool
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await kept_stage(objects, namespace, tool)
        await until_reason(objects, namespace, "Stalled", "ManagedByGitOps")
        await tool.sync(objects, namespace, size=None, replicas=None)

        await until_phase(objects, namespace, "Promoted")

        found = await conditions_of(objects, namespace)
        assert found["ManagedByGitOps"][0] == "True"
        assert found["Stalled"][0] == "False"
        promoted = await templates(objects, namespace)
        assert promoted["whisper"][0]["spec"]["containers"][0]["env"] == [{"name": SIZE, "value": "tiny"}]
        await tool.sync(objects, namespace, size=None, replicas=None)
        assert await templates(objects, namespace) == promoted

    within(api_server, scenario)


def test_a_stage_begins_when_the_owner_says_that_the_tool_ignores_what_it_sets(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await kept_stage(objects, namespace, ARGO_CD)
        await until_reason(objects, namespace, "Stalled", "ManagedByGitOps")
        [grant] = await objects.list(GRANT, namespace)
        targets = [it | {"ignoredByGitOps": True} for it in grant["spec"]["targets"]]
        await objects.merge(GRANT, namespace, grant["metadata"]["name"], {"spec": {"targets": targets}})

        await until_phase(objects, namespace, "Promoted")

        assert (await conditions_of(objects, namespace))["ManagedByGitOps"][:2] == ("True", "ArgoCD")

    within(api_server, scenario)


def test_a_tool_that_puts_its_values_back_in_the_middle_of_a_direct_stage_takes_it_back(api_server: ApiServer) -> None:
    """What its owner had said to be ignored is not: the tool heals it."""

    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await kept_stage(objects, namespace, ARGO_CD, bake_seconds=3600)
        [grant] = await objects.list(GRANT, namespace)
        targets = [it | {"ignoredByGitOps": True} for it in grant["spec"]["targets"]]
        await objects.merge(GRANT, namespace, grant["metadata"]["name"], {"spec": {"targets": targets}})
        await until_phase(objects, namespace, "Baking")
        await ARGO_CD.sync(objects, namespace)

        await until_phase(objects, namespace, "RolledBack")

        message = "while baking: stt: somebody else has changed its variables"
        assert (await stage_of(objects, namespace)).message == message

    within(api_server, scenario)


def test_a_stage_through_git_waits_for_the_commit_and_is_promoted_without_a_write(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await kept_stage(objects, namespace, KUSTOMIZE, "Git", bake_seconds=3600)
        message = await until_reason(objects, namespace, "Progressing", "AwaitingCommit")
        assert message == (
            f"stage only waits for Git: Deployment whisper, container asr: {SIZE}=tiny (is small); "
            f"`kubectl cotune export p -n {namespace} --stage only` prints the patch"
        )
        found = await conditions_of(objects, namespace)
        assert (found["Stalled"][0], found["ManagedByGitOps"][:2]) == ("False", ("True", "Flux"))
        assert (await phase_of(objects, namespace), (await stage_of(objects, namespace)).phase) == (
            "Pending",
            "Pending",
        )
        await KUSTOMIZE.sync(objects, namespace, size="tiny", replicas=2)
        objects.asked.clear()

        await until_phase(objects, namespace, "Baking")
        await one_pass(objects, namespace, later=3601)

        assert await phase_of(objects, namespace) == "Promoted"
        assert writes_to_workloads(objects) == []
        after = await objects.get(PROFILE, namespace, "p")
        assert "finalizers" not in after["metadata"]
        [stage] = after["status"]["stages"]
        revisions = {it["metadata"]["name"]: it for it in await objects.list(CONTROLLER_REVISION, namespace, OURS)}
        was, is_now = (
            {it["component"]: it["values"] for it in revisions[stage[name]]["data"]["workloads"]}
            for name in ("lastGoodRevision", "revision")
        )
        assert (was["stt"], is_now["stt"]) == ({SIZE: "small"}, {SIZE: "tiny"})

    within(api_server, scenario)


def test_a_stage_that_waits_for_git_forgets_what_was_recorded_of_other_workloads(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await kept_stage(objects, namespace, KUSTOMIZE, "Git")
        await until_reason(objects, namespace, "Progressing", "AwaitingCommit")
        before = await stage_of(objects, namespace)
        whisper = await objects.get(DEPLOYMENT, namespace, "whisper")
        again = {key: whisper[key] for key in ("apiVersion", "kind", "spec")}
        again["spec"]["selector"] = {"matchLabels": {"app": "another"}}
        again["spec"]["template"]["metadata"]["labels"] = {"app": "another"}
        labels = whisper["metadata"].get("labels", {})
        again["metadata"] = {"name": "another", "namespace": namespace, "labels": labels}
        await objects.create(DEPLOYMENT, namespace, again)
        grant = await objects.get(GRANT, namespace, "from-the-lab")
        targets = grant["spec"]["targets"]
        [stt] = [it for it in targets if it["component"] == "stt"]
        stt["workloadRef"]["name"] = "another"
        await objects.merge(GRANT, namespace, "from-the-lab", {"spec": {"targets": targets}})

        async def is_recorded_anew() -> bool:
            return (await stage_of(objects, namespace)).revision != before.revision

        await until(objects, namespace, is_recorded_anew)

        state = await stage_of(objects, namespace)
        for name in (state.revision, state.last_good_revision):
            stored = await objects.get(CONTROLLER_REVISION, namespace, name or "")
            workloads = {it["component"]: it["workload"] for it in stored["data"]["workloads"]}
            assert workloads["stt"] == "another"

    within(api_server, scenario)


def test_nobody_waits_for_a_profile_that_waits_for_a_commit(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await kept_stage(objects, namespace, KUSTOMIZE, "Git")
        await until_reason(objects, namespace, "Progressing", "AwaitingCommit")
        await create_profile(objects, namespace, namespace, "newer", to="base")
        await objects.merge(PROFILE, namespace, "newer", {"spec": {"rollout": {"strategy": "Git"}}})
        await KUSTOMIZE.sync(objects, namespace, size="base")

        async def is_promoted() -> bool:
            await one_pass(objects, namespace, "newer")
            await play_values(objects, namespace)
            return (await objects.get(PROFILE, namespace, "newer"))["status"]["phase"] == "Promoted"

        await eventually(is_promoted, "the newer one promoted")

    within(api_server, scenario)


def test_a_stage_through_git_that_fails_says_what_to_revert_and_is_back_when_it_is(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await kept_stage(objects, namespace, ARGO_CD, "Git")
        await until_reason(objects, namespace, "Progressing", "AwaitingCommit")
        before = await templates(objects, namespace)
        await ARGO_CD.sync(objects, namespace, size="tiny")
        objects.asked.clear()

        await until_phase(objects, namespace, "RollingBack", broken="tiny")
        await one_pass(objects, namespace)

        state = await stage_of(objects, namespace)
        assert state.message.startswith("stt: CrashLoopBackOff: pod whisper-")
        stalled = (await conditions_of(objects, namespace))["Stalled"]
        assert stalled == (
            "True",
            "AwaitingRevert",
            f"revert in Git: Deployment whisper, container asr: {SIZE}=tiny to small",
        )
        await one_pass(objects, namespace, later=3600)
        assert await phase_of(objects, namespace) == "Degraded"
        assert writes_to_workloads(objects) == []

        await ARGO_CD.sync(objects, namespace)
        await until_phase(objects, namespace, "RolledBack")
        assert await templates(objects, namespace) == before
        assert (await conditions_of(objects, namespace))["Stalled"][0] == "False"

    within(api_server, scenario)


async def ask_for_the_first_revision(objects: PlayedObjects, namespace: str) -> str:
    """By `toRevision`; the message of the refusal."""
    stages = (await objects.get(PROFILE, namespace, "p"))["spec"]["rollout"]["stages"]
    found = await objects.list(CONTROLLER_REVISION, namespace, OURS)
    stages[0]["toRevision"] = min(found, key=lambda it: int(it["revision"]))["metadata"]["name"]
    await objects.merge(PROFILE, namespace, "p", {"spec": {"rollout": {"stages": stages}}})
    objects.asked.clear()
    return await until_reason(objects, namespace, "Stalled", "ManagedByGitOps")


def test_a_stage_is_taken_to_no_revision_where_git_has_got_the_fields_meanwhile(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await kept_stage(objects, namespace, ARGO_CD)
        await ARGO_CD.sync(objects, namespace, size=None, replicas=None)
        await until_phase(objects, namespace, "Promoted")
        await ARGO_CD.sync(objects, namespace, size="tiny")
        before = await templates(objects, namespace)

        message = await ask_for_the_first_revision(objects, namespace)

        assert "Argo CD" in message
        assert writes_to_workloads(objects) == []
        assert await templates(objects, namespace) == before
        assert await phase_of(objects, namespace) == "Promoted"

    within(api_server, scenario)


def test_a_stage_through_git_is_taken_to_no_revision(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await kept_stage(objects, namespace, KUSTOMIZE, "Git")
        await until_reason(objects, namespace, "Progressing", "AwaitingCommit")
        await KUSTOMIZE.sync(objects, namespace, size="tiny")
        await until_phase(objects, namespace, "Promoted")

        message = await ask_for_the_first_revision(objects, namespace)

        assert "takes its values from Git" in message
        assert await phase_of(objects, namespace) == "Promoted"

    within(api_server, scenario)


def test_a_stage_through_git_that_is_aborted_costs_no_downtime(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await kept_stage(objects, namespace, KUSTOMIZE, "Git")
        await until_reason(objects, namespace, "Progressing", "AwaitingCommit")
        await KUSTOMIZE.sync(objects, namespace, size="tiny")
        await until_phase(objects, namespace, "Progressing", broken="tiny")
        await objects.merge(PROFILE, namespace, "p", {"spec": {"rollout": {"abort": True}}})

        await until_phase(objects, namespace, "RollingBack", broken="tiny")
        await one_pass(objects, namespace)

        assert (await stage_of(objects, namespace)).downtime is None

    within(api_server, scenario)


def test_what_came_with_a_commit_and_never_stood_ready_is_nowhere_to_go_back_to(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await kept_stage(objects, namespace, KUSTOMIZE, "Git")
        await KUSTOMIZE.sync(objects, namespace, size="tiny")

        await until_phase(objects, namespace, "RollingBack", broken="tiny")

        records = await Revisions(objects, namespace).stored()
        assert records
        assert [it.name for it in records if it.was_found] == []

    within(api_server, scenario)


def test_a_guarded_stage_through_git_says_what_to_revert(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await kept_stage(objects, namespace, ARGO_CD, "Git", guard_seconds=3600)
        await until_reason(objects, namespace, "Progressing", "AwaitingCommit")
        await ARGO_CD.sync(objects, namespace, size="tiny")
        await until_phase(objects, namespace, "Promoted")
        objects.asked.clear()
        await kill_the_judge(objects, namespace)
        objects.asked.clear()

        for _ in range(2):
            await one_pass(objects, namespace)

        assert (await stage_of(objects, namespace)).message.startswith("while guarded: judge: OOMKilled")
        found = (await conditions_of(objects, namespace))["Stalled"]
        assert found[1:] == (
            "AwaitingRevert",
            f"revert in Git: Deployment whisper, container asr: {SIZE}=tiny to small",
        )
        assert writes_to_workloads(objects) == []
        assert "finalizers" not in (await objects.get(PROFILE, namespace, "p"))["metadata"]

    within(api_server, scenario)


def test_a_profile_that_is_deleted_in_the_middle_of_a_stage_through_git_goes_at_once(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await kept_stage(objects, namespace, KUSTOMIZE, "Git", bake_seconds=3600)
        await until_reason(objects, namespace, "Progressing", "AwaitingCommit")
        await KUSTOMIZE.sync(objects, namespace, size="tiny")
        await until_phase(objects, namespace, "Baking")

        await objects.delete(PROFILE, namespace, "p")

        assert await objects.find(PROFILE, namespace, "p") is None

    within(api_server, scenario)


@pytest.mark.parametrize("calls", range(13))
def test_a_stage_through_git_whose_passes_die_after_any_call_ends_the_same(api_server: ApiServer, calls: int) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await kept_stage(objects, namespace, KUSTOMIZE, "Git")
        is_committed = False

        async def play() -> None:
            nonlocal is_committed
            await play_values(objects, namespace)
            status = (await objects.get(PROFILE, namespace, "p")).get("status", {})
            if not is_committed and status.get("stages"):
                is_committed = True
                await KUSTOMIZE.sync(objects, namespace, size="tiny")

        one = profile_reconciler(objects).reconcile
        driven = await drive(objects, PROFILE, namespace, "p", one, functools.partial(play), calls)

        assert driven.deaths > 0
        state = await stage_of(objects, namespace)
        assert state.phase == "Promoted"
        found = await objects.list(CONTROLLER_REVISION, namespace, OURS)
        assert {it["metadata"]["name"] for it in found} == {state.revision, state.last_good_revision}
        assert state.revision != state.last_good_revision

    within(api_server, scenario)


@pytest.mark.parametrize(("phase", "accepted"), [("Pending", True), ("RolledBack", True), ("Baking", False)])
def test_a_stage_that_has_begun_keeps_its_strategy(api_server: ApiServer, phase: str, accepted: bool) -> None:
    def named(strategy: str) -> Object:
        made = copy.deepcopy(manifest("GpuProfile"))
        made["metadata"]["name"] = "strategy"
        made["spec"]["rollout"]["strategy"] = strategy
        return made

    api_server.run("delete", "gpp", "strategy", "--ignore-not-found")
    assert api_server.apply(named("Git")).accepted
    status = f'{{"status": {{"stages": [{{"name": "staging", "phase": "{phase}"}}]}}}}'
    begun = api_server.run("patch", "gpp", "strategy", "--subresource=status", "--type=merge", "-p", status)
    assert begun.accepted, begun.text

    answer = api_server.apply(named("Direct"))

    assert answer.accepted == accepted, answer.text
    assert accepted or "spec.rollout.strategy: Invalid value: a stage that has begun keeps its strategy" in answer.text


@pytest.mark.parametrize("has_namespace", [True, False])
def test_what_is_exported_is_a_component_that_kustomize_takes(
    api_server: ApiServer, tmp_path: Path, has_namespace: bool
) -> None:
    async def scenario() -> str:
        async with connected(api_server.kubeconfig) as objects:
            namespace = await new_namespace(objects)
            await kept_stage(objects, namespace, KUSTOMIZE, "Git")
            return namespace

    namespace = asyncio.run(scenario())
    where = ("-n", namespace, "--kubeconfig", str(api_server.kubeconfig))

    done = cotune("export", "p", *where)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"# profile {namespace}/p, stage only, namespace {namespace}\n")
    (tmp_path / "cotune").mkdir()
    (tmp_path / "cotune" / "kustomization.yaml").write_text(done.stdout)
    base = deployment(namespace, "whisper", "asr", [{"name": "OTHER", "value": "1"}, {"name": SIZE, "value": "small"}])
    if not has_namespace:
        del base["metadata"]["namespace"]
    (tmp_path / "whisper.yaml").write_text(yaml.safe_dump(base))
    whole = {"resources": ["whisper.yaml"], "components": ["cotune"]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(whole))
    command = [api_server.kubectl, "kustomize", str(tmp_path)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert built.returncode == 0, built.stderr
    [container] = yaml.safe_load(built.stdout)["spec"]["template"]["spec"]["containers"]
    assert {it["name"]: it["value"] for it in container["env"]} == {"OTHER": "1", SIZE: "tiny"}

    patch = yaml.safe_load(cotune("export", "p", "-o", "patch", *where).stdout)
    assert (patch["kind"], patch["metadata"]) == ("Deployment", {"name": "whisper"})
    refused = cotune("export", "p", "--stage", "nowhere", *where)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "cotune: error: there is no stage nowhere: it has only\n"
