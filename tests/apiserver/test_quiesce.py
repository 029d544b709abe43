"""Production is stopped for trials on its card, against a real API server and controller manager; kubelets are played.

Every pass is made by a reconciler that knows nothing of the passes before.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apiserver.test_reconcilers import play_trials
from cotune.cluster.downtimes import Downtimes
from cotune.cluster.events import Events
from cotune.cluster.kinds import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    EXPERIMENT,
    GRANT,
    HORIZONTAL_POD_AUTOSCALER,
    POD,
    PROFILE,
    TRIAL,
)
from cotune.cluster.objects import ApiError, ForbiddenError, Object
from cotune.cluster.quiesces import ANNOTATION_RESTORE, NAME
from cotune.handlers.operator import profile_queue
from cotune.handlers.profile import ProfileReconciler
from cotune.handlers.quiesce_holders import FINALIZER
from cotune.handlers.turns import Turns
from cotune.handlers.work_queue import Key
from cotune.rollout.downtime import Outage
from prometheus_client import REGISTRY
from support.api_server import ApiServer
from support.played_cluster import Call, PlayedObjects, eventually, new_namespace, within
from support.played_quiesce import (
    MAXIMUM,
    RESTORATION,
    create_production,
    create_quiescing,
    pass_of_experiment,
    passes_of_trials,
    production_is_ready,
    trial_pods,
    window,
)
from support.played_stage import create_profile, play_workloads, profile_reconciler, templates

pytestmark = pytest.mark.apiserver


async def quiesce_of(objects: PlayedObjects, namespace: str, name: str = "voice") -> Object:
    body = await objects.get(EXPERIMENT, namespace, name)
    return body.get("status", {}).get("quiesce") or {}


async def told(objects: PlayedObjects, namespace: str, kind: str, name: str = "voice") -> tuple[str, str, str]:
    body = await objects.get(EXPERIMENT, namespace, name)
    found = [it for it in body.get("status", {}).get("conditions", ()) if it["type"] == kind]
    return (found[0]["status"], found[0]["reason"], found[0]["message"]) if found else ("", "", "")


async def replicas(objects: PlayedObjects, production: str) -> dict[str, int]:
    return {name: it for name, (_, it) in (await templates(objects, production)).items()}


async def until(
    objects: PlayedObjects,
    namespace: str,
    production: str,
    phase: str,
    later: float = 0,
    is_broken: bool = False,
    with_trials: bool = False,
) -> Object:
    """Passes until production is in a phase."""

    async def is_there() -> bool:
        await pass_of_experiment(objects, namespace, later)
        if with_trials:
            await passes_of_trials(objects, namespace, later)
        if not is_broken:
            await play_workloads(objects, production, broken=False)
        return (await quiesce_of(objects, namespace)).get("phase") == phase

    await eventually(is_there, f"production is {phase}")
    return await quiesce_of(objects, namespace)


async def waits(objects: PlayedObjects, namespace: str, name: str = "voice") -> tuple[str, str]:
    """A few passes, of which none stops production: why not."""
    for _ in range(4):
        await pass_of_experiment(objects, namespace, name=name)
    _, reason, message = await told(objects, namespace, "Quiesced", name)
    return reason, message


async def is_all_over(objects: PlayedObjects, namespace: str, production: str) -> None:
    """Nothing is left of it, and production is what it was."""
    await pass_of_experiment(objects, namespace)
    assert await objects.find(CONTROLLER_REVISION, production, NAME) is None
    assert set((await replicas(objects, production)).values()) == {1}
    body = await objects.find(EXPERIMENT, namespace, "voice")
    assert body is None or FINALIZER not in body["metadata"].get("finalizers", [])


def test_an_experiment_stops_production_runs_its_trials_and_brings_it_back(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production = await new_namespace(objects)
        await create_production(objects, production, namespace)
        before = await templates(objects, production)
        await create_quiescing(objects, namespace, production)
        orders: list[dict[str, int]] = []
        phases: list[str] = []

        async def is_done() -> bool:
            trials = len(await objects.list(TRIAL, namespace))
            again = await pass_of_experiment(objects, namespace)
            if len(await objects.list(TRIAL, namespace)) > trials:
                assert await objects.list(POD, production) == (), "a trial was made beside production"
            await play_trials(objects, namespace)
            await play_workloads(objects, production, broken=False)
            if (now := await replicas(objects, production)) not in orders[-1:]:
                orders.append(now)
            if (phase := (await quiesce_of(objects, namespace)).get("phase", "")) not in phases[-1:]:
                phases.append(phase)
            return again is None

        await eventually(is_done, "the experiment has ended")

        body = await objects.get(EXPERIMENT, namespace, "voice")
        assert body["status"]["phase"] == "Succeeded"
        assert phases == ["", "Stopping", "Quiesced", "Restoring", "Restored"]
        up, down = {"judge": 1, "whisper": 1}, {"judge": 0, "whisper": 0}
        assert orders == [up, {"judge": 1, "whisper": 0}, down, {"judge": 1, "whisper": 0}, up]
        assert await templates(objects, production) == before
        quiesce = await quiesce_of(objects, namespace)
        assert quiesce["reason"] == "ExperimentEnded"
        assert quiesce["restorationSeconds"] <= RESTORATION
        (outage,) = await Downtimes(objects, production).outages()
        assert (outage.profile, outage.stage, outage.stop_seconds) == (f"{namespace}/voice", "quiesce", None)
        assert outage.seconds == quiesce["downSeconds"]
        assert outage.start_seconds.keys() == {"judge", "stt"}
        counted = REGISTRY.get_sample_value("cotune_downtime_seconds_total", {"namespace": production})
        assert counted == quiesce["downSeconds"]
        assert (await told(objects, namespace, "Quiesced"))[:2] == ("False", "Restored")
        await is_all_over(objects, namespace, production)

    within(api_server, scenario)


def test_production_is_down_with_a_record_that_says_by_when_and_how_it_comes_back(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production = await new_namespace(objects)
        await create_production(objects, production, namespace)
        await create_quiescing(objects, namespace, production)

        quiesce = await until(objects, namespace, production, "Quiesced")

        since, back = (datetime.fromisoformat(quiesce[it]) for it in ("since", "until"))
        assert (back - since).total_seconds() == MAXIMUM
        assert (back - datetime.fromisoformat(quiesce["restoreAt"])).total_seconds() == RESTORATION
        assert "it is back by" in (await told(objects, namespace, "Quiesced"))[2]
        record = await objects.get(CONTROLLER_REVISION, production, NAME)
        assert record["data"]["experiment"] == f"{namespace}/voice"
        body = await objects.get(EXPERIMENT, namespace, "voice")
        assert FINALIZER in body["metadata"]["finalizers"]
        commands = record["metadata"]["annotations"][ANNOTATION_RESTORE].splitlines()
        assert [it.split()[1] for it in commands] == ["scale", "rollout", "scale", "rollout"]
        for scale in commands[::2]:
            answer = api_server.run(*scale.split()[1:])
            assert answer.accepted, answer.text
        assert await replicas(objects, production) == {"judge": 1, "whisper": 1}

    within(api_server, scenario)


def test_a_trial_that_still_runs_when_the_time_is_over_is_ended_and_run_again_in_the_next_window(
    api_server: ApiServer,
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production = await new_namespace(objects)
        await create_production(objects, production, namespace)
        await create_quiescing(objects, namespace, production)
        await until(objects, namespace, production, "Quiesced")

        async def is_running() -> bool:
            await pass_of_experiment(objects, namespace)
            await passes_of_trials(objects, namespace)
            trials = await objects.list(TRIAL, namespace)
            return [it.get("status", {}).get("phase") for it in trials] == ["Measuring"]

        await eventually(is_running, "a trial measures")
        [trial] = await objects.list(TRIAL, namespace)
        assert await objects.list(POD, production) == ()
        late = MAXIMUM - RESTORATION + 1

        await until(objects, namespace, production, "Restored", later=late, with_trials=True)

        quiesce = await quiesce_of(objects, namespace)
        assert quiesce["reason"] == "TimeIsOver"
        assert quiesce["interruptedSeconds"] > 500
        await passes_of_trials(objects, namespace, late)
        [after] = await objects.list(TRIAL, namespace)
        assert after["metadata"]["uid"] == trial["metadata"]["uid"]
        assert (after["status"]["phase"], after["status"]["reason"]) == ("Pending", "AwaitingQuiesce")
        assert "startedAt" not in after["status"]
        assert await trial_pods(objects, namespace) == []
        for _ in range(3):
            await pass_of_experiment(objects, namespace, late)
        reason, message = (await told(objects, namespace, "Quiesced"))[1:]
        assert reason == "OutsideWindow"
        assert "in this window already" in message
        assert await objects.find(CONTROLLER_REVISION, production, NAME) is None
        body = await objects.get(EXPERIMENT, namespace, "voice")
        counts = body["status"]["trials"]
        assert (counts["total"], counts["finished"], counts["failed"]) == (1, 0, 0)

        tomorrow = 24 * 3600
        for _ in range(3):
            await pass_of_experiment(objects, namespace, tomorrow)
        assert (await told(objects, namespace, "Quiesced"))[1] == "QuiesceTooShort"  # It has run for all the time.
        shorter = {"interruptedSeconds": 20}
        await objects.merge(EXPERIMENT, namespace, "voice", {"status": {"quiesce": shorter}}, subresource="status")
        await until(objects, namespace, production, "Quiesced", later=tomorrow)
        await passes_of_trials(objects, namespace, tomorrow)
        [again] = await objects.list(TRIAL, namespace)
        assert (again["metadata"]["uid"], again["status"]["phase"]) == (trial["metadata"]["uid"], "Draining")

    within(api_server, scenario)


def test_a_trial_that_could_not_end_in_time_does_not_begin(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production = await new_namespace(objects)
        await create_production(objects, production, namespace)
        await create_quiescing(objects, namespace, production)
        await until(objects, namespace, production, "Quiesced")

        late = MAXIMUM - RESTORATION - 20
        quiesce = await until(objects, namespace, production, "Restored", later=late)

        assert quiesce["reason"] == "NoTimeForATrial"
        assert "interruptedSeconds" not in quiesce
        assert await objects.list(TRIAL, namespace) == ()
        await is_all_over(objects, namespace, production)

    within(api_server, scenario)


async def the_experiment_is_deleted(objects: PlayedObjects, namespace: str, _: str) -> None:
    await objects.delete(EXPERIMENT, namespace, "voice")


async def the_grant_is_withdrawn(objects: PlayedObjects, _: str, production: str) -> None:
    [grant] = await objects.list(GRANT, production)
    await objects.delete(GRANT, production, grant["metadata"]["name"])


async def the_grant_names_another_workload(objects: PlayedObjects, _: str, production: str) -> None:
    [grant] = await objects.list(GRANT, production)
    targets = grant["spec"]["targets"]
    targets[0]["workloadRef"]["name"] = "other"
    await objects.merge(GRANT, production, grant["metadata"]["name"], {"spec": {"targets": targets}})


async def the_grant_allows_less(objects: PlayedObjects, _: str, production: str) -> None:
    [grant] = await objects.list(GRANT, production)
    patch: Object = {"spec": {"quiesce": {"maximumSeconds": RESTORATION}}}
    await objects.merge(GRANT, production, grant["metadata"]["name"], patch)


async def the_experiment_is_invalid(objects: PlayedObjects, namespace: str, _: str) -> None:
    body = await objects.get(EXPERIMENT, namespace, "voice")
    body["spec"]["stack"]["components"][0]["template"]["spec"]["containers"][0]["args"] = ["a", None]
    await objects.replace(EXPERIMENT, body)


async def the_spec_is_another(objects: PlayedObjects, namespace: str, _: str) -> None:
    await objects.merge(EXPERIMENT, namespace, "voice", {"spec": {"quiesce": None}})


async def the_record_is_deleted(objects: PlayedObjects, _: str, production: str) -> None:
    await objects.delete(CONTROLLER_REVISION, production, NAME)


async def the_experiment_has_failed(objects: PlayedObjects, namespace: str, _: str) -> None:
    patch: Object = {"status": {"phase": "Failed"}}
    await objects.merge(EXPERIMENT, namespace, "voice", patch, subresource="status")


async def comes_back(objects: PlayedObjects, namespace: str, production: str, reason: str) -> None:
    """Production is brought back because of this, and nothing is left to be done."""
    reasons: set[str] = set()

    async def is_back() -> bool:
        await pass_of_experiment(objects, namespace)
        await play_workloads(objects, production, broken=False)
        body = await objects.find(EXPERIMENT, namespace, "voice")
        if body is not None:
            reasons.add(body.get("status", {}).get("quiesce", {}).get("reason", ""))
        return body is None or FINALIZER not in body["metadata"].get("finalizers", [])

    await eventually(is_back, "production is back")
    assert reason in reasons
    await production_is_ready(objects, production)
    assert await objects.find(CONTROLLER_REVISION, production, NAME) is None
    assert len(await Downtimes(objects, production).outages()) == 1


@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        (the_experiment_is_deleted, "ExperimentDeleted"),
        (the_grant_is_withdrawn, "NoGrant"),
        (the_grant_names_another_workload, "GrantChanged"),
        (the_grant_allows_less, "TimeIsOver"),
        (the_experiment_is_invalid, "SpecInvalid"),
        (the_spec_is_another, "SpecChanged"),
        (the_record_is_deleted, "RecordGone"),
        (the_experiment_has_failed, "ExperimentEnded"),
    ],
)
def test_whatever_happens_meanwhile_production_comes_back(api_server: ApiServer, happens: Any, reason: str) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production = await new_namespace(objects)
        await create_production(objects, production, namespace)
        before = await templates(objects, production)
        await create_quiescing(objects, namespace, production)
        await until(objects, namespace, production, "Quiesced")

        await happens(objects, namespace, production)

        await comes_back(objects, namespace, production, reason)
        assert await templates(objects, production) == before

    within(api_server, scenario)


def test_who_scales_production_up_by_hand_is_left_alone_in_this_window(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production = await new_namespace(objects)
        await create_production(objects, production, namespace)
        await create_quiescing(objects, namespace, production)
        await until(objects, namespace, production, "Quiesced")
        await pass_of_experiment(objects, namespace)
        await passes_of_trials(objects, namespace)
        assert await trial_pods(objects, namespace)

        await objects.merge(DEPLOYMENT, production, "judge", {"spec": {"replicas": 2}})
        quiesce = await until(objects, namespace, production, "Restored", with_trials=True)

        assert quiesce["reason"] == "ScaledByOthers"
        assert "Deployment judge was changed, and is to have 2 replicas" in quiesce["message"]
        assert await replicas(objects, production) == {"judge": 2, "whisper": 1}
        assert await trial_pods(objects, namespace) == []
        for _ in range(3):
            await pass_of_experiment(objects, namespace)
        assert (await told(objects, namespace, "Quiesced"))[1] == "OutsideWindow"
        assert await replicas(objects, production) == {"judge": 2, "whisper": 1}

    within(api_server, scenario)


def test_production_that_does_not_become_ready_is_degraded_and_worked_at(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production = await new_namespace(objects)
        await create_production(objects, production, namespace)
        await create_quiescing(objects, namespace, production, restorationSeconds=2, trialSeconds=1)
        before = REGISTRY.get_sample_value("cotune_quiesces_total", {"phase": "Degraded"}) or 0
        await until(objects, namespace, production, "Quiesced")

        await until(objects, namespace, production, "Degraded", later=MAXIMUM, is_broken=True)

        assert REGISTRY.get_sample_value("cotune_quiesces_total", {"phase": "Degraded"}) == before + 1
        for kind in ("Degraded", "Stalled"):
            status, reason, message = await told(objects, namespace, kind)
            assert (status, reason) == ("True", "RestorationOverdue")
            assert "not ready after 2 s: waiting for judge to be ready" in message
        await pass_of_experiment(objects, namespace)
        assert await replicas(objects, production) == {"judge": 1, "whisper": 1}
        await until(objects, namespace, production, "Restored")
        assert (await told(objects, namespace, "Degraded"))[0] == "False"
        await is_all_over(objects, namespace, production)

    within(api_server, scenario)


def test_a_degraded_production_whose_experiment_is_deleted_is_left_to_a_person_once_all_is_started(
    api_server: ApiServer,
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production = await new_namespace(objects)
        await create_production(objects, production, namespace)
        await create_quiescing(objects, namespace, production, restorationSeconds=2, trialSeconds=1)
        await until(objects, namespace, production, "Quiesced")
        await objects.delete(EXPERIMENT, namespace, "voice")

        async def is_gone() -> bool:
            await pass_of_experiment(objects, namespace)
            return await objects.find(EXPERIMENT, namespace, "voice") is None

        await eventually(is_gone, "the experiment is gone")
        assert await replicas(objects, production) == {"judge": 1, "whisper": 1}
        assert await objects.find(CONTROLLER_REVISION, production, NAME) is None
        assert len(await Downtimes(objects, production).outages()) == 1

    within(api_server, scenario)


def test_a_right_that_is_taken_away_meanwhile_is_waited_for(api_server: ApiServer) -> None:
    def refuse(call: Call) -> ApiError | None:
        is_scale = call.method == "PATCH" and call.path.endswith("/scale")
        return ForbiddenError(403, "Forbidden", "the binding is gone") if is_scale else None

    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production = await new_namespace(objects)
        await create_production(objects, production, namespace)
        await create_quiescing(objects, namespace, production)
        await until(objects, namespace, production, "Quiesced")
        objects.refuse = refuse
        for _ in range(4):
            await pass_of_experiment(objects, namespace, later=MAXIMUM)

        assert await told(objects, namespace, "Stalled") == ("True", "Forbidden", "the binding is gone")
        objects.refuse = lambda _: None
        await until(objects, namespace, production, "Restored", later=MAXIMUM)
        assert (await told(objects, namespace, "Stalled"))[0] == "False"

    within(api_server, scenario)


def test_two_experiments_never_stop_the_same_production_at_once(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production = await new_namespace(objects)
        await create_production(objects, production, namespace)
        first = await create_quiescing(objects, namespace, production)
        other: Object = {key: first[key] for key in ("apiVersion", "kind", "spec")}
        await objects.create(EXPERIMENT, namespace, other | {"metadata": {"name": "other"}})

        async def has_begun() -> bool:
            await pass_of_experiment(objects, namespace, name="other")
            return bool(await quiesce_of(objects, namespace, "other"))

        await eventually(has_begun, "the other one has asked everything")
        assert (await quiesce_of(objects, namespace, "other"))["phase"] == "Stopping"

        # It has not put its record there yet: whoever does first has it.
        await until(objects, namespace, production, "Quiesced")
        await pass_of_experiment(objects, namespace, name="other")

        assert (await quiesce_of(objects, namespace, "other"))["phase"] == "Waiting"
        reason, message = await waits(objects, namespace, "other")
        assert (reason, message) == ("QuiescedByOther", f"{namespace}/voice keeps production in {production} stopped")
        body = await objects.get(EXPERIMENT, namespace, "other")
        assert FINALIZER not in body["metadata"].get("finalizers", [])

    within(api_server, scenario)


def test_a_record_that_was_left_behind_holds_nobody_up_where_production_runs(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production = await new_namespace(objects)
        await create_production(objects, production, namespace)
        first = await create_quiescing(objects, namespace, production)
        await until(objects, namespace, production, "Quiesced")
        # As if the operator had been uninstalled, and the experiment been deleted by force.
        await objects.merge(EXPERIMENT, namespace, "voice", {"metadata": {"finalizers": None}})
        await objects.delete(EXPERIMENT, namespace, "voice")
        other: Object = {key: first[key] for key in ("apiVersion", "kind", "spec")}
        await objects.create(EXPERIMENT, namespace, other | {"metadata": {"name": "other"}})

        reason, message = await waits(objects, namespace, "other")
        assert reason == "QuiescedByOther"
        assert f"annotation cotune.dev/restore of ControllerRevision {NAME}" in message
        assert (await told(objects, namespace, "Stalled", "other"))[:2] == ("True", "QuiescedByOther")
        for name in ("judge", "whisper"):
            await objects.merge(DEPLOYMENT, production, name, {"spec": {"replicas": 1}})
        await eventually(lambda: _pods(objects, production, 2), "production runs")
        await production_is_ready(objects, production)

        async def is_stopping() -> bool:
            await pass_of_experiment(objects, namespace, name="other")
            return (await quiesce_of(objects, namespace, "other")).get("phase") == "Stopping"

        await eventually(is_stopping, "the other one begins")

    within(api_server, scenario)


async def _pods(objects: PlayedObjects, namespace: str, number: int) -> bool:
    return len(await objects.list(POD, namespace)) == number


def test_no_stage_begins_where_production_is_stopped_and_none_is_stopped_where_a_stage_is(
    api_server: ApiServer,
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production = await new_namespace(objects)
        await create_production(objects, production, namespace)
        await create_quiescing(objects, namespace, production)
        await until(objects, namespace, production, "Quiesced")
        await create_profile(objects, namespace, production)

        async def pass_of_profile() -> str:
            body = await objects.get(PROFILE, namespace, "p")
            await profile_reconciler(objects).reconcile(body, datetime.now(UTC))
            status = (await objects.get(PROFILE, namespace, "p"))["status"]
            return next(str(it["reason"]) for it in status["conditions"] if it["type"] == "Progressing")

        assert await pass_of_profile() == "NamespaceQuiesced"
        await until(objects, namespace, production, "Restored", later=MAXIMUM)
        await is_all_over(objects, namespace, production)
        assert await pass_of_profile() == "Progressing"
        tomorrow = 24 * 3600
        for _ in range(3):
            await pass_of_experiment(objects, namespace, tomorrow)

        _, reason, message = await told(objects, namespace, "Quiesced")
        assert (reason, message) == (
            "WaitingForProfile",
            f"profile {namespace}/p has a stage in namespace {production}",
        )

    within(api_server, scenario)


async def is_about_to_stop(objects: PlayedObjects, namespace: str) -> None:
    """All is asked, and nothing is touched or taken yet."""

    async def has_begun() -> bool:
        await pass_of_experiment(objects, namespace)
        return (await quiesce_of(objects, namespace)).get("phase") == "Stopping"

    await eventually(has_begun, "everything is asked")


def test_without_its_turn_an_experiment_stops_nothing_and_what_is_stopped_comes_back(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cotune.handlers.quiesces._PATIENCE_SECONDS", 0.05)

    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production, turns = await new_namespace(objects), Turns()
        await create_production(objects, production, namespace)
        await create_quiescing(objects, namespace, production)
        await is_about_to_stop(objects, namespace)
        async with turns.of([production], 0):
            for _ in range(3):
                assert await pass_of_experiment(objects, namespace, turns=turns) is not None
            assert (await quiesce_of(objects, namespace))["phase"] == "Stopping"
            assert (await told(objects, namespace, "Quiesced"))[1] == "WaitingForTurn"
            assert await replicas(objects, production) == {"judge": 1, "whisper": 1}
            assert await objects.find(CONTROLLER_REVISION, production, NAME) is None

        await until(objects, namespace, production, "Quiesced")
        async with turns.of([production], 0):
            await pass_of_experiment(objects, namespace, later=MAXIMUM, turns=turns)
            assert (await quiesce_of(objects, namespace))["phase"] == "Restoring"

    within(api_server, scenario)


def test_without_its_turn_a_trial_makes_no_pod(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production, turns = await new_namespace(objects), Turns()
        await create_production(objects, production, namespace)
        await create_quiescing(objects, namespace, production)
        await until(objects, namespace, production, "Quiesced")

        async def is_made() -> bool:
            await pass_of_experiment(objects, namespace)
            return len(await objects.list(TRIAL, namespace)) > 0

        await eventually(is_made, "a trial")
        async with turns.of([production], 0):
            await passes_of_trials(objects, namespace, turns=turns)
            assert await trial_pods(objects, namespace) == []

        await passes_of_trials(objects, namespace, turns=turns)
        assert await trial_pods(objects, namespace) != []

    within(api_server, scenario)


def test_an_experiment_that_is_deleted_while_it_has_no_turn_goes(
    api_server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cotune.handlers.quiesces._PATIENCE_SECONDS", 0.05)

    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production, turns = await new_namespace(objects), Turns()
        await create_production(objects, production, namespace)
        await create_quiescing(objects, namespace, production)
        await is_about_to_stop(objects, namespace)
        await objects.delete(EXPERIMENT, namespace, "voice")

        async with turns.of([production], 0):
            for _ in range(3):
                await pass_of_experiment(objects, namespace, turns=turns)

        assert await objects.find(EXPERIMENT, namespace, "voice") is None
        assert await replicas(objects, production) == {"judge": 1, "whisper": 1}

    within(api_server, scenario)


def test_production_is_not_stopped_while_a_pass_of_a_rollout_is_at_work_there(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production, turns = await new_namespace(objects), Turns()
        await create_production(objects, production, namespace)
        await create_quiescing(objects, namespace, production)
        await create_profile(objects, namespace, production)
        is_rehearsed, goes_on = asyncio.Event(), asyncio.Event()

        async def delay(call: Call) -> None:
            if call.is_dry_run and not is_rehearsed.is_set():
                is_rehearsed.set()
                await goes_on.wait()

        objects.delay = delay
        profiles = profile_queue(objects, ProfileReconciler(objects, Events(objects, "test")), turns)
        async with profiles.running():
            profiles.add(Key(namespace, "p"))
            await asyncio.wait_for(is_rehearsed.wait(), 20)

            async def is_put_off() -> bool:
                await pass_of_experiment(objects, namespace, turns=turns)
                return (await told(objects, namespace, "Quiesced"))[1] == "WaitingForTurn"

            await eventually(is_put_off, "the experiment waits for its turn")
            assert await quiesce_of(objects, namespace) == {}
            goes_on.set()

            async def is_after_it() -> bool:
                await pass_of_experiment(objects, namespace, turns=turns)
                return (await told(objects, namespace, "Quiesced"))[1] == "WaitingForProfile"

            await eventually(is_after_it, "the experiment waits for the rollout")
        assert await quiesce_of(objects, namespace) == {}

    within(api_server, scenario)


async def no_grant(objects: PlayedObjects, production: str) -> None:
    await the_grant_is_withdrawn(objects, "", production)


async def an_autoscaler(objects: PlayedObjects, production: str) -> None:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "judge"}
    body: Object = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "judge"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": reference},
    }
    await objects.create(HORIZONTAL_POD_AUTOSCALER, production, body)


async def argo_cd(objects: PlayedObjects, production: str) -> None:
    annotations = {"argocd.argoproj.io/tracking-id": f"voice:apps/Deployment:{production}/judge"}
    await objects.merge(DEPLOYMENT, production, "judge", {"metadata": {"annotations": annotations}})


async def nothing_runs(objects: PlayedObjects, production: str) -> None:
    await objects.merge(DEPLOYMENT, production, "judge", {"spec": {"replicas": 0}})


async def not_ready(objects: PlayedObjects, production: str) -> None:
    await objects.merge(DEPLOYMENT, production, "judge", {"spec": {"replicas": 2}})


async def a_budget_that_is_spent(objects: PlayedObjects, production: str) -> None:
    [grant] = await objects.list(GRANT, production)
    patch: Object = {"spec": {"downtimeBudget": {"secondsPerDay": 300}}}
    await objects.merge(GRANT, production, grant["metadata"]["name"], patch)
    now = datetime.now(UTC)
    await Downtimes(objects, production).record(Outage("a/b", "only", now - timedelta(seconds=250), now), "uid")


async def a_short_limit(objects: PlayedObjects, production: str) -> None:
    [grant] = await objects.list(GRANT, production)
    patch: Object = {"spec": {"quiesce": {"maximumSeconds": 89}}}
    await objects.merge(GRANT, production, grant["metadata"]["name"], patch)


async def a_closed_window(objects: PlayedObjects, production: str) -> None:
    [grant] = await objects.list(GRANT, production)
    patch: Object = {"spec": {"quiesce": {"window": {"from": window()["to"], "to": window()["from"]}}}}
    await objects.merge(GRANT, production, grant["metadata"]["name"], patch)


@pytest.mark.parametrize(
    ("prepare", "reason", "is_stalled"),
    [
        (no_grant, "NoGrant", True),
        (an_autoscaler, "WorkloadAutoscaled", True),
        (argo_cd, "ManagedByGitOps", True),
        (nothing_runs, "WorkloadAtZero", True),
        (not_ready, "StageNotReady", False),
        (a_budget_that_is_spent, "DowntimeBudget", False),
        (a_short_limit, "QuiesceTooShort", True),
        (a_closed_window, "OutsideWindow", False),
    ],
)
def test_production_is_not_stopped_and_the_experiment_says_why(
    api_server: ApiServer, prepare: Any, reason: str, is_stalled: bool
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production = await new_namespace(objects)
        await create_production(objects, production, namespace)
        await prepare(objects, production)
        before = await replicas(objects, production)
        await create_quiescing(objects, namespace, production)

        found, message = await waits(objects, namespace)

        assert found == reason, message
        assert ((await told(objects, namespace, "Stalled"))[1] == reason) == is_stalled
        assert await replicas(objects, production) == before
        assert await objects.list(TRIAL, namespace) == ()
        body = await objects.get(EXPERIMENT, namespace, "voice")
        assert "finalizers" not in body["metadata"]

    within(api_server, scenario)


def test_what_is_left_of_a_budget_is_the_time_for_which_production_may_be_down(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production = await new_namespace(objects)
        await create_production(objects, production, namespace, downtimeBudget={"secondsPerDay": 400})
        await create_quiescing(objects, namespace, production)

        quiesce = await until(objects, namespace, production, "Quiesced")

        since, back = (datetime.fromisoformat(quiesce[it]) for it in ("since", "until"))
        assert (back - since).total_seconds() == 400

    within(api_server, scenario)


def test_production_is_not_kept_down_for_trials_that_cannot_run(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production = await new_namespace(objects)
        await create_production(objects, production, namespace)
        await create_quiescing(objects, namespace, production)
        await until(objects, namespace, production, "Quiesced")
        await objects.delete(CONFIG_MAP, namespace, "speech")

        quiesce = await until(objects, namespace, production, "Restored", with_trials=True)

        assert quiesce["reason"] == "TrialsCannotRun"
        assert "CorpusNotFound" in quiesce["message"]
        await is_all_over(objects, namespace, production)

    within(api_server, scenario)
