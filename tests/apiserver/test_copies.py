"""Copies of what runs in other namespaces, against a real API server; nodes, kubelets and results are played."""

import copy
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from cotune.cluster.cards import Cards
from cotune.cluster.events import Events
from cotune.cluster.kinds import (
    CONFIG_MAP,
    CONTROLLER_REVISION,
    DEPLOYMENT,
    EXPERIMENT,
    GRANT,
    POD,
    PROFILE,
    SERVICE,
    TRIAL,
)
from cotune.cluster.objects import ConflictError, ForbiddenError, Object
from cotune.cluster.stacks import Stacks
from cotune.handlers.experiment import ExperimentReconciler
from cotune.handlers.plans import Plans
from cotune.handlers.records import Records
from cotune.handlers.settings import Settings
from cotune.handlers.trial import TrialReconciler
from cotune.trials.probe_pod import PROBE, ProbeImage
from cotune.trials.render import LABEL_COMPONENT
from support.api_server import ApiServer
from support.examples import documents
from support.played_cluster import (
    DiedError,
    PlayedObjects,
    deployment,
    new_namespace,
    play_ended,
    play_kubelet,
    play_node,
    within,
)
from support.played_probe import last_line
from support.resources import manifest

pytestmark = pytest.mark.apiserver

LABELS = {
    "nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-3060",
    "nvidia.com/gpu.count": "1",
    "nvidia.com/gpu.sharing-strategy": "time-slicing",
}
SHARE = {"limits": {"nvidia.com/gpu": "1"}}
OWNERS: Object = {
    "serviceAccountName": "owner",
    "nodeSelector": {"pool": "production"},
    "priorityClassName": "system-node-critical",
    "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
}
LATENCY = {"tiny": 80, "small": 300}
FEASIBLE = {
    "type": "Feasible",
    "status": "True",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-01-01T00:00:00Z",
    "reason": "WithinConstraints",
    "message": "",
}


async def create_target(
    objects: PlayedObjects, source: str, *allow: str, memory_mib: int | None = None, replicas: int = 1
) -> str:
    """A namespace in which the experiment's services run, and embeddings beside them; with a grant, if it allows."""
    namespace = await new_namespace(objects)
    await play_workload(objects, namespace, "whisper", [{"name": "ASR_WHISPER_SIZE", "value": "small"}])
    await play_workload(objects, namespace, "judge", [{"name": "JUDGE_MEMORY", "value": "0.50"}])
    await play_workload(objects, namespace, "embeddings", [{"name": "SCALE", "value": "2"}], replicas)
    if not allow:
        return namespace
    body = copy.deepcopy(manifest("GpuTuningGrant"))
    embeddings: Object = {
        "component": "embeddings",
        "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "embeddings"},
        "container": "main",
        "copyEnv": ["SCALE"],
        **({"memoryMiB": memory_mib} if memory_mib is not None else {}),
    }
    targets = [it | {"container": "main"} for it in body["spec"]["targets"]]
    body["metadata"]["namespace"] = namespace
    body["spec"] |= {"from": [{"namespace": source}], "allow": list(allow), "targets": [*targets, embeddings]}
    await objects.create(GRANT, namespace, body)
    return namespace


async def play_workload(
    objects: PlayedObjects, namespace: str, name: str, env: list[Object], replicas: int = 1
) -> None:
    secret = {"name": "TOKEN", "value": "of the owner"}
    body = deployment(namespace, name, "main", [*env, secret], replicas)
    pod = body["spec"]["template"]["spec"]
    pod |= copy.deepcopy(OWNERS)
    pod["containers"][0] |= {
        "image": f"production/{name}:1",
        "args": ["--gpu-memory-utilization=$(JUDGE_MEMORY)", "--max-model-len=2048"] if name == "judge" else [],
        "resources": SHARE,
        "volumeMounts": [{"name": "models", "mountPath": "/models"}],
    }
    await objects.create(DEPLOYMENT, namespace, body)


async def create_experiment(
    objects: PlayedObjects, namespace: str, target: str, is_copied: bool = False, explicit: bool = False
) -> None:
    """Two candidates, small (the baseline) and tiny, and a first stage in the target."""
    await play_node(objects, "lab", LABELS)
    speech: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "speech", "namespace": namespace}}
    await objects.create(CONFIG_MAP, namespace, speech)
    body = copy.deepcopy(manifest("GpuAllocationExperiment"))
    spec = body["spec"]
    body["metadata"]["namespace"] = namespace
    spec["parameters"] = [{**spec["parameters"][1], "values": ["tiny", "small"]}]
    spec["search"] = {"algorithm": "Grid", "maxTrials": 2, "repeats": 1}
    spec["evaluation"] = {"repeats": 3, "confidence": "0.9", "baselineEvery": 0}
    spec["profileTemplate"]["rollout"]["stages"] = [{"name": "staging", "namespace": target}]
    if is_copied:
        spec["stack"]["fromNamespace"] = {"name": target}
        for it in spec["stack"]["components"]:
            del it["template"]
    if explicit:
        spec["validation"] = {"fromNamespace": {"name": target}}
    await objects.create(EXPERIMENT, namespace, body)


async def one_pass(objects: PlayedObjects, namespace: str) -> timedelta | None:
    """By an operator that has just started: nothing is remembered."""
    reconciler = ExperimentReconciler(objects, Events(objects, "test"), Plans(objects))
    return await reconciler.reconcile(await objects.get(EXPERIMENT, namespace, "voice"), datetime.now(UTC))


async def play_trials(objects: PlayedObjects, namespace: str) -> None:
    """Tiny Whispers are faster wherever they run."""
    for trial in await objects.list(TRIAL, namespace):
        if "status" in trial:
            continue
        values = {it["name"]: it["value"] for it in trial["spec"]["candidate"]}
        status: Object = {"phase": "Succeeded", "conditions": [FEASIBLE], "measurements": measured(values, trial)}
        status["fitness"] = "0.600000" if values["whisperModel"] == "tiny" else "0.500000"
        if values.get("judgeMemory") == "0.85":
            status["fitness"] = "0.700000"
        if trial["spec"].get("skipped"):
            status = {"phase": "Skipped", "reason": trial["spec"]["prediction"]["reason"]}
        await objects.merge(TRIAL, namespace, trial["metadata"]["name"], {"status": status}, subresource="status")


def measured(values: Mapping[str, str], trial: Object) -> list[Object]:
    # More of the card, more requests at once.
    concurrency = 20.4 if values.get("judgeMemory") == "0.85" else 3.4
    found = {
        "stt.latency.p95": LATENCY[values["whisperModel"]] + trial["spec"]["repeat"] % 3,
        "judge.latency.p95": 900,
        "judge.kvCache.concurrency": concurrency,
        "stability": 1,
        "gpu.utilization": "0.7",
    }
    return [{"metric": metric, "value": str(value), "samples": 200} for metric, value in found.items()]


async def run(objects: PlayedObjects, namespace: str, dies_after: int | None = None) -> Object:
    """Pass after pass to the experiment's end; with `dies_after`, each of them dies after so many calls first."""
    has_died = False
    for _ in range(200):
        objects.allowed_calls = None if has_died else dies_after
        has_died = False
        try:
            if await one_pass(objects, namespace) is None:
                break
        except DiedError:
            has_died = True
        except ConflictError:
            pass  # The work queue looks again.
        finally:
            objects.allowed_calls = None
        await play_trials(objects, namespace)
    return (await objects.get(EXPERIMENT, namespace, "voice"))["status"]


def condition(status: Object, kind: str) -> tuple[str, str, str]:
    found = next(it for it in status["conditions"] if it["type"] == kind)
    return found["status"], found["reason"], found["message"]


async def copies(objects: PlayedObjects, namespace: str) -> dict[str, Object]:
    return {it["metadata"]["name"]: it["data"] for it in await objects.list(CONTROLLER_REVISION, namespace)}


async def trials(objects: PlayedObjects, namespace: str) -> list[tuple[str, str, str | None]]:
    """Purpose, size of Whisper and copy of every trial."""
    return sorted(
        (it["spec"]["purpose"], it["spec"]["candidate"][-1]["value"], it["spec"].get("stackRef"))
        for it in await objects.list(TRIAL, namespace)
    )


def read_in(objects: PlayedObjects, namespace: str) -> set[str]:
    """The kinds that were asked for in a namespace."""
    inside = [path.partition(f"/namespaces/{namespace}/")[2] for _, path in objects.asked]
    return {it.partition("/")[0] for it in inside if it}


def test_the_stack_of_a_namespace_is_copied_sanitized_and_kept_for_the_experiment(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        target = await create_target(objects, namespace, "CopySpec")
        await create_experiment(objects, namespace, target, is_copied=True)
        for _ in range(2):
            await one_pass(objects, namespace)

        body = await objects.get(EXPERIMENT, namespace, "voice")
        [(name, data)] = (await copies(objects, namespace)).items()
        assert body["status"]["stackRef"] == name
        revision = await objects.get(CONTROLLER_REVISION, namespace, name)
        assert [it["uid"] for it in revision["metadata"]["ownerReferences"]] == [body["metadata"]["uid"]]
        services = {it["component"]: it for it in data["services"]}
        assert services.keys() == {"stt", "judge", "embeddings"}
        for it in services.values():
            spec = it["template"]["spec"]
            assert not {"serviceAccountName", "nodeSelector", "priorityClassName"} & spec.keys()
            assert spec["volumes"] == [{"name": "models", "emptyDir": {}}]
            assert "TOKEN" not in str(spec)
            assert {"spec.serviceAccountName", "spec.containers[main].env[TOKEN]"} <= set(it["lost"])
        assert services["embeddings"]["template"]["spec"]["containers"][0]["env"] == [{"name": "SCALE", "value": "2"}]
        assert await trials(objects, namespace) == [("Search", "small", name)]
        status, reason, message = condition(body["status"], "StackCopied")
        assert (status, reason) == ("True", "Copied")
        assert "spec.serviceAccountName" in message
        assert condition(body["status"], "SimplerThanTarget")[:2] == ("False", "SameServices")

    within(api_server, scenario)


def test_a_trial_runs_the_copy_with_the_other_services_first_and_without_a_load(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        target = await create_target(objects, namespace, "CopySpec")
        await create_experiment(objects, namespace, target, is_copied=True)
        for _ in range(2):
            await one_pass(objects, namespace)

        status, pods = await run_trial(objects, namespace)

        assert (status["phase"], status["reason"]) == ("Succeeded", "")
        assert list(pods) == [PROBE, "embeddings", "judge", "stt"]
        images = [it["containers"][0]["image"] for name, it in pods.items() if name != PROBE]
        assert images == ["production/embeddings:1", "production/judge:1", "production/whisper:1"]
        assert pods["stt"]["containers"][0]["env"] == [{"name": "ASR_WHISPER_SIZE", "value": "small"}]
        assert not any(it["automountServiceAccountToken"] for it in pods.values())
        made = [it.partition("/")[0] for it in objects.created]
        assert made.count(SERVICE.name) == 2, "nobody asks for embeddings"

    within(api_server, scenario)


def test_a_trial_whose_copy_was_deleted_is_invalid_and_the_experiment_says_so(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        target = await create_target(objects, namespace, "CopySpec")
        await create_experiment(objects, namespace, target, is_copied=True)
        for _ in range(2):
            await one_pass(objects, namespace)
        [name] = await copies(objects, namespace)
        await objects.delete(CONTROLLER_REVISION, namespace, name)

        status, pods = await run_trial(objects, namespace)
        await one_pass(objects, namespace)

        assert (status["phase"], status["reason"], pods) == ("Invalid", "StackGone", {})
        body = await objects.get(EXPERIMENT, namespace, "voice")
        assert condition(body["status"], "Stalled")[:2] == ("True", "StackGone")

    within(api_server, scenario)


@pytest.mark.parametrize("allow", [(), ("Rollout",)])
@pytest.mark.parametrize("named", ["is_copied", "explicit"])
def test_without_a_grant_that_lets_it_nothing_is_read_in_a_namespace_and_the_experiment_waits(
    api_server: ApiServer, allow: tuple[str, ...], named: str
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        target = await create_target(objects, namespace, *allow)
        await create_experiment(objects, namespace, target, **{named: True})
        objects.asked.clear()

        assert await one_pass(objects, namespace) == timedelta(seconds=10)

        body = await objects.get(EXPERIMENT, namespace, "voice")
        why = f"no GpuTuningGrant in namespace {target} allows CopySpec from {namespace}"
        assert condition(body["status"], "Stalled") == ("True", "NoGrant", why)
        assert read_in(objects, target) == {"gputuninggrants"}
        assert (await copies(objects, namespace), await trials(objects, namespace)) == ({}, [])

    within(api_server, scenario)


def test_an_experiment_that_waits_for_a_grant_goes_on_when_it_is_there(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        target = await create_target(objects, namespace, "CopySpec")
        [grant] = await objects.list(GRANT, target)
        name = grant["metadata"]["name"]
        await objects.merge(GRANT, target, name, {"spec": {"allow": ["Rollout"]}})
        await create_experiment(objects, namespace, target, is_copied=True)
        await one_pass(objects, namespace)
        await objects.merge(GRANT, target, name, {"spec": {"allow": ["CopySpec"]}})

        status = await run(objects, namespace)

        assert (status["phase"], condition(status, "Stalled")[0]) == ("Succeeded", "False")

    within(api_server, scenario)


def test_without_a_grant_in_the_first_stage_changes_are_validated_on_the_experiments_own_stack(
    api_server: ApiServer,
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        target = await create_target(objects, namespace, "Rollout")
        await create_experiment(objects, namespace, target)
        objects.asked.clear()

        status = await run(objects, namespace)

        assert (status["phase"], status["profile"] is not None) == ("Succeeded", True)
        told = condition(status, "TargetCopied")
        assert told[:2] == ("False", "NoGrant")
        assert told[2].endswith("validated on the experiment's own stack")
        assert "SimplerThanTarget" not in {it["type"] for it in status["conditions"]}
        assert read_in(objects, target) == {"gputuninggrants"}
        assert {it[0] for it in await trials(objects, namespace)} == {"Search", "Confirmation"}

    within(api_server, scenario)


def test_an_operator_that_may_not_read_the_first_stage_says_so_and_goes_on(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        target = await create_target(objects, namespace, "CopySpec")
        await create_experiment(objects, namespace, target)
        forbidden = ForbiddenError(403, "Forbidden", "deployments.apps is forbidden")
        objects.refuse = lambda call: forbidden if f"{target}/deployments" in call.path else None

        status = await run(objects, namespace)

        assert (status["phase"], status["profile"] is not None) == ("Succeeded", True)
        assert condition(status, "TargetCopied")[:2] == ("False", "Forbidden")

    within(api_server, scenario)


@pytest.mark.parametrize(("component", "reason"), [("judge", "WorkloadNotFound"), ("embeddings", "Copied")])
def test_a_workload_that_is_gone_is_missed_where_it_is_the_experiments_own(
    api_server: ApiServer, component: str, reason: str
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        target = await create_target(objects, namespace, "CopySpec")
        await objects.delete(DEPLOYMENT, target, component)
        await create_experiment(objects, namespace, target)

        await one_pass(objects, namespace)

        status = (await objects.get(EXPERIMENT, namespace, "voice"))["status"]
        assert condition(status, "TargetCopied")[1] == reason
        assert status["target"]["beside"] == []

    within(api_server, scenario)


def test_a_neighbour_that_is_scaled_to_zero_does_not_run_there(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        target = await create_target(objects, namespace, "CopySpec", replicas=0)
        await create_experiment(objects, namespace, target)

        await one_pass(objects, namespace)

        status = (await objects.get(EXPERIMENT, namespace, "voice"))["status"]
        assert status["target"]["beside"] == []
        assert condition(status, "SimplerThanTarget")[:2] == ("False", "SameServices")

    within(api_server, scenario)


def test_somebody_elses_revision_is_not_taken_for_a_copy(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        target = await create_target(objects, namespace, "CopySpec")
        await create_experiment(objects, namespace, target)
        await one_pass(objects, namespace)
        [name] = await copies(objects, namespace)
        await objects.delete(CONTROLLER_REVISION, namespace, name)
        kind = {"apiVersion": CONTROLLER_REVISION.api_version, "kind": CONTROLLER_REVISION.name}
        await objects.create(
            CONTROLLER_REVISION, namespace, kind | {"metadata": {"name": name}, "data": {}, "revision": 1}
        )
        await objects.merge(EXPERIMENT, namespace, "voice", {"status": {"specDigest": None}}, subresource="status")

        await one_pass(objects, namespace)

        status = (await objects.get(EXPERIMENT, namespace, "voice"))["status"]
        assert condition(status, "Stalled")[1:] == (
            "NameTaken",
            f"ControllerRevision {name} exists and is not this experiment's",
        )

    within(api_server, scenario)


async def simpler_run(objects: PlayedObjects, namespace: str, dies_after: int | None) -> tuple[Object, Object]:
    """An experiment without the target's embeddings, from its first pass to its end."""
    target = await create_target(objects, namespace, "CopySpec")
    await create_experiment(objects, namespace, target)
    status = await run(objects, namespace, dies_after)
    [profile] = await objects.list(PROFILE, namespace)
    end = {
        "phase": status["phase"],
        "validation": [(it["parameter"], it["value"], it["reason"]) for it in status["validation"]["changes"]],
        "trials": [(purpose, value, ref is not None) for purpose, value, ref in await trials(objects, namespace)],
        "changes": profile["spec"]["changes"],
        "startOrder": profile["spec"]["startOrder"],
    }
    return status, end


SIMPLER_END: Object = {
    "phase": "Succeeded",
    "validation": [("whisperModel", "tiny", "Validated")],
    "trials": [
        *([("Confirmation", "small", False)] * 3 + [("Confirmation", "tiny", False)] * 3),
        *[("Search", "small", False), ("Search", "tiny", False)],
        *([("Validation", "small", True)] * 3 + [("Validation", "tiny", True)] * 3),
    ],
    "changes": [{"component": "stt", "env": "ASR_WHISPER_SIZE", "from": "small", "to": "tiny"}],
    "startOrder": ["judge", "stt"],
}


def test_a_change_is_validated_on_what_runs_in_the_first_stage(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        status, end = await simpler_run(objects, namespace, None)

        assert end == SIMPLER_END
        [name] = await copies(objects, namespace)
        assert status["target"] | {"namespace": ""} == {
            "namespace": "",
            "stackRef": name,
            "beside": ["embeddings"],
            "readForValidation": True,
        }
        assert condition(status, "TargetCopied")[:2] == ("True", "Copied")
        told = condition(status, "SimplerThanTarget")
        assert told[:2] == ("True", "ServicesMissing")
        assert "runs embeddings beside" in told[2]

    within(api_server, scenario)


@pytest.mark.parametrize("calls", range(11))
def test_a_validation_whose_passes_die_after_any_call_ends_the_same(api_server: ApiServer, calls: int) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        _, end = await simpler_run(objects, namespace, calls)

        assert end == SIMPLER_END
        assert len(objects.created) == len(set(objects.created))

    within(api_server, scenario)


def test_what_has_changed_in_the_target_is_told_when_validation_begins_and_is_what_it_runs(
    api_server: ApiServer,
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        target = await create_target(objects, namespace, "CopySpec")
        await create_experiment(objects, namespace, target, is_copied=True)
        for _ in range(4):
            await one_pass(objects, namespace)
            await play_trials(objects, namespace)
        first = (await objects.get(EXPERIMENT, namespace, "voice"))["status"]["stackRef"]
        containers = [{"name": "main", "image": "production/embeddings:2"}]
        change: Object = {"spec": {"template": {"spec": {"containers": containers}}}}
        await objects.merge(DEPLOYMENT, target, "embeddings", change)

        status = await run(objects, namespace)

        assert status["stackRef"] == first
        assert status["target"]["stackRef"] != first
        told = condition(status, "TargetCopied")
        assert told[:2] == ("True", "TargetChanged")
        assert told[2].startswith("since the experiment began, embeddings is not what it was; ")
        refs = {(purpose, ref) for purpose, _, ref in await trials(objects, namespace)}
        second = status["target"]["stackRef"]
        assert refs == {("Search", first), ("Confirmation", first), ("Validation", second)}

    within(api_server, scenario)


def test_a_winner_that_was_found_on_a_copy_of_the_target_is_not_run_there_again(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        target = await create_target(objects, namespace, "CopySpec")
        await create_experiment(objects, namespace, target, is_copied=True)

        status = await run(objects, namespace)

        assert {purpose for purpose, _, _ in await trials(objects, namespace)} == {"Search", "Confirmation"}
        assert (status["phase"], status["validation"]["changes"][0]["reason"]) == ("Succeeded", "Validated")

    within(api_server, scenario)


def test_a_change_that_has_no_room_beside_what_runs_there_is_left_out_with_its_figures(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        # So large that more of the card for the judge is no longer free.
        target = await create_target(objects, namespace, "CopySpec", memory_mib=2410)
        await create_planned(objects, namespace, target)

        status = await run(objects, namespace)

        kept, left_out = sorted(status["validation"]["changes"], key=lambda it: not it["kept"])
        assert (kept["parameter"], kept["value"], kept["reason"]) == ("whisperModel", "tiny", "Validated")
        assert (left_out["parameter"], left_out["value"], left_out["reason"]) == ("judgeMemory", "0.85", "CardTaken")
        assert left_out["message"].startswith(f"in {target}, beside embeddings: ")
        assert left_out["message"].endswith("judge: 9.40 GiB are free when it starts, and 10.20 GiB are asked for")
        assert condition(status, "Ready")[1] == "PartialWinner"
        assert status["trials"]["skipped"] == 2, "with a small Whisper it fits nowhere: in the search, and there"
        validated = [it for it in await objects.list(TRIAL, namespace) if it["spec"]["purpose"] == "Validation"]
        skipped = [it["spec"]["candidate"] for it in validated if it["spec"]["skipped"]]
        assert [[it["value"] for it in candidate] for candidate in skipped] == [["0.85", "small"]]
        [profile] = await objects.list(PROFILE, namespace)
        assert [it["env"] for it in profile["spec"]["changes"]] == ["ASR_WHISPER_SIZE"]

    within(api_server, scenario)


async def create_planned(objects: PlayedObjects, namespace: str, target: str) -> None:
    """The story's experiment without its neighbour, with two values of each parameter."""
    await play_node(objects, "lab", LABELS)
    for body in copy.deepcopy(documents("voice-stack.yaml")):
        body["metadata"]["namespace"] = namespace
        if body["kind"] == CONFIG_MAP.name:
            await objects.create(CONFIG_MAP, namespace, body)
            continue
        spec = body["spec"]
        judge, stt = spec["stack"]["components"][1:]
        judge["dependsOn"] = []
        memory, size = spec["parameters"]
        memory = {"name": memory["name"], "bind": memory["bind"], "values": ["0.50", "0.85"], "baseline": "0.50"}
        spec["stack"]["components"] = [judge, stt]
        spec["parameters"] = [memory, size | {"values": ["tiny", "small"]}]
        spec["workload"]["streams"] = spec["workload"]["streams"][:2]
        spec["evaluation"] = {"repeats": 3, "confidence": "0.9", "baselineEvery": 0}
        spec["profileTemplate"]["rollout"]["stages"] = [{"name": "staging", "namespace": target}]
        await objects.create(EXPERIMENT, namespace, body)


async def run_trial(objects: PlayedObjects, namespace: str) -> tuple[Object, dict[str, Object]]:
    """Passes of the only trial to its end: its status, and the specs of its pods in the order in which they came."""
    minute = timedelta(minutes=1)
    probe = ProbeImage("example/probe:1", "IfNotPresent")
    settings = Settings(namespace, probe, minute, minute, "INFO", 8080, 9090, None)
    stacks, events = Stacks(objects), Events(objects, "test")
    records = Records(objects, stacks, probe.name, None)
    reconciler = TrialReconciler(objects, Cards(objects, namespace), stacks, events, settings, records)
    [trial] = await objects.list(TRIAL, namespace)
    name = trial["metadata"]["name"]
    pods: dict[str, Object] = {}
    for _ in range(60):
        body = await objects.get(TRIAL, namespace, name)
        if await reconciler.reconcile(body, datetime.now(UTC)) is None:
            break
        for pod in await objects.list(POD, namespace):
            pods.setdefault(pod["metadata"]["labels"][LABEL_COMPONENT], pod["spec"])
        await play_kubelet(objects, namespace)
        phase = (await objects.get(TRIAL, namespace, name)).get("status", {}).get("phase")
        for pod in await objects.list(POD, namespace, {LABEL_COMPONENT: PROBE}):
            if phase == "Measuring" and pod["status"]["phase"] != "Succeeded":
                processes = [{"pid": it, "leastMiB": 900} for it in range(1, 4)]
                objects.logs[pod["metadata"]["name"]] = last_line({"stt.latency.p95": "0.1"}, processes=processes)
                await play_ended(objects, pod)
    return (await objects.get(TRIAL, namespace, name))["status"], pods
