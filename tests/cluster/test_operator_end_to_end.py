"""The operator end to end on a real kubelet with SIMULATED cards: two candidates, a winner, one stage."""

import asyncio
import copy
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from cotune.cluster.kinds import (
    CONTROLLER_REVISION,
    DEPLOYMENT,
    EXPERIMENT,
    LEASE,
    POD,
    PROFILE,
    SERVICE,
    TRIAL,
    Kind,
)
from cotune.cluster.objects import Object
from cotune.trials.probe_pod import PROBE
from cotune.trials.render import LABEL_COMPONENT, LABEL_TRIAL
from cotune_demo.cluster import Commands, start
from cotune_demo.preparation import NODE_AGENTS, OPERATOR, prepare, services_ready
from cotune_demo.progress import Progress
from cotune_demo.records import verified
from cotune_demo.scenes import LAB, PRODUCTION, SIMULATED, STAGING
from cotune_demo.summary import RecordsSummary
from localcluster.locations import Instance
from support.api_server import ApiServer
from support.examples import documents
from support.leftovers import passing_instance
from support.played_cluster import PlayedObjects, connected

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PATIENCE_SECONDS = 180
TRIALS = 6
"""Two candidates, and two fresh runs of the winner and of the baseline."""
FINISHED = {EXPERIMENT: {"Succeeded", "Failed"}, PROFILE: {"Promoted", "RolledBack", "Degraded"}}


@dataclass
class Outcome:
    """What was seen on the way, and what is there in the end."""

    probes: dict[str, set[str]] = field(default_factory=lambda: defaultdict[str, set[str]](set))
    """Trial to the identities of the probes that it has had."""
    found: dict[str, tuple[Object, ...]] = field(default_factory=dict[str, tuple[Object, ...]])
    metrics: str = ""
    agents_metrics: str = ""
    """Of the agent of the node lab, while a container there had a worker killed."""
    greedy: Object = field(default_factory=dict[str, Any])
    """That container's pod."""
    records: RecordsSummary | None = None
    production_before: list[int] = field(default_factory=list[int])


def small_experiment() -> list[Object]:
    """The story's stack with two candidates and one stage."""
    made = copy.deepcopy(documents("voice-stack.yaml"))
    spec: Any = next(it for it in made if it["kind"] == EXPERIMENT.name)["spec"]
    spec["workload"]["durationSeconds"] = 2
    judge = spec["stack"]["components"][1]["template"]["spec"]["containers"][0]
    judge["env"] = [*judge["env"], {"name": "JUDGE_MEMORY", "value": "0.50"}]
    spec["parameters"] = [spec["parameters"][1] | {"values": ["tiny", "small"]}]
    spec["search"]["maxTrials"] = 2
    spec["profileTemplate"]["rollout"]["stages"] = spec["profileTemplate"]["rollout"]["stages"][:1]
    return made


async def ended(objects: PlayedObjects, kind: Kind, name: str, outcome: Outcome) -> Object:
    """Watch until an experiment or a profile has ended."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        for pod in await objects.list(POD, LAB, {LABEL_COMPONENT: PROBE}):
            outcome.probes[pod["metadata"]["labels"][LABEL_TRIAL]].add(pod["metadata"]["uid"])
        body = await objects.get(kind, LAB, name)
        if body.get("status", {}).get("phase") in FINISHED[kind]:
            return body
        assert time.monotonic() < deadline, f"{kind.name} {name} does not end: {body.get('status')}"
        await asyncio.sleep(0.25)


async def gone(objects: PlayedObjects, kind: Kind) -> None:
    """Wait until the lab has nothing of a trial left of this kind."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while left := [it for it in await objects.list(kind, LAB) if LABEL_TRIAL in it["metadata"].get("labels", {})]:
        assert time.monotonic() < deadline, f"still there: {[it['metadata']['name'] for it in left]}"
        await asyncio.sleep(0.25)


async def run(commands: Commands) -> Outcome:
    outcome = Outcome()
    await prepare(commands, Progress(), replace(SIMULATED, target=None), node_agents=True)
    await services_ready(commands, Progress(), SIMULATED.site, SIMULATED.ready_seconds)
    async with connected(commands.kubeconfig) as objects:
        before = await objects.list(DEPLOYMENT, PRODUCTION)
        outcome.production_before = [it["metadata"]["generation"] for it in before]
        await commands.apply(*small_experiment())
        experiment = await ended(objects, EXPERIMENT, "voice", outcome)
        profile = experiment["status"].get("profile")
        assert profile is not None, experiment["status"]
        outcome.found[PROFILE.name] = (await ended(objects, PROFILE, profile, outcome),)
        outcome.found[EXPERIMENT.name] = (experiment,)
        outcome.found[TRIAL.name] = await objects.list(TRIAL, LAB)
        outcome.records = await verified(commands, LAB)
        await gone(objects, POD)
        await gone(objects, SERVICE)
        outcome.found[LEASE.name] = await objects.list(LEASE, OPERATOR)
        outcome.found[CONTROLLER_REVISION.name] = await objects.list(CONTROLLER_REVISION, STAGING)
        outcome.found["Staging"] = await objects.list(DEPLOYMENT, STAGING)
        outcome.found["Production"] = await objects.list(DEPLOYMENT, PRODUCTION)
        operator = await objects.list(POD, OPERATOR, {"app.kubernetes.io/name": "cotune"})
        await worker_killed(commands, objects, outcome)
        outcome.found["Operator"] = operator = tuple(it for it in operator if "deletionTimestamp" not in it["metadata"])
    name = operator[0]["metadata"]["name"]
    outcome.metrics = await commands.do("get", "--raw", f"/api/v1/namespaces/{OPERATOR}/pods/{name}:9090/proxy/metrics")
    return outcome


GREEDY = """
import multiprocessing, time
def take():
    bytearray(512 << 20)
worker = multiprocessing.Process(target=take)
worker.start()
worker.join()
print("the worker ended with", worker.exitcode, flush=True)
time.sleep(600)
"""


async def worker_killed(commands: Commands, objects: PlayedObjects, outcome: Outcome) -> None:
    """A container that lives on when the kernel ends its worker, and what the node's agent says of it."""
    container = {
        "name": "greedy",
        "image": "localhost/cotune/probe:dev",
        "imagePullPolicy": "Never",
        "command": ["python", "-c", GREEDY],
        "resources": {"limits": {"memory": "96Mi", "cpu": "500m"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec = {
        "nodeName": "lab",
        "tolerations": [{"operator": "Exists"}],
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "greedy", "namespace": LAB}, "spec": spec}
    await objects.create(POD, LAB, made)
    agents = await objects.list(POD, NODE_AGENTS)
    [agent] = [it["metadata"]["name"] for it in agents if it["spec"]["nodeName"] == "lab"]
    path = f"/api/v1/namespaces/{NODE_AGENTS}/pods/{agent}:9402/proxy/metrics"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        _, said = await commands.run(commands.kubectl, "logs", "--namespace", LAB, "greedy", "--tail=10")
        if "worker ended" in said:
            break
        assert time.monotonic() < deadline, said
        await asyncio.sleep(0.5)
    outcome.agents_metrics = await commands.do("get", "--raw", path)
    outcome.greedy = await objects.get(POD, LAB, "greedy")


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with passing_instance("e2e-operator") as made:
        yield made


@pytest.fixture(scope="module")
def outcome(instance: Instance) -> Outcome:
    commands = start(list(SIMULATED.images), instance.name)
    try:
        return asyncio.run(run(commands))
    except BaseException:
        said = ApiServer(commands.kubectl, commands.kubeconfig).run(
            "logs", "--namespace", OPERATOR, "deployment/cotune", "--tail=50"
        )
        print(said.text)
        raise


def test_the_better_candidate_wins(outcome: Outcome) -> None:
    [experiment] = outcome.found[EXPERIMENT.name]
    winner = experiment["status"]["winner"]
    [best] = [it for it in outcome.found[TRIAL.name] if it["metadata"]["name"] == winner["trial"]]

    assert experiment["status"]["phase"] == "Succeeded"
    assert best["spec"]["candidate"] == [{"name": "whisperModel", "value": "tiny"}]
    assert float(winner["fitness"]) > float(winner["baselineFitness"])


def test_every_trial_has_run_once(outcome: Outcome) -> None:
    trials = {it["metadata"]["name"]: it["status"]["phase"] for it in outcome.found[TRIAL.name]}

    assert list(trials.values()) == ["Succeeded"] * TRIALS
    assert {name: len(probes) for name, probes in outcome.probes.items()} == dict.fromkeys(trials, 1)


def test_the_card_is_free_afterwards(outcome: Outcome) -> None:
    holders = {it["metadata"]["name"]: it["spec"].get("holderIdentity") or "" for it in outcome.found[LEASE.name]}
    leader = holders.pop("cotune-leader")

    assert holders == {"card-lab": ""}
    assert leader.startswith("cotune-")


def test_the_profile_is_promoted_in_its_only_stage(outcome: Outcome) -> None:
    [profile] = outcome.found[PROFILE.name]
    whisper = next(it for it in outcome.found["Staging"] if it["metadata"]["name"] == "whisper")
    env = {it["name"]: it["value"] for it in whisper["spec"]["template"]["spec"]["containers"][0]["env"]}

    assert profile["status"]["phase"] == "Promoted"
    assert env["ASR_WHISPER_SIZE"] == "tiny"
    assert whisper["status"]["readyReplicas"] == 1


def test_the_state_before_and_the_state_after_are_on_record(outcome: Outcome) -> None:
    mine = [
        it
        for it in outcome.found[CONTROLLER_REVISION.name]
        if it["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == "cotune"
    ]
    sizes = {
        it["revision"]: workload["values"]["ASR_WHISPER_SIZE"]
        for it in mine
        for workload in it["data"]["workloads"]
        if workload["component"] == "stt"
    }

    assert sizes == {0: "small", 1: "tiny"}


def test_a_namespace_that_is_no_stage_is_not_changed(outcome: Outcome) -> None:
    assert [it["metadata"]["generation"] for it in outcome.found["Production"]] == outcome.production_before


def test_the_operator_has_never_restarted(outcome: Outcome) -> None:
    restarts = [
        status["restartCount"] for it in outcome.found["Operator"] for status in it["status"]["containerStatuses"]
    ]

    assert restarts == [0]


def test_the_metrics_count_the_trials_and_the_stages(outcome: Outcome) -> None:
    assert f'cotune_trials_total{{phase="Succeeded",reason=""}} {TRIALS}.0' in outcome.metrics
    assert 'cotune_stages_total{phase="Promoted"} 1.0' in outcome.metrics


def test_every_component_is_tied_to_its_memory_on_the_card(outcome: Outcome) -> None:
    for trial in outcome.found[TRIAL.name]:
        status = trial["status"]
        measured = {it["metric"]: float(it["value"]) for it in status["measurements"]}
        devices = {it["component"]: it for it in status["devices"]}

        assert {name: it["device"] for name, it in devices.items()} == dict.fromkeys(
            ("neighbour", "judge", "stt"), "cuda"
        )
        held = {name: measured[f"{name}.gpuMemoryMiB"] for name in devices}
        assert held["judge"] == max(held.values())
        assert min(held.values()) > 0
        assert sum(held.values()) < measured["gpu.usedMiB"] <= sum(held.values()) + 256, "and no copies of the card's"
        assert measured["gpu.oomEvents"] == 0
        assert measured["judge.preemptions"] >= 0


def test_a_worker_that_the_kernel_killed_is_counted_for_its_container(outcome: Outcome) -> None:
    [status] = outcome.greedy["status"]["containerStatuses"]
    labels = f'container_id="{status["containerID"].rpartition("//")[2]}",pod_uid="{outcome.greedy["metadata"]["uid"]}"'

    assert (status["restartCount"], "running" in status["state"]) == (0, True)
    assert f"cotune_container_oom_kills_total{{{labels}}} 1.0" in outcome.agents_metrics


def test_every_trial_has_left_a_record_that_verifies(outcome: Outcome) -> None:
    assert outcome.records is not None
    assert outcome.records.faults == ()
    assert outcome.records.records == len(outcome.found[TRIAL.name])
    assert outcome.records.recomputed > 0
    assert outcome.records.faults_when_edited == ("Differs",)
