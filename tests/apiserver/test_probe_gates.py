"""Stages with a probe of their own, against a real API server; the tests play the kubelets and what the runs find."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apiserver.test_reconcilers import condition, drive
from cotune.cluster.kinds import CONFIG_MAP, DEPLOYMENT, GRANT, POD, PROFILE
from cotune.cluster.objects import ApiError, ConflictError, ForbiddenError, Object
from cotune.trials.stage_probe_pod import START_SECONDS
from support.api_server import ApiServer
from support.played_cluster import Call, PlayedObjects, eventually, new_namespace, play_crashing, within
from support.played_probes import (
    AGAINST,
    BAD,
    GOOD,
    P95,
    PROBE,
    RUNS,
    SPEECH,
    PlayedKubelet,
    create_probed_stage,
    gate,
    probe_pods,
)
from support.played_stage import SIZE, create_stage, play_workloads, profile_reconciler, stage_of, templates

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(180)]

NOTHING = timedelta()
_MOST_PASSES = 600


async def passes(
    objects: PlayedObjects,
    namespace: str,
    kubelet: PlayedKubelet,
    until: Callable[[Object], bool],
    leap: timedelta = NOTHING,
) -> Object:
    """Pass after pass until the profile is as wanted, or over; with `leap`, so much later each."""
    ahead = NOTHING
    for _ in range(_MOST_PASSES):
        body = await objects.get(PROFILE, namespace, "p")
        if until(body):
            return body
        try:
            again = await profile_reconciler(objects).reconcile(body, datetime.now(UTC) + ahead)
        except ConflictError:
            again = NOTHING
        if again is None:
            return await objects.get(PROFILE, namespace, "p")
        ahead += leap
        await kubelet.play()
        await asyncio.sleep(0.02)
    raise AssertionError(f"after {_MOST_PASSES} passes: {(await objects.get(PROFILE, namespace, 'p')).get('status')}")


def never(_: Object) -> bool:
    return False


def stages(body: Object) -> list[Object]:
    return body.get("status", {}).get("stages", [])


def record_of(stage: Object) -> Object:
    """What a stage's probe has on record."""
    found: Object = stage.get("probe") or Object()
    return found


def is_measuring(body: Object) -> bool:
    """Whether a run is under way while the stage bakes."""
    return any(it["phase"] == "Baking" and record_of(it).get("pod") for it in stages(body))


def is_stalled(body: Object) -> bool:
    found = body.get("status", {}).get("conditions", [])
    return any((it["type"], it["status"]) == ("Stalled", "True") for it in found)


def made_pods(objects: PlayedObjects) -> list[str]:
    """Those that the operator has made, each as often as it was made."""
    return [it for it in objects.created if it.startswith("Pod/")]


@pytest.mark.parametrize(
    ("held_against", "after", "phase", "outcome", "words"),
    [
        ({}, GOOD, "Promoted", "Passed", "300 (mean of 3 samples), max 500"),
        ({}, BAD, "RolledBack", "Failed", "700 (mean of 3 samples), max 500, with a confidence of 0.9"),
        ({"againstBaseline": AGAINST}, GOOD, "Promoted", "Passed", "max 330: baseline 300"),
        ({"againstBaseline": AGAINST}, BAD, "RolledBack", "Failed", "max 330: baseline 300"),
        ({"dryRun": True}, BAD, "Promoted", "Failed", "700 (mean of 3 samples), max 500"),
    ],
)
def test_a_stage_ends_as_its_probe_finds_it(
    api_server: ApiServer, held_against: Object, after: tuple[float, ...], phase: str, outcome: str, words: str
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        kubelet = PlayedKubelet(objects, namespace, after=after)
        await create_probed_stage(objects, namespace, [gate(**held_against)])
        before = await templates(objects, namespace)

        body = await passes(objects, namespace, kubelet, never)

        (stage,) = stages(body)
        (found,) = stage["gates"]
        assert (body["status"]["phase"], found["outcome"]) == (phase, outcome), stage
        assert words in found["message"]
        if phase == "RolledBack":
            assert stage["message"].startswith("gate speech: 700 (mean of 3 samples)")
            assert await templates(objects, namespace) == before
        is_compared = "againstBaseline" in held_against
        series = (["before"] * RUNS if is_compared else []) + ["after"] * RUNS
        assert list(kubelet.ended.values()) == series
        assert len(made_pods(objects)) == len(set(made_pods(objects))) == len(series)
        assert [it["measurements"][0]["metric"] for it in stage["probe"]["runs"]] == [P95] * RUNS
        assert await probe_pods(objects, namespace) == []
        assert stage["probe"].get("pod") is None

    within(api_server, scenario)


def test_nothing_is_stopped_before_the_baseline_is_measured(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_probed_stage(objects, namespace, [gate(againstBaseline=AGAINST)])
        kubelet = PlayedKubelet(objects, namespace)
        before = await templates(objects, namespace)

        def is_measured(body: Object) -> bool:
            return any(len(record_of(it).get("baseline", [])) == RUNS - 1 for it in stages(body))

        body = await passes(objects, namespace, kubelet, is_measured)

        assert await templates(objects, namespace) == before
        assert body["status"]["phase"] == "Pending"
        assert condition(body, "Progressing")[1] == "MeasuringBaseline"
        assert f"of {RUNS} runs of its probe before it begins" in stages(body)[0]["message"]

        # Its owner changes a workload: what was measured says nothing of what is there now.
        patch: Object = {"spec": {"template": {"metadata": {"annotations": {"owner.example/note": "other"}}}}}
        await objects.merge(DEPLOYMENT, namespace, "whisper", patch)
        body = await passes(objects, namespace, kubelet, never)

        (stage,) = stages(body)
        assert (stage["phase"], len(stage["probe"]["baseline"])) == ("Promoted", RUNS)
        assert list(kubelet.ended.values()).count("before") > RUNS

    within(api_server, scenario)


def test_a_pause_ends_the_run_before_a_stage_begins(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_probed_stage(objects, namespace, [gate(againstBaseline=AGAINST)])
        kubelet = PlayedKubelet(objects, namespace, is_slow=True)
        for _ in range(200):
            body = await objects.get(PROFILE, namespace, "p")
            await profile_reconciler(objects).reconcile(body, datetime.now(UTC))
            await kubelet.play()
            if await probe_pods(objects, namespace):
                break
        assert await probe_pods(objects, namespace) != []
        await objects.merge(PROFILE, namespace, "p", {"spec": {"rollout": {"paused": True}}})

        body = await passes(
            objects, namespace, kubelet, lambda it: bool(stages(it)) and (stages(it)[0]["probe"].get("pod") is None)
        )

        assert condition(body, "Progressing")[1] == "Paused"
        assert await probe_pods(objects, namespace) == []

    within(api_server, scenario)


async def _without_consent(objects: PlayedObjects, namespace: str) -> None:
    await create_probed_stage(objects, namespace, [gate()], rate=None)


async def _with_less_load(objects: PlayedObjects, namespace: str) -> None:
    await create_probed_stage(objects, namespace, [gate()], rate="199.9")


async def _without_speech(objects: PlayedObjects, namespace: str) -> None:
    await create_probed_stage(objects, namespace, [gate()])
    await objects.delete(CONFIG_MAP, namespace, "speech")


async def _where_pods_are_refused(objects: PlayedObjects, namespace: str) -> None:
    await create_probed_stage(objects, namespace, [gate()])

    def refuse(call: Call) -> ApiError | None:
        is_pod = call.method == "POST" and call.path.endswith("/pods")
        return ForbiddenError(403, "Forbidden", "violates PodSecurity") if is_pod else None

    objects.refuse = refuse


@pytest.mark.parametrize(
    ("prepare", "reason", "words"),
    [
        (_without_consent, "ProbeNotGranted", "allows Probe from"),
        (_with_less_load, "ProbeNotGranted", "lets a probe send 199.9 requests a second, and the stage's sends 200"),
        (_without_speech, "CorpusNotFound", "its probe reads ConfigMap speech"),
        (_where_pods_are_refused, "ProbeRefused", "violates PodSecurity"),
    ],
)
def test_what_its_probe_lacks_keeps_a_stage_from_beginning(
    api_server: ApiServer, prepare: Any, reason: str, words: str
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await prepare(objects, namespace)
        kubelet = PlayedKubelet(objects, namespace)
        before = await templates(objects, namespace)

        body = await passes(objects, namespace, kubelet, is_stalled)
        # The pods of the workloads first have to be ready, which is another reason to wait.
        while condition(body, "Stalled")[1] != reason:
            body = await passes(objects, namespace, kubelet, is_stalled)

        assert words in condition(body, "Stalled")[2]
        assert stages(body) == []
        assert await templates(objects, namespace) == before
        assert made_pods(objects) == []

    within(api_server, scenario)


def test_a_probe_that_only_fails_takes_the_stage_back_after_the_deadline_and_is_not_made_for_ever(
    api_server: ApiServer,
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        kubelet = PlayedKubelet(objects, namespace, error="error: no such host")
        await create_probed_stage(objects, namespace, [gate(deadlineSeconds=600)])
        await passes(objects, namespace, kubelet, is_measuring)

        body = await passes(objects, namespace, kubelet, never, leap=timedelta(seconds=10))

        (stage,) = stages(body)
        assert stage["phase"] == "RolledBack"
        assert stage["message"].startswith("gate speech is not decided 600 s after the bake time: Error: 0 of 3 runs")
        assert "error: no such host" in stage["message"]
        assert len(made_pods(objects)) == RUNS + 3
        assert await probe_pods(objects, namespace) == []

    within(api_server, scenario)


def test_a_run_without_a_result_in_time_is_given_up_and_its_pod_deleted(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        kubelet = PlayedKubelet(objects, namespace, is_slow=True)
        await create_probed_stage(objects, namespace, [gate(deadlineSeconds=3600)])
        await passes(objects, namespace, kubelet, is_measuring)
        kubelet.is_slow = True

        def is_given_up(body: Object) -> bool:
            return any(it["probe"]["runs"] for it in stages(body))

        body = await passes(objects, namespace, kubelet, is_given_up, leap=timedelta(seconds=START_SECONDS / 4))
        (lost,) = stages(body)[0]["probe"]["runs"]
        assert lost["error"].startswith("no result within ")
        kubelet.is_slow = False
        body = await passes(objects, namespace, kubelet, never, leap=timedelta(seconds=30))

        assert body["status"]["phase"] == "Promoted", stages(body)
        assert len(made_pods(objects)) == RUNS + 1
        assert await probe_pods(objects, namespace) == []

    within(api_server, scenario)


async def _abort(objects: PlayedObjects, namespace: str) -> None:
    await objects.merge(PROFILE, namespace, "p", {"spec": {"rollout": {"abort": True}}})


async def _delete(objects: PlayedObjects, namespace: str) -> None:
    await objects.delete(PROFILE, namespace, "p")


async def _withdraw(objects: PlayedObjects, namespace: str) -> None:
    for it in await objects.list(GRANT, namespace):
        await objects.delete(GRANT, namespace, it["metadata"]["name"])


@pytest.mark.parametrize("end", [_abort, _delete, _withdraw])
def test_a_stage_that_is_taken_back_leaves_no_pod_of_its_probe(api_server: ApiServer, end: Any) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        kubelet = PlayedKubelet(objects, namespace, is_slow=True)
        await create_probed_stage(objects, namespace, [gate()], bakeSeconds=600)
        before = await templates(objects, namespace)
        await passes(objects, namespace, kubelet, is_measuring)
        body = await objects.get(PROFILE, namespace, "p")
        await profile_reconciler(objects).reconcile(body, datetime.now(UTC))
        assert len(await probe_pods(objects, namespace)) == 1

        await end(objects, namespace)
        for _ in range(_MOST_PASSES):
            body = await objects.find(PROFILE, namespace, "p")
            if body is None:
                break
            try:
                if await profile_reconciler(objects).reconcile(body, datetime.now(UTC)) is None:
                    break
            except ConflictError:
                pass
            await kubelet.play()

        assert await probe_pods(objects, namespace) == []
        assert await templates(objects, namespace) == before
        if body is not None and end is not _delete:
            assert stages(body)[0]["phase"] == "RolledBack"

    within(api_server, scenario)


def test_a_baseline_is_not_measured_on_while_an_earlier_stage_goes_back(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_probed_stage(objects, namespace, [gate(againstBaseline=AGAINST)])
        first = await new_namespace(objects)
        await create_stage(objects, first, grant=False)
        [grant] = await objects.list(GRANT, namespace)
        invited: Object = {key: grant[key] for key in ("apiVersion", "kind", "spec")}
        await objects.create(GRANT, first, invited | {"metadata": {"name": "from-the-lab", "namespace": first}})
        [only] = (await objects.get(PROFILE, namespace, "p"))["spec"]["rollout"]["stages"]
        before = {"name": "first", "namespace": first, "guardSeconds": 600}
        await objects.merge(PROFILE, namespace, "p", {"spec": {"rollout": {"stages": [before, only]}}})
        kubelet = PlayedKubelet(objects, namespace, is_slow=True)

        async def one_pass() -> Object:
            body = await objects.get(PROFILE, namespace, "p")
            with suppress(ConflictError):
                await profile_reconciler(objects).reconcile(body, datetime.now(UTC))
            await kubelet.play()
            await play_workloads(objects, first, broken=False)
            return await objects.get(PROFILE, namespace, "p")

        async def is_loaded() -> bool:
            await one_pass()
            return await probe_pods(objects, namespace) != []

        await eventually(is_loaded, "the next stage measures its baseline")
        for pod in await objects.list(POD, first, {"app": "whisper"}):
            await play_crashing(objects, pod)

        async def is_back() -> bool:
            return stages(await one_pass())[0]["phase"] == "RolledBack"

        await eventually(is_back, "the earlier one is back")

        assert await probe_pods(objects, namespace) == []
        assert stages(await objects.get(PROFILE, namespace, "p"))[1]["probe"].get("pod") is None

    within(api_server, scenario)


def test_an_owner_who_takes_back_the_consent_to_load_gets_none_from_the_next_pass_on(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        kubelet = PlayedKubelet(objects, namespace, is_slow=True)
        await create_probed_stage(objects, namespace, [gate(onUndecided="Pass")])
        await passes(objects, namespace, kubelet, is_measuring)
        await kubelet.play()
        [grant] = await objects.list(GRANT, namespace)
        without: Object = {"spec": {"allow": ["Rollout"], "probe": None}}
        await objects.merge(GRANT, namespace, grant["metadata"]["name"], without)

        def is_over(body: Object) -> bool:
            found = stages(body)[0]["probe"]
            return bool(found["runs"]) and found.get("pod") is None

        body = await passes(objects, namespace, kubelet, is_over)

        assert stages(body)[0]["probe"]["runs"][0]["error"].startswith("ProbeNotGranted: no GpuTuningGrant")
        assert await probe_pods(objects, namespace) == []
        made = len(made_pods(objects))
        body = await passes(objects, namespace, kubelet, never, leap=timedelta(seconds=2))
        assert stages(body)[0]["phase"] == "Promoted"
        assert stages(body)[0]["gates"][0]["outcome"] == "Error"
        assert len(made_pods(objects)) == made

    within(api_server, scenario)


def test_a_pod_that_somebody_deletes_is_made_again_for_the_same_run(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        kubelet = PlayedKubelet(objects, namespace, is_slow=True)
        await create_probed_stage(objects, namespace, [gate(deadlineSeconds=600)])
        await passes(objects, namespace, kubelet, is_measuring)
        await profile_reconciler(objects).reconcile(await objects.get(PROFILE, namespace, "p"), datetime.now(UTC))
        [pod] = await probe_pods(objects, namespace)
        await objects.delete(POD, namespace, pod)
        kubelet.is_slow = False

        body = await passes(objects, namespace, kubelet, never)

        (stage,) = stages(body)
        assert stage["phase"] == "Promoted"
        assert [it["number"] for it in stage["probe"]["runs"]] == list(range(1, RUNS + 1))
        assert made_pods(objects).count(f"Pod/{namespace}/{pod}") == 2

    within(api_server, scenario)


def test_an_edit_of_the_load_makes_all_runs_anew(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        kubelet = PlayedKubelet(objects, namespace)
        await create_probed_stage(objects, namespace, [gate(deadlineSeconds=600)], bakeSeconds=6)

        def has_run(body: Object) -> bool:
            return any(len(record_of(it).get("runs", [])) == 2 for it in stages(body))

        body = await passes(objects, namespace, kubelet, has_run)
        edited = body["spec"]["rollout"]["stages"]
        edited[0]["probe"]["streams"] = [SPEECH | {"arrivals": {"type": "Poisson", "ratePerSecond": "200"}}]
        await objects.merge(PROFILE, namespace, "p", {"spec": {"rollout": {"stages": edited}}})

        body = await passes(objects, namespace, kubelet, never)

        (stage,) = stages(body)
        assert stage["phase"] == "Promoted"
        assert [it["number"] for it in stage["probe"]["runs"]] == [4, 5, 6]
        assert await probe_pods(objects, namespace) == []
        # Its bounds may be edited: the runs are the same.
        assert PROBE["runs"] == len(stage["probe"]["runs"])

    within(api_server, scenario)


def test_a_stage_that_comes_through_git_is_probed_once_its_values_are_there(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        kubelet = PlayedKubelet(objects, namespace)
        await create_probed_stage(objects, namespace, [gate()])
        await objects.merge(PROFILE, namespace, "p", {"spec": {"rollout": {"strategy": "Git"}}})

        def awaits(body: Object) -> bool:
            return bool(stages(body)) and condition(body, "Progressing")[1] == "AwaitingCommit"

        await passes(objects, namespace, kubelet, awaits)
        assert made_pods(objects) == []
        container: Object = {"name": "asr", "image": "example/server:1", "env": [{"name": SIZE, "value": "tiny"}]}
        committed: Object = {"spec": {"template": {"spec": {"containers": [container]}}}}
        await objects.merge(DEPLOYMENT, namespace, "whisper", committed)

        body = await passes(objects, namespace, kubelet, never)

        (stage,) = stages(body)
        assert (stage["phase"], stage["gates"][0]["outcome"]) == ("Promoted", "Passed")
        assert len(made_pods(objects)) == len(stage["probe"]["runs"]) == RUNS
        assert await probe_pods(objects, namespace) == []

    within(api_server, scenario)


def test_a_stage_that_is_to_come_through_git_after_all_leaves_no_pod_of_its_baseline(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        kubelet = PlayedKubelet(objects, namespace, is_slow=True)
        await create_probed_stage(objects, namespace, [gate(againstBaseline=AGAINST)])

        async def is_measured() -> bool:
            body = await objects.get(PROFILE, namespace, "p")
            await profile_reconciler(objects).reconcile(body, datetime.now(UTC))
            await kubelet.play()
            return await probe_pods(objects, namespace) != []

        await eventually(is_measured, "a run of the baseline")
        edited = (await objects.get(PROFILE, namespace, "p"))["spec"]["rollout"]["stages"]
        edited[0]["gates"] = [gate()]
        await objects.merge(PROFILE, namespace, "p", {"spec": {"rollout": {"strategy": "Git", "stages": edited}}})

        body = await passes(objects, namespace, kubelet, lambda it: condition(it, "Progressing")[1] == "AwaitingCommit")

        assert await probe_pods(objects, namespace) == []
        (stage,) = stages(body)
        assert stage["revision"] is not None
        # What runs from now on has other names than what has run.
        assert (record_of(stage).get("pod"), record_of(stage)["begun"]) == (None, 1)

    within(api_server, scenario)


def test_a_baseline_that_cannot_be_measured_leaves_the_stage_untouched_and_is_tried_again(
    api_server: ApiServer,
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        kubelet = PlayedKubelet(objects, namespace, error="error: no such host")
        await create_probed_stage(objects, namespace, [gate(againstBaseline=AGAINST)])
        before = await templates(objects, namespace)

        def is_given_up(body: Object) -> bool:
            return is_stalled(body) and condition(body, "Stalled")[1] == "BaselineNotMeasured"

        body = await passes(objects, namespace, kubelet, is_given_up, leap=timedelta(seconds=10))

        assert "error: no such host" in condition(body, "Stalled")[2]
        assert len(made_pods(objects)) == RUNS + 3
        assert await templates(objects, namespace) == before
        kubelet.error = ""
        ended = datetime.fromisoformat(stages(body)[0]["probe"]["baseline"][-1]["endedAt"])
        early, late = ended + timedelta(minutes=9), ended + timedelta(minutes=11)
        for _ in range(5):
            body = await objects.get(PROFILE, namespace, "p")
            await profile_reconciler(objects).reconcile(body, early)
        assert len(made_pods(objects)) == RUNS + 3
        assert await probe_pods(objects, namespace) == []
        for _ in range(5):
            body = await objects.get(PROFILE, namespace, "p")
            await profile_reconciler(objects).reconcile(body, late)
            await kubelet.play()
        assert len(made_pods(objects)) > RUNS + 3
        assert stages(await objects.get(PROFILE, namespace, "p"))[0]["probe"]["baseline"][0].get("error", "") == ""

    within(api_server, scenario)


async def probed_run(objects: PlayedObjects, namespace: str, dies_after: int | None) -> tuple[int, Object]:
    """A stage from its baseline to its end, whose passes die; how often they have, and what is there in the end."""
    await create_probed_stage(objects, namespace, [gate(againstBaseline=AGAINST, deadlineSeconds=600)])
    kubelet = PlayedKubelet(objects, namespace)

    async def one_pass(body: Object, now: datetime) -> timedelta | None:
        return await profile_reconciler(objects).reconcile(body, now)

    driven = await drive(objects, PROFILE, namespace, "p", one_pass, kubelet.play, dies_after)
    state = await stage_of(objects, namespace)
    assert state.probe is not None
    pods = made_pods(objects)
    return driven.deaths, {
        "phase": state.phase,
        "runs": [(it.number, it.error, it.measurements) for it in (*state.probe.baseline, *state.probe.runs)],
        "gates": [(it.outcome, it.value, it.baseline, it.message) for it in state.gates],
        "left": [it for it in await objects.list(POD, namespace) if "cotune.dev/stage" in it["metadata"]["labels"]],
        "made": (len(pods), len(set(pods))),
    }


@pytest.mark.parametrize("calls", [3, 5, 7, 8, 9, 10, 11, 12, 14, 17])
def test_a_stage_whose_passes_die_after_any_call_measures_once_and_ends_the_same(
    api_server: ApiServer, calls: int
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        deaths, end = await probed_run(objects, namespace, calls)

        assert deaths > 0
        assert (end["phase"], end["left"], end["made"]) == ("Promoted", [], (2 * RUNS, 2 * RUNS))
        assert [number for number, _, _ in end["runs"]] == list(range(1, 2 * RUNS + 1))
        assert [error for _, error, _ in end["runs"]] == [""] * 2 * RUNS
        assert end["gates"][0][:3] == ("Passed", "300", "300")

    within(api_server, scenario)
