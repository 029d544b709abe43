"""When a stage is taken back, against a real API server and controller manager; kubelets are played.

Every pass is made by a reconciler that knows nothing of the passes before.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from cotune.cluster.kinds import DEPLOYMENT, GRANT, POD, PROFILE
from cotune.cluster.objects import ConflictError, Object
from cotune.cluster.workloads import ANNOTATION_REVISION
from support.api_server import ApiServer
from support.played_cluster import DiedError, PlayedObjects, eventually, play_first_end, play_ready, within
from support.played_stage import (
    create_profile,
    create_stage,
    play_workloads,
    profile_reconciler,
    stage_of,
    templates,
)

pytestmark = pytest.mark.apiserver

TAKEN = "ValueError: Free memory on device cuda:0 (3.1/11.6 GiB) on startup is less than desired GPU memory utilization"

Play = Callable[[PlayedObjects, Object], Awaitable[None]]


async def one_pass(objects: PlayedObjects, namespace: str, name: str = "p", later: float = 0) -> timedelta | None:
    """A pass at a time that lies `later` seconds ahead."""
    body = await objects.get(PROFILE, namespace, name)
    try:
        return await profile_reconciler(objects).reconcile(body, datetime.now(UTC) + timedelta(seconds=later))
    except ConflictError:
        return timedelta()


async def until_phase(objects: PlayedObjects, namespace: str, phase: str, play: Play | None = None) -> None:
    """Passes until the profile is in a phase; `play` is what becomes of new pods of a changed template."""

    async def is_there() -> bool:
        await one_pass(objects, namespace)
        for pod in await objects.list(POD, namespace):
            is_new = "containerStatuses" not in pod.get("status", {}) and "deletionTimestamp" not in pod["metadata"]
            if is_new and ANNOTATION_REVISION in pod["metadata"].get("annotations", {}) and play is not None:
                await play(objects, pod)
            elif is_new:
                await play_ready(objects, pod)
        return (await objects.get(PROFILE, namespace, "p"))["status"]["phase"] == phase

    await eventually(is_there, f"the profile is {phase}")


async def pod_of(objects: PlayedObjects, namespace: str, app: str) -> Object:
    found = await objects.list(POD, namespace, {"app": app})
    (pod,) = [it for it in found if "deletionTimestamp" not in it["metadata"]]
    return pod


async def chances_of(objects: PlayedObjects, namespace: str) -> list[str]:
    """The reasons of the chances on record."""
    stages = (await objects.get(PROFILE, namespace, "p"))["status"].get("stages", ())
    return [it["reason"] for stage in stages for it in stage["chances"]]


async def promoted(objects: PlayedObjects, namespace: str, tolerance: int = 30) -> dict[str, object]:
    """A promoted and guarded stage; its templates before the change."""
    await create_stage(objects, namespace)
    before = await templates(objects, namespace)
    await create_profile(objects, namespace, namespace, guardSeconds=3600, unreadyToleranceSeconds=tolerance)
    await until_phase(objects, namespace, "Promoted")
    return dict(before)


async def crash_for_no_known_reason(objects: PlayedObjects, pod: Object) -> None:
    objects.previous_logs[pod["metadata"]["name"]] = "nobody knows"
    await play_first_end(objects, pod)


async def find_the_card_taken(objects: PlayedObjects, pod: Object) -> None:
    objects.previous_logs[pod["metadata"]["name"]] = TAKEN
    await play_first_end(objects, pod)


@pytest.mark.parametrize(
    ("crash", "reason"), [(crash_for_no_known_reason, "Error"), (find_the_card_taken, "CardTaken")]
)
def test_a_start_that_may_have_met_an_accident_has_one_more_run_and_a_later_pod_none(
    api_server: ApiServer, crash: Play, reason: str
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        before = await templates(objects, namespace)
        await create_profile(objects, namespace, namespace)

        async def has_its_chance() -> bool:
            await one_pass(objects, namespace)
            for pod in await objects.list(POD, namespace, {"app": "whisper"}):
                if ANNOTATION_REVISION in pod["metadata"].get("annotations", {}):
                    await crash(objects, pod)
            await play_workloads(objects, namespace, broken=False)
            return bool(await chances_of(objects, namespace))

        await eventually(has_its_chance, "a chance on record")
        await one_pass(objects, namespace)
        assert (await stage_of(objects, namespace)).phase == "Progressing"
        assert await chances_of(objects, namespace) == [reason]
        pod = await pod_of(objects, namespace, "whisper")
        await asyncio.sleep(1)  # A pod's age is cut to whole seconds: one of the same second would count as older.
        await objects.delete(POD, namespace, pod["metadata"]["name"])
        await until_phase(objects, namespace, "RolledBack", crash)

        message = (await stage_of(objects, namespace)).message
        assert message.startswith(f"stt: {reason}: pod whisper-")
        assert "container asr exited with 1" in message
        assert f"after {reason} was given its one chance" in message
        assert await templates(objects, namespace) == before

    within(api_server, scenario)


def test_a_known_line_in_the_log_of_the_first_end_is_decisive(api_server: ApiServer) -> None:
    async def run_out_of_memory(objects: PlayedObjects, pod: Object) -> None:
        objects.previous_logs[pod["metadata"]["name"]] = "INFO\nValueError: No available memory for the cache blocks."
        await play_first_end(objects, pod)

    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        await create_profile(objects, namespace, namespace)

        await until_phase(objects, namespace, "RolledBack", run_out_of_memory)

        state = await stage_of(objects, namespace)
        assert "container asr exited with 1: ValueError: No available memory for the cache blocks." in state.message
        assert state.chances == ()

    within(api_server, scenario)


def test_a_pod_that_may_not_be_made_is_told_with_what_is_in_the_way(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        await create_profile(objects, namespace, namespace)
        quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
        path = f"/api/v1/namespaces/{namespace}/resourcequotas"
        await objects._request("POST", path, quota, [], "application/json")  # pyright: ignore[reportPrivateUsage]

        async def is_weighed() -> bool:
            await one_pass(objects, namespace)
            await play_workloads(objects, namespace, broken=False)
            return bool(await chances_of(objects, namespace))

        await eventually(is_weighed, "a pod that may not be made")
        await one_pass(objects, namespace, later=14)
        assert (await stage_of(objects, namespace)).phase == "Progressing"
        await one_pass(objects, namespace, later=30)

        state = await stage_of(objects, namespace)
        assert state.phase == "RollingBack"
        assert state.message.startswith("judge: FailedCreate: pods ")
        assert "exceeded quota: none" in state.message

    within(api_server, scenario)


def test_a_promoted_stage_is_watched_and_taken_back_when_a_container_is_killed_for_memory(
    api_server: ApiServer,
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        before = await promoted(objects, namespace)
        assert await one_pass(objects, namespace) == timedelta(seconds=2)
        assert "finalizers" not in (await objects.get(PROFILE, namespace, "p"))["metadata"]

        pod = await pod_of(objects, namespace, "judge")
        await kill_the_judge(objects, namespace)
        await one_pass(objects, namespace)
        state = await stage_of(objects, namespace)
        assert (state.phase, state.guarded) == ("RollingBack", ())
        assert state.message == (
            f"while guarded: judge: OOMKilled: pod {pod['metadata']['name']}: container vllm exited with 137"
        )
        await until_phase(objects, namespace, "RolledBack")

        assert await templates(objects, namespace) == before
        assert await one_pass(objects, namespace) is None
        assert "finalizers" not in (await objects.get(PROFILE, namespace, "p"))["metadata"]

    within(api_server, scenario)


@pytest.mark.parametrize("calls", range(11))
def test_a_guard_whose_pass_dies_after_any_call_takes_the_stage_back_all_the_same(
    api_server: ApiServer, calls: int
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        before = await promoted(objects, namespace)
        await kill_the_judge(objects, namespace)
        body = await objects.get(PROFILE, namespace, "p")
        objects.allowed_calls = calls
        with pytest.raises(DiedError):
            await profile_reconciler(objects).reconcile(body, datetime.now(UTC))
        objects.allowed_calls = None

        await until_phase(objects, namespace, "RolledBack")

        assert await templates(objects, namespace) == before

    within(api_server, scenario)


def test_a_promoted_stage_that_stays_unready_is_taken_back_when_its_tolerance_is_over(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await promoted(objects, namespace, tolerance=10)
        pod = await pod_of(objects, namespace, "judge")
        name = pod["metadata"]["name"]
        unready = [pod["status"]["containerStatuses"][0] | {"ready": False}]
        not_ready = [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
        status = {"status": {"containerStatuses": unready, "conditions": not_ready}}
        await objects.merge(POD, namespace, name, status, subresource="status")

        async def is_seen() -> bool:
            await one_pass(objects, namespace)
            return (await stage_of(objects, namespace)).unready_since is not None

        await eventually(is_seen, "a workload that is not ready")
        assert (await objects.get(PROFILE, namespace, "p"))["status"]["phase"] == "Promoted"
        await one_pass(objects, namespace, later=11)

        state = await stage_of(objects, namespace)
        assert (state.phase, state.message) == (
            "RollingBack",
            "no longer ready while guarded, for more than 10 s: "
            f"judge (pod {name}: container vllm: runs and is not ready)",
        )

    within(api_server, scenario)


async def kill_the_judge(objects: PlayedObjects, namespace: str) -> None:
    await play_first_end(objects, await pod_of(objects, namespace, "judge"), 137, "OOMKilled")


async def scale_it(objects: PlayedObjects, namespace: str) -> str:
    await kill_the_judge(objects, namespace)
    await objects.merge(DEPLOYMENT, namespace, "judge", {"spec": {"replicas": 0}})
    return "somebody else has changed judge"


async def withdraw_the_grant(objects: PlayedObjects, namespace: str) -> str:
    await kill_the_judge(objects, namespace)
    await objects.merge(GRANT, namespace, "from-the-lab", {"spec": {"from": [{"namespace": "somewhere-else"}]}})
    return f"NoGrant: no GpuTuningGrant in namespace {namespace} allows a rollout from {namespace}"


async def end_its_time(objects: PlayedObjects, namespace: str) -> str:
    await kill_the_judge(objects, namespace)
    stages = (await objects.get(PROFILE, namespace, "p"))["spec"]["rollout"]["stages"]
    patch = {"spec": {"rollout": {"stages": [stages[0] | {"guardSeconds": 0}]}}}
    await objects.merge(PROFILE, namespace, "p", patch)
    return "its 0 s are over"


async def begin_another_profile(objects: PlayedObjects, namespace: str) -> str:
    await create_profile(objects, namespace, namespace, "newer", to="base")
    await one_pass(objects, namespace, "newer")
    assert (await stage_of(objects, namespace, "newer")).phase == "Progressing"
    await kill_the_judge(objects, namespace)
    return f"profile {namespace}/newer has taken over"


@pytest.mark.parametrize("disturb", [scale_it, withdraw_the_grant, end_its_time, begin_another_profile])
def test_a_guard_ends_and_touches_nothing_when_somebody_takes_over(
    api_server: ApiServer, disturb: Callable[[PlayedObjects, str], Awaitable[str]]
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await promoted(objects, namespace)
        why = await disturb(objects, namespace)
        objects.asked.clear()

        await one_pass(objects, namespace)

        state = await stage_of(objects, namespace)
        assert (state.phase, state.guarded, state.message) == ("Promoted", (), f"no longer guarded: {why}")
        assert not [it for it in objects.asked if it[0] == "PATCH" and "/deployments/" in it[1]]
        assert await one_pass(objects, namespace) is None

    within(api_server, scenario)


def test_a_stage_whose_probes_would_end_a_start_as_long_as_the_measured_does_not_begin(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        before = await templates(objects, namespace)
        probe = {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 5, "failureThreshold": 4}
        container = {"name": "vllm", "livenessProbe": probe, "readinessProbe": probe}
        template = before["judge"][0]
        template["spec"]["containers"][0] |= container
        await objects.merge(DEPLOYMENT, namespace, "judge", {"spec": {"template": template}})
        await create_profile(objects, namespace, namespace, starts={"judge": 74})

        async def is_stalled() -> bool:
            await one_pass(objects, namespace)
            await play_workloads(objects, namespace, broken=False)
            conditions = (await objects.get(PROFILE, namespace, "p"))["status"]["conditions"]
            return [
                it["message"] for it in conditions if (it["type"], it["reason"]) == ("Stalled", "StartupBudget")
            ] == [
                f"namespace {namespace}: judge: the livenessProbe of container vllm ends a start after 20 s "
                "(initialDelaySeconds 0 + periodSeconds 5 x failureThreshold 4), and it was measured to take 74 s"
            ]

        await eventually(is_stalled, "a stage that does not begin")

    within(api_server, scenario)
