"""The planner in the loop, against a real API server: what starts teach, what is counted, what is refused."""

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cotune.cluster.cards import Cards
from cotune.cluster.events import Events
from cotune.cluster.kinds import CONFIG_MAP, EXPERIMENT, NODE, POD, TRIAL
from cotune.cluster.objects import Object
from cotune.cluster.stacks import Stacks
from cotune.handlers.experiment import ExperimentReconciler
from cotune.handlers.plans import Plans
from cotune.handlers.records import Records
from cotune.handlers.settings import Settings
from cotune.handlers.trial import TrialReconciler
from cotune.trials.probe_pod import PROBE, ProbeImage
from cotune.trials.render import LABEL_COMPONENT
from cotune_demo import reading
from prometheus_client import REGISTRY
from support.api_server import ApiServer
from support.examples import documents
from support.played_cluster import PlayedObjects, play_ended, play_kubelet, play_node, within
from support.played_probe import last_line

pytestmark = pytest.mark.apiserver

LABELS = {
    "nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-3060",
    "nvidia.com/gpu.count": "1",
    "nvidia.com/gpu.sharing-strategy": "time-slicing",
}
NODES = {"TimeSlicing": ("lab", "time-slicing"), "MPS": ("lab-mps", "mps")}
FEASIBLE = {
    "type": "Feasible",
    "status": "True",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-01-01T00:00:00Z",
    "reason": "WithinConstraints",
    "message": "",
}


async def create(
    objects: PlayedObjects,
    namespace: str,
    name: str,
    memory: Any,
    baseline: str = "0.50",
    probe_skipped: str = "0",
    neighbour: Object | None = None,
    sharing: str = "TimeSlicing",
) -> None:
    """The story's experiment with other shares of memory, and tiny Whispers only."""
    node, strategy = NODES[sharing]
    await play_node(objects, node, LABELS | {"nvidia.com/gpu.sharing-strategy": strategy})
    for body in copy.deepcopy(documents("voice-stack.yaml")):
        body["metadata"]["namespace"] = namespace
        if body["kind"] == EXPERIMENT.name:
            body["metadata"]["name"] = name
            judge, whisper = body["spec"]["parameters"]
            judge = {key: judge[key] for key in ("name", "bind")} | memory | {"baseline": baseline}
            body["spec"]["parameters"] = [judge, whisper | {"values": ["tiny"], "baseline": "tiny"}]
            body["spec"]["gpu"]["sharing"] = sharing
            if neighbour is not None:
                body["spec"]["stack"]["components"][0]["memory"] = neighbour
            body["spec"]["planning"] = {"probeSkipped": probe_skipped}
            body["spec"]["search"] = {"algorithm": "Grid", "maxTrials": 10, "repeats": 1}
            del body["spec"]["profileTemplate"]
            await objects.create(EXPERIMENT, namespace, body)
        elif await objects.find(CONFIG_MAP, namespace, body["metadata"]["name"]) is None:
            await objects.create(CONFIG_MAP, namespace, body)
    speech: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "speech", "namespace": namespace}}
    if await objects.find(CONFIG_MAP, namespace, "speech") is None:
        await objects.create(CONFIG_MAP, namespace, speech)


async def one_pass(objects: PlayedObjects, namespace: str, name: str) -> timedelta | None:
    """By an operator that has just started: nothing is remembered."""
    reconciler = ExperimentReconciler(objects, Events(objects, "test"), Plans(objects))
    return await reconciler.reconcile(await objects.get(EXPERIMENT, namespace, name), datetime.now(UTC))


async def of_experiment(objects: PlayedObjects, namespace: str, name: str) -> dict[str, Object]:
    """Share of memory to trial."""
    found = await objects.list(TRIAL, namespace, {"cotune.dev/experiment": name})
    return {it["spec"]["candidate"][0]["value"]: it for it in found}


async def play_trials(objects: PlayedObjects, namespace: str, tokens: str = "") -> None:
    """Trials that are not skipped are measured, and judged; their log says `tokens`, if anything."""
    for trial in await objects.list(TRIAL, namespace):
        if "status" in trial:
            continue
        status: Object = {"phase": "Succeeded", "fitness": "0.500000", "conditions": [FEASIBLE]}
        if trial["spec"].get("skipped"):
            status = {"phase": "Skipped", "reason": trial["spec"]["prediction"]["reason"]}
        elif tokens:
            server = {"component": "judge", "version": "0.11.0", "kvCacheTokens": int(tokens)}
            took = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:01:00Z"}
            status |= {"servers": [server], "node": "lab", **took}
        await objects.merge(TRIAL, namespace, trial["metadata"]["name"], {"status": status}, subresource="status")


async def run(objects: PlayedObjects, namespace: str, name: str, tokens: str = "") -> Object:
    """Pass after pass to the experiment's end."""
    for _ in range(60):
        if await one_pass(objects, namespace, name) is None:
            break
        await play_trials(objects, namespace, tokens)
    return (await objects.get(EXPERIMENT, namespace, name))["status"]


def said_of(trial: Object) -> tuple[int, int]:
    """Tokens that were predicted, and bytes that earlier starts had taken beyond the formulas."""
    (server,) = trial["spec"]["prediction"]["servers"]
    return server["kvCacheTokens"], server["offsetBytes"]


def condition(status: Object, kind: str) -> tuple[str, str, str]:
    found = next(it for it in status["conditions"] if it["type"] == kind)
    return found["status"], found["reason"], found["message"]


def test_a_start_teaches_the_next_prediction_of_its_experiment_and_of_the_next_one(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create(objects, namespace, "first", {"values": ["0.50", "0.60"]})
        for _ in range(2):
            await one_pass(objects, namespace, "first")
        (baseline,) = (await of_experiment(objects, namespace, "first")).values()
        predicted, offset = said_of(baseline)
        assert offset == 0
        measured = predicted * 9 // 10 // 16 * 16
        await play_trials(objects, namespace, str(measured))

        await one_pass(objects, namespace, "first")
        trials = await of_experiment(objects, namespace, "first")
        learned = said_of(trials["0.60"])[1]
        per_token = trials["0.50"]["spec"]["prediction"]["servers"][0]["kvCacheBytes"] / predicted
        assert learned == pytest.approx((predicted - measured) * per_token, abs=16 * per_token)
        assert said_of(trials["0.50"]) == (predicted, 0), "what was said of a trial stands"
        assert (await objects.get(EXPERIMENT, namespace, "first"))["status"]["plan"]["learnedFrom"] == 1

        await create(objects, namespace, "second", {"values": ["0.50", "0.55"]})
        for _ in range(2):
            await one_pass(objects, namespace, "second")
        (again,) = (await of_experiment(objects, namespace, "second")).values()
        tokens, offset = said_of(again)
        assert offset == learned
        assert abs(tokens - measured) <= 16, "to within a block, the start that was learned from is predicted"

    within(api_server, scenario)


def test_what_a_start_has_taught_is_not_lost_with_the_operator_and_skips_the_next_candidate(
    api_server: ApiServer,
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create(objects, namespace, "voice", {"values": ["0.40", "0.50", "0.55", "0.60"]}, baseline="0.60")
        for _ in range(2):
            await one_pass(objects, namespace, "voice")
        (baseline,) = (await of_experiment(objects, namespace, "voice")).values()
        # So far beyond the formulas that half the card is too little.
        assert said_of(baseline)[0] > 2 * 4096
        await play_trials(objects, namespace, "4096")

        status = await run(objects, namespace, "voice")

        trials = await of_experiment(objects, namespace, "voice")
        skipped = {share for share, it in trials.items() if it["spec"]["skipped"]}
        assert {"0.40", "0.50"} <= skipped <= {"0.40", "0.50", "0.55"}
        assert status["trials"]["skipped"] == len(skipped)
        assert trials["0.50"]["spec"]["prediction"]["reason"] == "NoCacheBlocks"
        # The measured trials' minute, less the two seconds of their window.
        assert (status["phase"], float(status["gpuSecondsSaved"])) == ("Succeeded", 58.0 * len(skipped))

    within(api_server, scenario)


def test_what_a_service_holds_of_which_nobody_says_it_is_learned_from_the_first_trial(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create(objects, namespace, "voice", {"values": ["0.50", "0.60"]}, neighbour={"model": "Learned"})
        for _ in range(2):
            await one_pass(objects, namespace, "voice")
        (baseline,) = (await of_experiment(objects, namespace, "voice")).values()
        said = baseline["spec"]["prediction"]
        assert [(it["component"], it["countedMiB"]) for it in said["services"]] == [("neighbour", 0)]
        assert (said["fits"], said["doubtful"]) == (True, True)
        free = {"metric": "gpu.freeMiB", "value": str(said["freeMiB"] - 1229), "samples": 60}
        status = {"phase": "Succeeded", "fitness": "0.5", "conditions": [FEASIBLE], "measurements": [free]}
        await objects.merge(TRIAL, namespace, baseline["metadata"]["name"], {"status": status}, subresource="status")

        await one_pass(objects, namespace, "voice")

        after = (await of_experiment(objects, namespace, "voice"))["0.60"]["spec"]["prediction"]
        assert after["services"][0]["countedMiB"] == 1232, "in whole steps of 16 MiB"
        assert not after["doubtful"]
        assert (await objects.get(EXPERIMENT, namespace, "voice"))["status"]["plan"]["learnedFrom"] == 1

    within(api_server, scenario)


def test_under_mps_what_a_client_may_have_is_what_its_node_says(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create(objects, namespace, "voice", {"values": ["0.50", "0.60"]}, sharing="MPS")

        for _ in range(2):
            await one_pass(objects, namespace, "voice")

        status = (await objects.get(EXPERIMENT, namespace, "voice"))["status"]
        node = await objects.get(NODE, None, "lab-mps")
        shares = int(node["status"]["allocatable"]["nvidia.com/gpu"])
        said = condition(status, "Stalled")
        assert said[:2] == ("True", "NothingFeasible")
        assert f"MPS lets a client have {12 / shares:.2f} GiB" in said[2]

    within(api_server, scenario)


def test_thousands_of_candidates_that_cannot_start_are_counted_by_reason(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        few = {"range": {"min": "0.3000", "max": "0.5000", "step": "0.0005"}}
        await create(objects, namespace, "voice", few)
        status = await run(objects, namespace, "voice")

        trials = await of_experiment(objects, namespace, "voice")
        plan = status["plan"]
        refused = {it["reason"]: it for it in plan["refused"]}
        skipped = sum(it["skipped"] for it in refused.values())
        assert plan["candidates"] == plan["fitting"] + sum(it["count"] for it in refused.values()) == 401
        assert refused["NoCacheBlocks"]["example"].startswith("judgeMemory=0.3000 whisperModel=tiny: judge: the budget")
        assert status["trials"]["skipped"] == skipped > 200
        assert (len(trials), status["trials"]["total"]) == (10, 10)
        assert not any(it["spec"]["skipped"] for it in trials.values())
        assert "counted in status.plan" in condition(status, "Planned")[2]
        assert status["phase"] == "Succeeded"

    within(api_server, scenario)


def wrong(predicted: str) -> float:
    """What Prometheus is told of predictions that were wrong."""
    return REGISTRY.get_sample_value("cotune_wrong_predictions_total", {"predicted": predicted}) or 0.0


def test_where_the_planner_was_wrong_is_counted_in_the_status_and_for_prometheus(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        before = wrong("Fits"), wrong("DoesNotFit")
        await create(objects, namespace, "voice", {"values": ["0.40", "0.50", "0.60"]}, probe_skipped="1")
        for _ in range(30):
            if await one_pass(objects, namespace, "voice") is None:
                break
            trials = await of_experiment(objects, namespace, "voice")
            if (large := trials.get("0.60")) is not None and "status" not in large:
                failed = {"phase": "Failed", "reason": "NoCacheBlocks"}
                await objects.merge(
                    TRIAL, namespace, large["metadata"]["name"], {"status": failed}, subresource="status"
                )
            await play_trials(objects, namespace)

        trials = await of_experiment(objects, namespace, "voice")
        assert {share: it["spec"]["prediction"]["fits"] for share, it in trials.items()} == {
            "0.40": False,
            "0.50": True,
            "0.60": True,
        }
        counts = (await objects.get(EXPERIMENT, namespace, "voice"))["status"]["trials"]
        assert (counts["wrongFits"], counts["wrongDoesNotFit"], counts["skipped"]) == (1, 1, 0)
        assert (wrong("Fits") - before[0], wrong("DoesNotFit") - before[1]) == (1, 1)

    within(api_server, scenario)


def test_a_space_of_which_nothing_fits_ends_before_its_first_trial(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create(objects, namespace, "voice", {"values": ["0.35", "0.40"]}, baseline="0.40")
        status = await run(objects, namespace, "voice")

        assert (status["phase"], status["trials"]["skipped"]) == ("Failed", 2)
        assert condition(status, "Stalled")[:2] == ("True", "NothingFeasible")
        assert await objects.list(TRIAL, namespace) == ()

    within(api_server, scenario)


def test_the_example_of_which_nothing_fits_ends_as_the_demonstration_expects(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await play_node(objects, "lab", LABELS)
        for body in copy.deepcopy(documents("nothing-fits.yaml")):
            body["metadata"]["namespace"] = namespace
            await objects.create(EXPERIMENT if body["kind"] == EXPERIMENT.name else CONFIG_MAP, namespace, body)
        await run(objects, namespace, "nothing-fits")

        body = await objects.get(EXPERIMENT, namespace, "nothing-fits")
        found = reading.nothing_feasible(body, len(await objects.list(TRIAL, namespace)), 0, 0.0)
        assert (found.phase, found.reason, found.trials) == ("Failed", "NothingFeasible", 0)
        assert "none of 4 candidates can start; the baseline: judge: the budget of 4.56 GiB is" in found.message
        assert found.plan is not None
        assert [(it.reason, it.count, it.skipped) for it in found.plan.refused] == [("NoCacheBlocks", 4, 4)]

    within(api_server, scenario)


def test_a_space_that_is_too_large_to_plan_is_refused_with_its_size(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create(objects, namespace, "voice", {"range": {"min": "0.1000", "max": "0.9000", "step": "0.0008"}})
        body = await objects.get(EXPERIMENT, namespace, "voice")
        more = {"min": "1", "max": "1000", "step": "1"}
        body["spec"]["parameters"].append(
            {"name": "extra", "bind": {"component": "stt", "env": "EXTRA"}, "range": more, "baseline": "1"}
        )
        await objects.replace(EXPERIMENT, body)
        for _ in range(2):
            await one_pass(objects, namespace, "voice")

        status = (await objects.get(EXPERIMENT, namespace, "voice"))["status"]
        holds, reason, message = condition(status, "Stalled")
        assert (holds, reason) == ("True", "SpaceTooLarge")
        assert message.startswith("the parameters span 1,001,000 candidates, and at most 1,000,000 are planned")
        assert await objects.list(TRIAL, namespace) == ()

    within(api_server, scenario)


def test_a_trial_keeps_what_its_servers_logged_beside_what_was_predicted(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create(objects, namespace, "voice", {"values": ["0.50", "0.60"]})
        for _ in range(2):
            await one_pass(objects, namespace, "voice")
        ((name, predicted),) = [
            (it["metadata"]["name"], said_of(it)[0])
            for it in (await of_experiment(objects, namespace, "voice")).values()
        ]
        measured = predicted - 64
        log = (
            "INFO [api_server.py:1839] vLLM API server version 0.11.0\n"
            f"INFO [gpu_worker.py:298] Available KV cache memory: {measured * 57_344 / (1 << 30):.2f} GiB\n"
            f"INFO [kv_cache_utils.py:1087] GPU KV cache size: {measured:,} tokens\n"
        )
        minute = timedelta(minutes=1)
        settings = Settings(
            namespace, ProbeImage("example/probe:1", "IfNotPresent"), minute, minute, "INFO", 8080, 9090
        )
        stacks, records = Stacks(objects), Records(objects, Stacks(objects), settings.probe.name)
        reconciler = TrialReconciler(
            objects, Cards(objects, namespace), stacks, Events(objects, "test"), settings, records
        )
        for _ in range(20):
            body = await objects.get(TRIAL, namespace, name)
            phase = body.get("status", {}).get("phase")
            if phase == "Succeeded":
                break
            await reconciler.reconcile(body, datetime.now(UTC))
            await play_kubelet(objects, namespace)
            for pod in await objects.list(POD, namespace):
                component = pod["metadata"]["labels"][LABEL_COMPONENT]
                objects.logs[pod["metadata"]["name"]] = log if component == "judge" else last_line({})
                if component == PROBE and phase == "Measuring":
                    await play_ended(objects, pod)

        status = (await objects.get(TRIAL, namespace, name))["status"]
        (server,) = status["servers"]
        assert (server["component"], server["version"], server["kvCacheTokens"]) == ("judge", "0.11.0", measured)
        (error,) = status["predictionErrors"]
        share = 100 * -64 / predicted
        assert error["message"] == f"predicted {predicted:,} tokens, measured {measured:,}, {share:+.1f} %"

    within(api_server, scenario)
