"""The three reconcilers against a real API server and controller manager; the tests play nodes and kubelets.

A crash is played by letting only so many calls of a pass through. Every pass that has more of them dies there first;
the pass after it is whole and goes on from what is left.
"""

import asyncio
import copy
import functools
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cotune.api.grant import GrantSpec
from cotune.cluster.cards import ANNOTATION_QUARANTINED_UNTIL, Cards, QuarantinedError
from cotune.cluster.events import Events
from cotune.cluster.kinds import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    EXPERIMENT,
    GRANT,
    HORIZONTAL_POD_AUTOSCALER,
    LEASE,
    NODE,
    POD,
    PROFILE,
    SERVICE,
    TRIAL,
    Kind,
)
from cotune.cluster.objects import ApiError, ForbiddenError, Object
from cotune.cluster.revisions import KEPT, Revisions
from cotune.cluster.stacks import Stacks
from cotune.cluster.workloads import ANNOTATION_REVISION
from cotune.handlers.experiment import ExperimentReconciler, spec_digest
from cotune.handlers.plans import Plans
from cotune.handlers.profile import FINALIZER
from cotune.handlers.records import Records
from cotune.handlers.settings import Settings
from cotune.handlers.store_thread import StoreThread
from cotune.handlers.trial import TrialReconciler
from cotune.rollout.state import Revision, WorkloadRevision
from cotune.trials.probe_pod import PROBE, ProbeImage
from cotune.trials.render import LABEL_COMPONENT, TrialIdentity
from support.api_server import ApiServer
from support.played_cluster import (
    DiedError,
    PlayedObjects,
    eventually,
    new_namespace,
    play_card,
    play_ended,
    play_kubelet,
    play_node,
    within,
)
from support.played_probe import CARD, PROCESSES, last_line, node_report
from support.played_stage import create_profile, create_stage, play_workloads, profile_reconciler, templates
from support.resources import manifest

pytestmark = pytest.mark.apiserver

PRODUCT = "NVIDIA-GeForce-RTX-3060"
LABELS = {
    "nvidia.com/gpu.product": PRODUCT,
    "nvidia.com/gpu.count": "1",
    "nvidia.com/gpu.sharing-strategy": "time-slicing",
}
SIZE = "ASR_WHISPER_SIZE"
RESULT = {
    "stt.latency.p95": "0.1",
    "stt.wer": "0.05",
    "judge.latency.p95": "0.5",
    "judge.kvCache.concurrency": "3.4",
    "judge.kvCache.tokens": "6976",
    "gpu.utilization": "0.5",
}

CALLS_OF_EXPERIMENT, CALLS_OF_TRIAL, CALLS_OF_PROFILE, CALLS_OF_DELETION = 6, 11, 22, 9
"""How many calls the longest pass makes."""

Pass = Callable[[Object, datetime], Awaitable[timedelta | None]]
Play = Callable[[], Awaitable[None]]


@dataclass
class Driven:
    """What became of a resource's passes."""

    deaths: int = 0
    most_calls: int = 0
    phases: list[str] = field(default_factory=list[str])


async def drive(
    objects: PlayedObjects,
    kind: Kind,
    namespace: str,
    name: str,
    one_pass: Pass,
    play: Play,
    dies_after: int | None,
    patience_seconds: float = 60,
) -> Driven:
    """Pass after pass until nothing is left to do; with `dies_after`, each of them dies after so many calls first."""
    driven = Driven()
    deadline = asyncio.get_running_loop().time() + patience_seconds
    has_died = False
    while (body := await objects.find(kind, namespace, name)) is not None:
        assert asyncio.get_running_loop().time() < deadline, f"not over: {body.get('status')}"
        driven.phases.append(body.get("status", {}).get("phase", ""))
        again: timedelta | None = timedelta()
        calls = len(objects.asked)
        objects.allowed_calls = None if has_died else dies_after
        has_died = False
        try:
            again = await one_pass(body, datetime.now(UTC))
        except DiedError:
            driven.deaths += 1
            has_died = True
        except Exception as error:
            if not objects.is_retried(error):
                raise
        finally:
            objects.allowed_calls = None
        driven.most_calls = max(driven.most_calls, len(objects.asked) - calls)
        if again is None:
            break
        await play()
        if again:
            await asyncio.sleep(0.02)
    return driven


async def nothing() -> None:
    """Nobody does anything between the passes."""


def conditions(status: Object) -> list[tuple[str, ...]]:
    return sorted((it["type"], it["status"], it["reason"], it["message"]) for it in status["conditions"])


def condition(body: Object, kind: str) -> tuple[str, str, str]:
    found = next(it for it in body["status"]["conditions"] if it["type"] == kind)
    return found["status"], found["reason"], found["message"]


# --- Experiments: the trials are played.


def experiment_reconciler(objects: PlayedObjects) -> ExperimentReconciler:
    return ExperimentReconciler(objects, Events(objects, "test"), Plans(objects))


async def create_experiment(
    objects: PlayedObjects,
    namespace: str,
    product: str = PRODUCT,
    shares: bool = False,
    template: Object | None = None,
    window: int = 60,
) -> Object:
    """Two candidates, small (the baseline) and tiny: once in the search, then three times by turns."""
    await play_node(objects, "lab", LABELS)
    speech: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "speech", "namespace": namespace}}
    await objects.create(CONFIG_MAP, namespace, speech)
    body = copy.deepcopy(manifest("GpuAllocationExperiment"))
    body["metadata"]["namespace"] = namespace
    body["spec"]["gpu"]["product"] = product
    body["spec"]["parameters"] = [{**body["spec"]["parameters"][1], "values": ["tiny", "small"]}]
    body["spec"]["search"] = {"algorithm": "Grid", "maxTrials": 2, "repeats": 1}
    body["spec"]["evaluation"] = {"repeats": 3, "confidence": "0.9", "baselineEvery": 1}
    body["spec"]["workload"]["durationSeconds"] = window
    if template is not None:
        body["spec"]["stack"]["components"][1]["template"] = {"metadata": None, "spec": template}
    for it in body["spec"]["stack"]["components"] if shares else ():
        it["template"]["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    return await objects.create(EXPERIMENT, namespace, body)


def record_of(trial: str) -> str:
    return f"sha256:{hashlib.sha256(trial.encode()).hexdigest()}"


async def play_trials(objects: PlayedObjects, namespace: str) -> None:
    for trial in await objects.list(TRIAL, namespace):
        if "status" in trial:
            continue
        is_tiny = trial["spec"]["candidate"][0]["value"] == "tiny"
        fitness = "0.600000" if is_tiny else "0.500000"
        latency = (80 if is_tiny else 300) + trial["spec"]["repeat"]
        feasible = {
            "type": "Feasible",
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "reason": "WithinConstraints",
            "message": "",
        }
        values = {"stt.latency.p95": latency, "judge.latency.p95": 900, "judge.kvCache.concurrency": 3}
        values |= {"stability": 1, "gpu.utilization": "0.7"}
        measured = [{"metric": metric, "value": str(value), "samples": 200} for metric, value in values.items()]
        status: Object = {
            "phase": "Succeeded",
            "fitness": fitness,
            "conditions": [feasible],
            "measurements": measured,
        }
        status["artifact"] = {"digest": record_of(trial["metadata"]["name"]), "bytes": 1}
        await objects.merge(TRIAL, namespace, trial["metadata"]["name"], {"status": status}, subresource="status")


async def experiment_run(objects: PlayedObjects, namespace: str, dies_after: int | None) -> tuple[Driven, Object]:
    """The passes of an experiment, and what is there in the end."""
    await create_experiment(objects, namespace)
    play = functools.partial(play_trials, objects, namespace)

    async def one_pass(body: Object, now: datetime) -> timedelta | None:
        return await experiment_reconciler(objects).reconcile(body, now)  # Anew each time: nothing is remembered.

    driven = await drive(objects, EXPERIMENT, namespace, "voice", one_pass, play, dies_after)
    status = (await objects.get(EXPERIMENT, namespace, "voice"))["status"]
    trials, profiles = await objects.list(TRIAL, namespace), await objects.list(PROFILE, namespace)
    for profile in profiles:
        del profile["spec"]["provenance"]["experiment"]  # It names the namespace.
    told = [tuple(it.replace(namespace, "") for it in each) for each in conditions(status)]
    return driven, {
        "status": status | {"conditions": told},
        "trials": sorted(
            ((it["metadata"]["name"], it["spec"]["candidate"], it["spec"]["purpose"]) for it in trials), key=str
        ),
        "profiles": [(it["metadata"]["name"], it["spec"]) for it in profiles],
    }


def undisturbed(
    server: ApiServer, run: Callable[[PlayedObjects, str, int | None], Awaitable[tuple[Driven, Object]]]
) -> tuple[Driven, Object]:
    found: list[tuple[Driven, Object]] = []

    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        found.append(await run(objects, namespace, None))

    within(server, scenario)
    return found[0]


@pytest.fixture(scope="module")
def whole_experiment(api_server: ApiServer) -> tuple[Driven, Object]:
    return undisturbed(api_server, experiment_run)


def test_an_experiment_ends_with_a_winner_and_its_profile(whole_experiment: tuple[Driven, Object]) -> None:
    driven, end = whole_experiment

    assert end["status"]["phase"] == "Succeeded"
    purposes = sorted((purpose, candidate[0]["value"]) for _, candidate, purpose in end["trials"])
    fresh = [("Confirmation", "small")] * 3 + [("Confirmation", "tiny")] * 3
    assert purposes == [*fresh, ("Drift", "small"), ("Search", "small"), ("Search", "tiny")]
    verdict = end["status"]["verdict"]
    assert (verdict["outcome"], verdict["repeats"], verdict["baselineRepeats"]) == ("Better", 3, 3)
    assert float(verdict["gain"]["lower"]) > 0
    told = {kind: (status, reason) for kind, status, reason, _ in end["status"]["conditions"]}
    assert (told["Better"], told["Ready"]) == (("True", "Better"), ("True", "Winner"))
    assert [spec["changes"] for _, spec in end["profiles"]] == [
        [{"component": "stt", "env": SIZE, "from": "small", "to": "tiny"}]
    ]
    [(_, spec)] = end["profiles"]
    assert spec["provenance"]["artifact"] == record_of(end["status"]["winner"]["trial"])
    assert driven.most_calls == CALLS_OF_EXPERIMENT


@pytest.mark.parametrize("calls", range(CALLS_OF_EXPERIMENT))
def test_an_experiment_whose_passes_die_after_any_call_ends_the_same(
    api_server: ApiServer, whole_experiment: tuple[Driven, Object], calls: int
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        driven, end = await experiment_run(objects, namespace, calls)

        assert driven.deaths > 0
        assert end == whole_experiment[1]
        assert len(objects.created) == len(set(objects.created))

    within(api_server, scenario)


def test_an_experiment_records_what_it_runs_before_its_first_trial(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        body = await create_experiment(objects, namespace)

        await experiment_reconciler(objects).reconcile(body, datetime.now(UTC))

        after = await objects.get(EXPERIMENT, namespace, "voice")
        assert after["status"]["specDigest"] == spec_digest(body)
        assert await objects.list(TRIAL, namespace) == ()

    within(api_server, scenario)


def test_an_experiment_without_a_dedicated_node_says_what_is_wrong_with_the_others(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await play_node(objects, "shared", LABELS | {"nvidia.com/gpu.product": "Undedicated"}, dedicated=False)
        await create_experiment(objects, namespace, product="Undedicated")
        for _ in range(2):
            body = await objects.get(EXPERIMENT, namespace, "voice")
            await experiment_reconciler(objects).reconcile(body, datetime.now(UTC))

        after = await objects.get(EXPERIMENT, namespace, "voice")
        status, reason, message = condition(after, "Stalled")
        assert (status, reason) == ("True", "NoSuitableNode")
        assert message.startswith("shared: not dedicated by the taint cotune.dev/dedicated=trials")
        assert await objects.list(TRIAL, namespace) == ()

    within(api_server, scenario)


def test_an_experiment_whose_spec_is_not_the_recorded_one_starts_nothing(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_experiment(objects, namespace)
        other = {"status": {"phase": "Planning", "specDigest": f"sha256:{'0' * 64}"}}
        body = await objects.merge(EXPERIMENT, namespace, "voice", other, subresource="status")

        await experiment_reconciler(objects).reconcile(body, datetime.now(UTC))

        after = await objects.get(EXPERIMENT, namespace, "voice")
        assert condition(after, "Stalled")[:2] == ("True", "SpecChanged")
        assert await objects.list(TRIAL, namespace) == ()

    within(api_server, scenario)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"containers": [{"name": "asr", "image": "x", "args": ["a", None]}]}, "template.spec.containers[0].args[1]"),
        ({"containers": [None]}, "template.spec.containers[0]"),
    ],
)
def test_a_null_that_means_nothing_stalls_the_experiment_with_its_path(
    api_server: ApiServer, change: Object, message: str
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_experiment(objects, namespace, template=change)
        for _ in range(2):
            body = await objects.get(EXPERIMENT, namespace, "voice")
            await experiment_reconciler(objects).reconcile(body, datetime.now(UTC))

        after = await objects.get(EXPERIMENT, namespace, "voice")
        assert condition(after, "Stalled") == (
            "True",
            "SpecInvalid",
            f"spec.stack.components[1].template: Value error, {message} is null",
        )
        assert await objects.list(TRIAL, namespace) == ()

    within(api_server, scenario)


def test_a_null_field_of_a_template_counts_as_left_out(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        container = {"name": "asr", "image": "x", "env": None, "resources": None, "command": None}
        await create_experiment(
            objects, namespace, template={"containers": [container], "affinity": None, "tolerations": None}
        )
        name = await first_trial(objects, namespace)
        play = functools.partial(play_trial_pods, objects, namespace, name)

        await drive(objects, TRIAL, namespace, name, trial_reconciler(objects, namespace).reconcile, play, None)

        assert (await objects.get(TRIAL, namespace, name))["status"]["phase"] == "Succeeded"

    within(api_server, scenario)


async def stalled_by_name(objects: PlayedObjects, namespace: str, kind: Kind, name: str, spec: Object) -> str:
    """Passes of an experiment in whose way somebody's object stands; the message of its Stalled condition."""
    await create_experiment(objects, namespace)
    taken: Object = {
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
    await objects.create(kind, namespace, taken)
    for _ in range(20):
        body = await objects.get(EXPERIMENT, namespace, "voice")
        await experiment_reconciler(objects).reconcile(body, datetime.now(UTC))
        await play_trials(objects, namespace)
    status, reason, message = condition(await objects.get(EXPERIMENT, namespace, "voice"), "Stalled")
    assert (status, reason) == ("True", "NameTaken")
    return message


def test_an_experiment_does_not_take_somebody_elses_trial_for_its_own(
    api_server: ApiServer, whole_experiment: tuple[Driven, Object]
) -> None:
    name, candidate, _ = whole_experiment[1]["trials"][0]

    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        message = await stalled_by_name(
            objects, namespace, TRIAL, name, {"experiment": "other", "candidate": candidate}
        )
        assert message == f"GpuTrial {name} exists and is not this experiment's"

    within(api_server, scenario)


@pytest.mark.parametrize(("phase", "made"), [("RolledBack", "False"), ("Promoted", "True")])
def test_an_experiment_says_of_the_profile_that_it_finds_whether_it_was_taken_back(
    api_server: ApiServer, whole_experiment: tuple[Driven, Object], phase: str, made: str
) -> None:
    name, spec = whole_experiment[1]["profiles"][0]
    earlier = {key: value for key, value in spec.items() if key != "provenance"}

    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_experiment(objects, namespace)
        body: Object = {"apiVersion": PROFILE.api_version, "kind": PROFILE.name, "metadata": {"name": name}}
        await objects.create(PROFILE, namespace, body | {"spec": earlier})
        before = await objects.merge(PROFILE, namespace, name, {"status": {"phase": phase}}, subresource="status")
        play = functools.partial(play_trials, objects, namespace)

        await drive(objects, EXPERIMENT, namespace, "voice", experiment_reconciler(objects).reconcile, play, None)

        after = await objects.get(EXPERIMENT, namespace, "voice")
        assert (after["status"]["phase"], after["status"]["profile"]) == ("Succeeded", name)
        reason = "ProfileRolledBack" if made == "False" else "ProfileMade"
        assert condition(after, "ProfileMade")[:2] == (made, reason)
        assert await objects.get(PROFILE, namespace, name) == before

    within(api_server, scenario)


def test_an_experiment_does_not_take_a_profile_of_other_changes_for_its_own(
    api_server: ApiServer, whole_experiment: tuple[Driven, Object]
) -> None:
    name, spec = whole_experiment[1]["profiles"][0]
    other = {key: value for key, value in spec.items() if key != "provenance"}
    other["changes"] = [{**spec["changes"][0], "to": "base"}]

    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        message = await stalled_by_name(objects, namespace, PROFILE, name, other)
        assert message == f"GpuProfile {name} exists and makes other changes"

    within(api_server, scenario)


# --- Trials: the kubelet and the probe are played.


def trial_reconciler(
    objects: PlayedObjects, namespace: str, store: StoreThread | None = None, node_agent: str | None = None
) -> TrialReconciler:
    a_minute = timedelta(minutes=1)
    probe = ProbeImage("example/probe:1", "IfNotPresent")
    settings = Settings(namespace, probe, a_minute, a_minute, "INFO", 8080, 9090, node_agent)
    stacks, events = Stacks(objects), Events(objects, "test")
    records = Records(objects, stacks, probe.name, store)
    return TrialReconciler(objects, Cards(objects, namespace), stacks, events, settings, records)


async def create_trial(objects: PlayedObjects, namespace: str) -> str:
    """The first trial of an experiment, made by its own passes."""
    await create_experiment(objects, namespace)
    return await first_trial(objects, namespace)


async def first_trial(objects: PlayedObjects, namespace: str) -> str:
    for _ in range(2):
        body = await objects.get(EXPERIMENT, namespace, "voice")
        await experiment_reconciler(objects).reconcile(body, datetime.now(UTC))
    [trial] = await objects.list(TRIAL, namespace)
    return str(trial["metadata"]["name"])


async def play_trial_pods(objects: PlayedObjects, namespace: str, trial: str, **conduct: Any) -> None:
    """Every pod becomes ready; the probe ends when the trial measures, and says how that went."""
    await play_kubelet(objects, namespace)
    phase = (await objects.get(TRIAL, namespace, trial)).get("status", {}).get("phase")
    for pod in await objects.list(POD, namespace, {LABEL_COMPONENT: PROBE}):
        if phase == "Measuring" and pod["status"]["phase"] != "Succeeded":
            objects.logs[pod["metadata"]["name"]] = last_line(RESULT, **conduct)
            await play_ended(objects, pod)


async def trial_run(objects: PlayedObjects, namespace: str, dies_after: int | None) -> tuple[Driven, Object]:
    """The passes of a trial, and what is there in the end."""
    name = await create_trial(objects, namespace)
    objects.created.clear()
    play = functools.partial(play_trial_pods, objects, namespace, name)

    async def one_pass(body: Object, now: datetime) -> timedelta | None:
        return await trial_reconciler(objects, namespace).reconcile(body, now)

    driven = await drive(objects, TRIAL, namespace, name, one_pass, play, dies_after)
    status = (await objects.get(TRIAL, namespace, name))["status"]
    holder = await Cards(objects, namespace).holder("lab")
    return driven, {
        "phase": (status["phase"], status["reason"], status["message"], status["fitness"]),
        "conditions": conditions(status),
        # How long a pod took to be ready differs from run to run.
        "measurements": [it for it in status["measurements"] if not it["metric"].endswith(".startup")],
        "holder": holder,
        "left": [await objects.list(kind, namespace) for kind in (POD, SERVICE)],
        "created": sorted(it.replace(namespace, "") for it in objects.created if it.startswith(("Pod/", "Service/"))),
    }


@pytest.fixture(scope="module")
def whole_trial(api_server: ApiServer) -> tuple[Driven, Object]:
    return undisturbed(api_server, trial_run)


def test_a_trial_ends_with_its_result_a_free_card_and_nothing_left(whole_trial: tuple[Driven, Object]) -> None:
    driven, end = whole_trial

    assert end["phase"] == ("Succeeded", "", "", end["phase"][3])
    assert {it["metric"]: it["value"] for it in end["measurements"]}.items() >= RESULT.items()
    assert (end["holder"], end["left"]) == (None, [(), ()])
    assert [it.split("/")[0] for it in end["created"]] == ["Pod"] * 3 + ["Service"] * 2
    assert list(dict.fromkeys(driven.phases)) == ["", "Draining", "Starting", "Measuring", "Succeeded"]
    assert driven.most_calls == CALLS_OF_TRIAL


@pytest.mark.parametrize("calls", range(CALLS_OF_TRIAL))
def test_a_trial_whose_passes_die_after_any_call_ends_the_same(
    api_server: ApiServer, whole_trial: tuple[Driven, Object], calls: int
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        driven, end = await trial_run(objects, namespace, calls)

        assert driven.deaths > 0
        assert end == whole_trial[1]

    within(api_server, scenario)


def test_a_trials_result_is_stored_before_its_pods_go(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        name = await create_trial(objects, namespace)
        seen: list[tuple[int, int]] = []

        async def play() -> None:
            await play_trial_pods(objects, namespace, name)
            status = (await objects.get(TRIAL, namespace, name)).get("status", {})
            seen.append((len(await objects.list(POD, namespace)), len(status.get("measurements", ()))))

        await drive(objects, TRIAL, namespace, name, trial_reconciler(objects, namespace).reconcile, play, None)

        at_its_end = next(it for it in seen if it[1] > 0)
        assert at_its_end[0] == 3

    within(api_server, scenario)


async def an_idle_card(objects: PlayedObjects, namespace: str) -> Object:
    return {"processes": PROCESSES[:1]}


async def another_tenant(objects: PlayedObjects, namespace: str) -> Object:
    return {"newcomers": [{"pid": 4711, "leastMiB": 512}]}


async def a_hot_card(objects: PlayedObjects, namespace: str) -> Object:
    return {"throttled": 300, "throttle_reasons": ["HwThermalSlowdown"]}


async def a_starved_probe(objects: PlayedObjects, namespace: str) -> Object:
    return {"punctuality": [{"component": "stt", "requests": 200, "late_p99_ms": 400}]}


async def a_restart_within_the_window(objects: PlayedObjects, namespace: str) -> Object:
    for pod in await objects.list(POD, namespace, {LABEL_COMPONENT: "stt"}):
        if statuses := pod.get("status", {}).get("containerStatuses"):
            patch: Object = {"status": {"containerStatuses": [it | {"restartCount": 1} for it in statuses]}}
            await objects.merge(POD, namespace, pod["metadata"]["name"], patch, subresource="status")
    return {"startedAt": "2020-01-01T12:00:00Z"}


async def two_cards(objects: PlayedObjects, namespace: str) -> Object:
    for pod in await objects.list(POD, namespace):
        if "containerStatuses" in pod.get("status", {}):
            await play_card(objects, pod, CARD if pod["metadata"]["labels"][LABEL_COMPONENT] != "stt" else f"{CARD}2")
    return {}


async def shares(objects: PlayedObjects, namespace: str, **otherwise: float) -> list[tuple[str, str, float]]:
    """Of the trial's components, as the node agent tells them."""
    mib = {"judge": 8_000, "stt": 900, "neighbour": 700, **otherwise}
    pods = {
        it["metadata"]["labels"][LABEL_COMPONENT]: it["metadata"]["uid"] for it in await objects.list(POD, namespace)
    }
    return [(uid, name * 8, mib[name]) for name, uid in pods.items() if mib.get(name)]


async def a_tenant_who_was_there_before(objects: PlayedObjects, namespace: str) -> Object:
    stranger = ("a-pod-of-somebody-else", "0" * 64, 900)
    return {"node": node_report(*await shares(objects, namespace, stt=0), stranger)}


async def a_component_on_the_cpu(objects: PlayedObjects, namespace: str) -> Object:
    return {"node": node_report(*await shares(objects, namespace, stt=0))}


async def a_program_that_faults(objects: PlayedObjects, namespace: str) -> Object:
    return {"xids": [31]}


GATES = (
    ("DeviceFallback", an_idle_card),
    ("SecondTenant", another_tenant),
    ("Throttled", a_hot_card),
    ("ProbeStarved", a_starved_probe),
    ("ComponentRestarted", a_restart_within_the_window),
    ("NotColocated", two_cards),
    ("SecondTenant", a_tenant_who_was_there_before),
    ("DeviceFallback", a_component_on_the_cpu),
    ("CardError", a_program_that_faults),
)


async def on_the_card(objects: PlayedObjects, namespace: str) -> str:
    """The first trial of an experiment whose components ask for shares of the card."""
    body = await create_experiment(objects, namespace, shares=True)
    assert body["spec"]["stack"]["components"][0]["template"]["spec"]["containers"][0]["resources"]
    return await first_trial(objects, namespace)


@pytest.mark.parametrize(("why", "plant"), GATES, ids=[plant.__name__ for _, plant in GATES])
def test_a_trial_whose_figures_are_not_true_is_invalid_is_repeated_and_never_scores(
    api_server: ApiServer, why: str, plant: Callable[[PlayedObjects, str], Awaitable[Object]]
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        name = await on_the_card(objects, namespace)
        one_pass = trial_reconciler(objects, namespace).reconcile

        async def play_lie(trial: str) -> None:
            await play_trial_pods(objects, namespace, trial, **await plant(objects, namespace))

        trials = [name]
        while True:
            play = functools.partial(play_lie, trials[-1])
            await drive(objects, TRIAL, namespace, trials[-1], one_pass, play, None)
            status = (await objects.get(TRIAL, namespace, trials[-1]))["status"]
            assert (status["phase"], status["reason"]) == ("Invalid", why), status
            assert status["measurements"] == []
            assert "fitness" not in status
            assert condition({"status": status}, "Ready")[:2] == ("False", why)
            body = await objects.get(EXPERIMENT, namespace, "voice")
            await experiment_reconciler(objects).reconcile(body, datetime.now(UTC))
            made = [it["metadata"]["name"] for it in await objects.list(TRIAL, namespace)]
            if not (new := set(made) - set(trials)):
                break
            trials += new

        assert len(trials) == 3
        after = (await objects.get(EXPERIMENT, namespace, "voice"))["status"]
        assert (after["phase"], after["trials"]["finished"]) == ("Failed", 3)
        assert f"{trials[-1]}: {why}: " in condition({"status": after}, "Stalled")[2]

    within(api_server, scenario)


def test_with_a_node_agent_the_trial_says_where_its_components_computed_and_what_they_held(
    api_server: ApiServer,
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        name = await on_the_card(objects, namespace)

        async def play() -> None:
            kills = [{"container": "x", "pod": "a-pod-of-somebody-else", "kills": 3}]
            seen = node_report(*await shares(objects, namespace), kills=kills)
            # Whoever comes within the window is known to be the trial's own.
            await play_trial_pods(objects, namespace, name, node=seen, newcomers=[{"pid": 4711, "leastMiB": 900}])

        reconciler = trial_reconciler(objects, namespace, node_agent="cotune-node-agent.cotune-system.svc:9401")
        await drive(objects, TRIAL, namespace, name, reconciler.reconcile, play, None)

        status = (await objects.get(TRIAL, namespace, name))["status"]
        assert (status["phase"], status["reason"]) == ("Succeeded", ""), status
        measured = {it["metric"]: (it["value"], it["samples"]) for it in status["measurements"]}
        assert measured["stt.gpuMemoryMiB"] == ("900.5", 600)
        assert measured["judge.gpuMemoryMiB"] == ("8000.5", 600)
        assert measured["gpu.oomEvents"][0] == "0", "the kills are not those of the trial's containers"
        assert {it["component"]: (it["device"], it["leastMiB"], it["mostMiB"]) for it in status["devices"]} == {
            "judge": ("cuda", 8_000, 8_000),
            "stt": ("cuda", 900, 900),
        }

    within(api_server, scenario)


def test_without_a_node_agent_what_components_hold_is_unknown_and_no_copy_of_the_card(
    whole_trial: tuple[Driven, Object],
) -> None:
    assert not [it for it in whole_trial[1]["measurements"] if it["metric"].endswith("gpuMemoryMiB")]


def test_the_probe_is_told_where_the_agents_are_and_on_which_node_it_is(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        name = await on_the_card(objects, namespace)
        reconciler = trial_reconciler(objects, namespace, node_agent="agents.example.svc:9401")
        for _ in range(2):
            await reconciler.reconcile(await objects.get(TRIAL, namespace, name), datetime.now(UTC))

        [probe] = await objects.list(POD, namespace, {LABEL_COMPONENT: PROBE})
        env = {it["name"]: it for it in probe["spec"]["containers"][0]["env"]}
        assert '"nodeAgent":"agents.example.svc:9401"' in env["COTUNE_PROBE"]["value"]
        assert env["COTUNE_NODE"]["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName"

    within(api_server, scenario)


def test_a_node_whose_card_fails_is_left_alone_for_a_while(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        name = await on_the_card(objects, namespace)
        start = datetime.now(UTC)

        async def play() -> None:
            await play_trial_pods(objects, namespace, name, xids=[79])

        await drive(objects, TRIAL, namespace, name, trial_reconciler(objects, namespace).reconcile, play, None)

        status = (await objects.get(TRIAL, namespace, name))["status"]
        assert (status["phase"], status["reason"], status["measurements"]) == ("Invalid", "CardError", [])
        assert status["message"].startswith(f"{CARD}: Xid 79 within the window; lab is in quarantine until ")
        another = TrialIdentity(namespace, "another", "uid", "voice")
        with pytest.raises(QuarantinedError, match="Xid 79"):
            await Cards(objects, namespace).acquire("lab", another, start + timedelta(minutes=9))

    within(api_server, scenario)


def test_a_component_that_the_kernel_ended_for_want_of_memory_has_failed(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        name = await on_the_card(objects, namespace)

        async def play() -> None:
            await play_kubelet(objects, namespace)
            phase = (await objects.get(TRIAL, namespace, name))["status"].get("phase")
            for pod in await objects.list(POD, namespace, {LABEL_COMPONENT: "stt"}):
                if phase == "Measuring" and pod["status"]["phase"] != "Failed":
                    await play_ended(objects, pod, exit_code=137, reason="OOMKilled")

        await drive(objects, TRIAL, namespace, name, trial_reconciler(objects, namespace).reconcile, play, None)

        status = (await objects.get(TRIAL, namespace, name))["status"]
        assert (status["phase"], status["reason"]) == ("Failed", "OOMKilled")
        words = status["message"]
        assert words.startswith("stt: the kernel ended container ")
        assert words.endswith(" for want of memory of the machine")

    within(api_server, scenario)


def test_a_node_whose_card_is_not_drained_is_left_alone_for_a_while(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        first = await on_the_card(objects, namespace)
        one_pass = trial_reconciler(objects, namespace).reconcile
        start = datetime.now(UTC)

        async def passed(trial: str, minutes: float) -> Object:
            await one_pass(await objects.get(TRIAL, namespace, trial), start + timedelta(minutes=minutes))
            body = await objects.get(EXPERIMENT, namespace, "voice")
            await experiment_reconciler(objects).reconcile(body, start + timedelta(minutes=minutes))
            return (await objects.get(TRIAL, namespace, trial))["status"]

        for _ in range(2):
            await passed(first, 0)
        [probe] = await objects.list(POD, namespace)
        objects.logs[probe["metadata"]["name"]] = "waiting\nwaiting for the card: 700 MiB used, 1 processes\n"
        status = await passed(first, 2)
        assert (status["phase"], status["reason"]) == ("Invalid", "NotDrained")
        until = (start + timedelta(minutes=12)).isoformat(timespec="seconds")
        seen = "the card was not drained within 60 s: waiting for the card: 700 MiB used, 1 processes"
        assert status["message"] == f"{seen}; lab is in quarantine until {until}"
        [second] = {it["metadata"]["name"] for it in await objects.list(TRIAL, namespace)} - {first}
        for _ in range(3):
            await passed(first, 3)
        assert await objects.list(POD, namespace) == ()

        status = await passed(second, 3)
        assert (status["phase"], status["reason"], status["message"]) == (
            "Pending",
            "NodeQuarantined",
            f"lab until {until}: {seen}",
        )
        experiment = await objects.get(EXPERIMENT, namespace, "voice")
        assert condition(experiment, "Quarantined") == ("True", "NodeQuarantined", f"lab until {until}: {seen}")

        status = await passed(second, 13)
        assert (status["phase"], status["node"]) == ("Draining", "lab")
        experiment = await objects.get(EXPERIMENT, namespace, "voice")
        assert condition(experiment, "Quarantined")[:2] == ("False", "NoNodeQuarantined")
        lease = await objects.get(LEASE, namespace, "card-lab")
        assert ANNOTATION_QUARANTINED_UNTIL not in lease["metadata"].get("annotations", {})

    within(api_server, scenario)


async def falls_silent(objects: PlayedObjects) -> None:
    """The control plane has not heard from the kubelet of lab for a while."""
    unknown = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "lastHeartbeatTime": HEARD}
    await objects.merge(NODE, "", "lab", {"status": {"conditions": [unknown]}}, subresource="status")


async def is_taken_out(objects: PlayedObjects) -> None:
    await objects.delete(NODE, "", "lab")


HEARD = "2026-01-01T12:00:00Z"
LOSSES = {
    f"the kubelet of lab is silent: its last word was at {HEARD}": falls_silent,
    "the node lab is no longer in the cluster": is_taken_out,
}


@pytest.mark.parametrize(("why", "lose"), LOSSES.items())
def test_a_trial_on_a_lost_node_is_run_again_on_another_and_its_card_stays_held_until_its_pods_are_gone(
    api_server: ApiServer, why: str, lose: Callable[[PlayedObjects], Awaitable[None]]
) -> None:
    """The pods are held as a silent kubelet holds them: nobody says that they have ended."""

    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        first = await create_trial(objects, namespace)
        one_pass = trial_reconciler(objects, namespace).reconcile
        cards = Cards(objects, namespace)

        async def passed(trial: str) -> Object:
            await one_pass(await objects.get(TRIAL, namespace, trial), datetime.now(UTC))
            return (await objects.get(TRIAL, namespace, trial))["status"]

        async def measures() -> bool:
            await play_kubelet(objects, namespace)
            return (await passed(first))["phase"] == "Measuring"

        await eventually(measures, "a window that has begun")
        pods = [it["metadata"]["name"] for it in await objects.list(POD, namespace)]
        for name in pods:
            await objects.merge(POD, namespace, name, {"metadata": {"finalizers": ["example.com/silent"]}})
        await lose(objects)
        await play_node(objects, "other", LABELS)

        status = await passed(first)
        assert (status["phase"], status["reason"], status["message"]) == ("Invalid", "NodeLost", why)
        assert "measurements" not in status or status["measurements"] == []
        for _ in range(2):
            await passed(first)
        assert await cards.holder("lab") is not None
        body = await objects.get(EXPERIMENT, namespace, "voice")
        await experiment_reconciler(objects).reconcile(body, datetime.now(UTC))
        [second] = {it["metadata"]["name"] for it in await objects.list(TRIAL, namespace)} - {first}
        status = await passed(second)
        assert (status["phase"], status["node"]) == ("Draining", "other")

        for name in pods:
            await objects.merge(POD, namespace, name, {"metadata": {"finalizers": None}})
        await passed(first)
        assert await cards.holder("lab") is None

    try:
        within(api_server, scenario)
    finally:
        within(api_server, forget_the_other_node)


async def forget_the_other_node(objects: PlayedObjects, _: str) -> None:
    await objects.delete(NODE, "", "other")


@pytest.mark.parametrize(
    ("window", "minutes", "ends"), [(60, 3.2, False), (60, 3.5, True), (7200, 135, False), (7200, 137, True)]
)
def test_a_measurement_may_last_as_long_as_its_window_asks_for(
    api_server: ApiServer, window: int, minutes: float, ends: bool
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_experiment(objects, namespace, window=window)
        name = await first_trial(objects, namespace)
        one_pass = trial_reconciler(objects, namespace).reconcile
        start = datetime.now(UTC)

        async def measures() -> bool:
            await one_pass(await objects.get(TRIAL, namespace, name), start)
            await play_kubelet(objects, namespace)
            return (await objects.get(TRIAL, namespace, name))["status"]["phase"] == "Measuring"

        await eventually(measures, "a window that has begun")
        await one_pass(await objects.get(TRIAL, namespace, name), start + timedelta(minutes=minutes))

        status = (await objects.get(TRIAL, namespace, name))["status"]
        assert (status["phase"], status["reason"]) == (("Invalid", "ProbeTimedOut") if ends else ("Measuring", ""))

    within(api_server, scenario)


async def no_corpus_yet(objects: PlayedObjects, namespace: str) -> str:
    await objects.delete(CONFIG_MAP, namespace, "speech")
    return "CorpusNotFound"


async def no_room_in_the_quota(objects: PlayedObjects, namespace: str) -> str:
    full = ForbiddenError(403, "Forbidden", "exceeded quota: small, requested: pods=1, used: pods=9, limited: pods=9")
    objects.refuse = lambda call: full if (call.method, call.path) == ("POST", POD.path(namespace)) else None
    return "QuotaExceeded"


@pytest.mark.parametrize("hinder", [no_corpus_yet, no_room_in_the_quota])
def test_a_trial_waits_without_its_card_for_what_is_not_there_yet(
    api_server: ApiServer, hinder: Callable[[PlayedObjects, str], Awaitable[str]]
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        name = await create_trial(objects, namespace)
        why = await hinder(objects, namespace)
        one_pass = trial_reconciler(objects, namespace).reconcile

        for _ in range(5):
            again = await one_pass(await objects.get(TRIAL, namespace, name), datetime.now(UTC))
            status = (await objects.get(TRIAL, namespace, name))["status"]
            assert (again, status["phase"], status["reason"]) == (timedelta(seconds=5), "Pending", why)
            assert await Cards(objects, namespace).holder("lab") is None

        objects.refuse = lambda _: None
        speech: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "speech"}}
        if await objects.find(CONFIG_MAP, namespace, "speech") is None:
            await objects.create(CONFIG_MAP, namespace, speech)
        play = functools.partial(play_trial_pods, objects, namespace, name)
        await drive(objects, TRIAL, namespace, name, one_pass, play, None)
        assert (await objects.get(TRIAL, namespace, name))["status"]["phase"] == "Succeeded"

    within(api_server, scenario)


@pytest.mark.parametrize("whose", ["probe", "stt"])
def test_a_log_that_a_kubelet_does_not_give_is_asked_for_again(api_server: ApiServer, whose: str) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        name = await create_trial(objects, namespace)
        away = ApiError(500, "InternalError", "dial tcp: connection refused")
        objects.refuse = lambda call: away if f"-{whose}-" in call.path and call.path.endswith("/log") else None
        one_pass = trial_reconciler(objects, namespace).reconcile

        async def is_unreadable() -> bool:
            await one_pass(await objects.get(TRIAL, namespace, name), datetime.now(UTC))
            await play_trial_pods(objects, namespace, name)
            status = (await objects.get(TRIAL, namespace, name))["status"]
            assert status["phase"] != "Invalid"
            return (status["phase"], status["reason"]) == ("Measuring", "LogUnreadable")

        await eventually(is_unreadable, "a log asked for in vain")
        objects.refuse = lambda _: None
        play = functools.partial(play_trial_pods, objects, namespace, name)
        await drive(objects, TRIAL, namespace, name, one_pass, play, None)
        assert (await objects.get(TRIAL, namespace, name))["status"]["phase"] == "Succeeded"

    within(api_server, scenario)


# --- Profiles: the controller manager makes the pods, the kubelet is played.


async def profile_run(
    objects: PlayedObjects, namespace: str, dies_after: int | None, broken: bool = False
) -> tuple[Driven, Object]:
    """The passes of a profile, and what is there in the end."""
    await create_stage(objects, namespace)
    before = await templates(objects, namespace)
    await create_profile(objects, namespace, namespace)
    play = functools.partial(play_workloads, objects, namespace, broken)

    async def one_pass(body: Object, now: datetime) -> timedelta | None:
        return await profile_reconciler(objects).reconcile(body, now)

    driven = await drive(objects, PROFILE, namespace, "p", one_pass, play, dies_after)
    after = await objects.get(PROFILE, namespace, "p")
    status = after["status"]
    # The pod's name is made up by the controller manager.
    stages = [(it["name"], it["phase"], it["revision"], it["lastGoodRevision"]) for it in status["stages"]]
    revisions = await objects.list(CONTROLLER_REVISION, namespace, {"app.kubernetes.io/managed-by": "cotune"})
    return driven, {
        "phase": status["phase"],
        "stages": stages,
        "conditions": [it[:3] for it in conditions(status)],
        "finalizers": after["metadata"].get("finalizers", []),
        "revisions": sorted((it["revision"], it["metadata"]["name"]) for it in revisions),
        "templates": await templates(objects, namespace),
        "before": before,
    }


@pytest.fixture(scope="module")
def whole_profile(api_server: ApiServer) -> tuple[Driven, Object]:
    return undisturbed(api_server, profile_run)


@pytest.fixture(scope="module")
def whole_rollback(api_server: ApiServer) -> tuple[Driven, Object]:
    return undisturbed(api_server, functools.partial(profile_run, broken=True))


def test_a_profile_is_promoted_and_both_states_are_on_record(whole_profile: tuple[Driven, Object]) -> None:
    driven, end = whole_profile

    assert (end["phase"], end["finalizers"]) == ("Promoted", [])
    template, replicas = end["templates"]["whisper"]
    assert (template["spec"]["containers"][0]["env"], replicas) == ([{"name": SIZE, "value": "tiny"}], 1)
    assert [number for number, _ in end["revisions"]] == [0, 1]
    assert driven.most_calls == CALLS_OF_PROFILE


def test_a_profile_that_does_not_start_is_taken_back(whole_rollback: tuple[Driven, Object]) -> None:
    _, end = whole_rollback

    assert (end["phase"], end["finalizers"]) == ("RolledBack", [])
    assert end["templates"] == end["before"]


@pytest.mark.parametrize("calls", range(CALLS_OF_PROFILE))
def test_a_profile_whose_passes_die_after_any_call_ends_the_same(
    api_server: ApiServer, whole_profile: tuple[Driven, Object], calls: int
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        driven, end = await profile_run(objects, namespace, calls)

        assert driven.deaths > 0
        assert end == whole_profile[1]
        assert len(objects.created) == len(set(objects.created))

    within(api_server, scenario)


@pytest.mark.parametrize("calls", range(CALLS_OF_PROFILE))
def test_a_rollback_whose_passes_die_after_any_call_ends_the_same(
    api_server: ApiServer, whole_rollback: tuple[Driven, Object], calls: int
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        driven, end = await profile_run(objects, namespace, calls, broken=True)

        assert driven.deaths > 0
        assert end == whole_rollback[1]

    within(api_server, scenario)


def test_every_condition_names_the_generation_that_was_looked_at_also_when_an_ended_profile_is_edited(
    api_server: ApiServer,
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await profile_run(objects, namespace, None)
        await objects.merge(PROFILE, namespace, "p", {"spec": {"rollout": {"paused": True}}})
        body = await objects.get(PROFILE, namespace, "p")
        assert body["status"]["observedGeneration"] < body["metadata"]["generation"]

        for _ in range(2):
            await profile_reconciler(objects).reconcile(await objects.get(PROFILE, namespace, "p"), datetime.now(UTC))

        assert generations(await objects.get(PROFILE, namespace, "p")) == {body["metadata"]["generation"]}

    within(api_server, scenario)


def test_every_condition_of_an_edited_experiment_names_the_generation_that_was_looked_at(
    api_server: ApiServer,
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_experiment(objects, namespace, product="Unknown")

        async def seen() -> set[int]:
            for _ in range(2):
                body = await objects.get(EXPERIMENT, namespace, "voice")
                await experiment_reconciler(objects).reconcile(body, datetime.now(UTC))
            return generations(await objects.get(EXPERIMENT, namespace, "voice"))

        assert await seen() == {1}
        await objects.merge(EXPERIMENT, namespace, "voice", {"spec": {"search": {"repeats": 2}}})
        assert await seen() == {2}

    within(api_server, scenario)


def generations(body: Object) -> set[int]:
    status = body["status"]
    assert status["conditions"]
    return {status["observedGeneration"], *(it["observedGeneration"] for it in status["conditions"])}


def test_a_profile_without_a_grant_touches_nothing(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        uninvited = await new_namespace(objects)
        await create_stage(objects, uninvited, grant=False)
        await create_profile(objects, namespace, uninvited)
        objects.asked.clear()

        for _ in range(3):
            body = await objects.get(PROFILE, namespace, "p")
            await profile_reconciler(objects).reconcile(body, datetime.now(UTC))

        assert {it for it in objects.asked if uninvited in it[1]} == {("GET", GRANT.path(uninvited))}
        stalled = condition(await objects.get(PROFILE, namespace, "p"), "Stalled")
        assert stalled == (
            "True",
            "NoGrant",
            f"no GpuTuningGrant in namespace {uninvited} allows a rollout from {namespace}",
        )

    within(api_server, scenario)


@pytest.mark.parametrize("calls", [None, *range(CALLS_OF_DELETION)])
def test_a_profile_deleted_in_the_middle_is_taken_back_before_it_goes(api_server: ApiServer, calls: int | None) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        before = await templates(objects, namespace)
        await create_profile(objects, namespace, namespace)
        play = functools.partial(play_workloads, objects, namespace, False)
        one_pass = profile_reconciler(objects).reconcile

        async def is_changed() -> bool:
            await one_pass(await objects.get(PROFILE, namespace, "p"), datetime.now(UTC))
            await play()
            changed, _ = (await templates(objects, namespace))["whisper"]
            return changed != before["whisper"][0]

        await eventually(is_changed, "the values written")
        await objects.delete(PROFILE, namespace, "p")
        assert FINALIZER in (await objects.get(PROFILE, namespace, "p"))["metadata"]["finalizers"]

        driven = await drive(objects, PROFILE, namespace, "p", one_pass, play, calls)

        assert (driven.deaths > 0) == (calls is not None)
        assert await objects.find(PROFILE, namespace, "p") is None
        assert await templates(objects, namespace) == before

    within(api_server, scenario)


def test_two_profiles_for_one_namespace_go_one_after_the_other(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        await create_profile(objects, namespace, namespace, "first", to="base")
        await create_profile(objects, namespace, namespace, "second", to="tiny")
        seen: list[tuple[str, str]] = []

        async def are_over() -> bool:
            for name in ("second", "first"):
                body = await objects.get(PROFILE, namespace, name)
                await profile_reconciler(objects).reconcile(body, datetime.now(UTC))
            await play_workloads(objects, namespace, broken=False)
            found = [await objects.get(PROFILE, namespace, name) for name in ("first", "second")]
            first, second = (it.get("status", {}).get("phase", "") for it in found)
            seen.append((first, second))
            return (first, second) == ("Promoted", "Promoted")

        await eventually(are_over, "both promoted")

        assert {first for first, second in seen if second not in {"", "Pending"}} == {"Promoted"}
        template, _ = (await templates(objects, namespace))["whisper"]
        assert template["spec"]["containers"][0]["env"] == [{"name": SIZE, "value": "tiny"}]

    within(api_server, scenario)


def test_a_stage_that_sleeps_at_zero_replicas_is_not_called_promoted(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        await objects.merge(DEPLOYMENT, namespace, "judge", {"spec": {"replicas": 0}})
        await create_profile(objects, namespace, namespace)
        body = await objects.get(PROFILE, namespace, "p")

        await profile_reconciler(objects).reconcile(body, datetime.now(UTC))

        status, reason, message = condition(await objects.get(PROFILE, namespace, "p"), "Stalled")
        assert (status, reason, message) == ("True", "WorkloadAtZero", f"namespace {namespace} has judge at 0 replicas")
        assert await objects.list(CONTROLLER_REVISION, namespace, {"app.kubernetes.io/managed-by": "cotune"}) == ()

    within(api_server, scenario)


async def refused_by_a_webhook(objects: PlayedObjects, namespace: str) -> tuple[str, str]:
    denied = ForbiddenError(403, "Forbidden", "admission webhook denied the request")
    objects.refuse = lambda call: denied if call.is_dry_run else None
    return "Forbidden", "admission webhook denied the request"


async def scaled_by_an_autoscaler(objects: PlayedObjects, namespace: str) -> tuple[str, str]:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "whisper"}
    body: Object = {
        "apiVersion": HORIZONTAL_POD_AUTOSCALER.api_version,
        "kind": HORIZONTAL_POD_AUTOSCALER.name,
        "metadata": {"name": "busy", "namespace": namespace},
        "spec": {"maxReplicas": 3, "scaleTargetRef": reference},
    }
    await objects.create(HORIZONTAL_POD_AUTOSCALER, namespace, body)
    return "WorkloadAutoscaled", f"namespace {namespace}: a HorizontalPodAutoscaler scales stt by busy"


@pytest.mark.parametrize("hinder", [refused_by_a_webhook, scaled_by_an_autoscaler])
def test_a_stage_whose_change_would_fail_does_not_begin(
    api_server: ApiServer, hinder: Callable[[PlayedObjects, str], Awaitable[tuple[str, str]]]
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        before = await templates(objects, namespace)
        await create_profile(objects, namespace, namespace)
        one_pass = profile_reconciler(objects).reconcile

        async def is_ready() -> bool:
            await play_workloads(objects, namespace, broken=False)
            found = await objects.list(DEPLOYMENT, namespace)
            return all(it.get("status", {}).get("readyReplicas") == 1 for it in found)

        await eventually(is_ready, "the stack ready")
        reason, message = await hinder(objects, namespace)

        for _ in range(3):
            await one_pass(await objects.get(PROFILE, namespace, "p"), datetime.now(UTC))

        after = await objects.get(PROFILE, namespace, "p")
        assert condition(after, "Stalled") == ("True", reason, message)
        assert after["status"]["phase"] == "Pending"
        assert await templates(objects, namespace) == before
        assert await objects.list(CONTROLLER_REVISION, namespace, {"app.kubernetes.io/managed-by": "cotune"}) == ()

    within(api_server, scenario)


def test_old_revisions_of_the_stack_are_pruned_but_none_that_is_in_use(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        revisions = Revisions(objects, namespace)
        (grant,) = await objects.list(GRANT, namespace)
        targets = {it.component: it for it in GrantSpec.model_validate(grant["spec"]).targets}

        def state(replicas: int, *names: str) -> Revision:
            return Revision(tuple(WorkloadRevision(it, {}, replicas) for it in names))

        # The oldest of all is the one that the templates are marked with.
        marked = await revisions.ensure(state(99, "judge", "stt"), targets, None, "x/old")
        old = [(await revisions.ensure(state(it, "judge", "stt"), targets, None, "x/old")).name for it in range(2, 16)]
        other = await revisions.ensure(state(1, "judge"), targets, None, "x/other")
        template = {"template": {"metadata": {"annotations": {ANNOTATION_REVISION: marked.name}}}}
        await objects.merge(DEPLOYMENT, namespace, "whisper", {"spec": template})
        await create_profile(objects, namespace, namespace)
        play = functools.partial(play_workloads, objects, namespace, False)

        await drive(objects, PROFILE, namespace, "p", profile_reconciler(objects).reconcile, play, None)

        (stage,) = (await objects.get(PROFILE, namespace, "p"))["status"]["stages"]
        found = await objects.list(CONTROLLER_REVISION, namespace, {"app.kubernetes.io/managed-by": "cotune"})
        names = {it["metadata"]["name"] for it in found}
        pair = {stage["revision"], stage["lastGoodRevision"]}
        assert stage["phase"] == "Promoted"
        assert names == {marked.name, other.name, *pair, *old[-(KEPT - 2) :]}

    within(api_server, scenario)


async def withdraw_the_grant(objects: PlayedObjects, namespace: str) -> str:
    for grant in await objects.list(GRANT, namespace):
        await objects.delete(GRANT, namespace, grant["metadata"]["name"])
    return "NoGrant"


async def mean_another_workload(objects: PlayedObjects, namespace: str) -> str:
    (grant,) = await objects.list(GRANT, namespace)
    for it in grant["spec"]["targets"]:
        it["container"] = "renamed"
    await objects.replace(GRANT, grant)
    return "other workloads than when the stage began"


async def delete_the_way_forward(objects: PlayedObjects, namespace: str) -> str:
    profile = await objects.get(PROFILE, namespace, "p")
    await objects.delete(CONTROLLER_REVISION, namespace, profile["status"]["stages"][0]["revision"])
    return "the way forward, is gone"


@pytest.mark.parametrize("disturb", [withdraw_the_grant, mean_another_workload, delete_the_way_forward])
def test_a_stage_that_may_not_go_on_gets_back_what_it_had(
    api_server: ApiServer, disturb: Callable[[PlayedObjects, str], Awaitable[str]]
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        before = await templates(objects, namespace)
        await create_profile(objects, namespace, namespace)
        play = functools.partial(play_workloads, objects, namespace, False)
        one_pass = profile_reconciler(objects).reconcile

        async def is_stopped() -> bool:
            await one_pass(await objects.get(PROFILE, namespace, "p"), datetime.now(UTC))
            await play()
            return all(replicas == 0 for _, replicas in (await templates(objects, namespace)).values())

        await eventually(is_stopped, "the stack stopped")
        why = await disturb(objects, namespace)

        await drive(objects, PROFILE, namespace, "p", one_pass, play, None)

        after = await objects.get(PROFILE, namespace, "p")
        assert (after["status"]["phase"], after["metadata"].get("finalizers", [])) == ("RolledBack", [])
        assert why in after["status"]["stages"][0]["message"]
        assert await templates(objects, namespace) == before

    within(api_server, scenario)


async def forbid(objects: PlayedObjects, namespace: str) -> str:
    taken_away = ForbiddenError(403, "Forbidden", "the binding is gone")
    objects.refuse = lambda call: taken_away if f"/namespaces/{namespace}/deployments" in call.path else None
    return "Forbidden"


async def give_the_variable_a_source(objects: PlayedObjects, namespace: str) -> str:
    source = {"fieldRef": {"fieldPath": "metadata.name"}}
    await change_whisper(objects, namespace, {"env": [{"name": SIZE, "valueFrom": source}]})
    return "NotBindable"


async def rename_the_container(objects: PlayedObjects, namespace: str) -> str:
    await change_whisper(objects, namespace, {"name": "renamed"})
    return "NotBindable"


async def change_whisper(objects: PlayedObjects, namespace: str, change: Object) -> None:
    found = await objects.get(DEPLOYMENT, namespace, "whisper")
    container = found["spec"]["template"]["spec"]["containers"][0]
    found["spec"]["template"]["spec"]["containers"] = [container | change]
    await objects.replace(DEPLOYMENT, found)


@pytest.mark.parametrize("disturb", [forbid, give_the_variable_a_source, rename_the_container])
def test_a_stage_that_is_not_let_on_turns_back_and_gets_there_once_it_is_let(
    api_server: ApiServer, disturb: Callable[[PlayedObjects, str], Awaitable[str]]
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        before = await templates(objects, namespace)
        await create_profile(objects, namespace, namespace)
        play = functools.partial(play_workloads, objects, namespace, False)
        one_pass = profile_reconciler(objects).reconcile

        async def is_stopped() -> bool:
            await one_pass(await objects.get(PROFILE, namespace, "p"), datetime.now(UTC))
            await play()
            return all(replicas == 0 for _, replicas in (await templates(objects, namespace)).values())

        await eventually(is_stopped, "the stack stopped")
        why = await disturb(objects, namespace)

        async def seen(later: timedelta) -> tuple[str, tuple[str, str]]:
            for _ in range(2):
                await one_pass(await objects.get(PROFILE, namespace, "p"), datetime.now(UTC) + later)
            after = await objects.get(PROFILE, namespace, "p")
            return after["status"]["phase"], condition(after, "Stalled")[:2]

        assert await seen(timedelta()) == ("RollingBack", ("True", why))
        assert await seen(timedelta(hours=1)) == ("Degraded", ("True", why))

        objects.refuse = lambda _: None
        if why == "NotBindable":
            was = before["whisper"][0]["spec"]["containers"][0]
            await change_whisper(objects, namespace, {"name": was["name"], "env": was["env"]})
        await drive(objects, PROFILE, namespace, "p", one_pass, play, None)

        after = await objects.get(PROFILE, namespace, "p")
        assert (after["status"]["phase"], condition(after, "Stalled")[0]) == ("RolledBack", "False")
        assert after["status"]["stages"][0]["message"].startswith(f"{why}: ")
        assert await templates(objects, namespace) == before

    within(api_server, scenario)


@pytest.mark.parametrize("reason", ["ExperimentGone", "ExperimentFailed"])
def test_a_trial_left_without_its_experiment_or_its_use_gives_its_card_back(api_server: ApiServer, reason: str) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        name = await create_trial(objects, namespace)
        cards = Cards(objects, namespace)
        one_pass = trial_reconciler(objects, namespace).reconcile
        await one_pass(await objects.get(TRIAL, namespace, name), datetime.now(UTC))
        assert await cards.holder("lab") is not None
        if reason == "ExperimentGone":
            await objects.merge(TRIAL, namespace, name, {"metadata": {"ownerReferences": None}})
        else:
            failed: Object = {"status": {"phase": "Failed"}}
            await objects.merge(EXPERIMENT, namespace, "voice", failed, subresource="status")

        async def is_free() -> bool:
            await one_pass(await objects.get(TRIAL, namespace, name), datetime.now(UTC))
            return await cards.holder("lab") is None

        await eventually(is_free, "the card given back")
        assert (await objects.get(TRIAL, namespace, name))["status"]["reason"] == reason

    within(api_server, scenario)
