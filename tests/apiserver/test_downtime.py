"""What stages cost, against a real API server and controller manager; kubelets are played.

Every pass is made by a reconciler that knows nothing of the passes before.
"""

from datetime import UTC, datetime, timedelta

import pytest
from cotune.cluster.downtimes import KEPT, LABELS, Downtimes
from cotune.cluster.kinds import CONTROLLER_REVISION, DEPLOYMENT, GRANT, PROFILE
from cotune.cluster.objects import ApiError, ConflictError, ForbiddenError, Object
from cotune.rollout.downtime import Outage
from prometheus_client import REGISTRY
from support.api_server import ApiServer
from support.played_cluster import Call, PlayedObjects, eventually, within
from support.played_stage import (
    create_profile,
    create_stage,
    play_workloads,
    profile_reconciler,
    stage_of,
    templates,
)

pytestmark = pytest.mark.apiserver


async def one_pass(objects: PlayedObjects, namespace: str, name: str = "p", later: float = 0) -> timedelta | None:
    """A pass at a time that lies `later` seconds ahead."""
    body = await objects.get(PROFILE, namespace, name)
    try:
        return await profile_reconciler(objects).reconcile(body, datetime.now(UTC) + timedelta(seconds=later))
    except ConflictError:
        return timedelta()


async def until(objects: PlayedObjects, namespace: str, reason: str, name: str = "p", broken: bool = False) -> Object:
    """Passes until the profile's condition Progressing has a reason; its status then."""
    status: Object = {}

    async def is_there() -> bool:
        nonlocal status
        await one_pass(objects, namespace, name)
        await play_workloads(objects, namespace, broken)
        status = (await objects.get(PROFILE, namespace, name)).get("status", {})
        return progressing(status)[0] == reason

    await eventually(is_there, f"profile {name} is {reason}")
    return status


def progressing(status: Object) -> tuple[str, str]:
    """Reason and message."""
    found = [it for it in status.get("conditions", ()) if it["type"] == "Progressing"]
    return (found[0]["reason"], found[0]["message"]) if found else ("", "")


async def approve(objects: PlayedObjects, namespace: str, name: str = "p") -> None:
    body = await objects.get(PROFILE, namespace, name)
    stages = [it | {"approval": "Auto"} for it in body["spec"]["rollout"]["stages"]]
    await objects.merge(PROFILE, namespace, name, {"spec": {"rollout": {"stages": stages}}})


def counted(namespace: str) -> float:
    return REGISTRY.get_sample_value("cotune_downtime_seconds_total", {"namespace": namespace}) or 0.0


def errors_told() -> float:
    return REGISTRY.get_sample_value("cotune_downtime_error_seconds_count") or 0.0


async def spend(objects: PlayedObjects, namespace: str, seconds: int, minutes_ago: float) -> None:
    """An outage that another profile is to blame for, and that says how long the stack starts."""
    ended = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    starts = {"judge": 1, "stt": 1}
    made = Outage("elsewhere/other", "only", ended - timedelta(seconds=seconds), ended, 1, starts)
    await Downtimes(objects, namespace).record(made, "other")


def test_what_a_stage_will_cost_is_said_before_its_approval_and_what_it_cost_afterwards(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        starts = {"judge": 70, "stt": 10}
        await create_profile(objects, namespace, namespace, starts=starts, approval="Manual")

        status = await until(objects, namespace, "AwaitingApproval")

        said = (
            "140 s: 60 s to stop (their grace periods at most), judge 70 s to start (in its trial), "
            "stt 10 s to start (in its trial)"
        )
        assert status["expectedDowntime"] == {"stage": "only", "seconds": 140, "message": said}
        assert progressing(status)[1].endswith(f"set it to Auto to let it begin; its expected downtime is {said}")
        told_before = errors_told()
        await approve(objects, namespace)
        status = await until(objects, namespace, "Promoted")

        downtime = (await stage_of(objects, namespace)).downtime
        assert downtime is not None
        assert downtime.expected_seconds == 140
        assert downtime.since is None
        assert downtime.measured_seconds is not None
        assert 0 < downtime.measured_seconds < 60
        assert downtime.error_seconds == downtime.measured_seconds - 140
        assert "expectedDowntime" not in status
        assert counted(namespace) == downtime.measured_seconds
        assert errors_told() == told_before + 1
        assert {it.component for it in downtime.starts} == {"judge", "stt"}
        (outage,) = await Downtimes(objects, namespace).outages()
        assert (outage.profile, outage.stage, outage.seconds) == (f"{namespace}/p", "only", downtime.measured_seconds)
        assert outage.start_seconds.keys() == {"judge", "stt"}
        assert outage.stop_seconds is not None

    within(api_server, scenario)


def test_a_later_profile_is_told_what_the_namespace_has_shown(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        await create_profile(objects, namespace, namespace, "first", to="base")
        await until(objects, namespace, "Promoted", "first")
        await objects.delete(PROFILE, namespace, "first")

        budget = {"secondsPerDay": 600}
        await create_profile(objects, namespace, namespace, approval="Manual", downtimeBudget=budget)
        status = await until(objects, namespace, "AwaitingApproval")
        (outage,) = await Downtimes(objects, namespace).outages()
        left = 600 - outage.seconds

        assert progressing(status)[1].endswith(f"; {left} s of 600 s a day are left (its downtimeBudget)")

        assert status["expectedDowntime"]["message"].count("last time here") >= 1
        assert status["expectedDowntime"]["seconds"] < 60

    within(api_server, scenario)


def test_a_stage_that_changes_nothing_costs_nothing_and_no_budget_holds_it(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        await create_profile(objects, namespace, namespace, "first")
        await until(objects, namespace, "Promoted", "first")
        before = await Downtimes(objects, namespace).outages()

        await create_profile(objects, namespace, namespace, downtimeBudget={"secondsPerDay": 1, "cooldownSeconds": 600})
        await until(objects, namespace, "Promoted")

        downtime = (await stage_of(objects, namespace)).downtime
        assert downtime is not None
        assert (downtime.expected_seconds, downtime.measured_seconds, downtime.error_seconds) == (0, 0, 0)
        assert await Downtimes(objects, namespace).outages() == before

    within(api_server, scenario)


def test_a_stage_waits_for_its_budget_whoever_has_spent_it_and_begins_when_it_said(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        before = await templates(objects, namespace)
        await spend(objects, namespace, seconds=50, minutes_ago=23 * 60)
        await spend(objects, namespace, seconds=5, minutes_ago=60)
        await create_profile(objects, namespace, namespace, downtimeBudget={"secondsPerDay": 55})

        status = await until(objects, namespace, "DowntimeBudget")

        message = progressing(status)[1]
        assert message.startswith(
            "stage only: 3 s of downtime are expected, 0 s of 55 s a day are left (its downtimeBudget): it begins at "
        )
        assert status["phase"] == "Pending"
        assert status["expectedDowntime"]["seconds"] == 3
        await one_pass(objects, namespace, later=3600 - 60)
        assert await templates(objects, namespace) == before
        assert (await objects.get(PROFILE, namespace, "p"))["status"].get("stages", []) == []
        begins_at = datetime.fromisoformat(message.rpartition(" ")[2])
        await one_pass(objects, namespace, later=(begins_at - datetime.now(UTC)).total_seconds() + 1)
        assert (await stage_of(objects, namespace)).phase == "Progressing"

    within(api_server, scenario)


def test_the_budget_of_a_grant_holds_a_stage_that_has_none(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        before = await templates(objects, namespace)
        (grant,) = await objects.list(GRANT, namespace)
        owners = {"spec": {"downtimeBudget": {"secondsPerDay": 2}}}
        await objects.merge(GRANT, namespace, grant["metadata"]["name"], owners)
        await spend(objects, namespace, seconds=1, minutes_ago=60)
        await create_profile(objects, namespace, namespace)

        status = await until(objects, namespace, "DowntimeBudget")

        assert "the downtimeBudget of its grant is 2 s a day: it never fits" in progressing(status)[1]
        assert await templates(objects, namespace) == before
        more = {"spec": {"downtimeBudget": {"secondsPerDay": 60}}}
        await objects.merge(GRANT, namespace, grant["metadata"]["name"], more)
        await until(objects, namespace, "Promoted")

    within(api_server, scenario)


def test_two_changes_are_a_cooldown_apart(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        budget = {"secondsPerDay": 600, "cooldownSeconds": 1800}
        await create_profile(
            objects, namespace, namespace, "first", to="base", downtimeBudget=budget | {"onUnknown": "Begin"}
        )
        await until(objects, namespace, "Promoted", "first")

        await create_profile(objects, namespace, namespace, downtimeBudget=budget)
        status = await until(objects, namespace, "DowntimeBudget")

        assert "the last downtime is less than 1800 s ago" in progressing(status)[1]
        await one_pass(objects, namespace, later=1801)
        assert (await stage_of(objects, namespace)).phase == "Progressing"

    within(api_server, scenario)


def test_a_stage_with_a_budget_whose_cost_nobody_knows_is_stalled(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        before = await templates(objects, namespace)
        await create_profile(objects, namespace, namespace, downtimeBudget={"secondsPerDay": 600})

        status = await until(objects, namespace, "DowntimeUnknown")

        (stalled,) = [it for it in status["conditions"] if it["type"] == "Stalled"]
        assert (stalled["status"], stalled["reason"]) == ("True", "DowntimeUnknown")
        assert "no start of judge, stt was measured" in stalled["message"]
        assert "seconds" not in status["expectedDowntime"]
        assert await templates(objects, namespace) == before

    within(api_server, scenario)


def test_a_way_back_is_held_up_by_no_budget_and_is_counted(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        before = await templates(objects, namespace)
        await create_profile(
            objects,
            namespace,
            namespace,
            downtimeBudget={"secondsPerDay": 1, "cooldownSeconds": 86400, "onUnknown": "Begin"},
        )

        await until(objects, namespace, "RolledBack", broken=True)

        assert await templates(objects, namespace) == before
        downtime = (await stage_of(objects, namespace)).downtime
        (outage,) = await Downtimes(objects, namespace).outages()
        assert downtime is not None
        assert downtime.measured_seconds == outage.seconds > 0
        assert downtime.error_seconds is None
        assert outage.stop_seconds is None

    within(api_server, scenario)


def test_a_stage_is_promoted_also_where_its_downtime_may_not_be_recorded(api_server: ApiServer) -> None:
    def refuse(call: Call) -> ApiError | None:
        is_record = call.method == "POST" and call.path.endswith("/controllerrevisions") and has_begun
        return ForbiddenError(403, "Forbidden", "a quota of ControllerRevisions") if is_record else None

    has_begun = False

    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        nonlocal has_begun
        await create_stage(objects, namespace)
        await create_profile(objects, namespace, namespace)
        await until(objects, namespace, "Progressing")
        objects.refuse, has_begun = refuse, True

        await until(objects, namespace, "Promoted")

        downtime = (await stage_of(objects, namespace)).downtime
        assert downtime is not None
        assert downtime.measured_seconds is not None
        assert await Downtimes(objects, namespace).outages() == []

    within(api_server, scenario)


def test_a_degraded_stage_that_is_left_to_a_person_leaves_its_downtime_on_record(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        await create_profile(objects, namespace, namespace, readinessDeadlineSeconds=1)

        async def is_down() -> bool:
            await one_pass(objects, namespace)
            if not (stages := (await objects.get(PROFILE, namespace, "p")).get("status", {}).get("stages")):
                await play_workloads(objects, namespace, broken=False)
                return False
            return bool(stages[0]["phase"] == "Degraded")

        await eventually(is_down, "a stage that does not come back")
        await objects.delete(PROFILE, namespace, "p")
        await one_pass(objects, namespace)

        assert await objects.find(PROFILE, namespace, "p") is None
        (outage,) = await Downtimes(objects, namespace).outages()
        assert outage.seconds >= 1
        assert outage.start_seconds == {}

    within(api_server, scenario)


def test_a_record_is_written_once_and_what_is_none_is_passed_over(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        downtimes = Downtimes(objects, namespace)
        since = datetime(2026, 7, 3, 12, 0, tzinfo=UTC)
        first = Outage("lab/p", "only", since, since + timedelta(seconds=9), 2, {"judge": 7})
        forged = {
            "apiVersion": CONTROLLER_REVISION.api_version,
            "kind": CONTROLLER_REVISION.name,
            "metadata": {"name": "forged", "labels": LABELS},
            "data": {"since": "2026-07-03T12:00:00"},
            "revision": 0,
        }
        await objects.create(CONTROLLER_REVISION, namespace, forged)

        assert await downtimes.record(first, "uid") == first
        again = Outage("lab/p", "only", since, since + timedelta(seconds=99), 2, {"judge": 7})
        assert await downtimes.record(again, "uid") == first
        other = await downtimes.record(again, "another profile's uid")

        assert other == again
        assert sorted(it.seconds for it in await downtimes.outages()) == [9, 99]

    within(api_server, scenario)


def test_old_records_go_beyond_the_newest_few_and_none_that_a_budget_counts(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        downtimes, now = Downtimes(objects, namespace), datetime(2026, 7, 3, 12, 0, tzinfo=UTC)
        for hours in (*range(KEPT + 2), 30, 31):
            ended = now - timedelta(hours=hours, minutes=1)
            await downtimes.record(Outage("lab/p", "only", ended - timedelta(seconds=9), ended), "uid")

        await downtimes.prune(now)

        ages = sorted((now - it.until) // timedelta(hours=1) for it in await downtimes.outages())
        assert ages == list(range(KEPT + 2))
        assert len(await objects.list(DEPLOYMENT, namespace)) == 0

    within(api_server, scenario)
