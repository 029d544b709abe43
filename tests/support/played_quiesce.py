"""An experiment that stops production for its trials, against a real API server; nodes and kubelets are played."""

import copy
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cotune.cluster.cards import Cards
from cotune.cluster.events import Events
from cotune.cluster.kinds import CONFIG_MAP, EXPERIMENT, GRANT, POD, TRIAL
from cotune.cluster.objects import ConflictError, NotFoundError, Object
from cotune.cluster.stacks import Stacks
from cotune.handlers.experiment import ExperimentReconciler
from cotune.handlers.plans import Plans
from cotune.handlers.records import Records
from cotune.handlers.settings import Settings
from cotune.handlers.trial import TrialReconciler
from cotune.handlers.turns import Turns
from cotune.trials.probe_pod import ProbeImage
from cotune.trials.render import LABEL_TRIAL

from support.played_cluster import PlayedObjects, eventually, play_node, play_ready
from support.played_stage import create_stage, play_workloads
from support.resources import manifest

PRODUCT = "NVIDIA-GeForce-RTX-3060"
NODE_LABELS = {
    "nvidia.com/gpu.product": PRODUCT,
    "nvidia.com/gpu.count": "1",
    "nvidia.com/gpu.sharing-strategy": "time-slicing",
}
MAXIMUM, RESTORATION, TRIAL_SECONDS = 600, 60, 30


def window() -> dict[str, str]:
    """One that is open now, whatever the time of day is, and will be for three hours."""
    now = datetime.now(UTC)
    return {name: (now + timedelta(hours=it)).strftime("%H:%M") for name, it in (("from", -1), ("to", 3))}


async def create_production(objects: PlayedObjects, namespace: str, source: str, **grant: Any) -> None:
    """Two workloads that run, and a grant for experiments of `source`."""
    await create_stage(objects, namespace, grant=False)
    body = copy.deepcopy(manifest("GpuTuningGrant"))
    body["metadata"]["namespace"] = namespace
    body["spec"] |= {"from": [{"namespace": source}], "allow": ["Quiesce", "Rollout"]}
    body["spec"] |= {"quiesce": {"maximumSeconds": 86400}} | grant
    await objects.create(GRANT, namespace, body)
    await production_is_ready(objects, namespace)


async def production_is_ready(objects: PlayedObjects, namespace: str) -> None:
    async def is_so() -> bool:
        await play_workloads(objects, namespace, broken=False)
        pods = await objects.list(POD, namespace)
        return len(pods) == 2 and all(it.get("status", {}).get("phase") == "Running" for it in pods)

    await eventually(is_so, f"production in {namespace} is ready")


async def create_quiescing(objects: PlayedObjects, namespace: str, production: str, **fields: Any) -> Object:
    """Two candidates, small (the baseline) and tiny: each once in the search, and twice by turns."""
    await play_node(objects, "lab", NODE_LABELS)
    speech: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "speech", "namespace": namespace}}
    await objects.create(CONFIG_MAP, namespace, speech)
    body = copy.deepcopy(manifest("GpuAllocationExperiment"))
    body["metadata"]["namespace"] = namespace
    spec = body["spec"]
    spec["gpu"]["product"] = PRODUCT
    spec["parameters"] = [{**spec["parameters"][1], "values": ["tiny", "small"]}]
    spec["search"] = {"algorithm": "Grid", "maxTrials": 2, "repeats": 1}
    spec["evaluation"] = {"repeats": 2, "confidence": "0.66", "baselineEvery": 0}
    spec["quiesce"] = {
        "namespace": production,
        "startOrder": ["judge", "stt"],
        "window": window(),
        "maximumSeconds": MAXIMUM,
        "restorationSeconds": RESTORATION,
        "trialSeconds": TRIAL_SECONDS,
    } | fields
    return await objects.create(EXPERIMENT, namespace, body)


async def pass_of_experiment(
    objects: PlayedObjects, namespace: str, later: float = 0, name: str = "voice", turns: Turns | None = None
) -> timedelta | None:
    """By an operator that has just started, `later` seconds ahead of time; others of it may have their `turns`."""
    body = await objects.find(EXPERIMENT, namespace, name)
    if body is None:
        return None
    reconciler = ExperimentReconciler(objects, Events(objects, "test"), Plans(objects), turns=turns or Turns())
    try:
        return await reconciler.reconcile(body, datetime.now(UTC) + timedelta(seconds=later))
    except ConflictError:
        return timedelta()


async def passes_of_trials(
    objects: PlayedObjects, namespace: str, later: float = 0, turns: Turns | None = None
) -> None:
    """One of each trial, by an operator that has just started; their pods become ready."""
    a_minute, probe = timedelta(minutes=1), ProbeImage("example/probe:1", "IfNotPresent")
    settings = Settings(namespace, probe, a_minute, a_minute, "INFO", 8080, 9090)
    stacks, events = Stacks(objects), Events(objects, "test")
    records = Records(objects, stacks, probe.name, None)
    cards = Cards(objects, namespace)
    reconciler = TrialReconciler(objects, cards, stacks, events, settings, records, turns or Turns())
    for body in await objects.list(TRIAL, namespace):
        try:
            await reconciler.reconcile(body, datetime.now(UTC) + timedelta(seconds=later))
        except (ConflictError, NotFoundError):
            continue  # Changed meanwhile, or gone with its experiment.
    for pod in await trial_pods(objects, namespace):
        if "containerStatuses" not in pod.get("status", {}) and "deletionTimestamp" not in pod["metadata"]:
            await play_ready(objects, pod)


async def trial_pods(objects: PlayedObjects, namespace: str) -> Sequence[Object]:
    """Those of all trials of a namespace."""
    return [it for it in await objects.list(POD, namespace) if LABEL_TRIAL in it["metadata"].get("labels", {})]
