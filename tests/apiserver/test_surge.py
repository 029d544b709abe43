"""A stage with a spare card, against a real API server and controller manager; scheduler and kubelets are played.

Every pass is made by a reconciler that knows nothing of the passes before.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from cotune.api.profile import StageStatus
from cotune.cluster.downtimes import Downtimes
from cotune.cluster.kinds import CONTROLLER_REVISION, DEPLOYMENT, GRANT, PERSISTENT_VOLUME_CLAIM, POD, PROFILE
from cotune.cluster.objects import ApiError, ConflictError, ForbiddenError, Object
from cotune.cluster.workloads import ANNOTATION_REVISION
from cotune.rollout.bridge import LABEL_BRIDGE, bridge_id, bridge_name
from support.api_server import ApiServer
from support.played_cluster import (
    Call,
    DiedError,
    PlayedObjects,
    deployment,
    eventually,
    new_namespace,
    play_crashing,
    play_ready,
    within,
)
from support.played_stage import SIZE, create_profile, create_stage, profile_reconciler, stage_of, templates

pytestmark = pytest.mark.apiserver

NAMES = {"judge", "whisper"}


async def invite(objects: PlayedObjects, namespace: str, *allow: str) -> None:
    patch = {"spec": {"allow": list(allow or ("Rollout", "Surge"))}}
    await objects.merge(GRANT, namespace, "from-the-lab", patch)


async def create(objects: PlayedObjects, namespace: str, **stage: Any) -> dict[str, Any]:
    """A stage whose owner lets it surge, and all of which is ready; its templates."""
    await create_stage(objects, namespace)
    await invite(objects, namespace)
    before = await templates(objects, namespace)
    await create_profile(objects, namespace, namespace, **stage)
    return before


async def one_pass(objects: PlayedObjects, namespace: str, later: float = 0) -> timedelta | None:
    """A pass at a time that lies `later` seconds ahead."""
    body = await objects.get(PROFILE, namespace, "p")
    try:
        return await profile_reconciler(objects).reconcile(body, datetime.now(UTC) + timedelta(seconds=later))
    except ConflictError:
        return timedelta()


def is_of_a_bridge(it: Object) -> bool:
    return LABEL_BRIDGE in (it["metadata"].get("labels") or {})


async def copies(objects: PlayedObjects, namespace: str) -> dict[str, Object]:
    """What there is of the bridge, by the name of the original."""
    found = [it for it in await objects.list(DEPLOYMENT, namespace) if is_of_a_bridge(it)]
    return {it["metadata"]["ownerReferences"][0]["name"]: it for it in found}


async def originals(objects: PlayedObjects, namespace: str) -> dict[str, Object]:
    found = await objects.list(DEPLOYMENT, namespace)
    return {it["metadata"]["name"]: it for it in found if not is_of_a_bridge(it)}


async def play(objects: PlayedObjects, namespace: str, bridge: str = "ready", stack: str = "ready") -> None:
    """What becomes of new pods: of the bridge, and of the stack with new values; others become ready."""
    for pod in await objects.list(POD, namespace):
        if "conditions" in pod.get("status", {}) or "deletionTimestamp" in pod["metadata"]:
            continue
        is_new = ANNOTATION_REVISION in pod["metadata"].get("annotations", {})
        what = bridge if is_of_a_bridge(pod) else stack if is_new else "ready"
        if what == "unschedulable":
            message = "0/2 nodes are available: 1 node(s) didn't match pod anti-affinity rules"
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            status = {"status": {"conditions": [condition]}}
            await objects.merge(POD, namespace, pod["metadata"]["name"], status, subresource="status")
        elif what == "crashing":
            await play_crashing(objects, pod)
        elif what == "ready":
            await play_ready(objects, pod)


async def until(
    objects: PlayedObjects, namespace: str, what: str, holds: Callable[[StageStatus], bool], **conduct: str
) -> StageStatus:
    """Passes until something holds of the stage; services that serve then are looked at after each."""

    async def is_there() -> bool:
        await one_pass(objects, namespace)
        await play(objects, namespace, **conduct)
        stages = (await objects.get(PROFILE, namespace, "p")).get("status", {}).get("stages")
        return bool(stages) and holds(await stage_of(objects, namespace))

    await eventually(is_there, what)
    return await stage_of(objects, namespace)


async def until_phase(objects: PlayedObjects, namespace: str, phase: str, **conduct: str) -> StageStatus:
    return await until(objects, namespace, phase, lambda it: it.phase == phase, **conduct)


async def until_bridge(objects: PlayedObjects, namespace: str, phase: str, **conduct: str) -> StageStatus:
    return await until(
        objects, namespace, f"bridge {phase}", lambda it: it.surge is not None and it.surge.phase == phase, **conduct
    )


async def stalled(objects: PlayedObjects, namespace: str) -> tuple[str, str]:
    status = (await objects.get(PROFILE, namespace, "p"))["status"]
    [found] = [it for it in status["conditions"] if it["type"] == "Stalled"]
    return (found["reason"], found["message"]) if found["status"] == "True" else ("", "")


async def is_serving(objects: PlayedObjects, namespace: str, app: str) -> bool:
    """Whether a Service with the selector `app` would have somebody to send to."""
    pods = [it for it in await objects.list(POD, namespace, {"app": app}) if "deletionTimestamp" not in it["metadata"]]
    conditions = [condition for it in pods for condition in it.get("status", {}).get("conditions", ())]
    return any((it["type"], it["status"]) == ("Ready", "True") for it in conditions)


def test_a_stack_is_changed_behind_a_bridge_and_its_services_are_never_down(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        before = await create(objects, namespace)
        generations = {name: it["metadata"]["generation"] for name, it in (await originals(objects, namespace)).items()}

        state = await until_bridge(objects, namespace, "Serving")
        assert state.phase == "Progressing"
        found = await originals(objects, namespace)
        assert {name: it["metadata"]["generation"] for name, it in found.items()} == generations
        made = await copies(objects, namespace)
        assert made.keys() == NAMES
        for name, it in made.items():
            (owner,) = it["metadata"]["ownerReferences"]
            assert owner["uid"] == found[name]["metadata"]["uid"]
        (container,) = made["whisper"]["spec"]["template"]["spec"]["containers"]
        assert {"name": SIZE, "value": "tiny"} in container["env"]
        down: list[str] = []

        def is_over(it: StageStatus) -> bool:
            return it.phase == "Promoted"

        async def is_there() -> bool:
            await one_pass(objects, namespace)
            await play(objects, namespace)
            down.extend([it for it in NAMES if not await is_serving(objects, namespace, it)])
            return is_over(await stage_of(objects, namespace))

        await eventually(is_there, "Promoted")
        state = await stage_of(objects, namespace)
        assert down == []
        assert await copies(objects, namespace) == {}
        assert state.surge is not None
        assert (state.surge.phase, state.surge.reason) == ("Done", "")
        assert state.downtime is not None
        assert (state.downtime.expected_seconds, state.downtime.measured_seconds) == (0, 0)
        assert state.downtime.error_seconds == 0
        assert {it.component for it in state.downtime.starts} == {"judge", "stt"}
        assert await Downtimes(objects, namespace).outages() == []
        after = await templates(objects, namespace)
        assert after["judge"][1] == before["judge"][1]
        (container,) = after["whisper"][0]["spec"]["containers"]
        assert {"name": SIZE, "value": "tiny"} in container["env"]

    within(api_server, scenario)


def test_no_controller_takes_the_pods_of_the_other_for_its_own(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create(objects, namespace)
        await until_bridge(objects, namespace, "Serving")

        pods = await objects.list(POD, namespace)
        assert len(pods) == 4
        for name, it in (await originals(objects, namespace)).items():
            assert (it["status"]["replicas"], it["status"]["readyReplicas"]) == (1, 1), name
        for name, it in (await copies(objects, namespace)).items():
            assert (it["status"]["replicas"], it["status"]["readyReplicas"]) == (1, 1), name
        owners = {it["metadata"]["ownerReferences"][0]["uid"] for it in pods}
        assert len(owners) == 4

    within(api_server, scenario)


def test_a_bridge_that_does_not_come_up_takes_the_stage_back_with_nothing_touched(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create(objects, namespace)
        await until_bridge(objects, namespace, "Starting", bridge="nothing")
        before = await originals(objects, namespace)

        state = await until_phase(objects, namespace, "RolledBack", bridge="crashing")

        after = await originals(objects, namespace)
        assert {n: it["metadata"]["generation"] for n, it in after.items()} == {
            n: it["metadata"]["generation"] for n, it in before.items()
        }
        assert await copies(objects, namespace) == {}
        assert state.message.startswith("the bridge: judge: CrashLoopBackOff: pod judge-bridge-")
        assert state.message.endswith("; nothing of the stack was touched")
        assert state.surge is not None
        assert (state.surge.phase, state.surge.reason) == ("Failed", "BridgeFailed")
        assert state.downtime is not None
        assert state.downtime.measured_seconds == 0
        assert await Downtimes(objects, namespace).outages() == []

    within(api_server, scenario)


def test_without_room_the_stage_says_so_and_goes_the_way_that_costs_downtime(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create(objects, namespace)
        await until(objects, namespace, "a chance", lambda it: bool(it.chances), bridge="unschedulable")
        assert await stalled(objects, namespace) == ("", "")

        await one_pass(objects, namespace, later=16)
        state = await until_bridge(objects, namespace, "NoRoom", bridge="unschedulable")
        assert state.surge is not None
        assert state.surge.reason == "NoRoom"
        assert state.surge.message.startswith("judge: Unschedulable: pod judge-bridge-")
        assert "0/2 nodes are available" in state.surge.message
        assert state.phase == "Progressing"
        assert await copies(objects, namespace) == {}
        state = await until_phase(objects, namespace, "Promoted")

        assert state.downtime is not None
        assert state.downtime.measured_seconds is not None
        assert state.downtime.measured_seconds > 0

    within(api_server, scenario)


def test_a_quota_that_leaves_no_room_for_a_bridge_is_no_room(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create(objects, namespace)
        quota = {"metadata": {"name": "two"}, "spec": {"hard": {"pods": "2"}}}
        path = f"/api/v1/namespaces/{namespace}/resourcequotas"
        await objects._request("POST", path, quota, [], "application/json")  # pyright: ignore[reportPrivateUsage]
        await until(objects, namespace, "a chance", lambda it: bool(it.chances))

        await one_pass(objects, namespace, later=16)
        state = await until_phase(objects, namespace, "Promoted")

        assert state.surge is not None
        assert (state.surge.phase, state.surge.reason) == ("NoRoom", "NoRoom")
        assert "judge: FailedCreate" in state.surge.message

    within(api_server, scenario)


def test_a_stage_that_requires_room_waits_for_it_untouched_and_then_begins(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create(objects, namespace, surge="Require", downtimeBudget={"secondsPerDay": 1})
        await until(objects, namespace, "a chance", lambda it: bool(it.chances), bridge="unschedulable")
        before = await templates(objects, namespace)

        await one_pass(objects, namespace, later=16)
        await one_pass(objects, namespace, later=4000)

        state = await stage_of(objects, namespace)
        assert state.phase == "Progressing"
        assert state.surge is not None
        assert (state.surge.phase, state.surge.reason) == ("Starting", "NoRoom")
        reason, message = await stalled(objects, namespace)
        assert reason == "NoRoom"
        assert message.startswith("stage only: judge: Unschedulable: pod judge-bridge-")
        assert await templates(objects, namespace) == before
        (pod,) = [it for it in await objects.list(POD, namespace) if is_of_a_bridge(it)]
        await play_ready(objects, pod)
        state = await until_phase(objects, namespace, "Promoted")
        assert await stalled(objects, namespace) == ("", "")
        assert state.downtime is not None
        assert state.downtime.measured_seconds == 0

    within(api_server, scenario)


async def mount_a_claim(objects: PlayedObjects, namespace: str, mode: str) -> None:
    spec = {"accessModes": [mode], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "none"}
    body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "models"}, "spec": spec}
    await objects.create(PERSISTENT_VOLUME_CLAIM, namespace, body)
    pod = {"volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}]}
    await objects.merge(DEPLOYMENT, namespace, "judge", {"spec": {"template": {"spec": pod}}})


async def select_the_node(objects: PlayedObjects, namespace: str) -> None:
    pod = {"nodeSelector": {"kubernetes.io/hostname": "gpu-1"}}
    await objects.merge(DEPLOYMENT, namespace, "judge", {"spec": {"template": {"spec": pod}}})


@pytest.mark.parametrize(
    ("tie", "said"),
    [
        (partial(mount_a_claim, mode="ReadWriteOnce"), "mounts the PersistentVolumeClaim models (ReadWriteOnce)"),
        (select_the_node, "selects its node by kubernetes.io/hostname"),
    ],
)
def test_a_stack_that_is_tied_to_its_node_has_no_bridge_and_says_what_ties_it(
    api_server: ApiServer, tie: Callable[..., Any], said: str
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        await invite(objects, namespace)
        await tie(objects, namespace)
        await create_profile(objects, namespace, namespace)

        state = await until_phase(objects, namespace, "Promoted")

        assert state.surge is not None
        assert (state.surge.phase, state.surge.reason) == ("NoRoom", "NotSurgeable")
        assert state.surge.message.startswith(f"judge: Deployment judge {said}")
        assert not [it for it in objects.created if it.startswith("Deployment/") and "-bridge-" in it]

    within(api_server, scenario)


def test_a_claim_that_many_nodes_may_have_is_in_no_bridges_way(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        await invite(objects, namespace)
        await mount_a_claim(objects, namespace, "ReadOnlyMany")
        await create_profile(objects, namespace, namespace)

        state = await until_phase(objects, namespace, "Promoted")

        assert state.surge is not None
        assert state.surge.phase == "Done"

    within(api_server, scenario)


def test_without_the_owners_leave_a_stage_has_no_bridge_and_one_that_requires_it_does_not_begin(
    api_server: ApiServer,
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        await create_profile(objects, namespace, namespace, surge="Require")

        async def is_stalled() -> bool:
            await one_pass(objects, namespace)
            await play(objects, namespace)
            return (await stalled(objects, namespace))[0] == "SurgeNotGranted"

        await eventually(is_stalled, "a stage that does not begin")
        assert (await objects.get(PROFILE, namespace, "p"))["status"].get("stages", []) == []
        await objects.delete(PROFILE, namespace, "p")
        await create_profile(objects, namespace, namespace)
        state = await until_phase(objects, namespace, "Promoted")
        assert state.surge is None

    within(api_server, scenario)


def test_a_right_that_is_missing_is_found_out_by_a_rehearsal(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create(objects, namespace)
        objects.created.clear()

        def refuse(call: Call) -> ApiError | None:
            is_creation = call.method == "POST" and call.path.endswith("/deployments")
            return ForbiddenError(403, "Forbidden", "may not create deployments") if is_creation else None

        objects.refuse = refuse
        state = await until_phase(objects, namespace, "Promoted")

        assert state.surge is not None
        assert (state.surge.phase, state.surge.reason) == ("NoRoom", "Forbidden")
        assert state.surge.message == "may not create deployments"

    within(api_server, scenario)


def test_a_deployment_of_the_bridges_name_that_is_somebody_elses_is_left_alone(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create(objects, namespace)
        uid = (await objects.get(PROFILE, namespace, "p"))["metadata"]["uid"]
        name = bridge_name("judge", bridge_id(uid, "only"))
        await objects.create(DEPLOYMENT, namespace, deployment(namespace, name, "theirs", []))

        state = await until_phase(objects, namespace, "Promoted")

        assert state.surge is not None
        assert (state.surge.phase, state.surge.reason) == ("NoRoom", "ChangeRefused")
        assert state.surge.message.endswith("and it is somebody else's")
        assert (await objects.get(DEPLOYMENT, namespace, name))["spec"]["selector"] == {"matchLabels": {"app": name}}

    within(api_server, scenario)


def test_a_bridge_keeps_off_the_nodes_of_every_stack_that_a_grant_names(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        other = await new_namespace(objects)
        await create_stage(objects, other)
        await create(objects, namespace)
        (grant,) = await objects.list(GRANT, namespace)
        target = {"component": "other", "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}}
        targets = [*grant["spec"]["targets"], target | {"container": "x"}]
        await objects.merge(GRANT, namespace, "from-the-lab", {"spec": {"targets": targets}})
        await objects.create(DEPLOYMENT, namespace, deployment(namespace, "x", "x", []))
        selected = deployment(namespace, "y-a", "y", [])
        selected["metadata"]["labels"] = {"part": "y", "stack": "a"}
        await objects.create(DEPLOYMENT, namespace, selected)
        selector = {"apiVersion": "apps/v1", "kind": "Deployment", "matchLabels": {"part": "y"}}
        selecting: Object = {
            "from": [{"namespace": "somebody-else"}],
            "allow": ["Rollout"],
            "stackLabel": "stack",
            "targets": [{"component": "y", "workloadSelector": selector, "container": "y"}],
        }
        made = {"apiVersion": GRANT.api_version, "kind": GRANT.name, "spec": selecting}
        await objects.create(GRANT, namespace, made | {"metadata": {"name": "of-stacks", "namespace": namespace}})
        await until_bridge(objects, namespace, "Starting", bridge="nothing")
        await one_pass(objects, namespace)

        affinity = (await copies(objects, namespace))["judge"]["spec"]["template"]["spec"]["affinity"]
        terms = affinity["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        own, (elsewhere,) = [it for it in terms if "namespaces" not in it], [it for it in terms if "namespaces" in it]
        assert {it["labelSelector"]["matchLabels"]["app"] for it in own} == {"judge", "whisper", "x", "y-a"}
        assert elsewhere["labelSelector"] == {}
        assert other in elsewhere["namespaces"]
        assert namespace not in elsewhere["namespaces"]

    within(api_server, scenario)


def test_a_stage_whose_stack_does_not_come_up_again_is_served_by_its_bridge_until_it_is_back(
    api_server: ApiServer,
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        before = await create(objects, namespace)

        state = await until_phase(objects, namespace, "RollingBack", stack="crashing")
        assert (await copies(objects, namespace)).keys() == NAMES
        assert "CrashLoopBackOff" in state.message
        down: list[str] = []

        async def is_back() -> bool:
            await one_pass(objects, namespace)
            await play(objects, namespace)
            down.extend([it for it in NAMES if not await is_serving(objects, namespace, it)])
            return (await stage_of(objects, namespace)).phase == "RolledBack"

        await eventually(is_back, "RolledBack")
        state = await stage_of(objects, namespace)
        assert down == []
        assert await copies(objects, namespace) == {}
        assert await templates(objects, namespace) == before
        assert state.downtime is not None
        assert state.downtime.measured_seconds == 0
        assert state.surge is not None
        assert state.surge.phase == "Done"

    within(api_server, scenario)


def test_a_bridge_that_is_lost_while_the_stack_is_stopped_is_downtime(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create(objects, namespace)
        await until_bridge(objects, namespace, "Serving")

        async def is_stopped() -> bool:
            await one_pass(objects, namespace)
            await play(objects, namespace, stack="nothing")
            return not await is_serving_stack(objects, namespace)

        await eventually(is_stopped, "a stopped stack")
        assert (await stage_of(objects, namespace)).downtime is not None
        for it in (await copies(objects, namespace)).values():
            await objects.delete(DEPLOYMENT, namespace, it["metadata"]["name"])
        await one_pass(objects, namespace)
        downtime = (await stage_of(objects, namespace)).downtime
        assert downtime is not None
        assert downtime.since is not None

        state = await until_phase(objects, namespace, "Promoted")

        assert state.downtime is not None
        assert state.downtime.since is None
        assert state.downtime.measured_seconds is not None
        assert state.downtime.measured_seconds > 0
        (outage,) = await Downtimes(objects, namespace).outages()
        assert outage.seconds == state.downtime.measured_seconds == state.downtime.error_seconds

    within(api_server, scenario)


async def is_serving_stack(objects: PlayedObjects, namespace: str) -> bool:
    return any(it["spec"]["replicas"] for it in (await originals(objects, namespace)).values())


async def abort(objects: PlayedObjects, namespace: str) -> None:
    await objects.merge(PROFILE, namespace, "p", {"spec": {"rollout": {"abort": True}}})


async def withdraw_the_grant(objects: PlayedObjects, namespace: str) -> None:
    await objects.delete(GRANT, namespace, "from-the-lab")


@pytest.mark.parametrize("phase", ["Starting", "Serving"])
@pytest.mark.parametrize("end", [abort, withdraw_the_grant])
def test_a_stage_that_is_ended_leaves_nothing_of_its_bridge(
    api_server: ApiServer, end: Callable[..., Any], phase: str
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        before = await create(objects, namespace)
        await until_bridge(objects, namespace, phase, bridge="nothing" if phase == "Starting" else "ready")
        await end(objects, namespace)

        await until_phase(objects, namespace, "RolledBack")

        assert await copies(objects, namespace) == {}
        assert await templates(objects, namespace) == before

    within(api_server, scenario)


@pytest.mark.parametrize("stack", ["ready", "nothing"])
def test_a_deleted_profile_leaves_nothing_of_its_bridge(api_server: ApiServer, stack: str) -> None:
    """Also one that is Degraded, which a person has taken over."""

    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        before = await create(objects, namespace)
        await until_bridge(objects, namespace, "Serving")
        if stack == "nothing":

            async def is_stopped() -> bool:
                await one_pass(objects, namespace)
                await play(objects, namespace, stack=stack)
                return not await is_serving_stack(objects, namespace)

            await eventually(is_stopped, "a stopped stack")
            await one_pass(objects, namespace, later=1000)
            await one_pass(objects, namespace, later=2000)
            assert (await stage_of(objects, namespace)).phase == "Degraded"
            assert (await copies(objects, namespace)).keys() == NAMES
        await objects.delete(PROFILE, namespace, "p")

        async def is_gone() -> bool:
            if await objects.find(PROFILE, namespace, "p") is None:
                return True
            await one_pass(objects, namespace)
            await play(objects, namespace)
            return False

        await eventually(is_gone, "a profile that is gone")
        assert await copies(objects, namespace) == {}
        if stack == "ready":
            assert await templates(objects, namespace) == before

    within(api_server, scenario)


def test_a_bridge_goes_with_its_profile_when_the_way_back_is_gone(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create(objects, namespace)
        state = await until_bridge(objects, namespace, "Serving")
        assert state.last_good_revision is not None
        await objects.delete(CONTROLLER_REVISION, namespace, state.last_good_revision)
        await one_pass(objects, namespace)
        assert (await stage_of(objects, namespace)).phase == "Degraded"
        assert (await stalled(objects, namespace))[0] == "RevisionGone"
        assert (await copies(objects, namespace)).keys() == NAMES
        await objects.delete(PROFILE, namespace, "p")

        await one_pass(objects, namespace)

        assert await objects.find(PROFILE, namespace, "p") is None
        assert await copies(objects, namespace) == {}

    within(api_server, scenario)


@pytest.mark.parametrize("calls", [*range(12, 30, 3)])
@pytest.mark.parametrize("phase", ["Starting", "Serving", "Removing"])
def test_a_pass_that_dies_after_any_call_changes_nothing_about_the_end(
    api_server: ApiServer, phase: str, calls: int
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create(objects, namespace)
        await until_bridge(objects, namespace, phase)
        body = await objects.get(PROFILE, namespace, "p")
        objects.allowed_calls = calls
        try:
            await profile_reconciler(objects).reconcile(body, datetime.now(UTC))
        except (DiedError, ConflictError):
            pass
        finally:
            objects.allowed_calls = None

        state = await until_phase(objects, namespace, "Promoted")

        assert await copies(objects, namespace) == {}
        assert state.downtime is not None
        assert state.downtime.measured_seconds == 0
        made = [it for it in objects.created if "-bridge-" in it and it.startswith("Deployment/")]
        assert len({*made}) == 2

    within(api_server, scenario)


def test_what_a_stage_that_may_surge_will_cost_is_said_both_ways(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create(objects, namespace, approval="Manual", starts={"judge": 70, "stt": 10})

        await one_pass(objects, namespace)

        expected = (await objects.get(PROFILE, namespace, "p"))["status"]["expectedDowntime"]
        assert expected["seconds"] == 140
        assert expected["message"].startswith("0 s if there is room on another card, else 140 s: 60 s to stop")

    within(api_server, scenario)
