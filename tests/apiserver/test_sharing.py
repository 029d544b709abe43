"""How the card is shared as a parameter, against a real API server: nodes of two modes, and stages on either."""

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cotune.cluster.cards import Cards
from cotune.cluster.events import Events
from cotune.cluster.kinds import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    EXPERIMENT,
    GRANT,
    NODE,
    POD,
    PROFILE,
    TRIAL,
)
from cotune.cluster.objects import ConflictError, Object
from cotune.cluster.stacks import Stacks
from cotune.handlers.experiment import ExperimentReconciler
from cotune.handlers.plans import Plans
from cotune.handlers.profile import ProfileReconciler
from cotune.handlers.records import Records
from cotune.handlers.settings import Settings
from cotune.handlers.trial import TrialReconciler
from cotune.trials.probe_pod import PROBE, ProbeImage
from cotune.trials.render import LABEL_COMPONENT
from support.api_server import ApiServer
from support.played_cluster import (
    PlayedObjects,
    deployment,
    eventually,
    play_ended,
    play_kubelet,
    play_node,
    play_ready,
    within,
)
from support.played_probe import CARD, last_line
from support.resources import manifest

pytestmark = pytest.mark.apiserver

STRATEGY = "nvidia.com/gpu.sharing-strategy"
SIZE = "ASR_WHISPER_SIZE"
FEASIBLE = {
    "type": "Feasible",
    "status": "True",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-01-01T00:00:00Z",
    "reason": "WithinConstraints",
    "message": "",
}
RESULT = {
    "stt.latency.p95": "240",
    "stt.slowdown.p95": "3",
    "stt.wer": "0.05",
    "judge.latency.p95": "500",
    "judge.kvCache.concurrency": "3.4",
    "judge.kvCache.tokens": "6976",
    "gpu.utilization": "0.5",
}


async def node(objects: PlayedObjects, namespace: str, strategy: str) -> str:
    """A node with a card of the test's own product, which is shared in this way; its name."""
    labels = {"nvidia.com/gpu.product": namespace, "nvidia.com/gpu.count": "1", STRATEGY: strategy}
    await play_node(objects, f"{namespace}-{strategy}", labels | {"nvidia.com/gpu.replicas": "8"})
    return f"{namespace}-{strategy}"


async def create(
    objects: PlayedObjects, namespace: str, baseline: str = "TimeSlicing", interference: Object | None = None
) -> None:
    """Speech in two sizes, by time-slicing and by MPS."""
    speech: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "speech", "namespace": namespace}}
    await objects.create(CONFIG_MAP, namespace, speech)
    body = copy.deepcopy(manifest("GpuAllocationExperiment"))
    body["metadata"]["namespace"] = namespace
    spec = body["spec"]
    spec["gpu"] = {"product": namespace}
    for it in spec["stack"]["components"]:
        it["template"]["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    sharing = {"name": "sharing", "bind": {"gpu": "sharing"}, "values": ["TimeSlicing", "MPS"], "baseline": baseline}
    spec["parameters"] = [{**spec["parameters"][1], "values": ["tiny", "small"]}, sharing]
    spec["search"] = {"algorithm": "Grid", "maxTrials": 4, "repeats": 1}
    spec["evaluation"] = {"repeats": 3, "confidence": "0.9", "baselineEvery": 0}
    if interference is not None:
        spec["workload"]["interference"] = interference
        spec["constraints"].append({"metric": "stt.slowdown.p95", "max": "4"})
    await objects.create(EXPERIMENT, namespace, body)


async def one_pass(objects: PlayedObjects, namespace: str) -> timedelta | None:
    """By an operator that has just started: nothing is remembered."""
    reconciler = ExperimentReconciler(objects, Events(objects, "test"), Plans(objects))
    return await reconciler.reconcile(await objects.get(EXPERIMENT, namespace, "voice"), datetime.now(UTC))


def values(trial: Object) -> tuple[str, ...]:
    return tuple(it["value"] for it in trial["spec"]["candidate"])


async def play_trials(objects: PlayedObjects, namespace: str) -> None:
    """Trials that are not skipped are measured: tiny and MPS are faster, both together fastest."""
    for trial in await objects.list(TRIAL, namespace):
        if "status" in trial:
            continue
        if trial["spec"].get("skipped"):
            await trial_pass(objects, namespace, trial["metadata"]["name"])
            continue
        size, mode = values(trial)
        milliseconds = (80 if size == "tiny" else 300) / (2 if mode == "MPS" else 1) + trial["spec"]["repeat"]
        found = {"stt.latency.p95": milliseconds, "judge.latency.p95": 900, "judge.kvCache.concurrency": 3}
        found |= {"stability": 1, "gpu.utilization": "0.7"}
        status = {
            "phase": "Succeeded",
            "fitness": f"{1 - milliseconds / 1000:.6f}",
            "conditions": [FEASIBLE],
            "measurements": [{"metric": key, "value": str(it), "samples": 200} for key, it in found.items()],
        }
        await objects.merge(TRIAL, namespace, trial["metadata"]["name"], {"status": status}, subresource="status")


async def run(objects: PlayedObjects, namespace: str) -> Object:
    """Pass after pass to the experiment's end."""
    for _ in range(60):
        if await one_pass(objects, namespace) is None:
            break
        await play_trials(objects, namespace)
    return (await objects.get(EXPERIMENT, namespace, "voice"))["status"]


async def trial_pass(objects: PlayedObjects, namespace: str, name: str) -> Object:
    """One pass over a trial; its status after it."""
    probe = ProbeImage("example/probe:1", "IfNotPresent")
    settings = Settings(namespace, probe, timedelta(minutes=1), timedelta(minutes=1), "INFO", 8080, 9090)
    stacks, events = Stacks(objects), Events(objects, "test")
    records = Records(objects, stacks, probe.name, None)
    reconciler = TrialReconciler(objects, Cards(objects, namespace), stacks, events, settings, records)
    await reconciler.reconcile(await objects.get(TRIAL, namespace, name), datetime.now(UTC))
    return (await objects.get(TRIAL, namespace, name))["status"]


def condition(status: Object, kind: str) -> tuple[str, str, str]:
    found = next(it for it in status["conditions"] if it["type"] == kind)
    return found["status"], found["reason"], found["message"]


def test_the_winner_of_two_modes_wants_prepared_nodes_and_its_profile_expects_them(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        for strategy in ("time-slicing", "mps"):
            await node(objects, namespace, strategy)
        await create(objects, namespace)

        status = await run(objects, namespace)

        assert (status["phase"], status["winner"]["sharing"]) == ("Succeeded", "MPS"), status
        wants = "it wants nodes that share their card as MPS, not as TimeSlicing"
        assert wants in condition(status, "Ready")[2]
        assert {values(it) for it in await objects.list(TRIAL, namespace)} == {
            (size, mode) for size in ("tiny", "small") for mode in ("TimeSlicing", "MPS")
        }
        (profile,) = await objects.list(PROFILE, namespace)
        assert profile["spec"]["expect"]["sharing"] == "MPS"
        assert [it["env"] for it in profile["spec"]["changes"]] == [SIZE]

    within(api_server, scenario)


MODES = {"TimeSlicing": "time-slicing", "MPS": "mps"}


def test_every_candidate_runs_on_a_node_of_its_mode(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        names = {mode: await node(objects, namespace, it) for mode, it in MODES.items()}
        await create(objects, namespace)
        for _ in range(2):
            await one_pass(objects, namespace)
            await play_trials(objects, namespace)
        await one_pass(objects, namespace)
        fresh = [it for it in await objects.list(TRIAL, namespace) if "status" not in it]
        assert {values(it)[1] for it in fresh} == set(MODES), "a trial for each card"

        for trial in fresh:
            status = await trial_pass(objects, namespace, trial["metadata"]["name"])

            assert (status["phase"], status["node"]) == ("Draining", names[values(trial)[1]])

    within(api_server, scenario)


def test_candidates_of_a_mode_without_a_node_are_skipped_and_the_experiment_goes_on(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        sliced = await node(objects, namespace, "time-slicing")
        await create(objects, namespace)

        status = await run(objects, namespace)

        assert (status["phase"], status["trials"]["skipped"]) == ("Succeeded", 2), status
        assert "sharing" not in status["winner"]
        found = {values(it): it["status"] for it in await objects.list(TRIAL, namespace)}
        for size in ("tiny", "small"):
            skipped = found[size, "MPS"]
            why = f"{sliced}: shares its card by time-slicing, not by mps"
            assert (skipped["phase"], skipped["reason"]) == ("Skipped", "NoSuitableNode")
            assert skipped["message"] == why
            assert found[size, "TimeSlicing"]["phase"] == "Succeeded"

    within(api_server, scenario)


def test_an_experiment_whose_baseline_has_no_node_waits_for_one(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        sliced = await node(objects, namespace, "time-slicing")
        await create(objects, namespace, baseline="MPS")
        for _ in range(2):
            await one_pass(objects, namespace)

        status = (await objects.get(EXPERIMENT, namespace, "voice"))["status"]
        why = f"{sliced}: shares its card by time-slicing, not by mps"
        assert condition(status, "Stalled") == ("True", "NoSuitableNode", why)
        assert await objects.list(TRIAL, namespace) == ()

        await node(objects, namespace, "mps")
        await one_pass(objects, namespace)
        assert [values(it)[1] for it in await objects.list(TRIAL, namespace)] == ["MPS"]

    within(api_server, scenario)


@pytest.mark.parametrize(("is_away", "phase", "stalled"), [(False, "Skipped", "False"), (True, "Pending", "True")])
def test_a_trial_whose_node_is_gone_is_skipped_and_one_that_may_have_it_back_waits(
    api_server: ApiServer, is_away: bool, phase: str, stalled: str
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await node(objects, namespace, "time-slicing")
        under_mps = await node(objects, namespace, "mps")
        await create(objects, namespace)
        trial = await until_one_of_mps(objects, namespace, "Search")
        gone = {"spec": {"unschedulable": True}} if is_away else {"metadata": {"labels": {STRATEGY: "time-slicing"}}}
        await objects.merge(NODE, "", under_mps, gone)

        status = await trial_pass(objects, namespace, trial)

        assert (status["phase"], status["reason"]) == (phase, "NoSuitableNode")
        await one_pass(objects, namespace)
        assert condition((await objects.get(EXPERIMENT, namespace, "voice"))["status"], "Stalled")[0] == stalled

    within(api_server, scenario)


def test_a_confirming_run_waits_for_its_node_and_the_experiment_says_so(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await node(objects, namespace, "time-slicing")
        under_mps = await node(objects, namespace, "mps")
        await create(objects, namespace)
        trial = await until_one_of_mps(objects, namespace, "Confirmation")
        await objects.merge(NODE, "", under_mps, {"metadata": {"labels": {STRATEGY: "time-slicing"}}})

        status = await trial_pass(objects, namespace, trial)
        await one_pass(objects, namespace)

        assert (status["phase"], status["reason"]) == ("Pending", "NoSuitableNode")
        of_experiment = (await objects.get(EXPERIMENT, namespace, "voice"))["status"]
        why = f"{trial}: {status['message']}"
        assert condition(of_experiment, "Stalled") == ("True", "NoSuitableNode", why)

        await objects.merge(NODE, "", under_mps, {"metadata": {"labels": {STRATEGY: "mps"}}})
        assert (await trial_pass(objects, namespace, trial))["phase"] == "Draining"
        await one_pass(objects, namespace)
        of_experiment = (await objects.get(EXPERIMENT, namespace, "voice"))["status"]
        assert condition(of_experiment, "Stalled")[0] == "False"

    within(api_server, scenario)


async def until_one_of_mps(objects: PlayedObjects, namespace: str, purpose: str) -> str:
    """Passes until a trial under MPS is there that is run for this; its name."""
    for _ in range(60):
        await one_pass(objects, namespace)
        for it in await objects.list(TRIAL, namespace):
            if "status" not in it and it["spec"]["purpose"] == purpose and values(it)[1] == "MPS":
                return str(it["metadata"]["name"])
        await play_trials(objects, namespace)
    raise AssertionError(f"no trial under MPS for {purpose}")


INTERFERENCE = {"durationSeconds": 30, "warmupSeconds": 5}


def matrix(*loaded: list[str]) -> Object:
    """What a probe says beside its measurements, of these rounds."""
    latency = {"p50": 60.0, "p95": 80.0, "p99": 90.0, "largest": 95.0, "samples": 60}
    both = {"loaded": ["judge", "stt"], "component": "stt", "latency": latency | {"p95": 240.0}}
    card: Object = {"uuid": CARD, "readings": 300, "riseMiB": 9_600, "processes": [], "areAllListed": True}
    rounds: list[Any] = [
        {
            "loaded": it,
            "startedAt": "2099-01-01T12:02:00Z",
            "endedAt": "2099-01-01T12:02:30Z",
            "punctuality": [{"component": it[0], "requests": 60, "late_p99_ms": 1.5}],
            "card": card,
        }
        for it in loaded
    ]
    cells = [{"loaded": it, "component": it[0], "latency": latency} for it in loaded]
    return {"rounds": rounds, "interference": [*cells, both]}


@pytest.mark.parametrize(
    ("loaded", "phase", "reason"),
    [([["judge"], ["stt"]], "Succeeded", ""), ([["stt"]], "Invalid", "NoResult"), ([], "Invalid", "NoResult")],
)
def test_a_trial_keeps_the_interference_matrix_that_was_asked_for(
    api_server: ApiServer, loaded: list[list[str]], phase: str, reason: str
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await node(objects, namespace, "time-slicing")
        await create(objects, namespace, interference=INTERFERENCE)
        for _ in range(2):
            await one_pass(objects, namespace)
        (trial,) = await objects.list(TRIAL, namespace)
        name, said = trial["metadata"]["name"], matrix(*loaded)
        result = json.loads(last_line(RESULT))
        result["conduct"]["rounds"] = said["rounds"]
        result["interference"] = said["interference"]

        async def is_over() -> bool:
            status = await trial_pass(objects, namespace, name)
            await play_kubelet(objects, namespace)
            for pod in await objects.list(POD, namespace, {LABEL_COMPONENT: PROBE}):
                (variable,) = pod["spec"]["containers"][0]["env"]
                assert json.loads(variable["value"])["interference"]["rounds"] == [["judge"], ["stt"]]
                if status["phase"] == "Measuring" and pod["status"]["phase"] != "Succeeded":
                    objects.logs[pod["metadata"]["name"]] = json.dumps(result)
                    await play_ended(objects, pod)
            return status["phase"] in {"Succeeded", "Invalid", "Failed"}

        await eventually(is_over, "a trial that has ended")

        status = (await objects.get(TRIAL, namespace, name))["status"]
        assert (status["phase"], status["reason"]) == (phase, reason), status["message"]
        figures = [(it["loaded"], it["component"], it["latency"]["p95"]) for it in status["interference"]]
        expected = [(["judge"], "judge", "80.000"), (["stt"], "stt", "80.000"), (["judge", "stt"], "stt", "240.000")]
        assert figures == (expected if phase == "Succeeded" else [])

    within(api_server, scenario)


async def create_stage(objects: PlayedObjects, namespace: str, on: str) -> None:
    """Two workloads with shares of a node's card, their owner's grant, and a profile that was measured under MPS."""
    for name, container in (("judge", "vllm"), ("whisper", "asr")):
        body = deployment(namespace, name, container, [{"name": SIZE, "value": "small"}], replicas=1)
        pod = body["spec"]["template"]["spec"]
        # No kubelet would confirm that a pod has ended.
        pod |= {"nodeName": on, "terminationGracePeriodSeconds": 0}
        pod["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
        await objects.create(DEPLOYMENT, namespace, body)
    grant = copy.deepcopy(manifest("GpuTuningGrant"))
    grant["metadata"]["namespace"] = namespace
    grant["spec"]["from"] = [{"namespace": namespace}]
    await objects.create(GRANT, namespace, grant)
    profile = copy.deepcopy(manifest("GpuProfile"))
    profile["metadata"] = {"name": "p", "namespace": namespace}
    stage = {"name": "only", "namespace": namespace, "bakeSeconds": 600}
    profile["spec"] |= {"expect": {"sharing": "MPS"}, "rollout": {"stages": [stage]}}
    await objects.create(PROFILE, namespace, profile)


async def profile_pass(objects: PlayedObjects, namespace: str) -> Object:
    """Pods that have started become ready, then one pass; the profile's status after it."""
    for pod in await objects.list(POD, namespace):
        if "containerStatuses" not in pod.get("status", {}) and "deletionTimestamp" not in pod["metadata"]:
            await play_ready(objects, pod)
    try:
        body = await objects.get(PROFILE, namespace, "p")
        await ProfileReconciler(objects, Events(objects, "test")).reconcile(body, datetime.now(UTC))
    except ConflictError:
        pass  # The work queue looks again.
    return (await objects.get(PROFILE, namespace, "p")).get("status", {})


def test_a_stage_on_cards_that_are_shared_otherwise_is_not_touched_and_begins_when_they_are_prepared(
    api_server: ApiServer,
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        sliced = await node(objects, namespace, "time-slicing")
        await create_stage(objects, namespace, on=sliced)
        before = {it["metadata"]["name"]: it["spec"] for it in await objects.list(DEPLOYMENT, namespace)}

        async def is_stalled() -> bool:
            status = await profile_pass(objects, namespace)
            return condition(status, "Stalled")[1] == "SharingMismatch"

        await eventually(is_stalled, "a stage that does not begin")

        status = (await objects.get(PROFILE, namespace, "p"))["status"]
        where = f"judge on {sliced}, which shares its card as TimeSlicing"
        assert condition(status, "Stalled")[2].startswith(
            f"namespace {namespace}: measured with the card shared as MPS"
        )
        assert where in condition(status, "Stalled")[2]
        assert {it["metadata"]["name"]: it["spec"] for it in await objects.list(DEPLOYMENT, namespace)} == before
        assert await objects.list(CONTROLLER_REVISION, namespace, {"app.kubernetes.io/managed-by": "cotune"}) == ()

        await objects.merge(NODE, "", sliced, {"metadata": {"labels": {STRATEGY: "mps"}}})

        async def bakes() -> bool:
            return (await profile_pass(objects, namespace))["phase"] == "Baking"

        await eventually(bakes, "a stage that bakes")

    within(api_server, scenario)


def test_a_stage_that_comes_up_on_a_card_that_is_shared_otherwise_goes_back(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        under_mps = await node(objects, namespace, "mps")
        await create_stage(objects, namespace, on=under_mps)

        async def bakes() -> bool:
            return (await profile_pass(objects, namespace)).get("phase") == "Baking"

        await eventually(bakes, "a stage that bakes")
        await objects.merge(NODE, "", under_mps, {"metadata": {"labels": {STRATEGY: "time-slicing"}}})

        async def is_back() -> bool:
            return (await profile_pass(objects, namespace))["phase"] == "RolledBack"

        await eventually(is_back, "a stage that was taken back")
        (stage,) = (await objects.get(PROFILE, namespace, "p"))["status"]["stages"]
        assert stage["message"].startswith("SharingMismatch: measured with the card shared as MPS")

    within(api_server, scenario)
