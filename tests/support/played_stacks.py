"""The same stack several times in one namespace, with a grant that selects them; kubelets are played by the test."""

import copy
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from cotune.cluster.kinds import DEPLOYMENT, GRANT, POD, PROFILE
from cotune.cluster.objects import ConflictError, Object

from support.played_cluster import PlayedObjects, deployment, eventually, play_crashing, play_ready
from support.played_stage import SIZE, profile_reconciler
from support.resources import manifest

STACK, PART = "example.com/stack", "example.com/part"
CONTAINERS = {"judge": "vllm", "stt": "asr"}


async def create_stack(
    objects: PlayedObjects, namespace: str, stack: str, node: str = "", parts: Collection[str] = ("judge", "stt")
) -> None:
    """One Deployment of each part, with one replica."""
    for part in parts:
        env = [{"name": SIZE, "value": "small"}] if part == "stt" else []
        body = deployment(namespace, f"{part}-{stack}", CONTAINERS[part], env, replicas=1)
        body["metadata"]["labels"] = {STACK: stack, PART: part}
        if node:
            body["spec"]["template"]["spec"]["nodeName"] = node
        await objects.create(DEPLOYMENT, namespace, body)


async def create_selecting_grant(objects: PlayedObjects, namespace: str) -> None:
    """A grant of the owner's for all stacks of the namespace."""
    body = copy.deepcopy(manifest("GpuTuningGrant"))
    body["metadata"]["namespace"] = namespace
    body["spec"] |= {"from": [{"namespace": namespace}], "allow": ["Rollout"], "stackLabel": STACK}
    for target in body["spec"]["targets"]:
        del target["workloadRef"]
        labels = {PART: target["component"]}
        target["workloadSelector"] = {"apiVersion": "apps/v1", "kind": "Deployment", "matchLabels": labels}
    await objects.create(GRANT, namespace, body)


async def create_stacks(
    objects: PlayedObjects, namespace: str, stacks: str, batches: Collection[str] = ("1", "50%", "100%"), **stage: Any
) -> None:
    """Stacks of one letter each, their grant, and a profile of one stage that is not guarded unless `stage` says so."""
    for it in stacks:
        await create_stack(objects, namespace, it)
    await create_selecting_grant(objects, namespace)
    await create_profile_in_batches(objects, namespace, batches, **stage)


async def create_profile_in_batches(
    objects: PlayedObjects, namespace: str, batches: Collection[str], **stage: Any
) -> None:
    """A profile of one stage in its own namespace."""
    body = copy.deepcopy(manifest("GpuProfile"))
    body["metadata"] = {"name": "p", "namespace": namespace}
    only = {"name": "only", "namespace": namespace, "guardSeconds": 0, "batches": list(batches)}
    body["spec"]["rollout"] = {"stages": [only | stage]}
    await objects.create(PROFILE, namespace, body)


async def play_stacks(objects: PlayedObjects, namespace: str, broken_in: str = "") -> None:
    """Pods become ready; those with the profile's value crash in the stacks that are `broken_in`."""
    for pod in await objects.list(POD, namespace):
        if "containerStatuses" in pod.get("status", {}) or "deletionTimestamp" in pod["metadata"]:
            continue
        stack = pod["metadata"]["labels"]["app"].rpartition("-")[2]
        has_value = {"name": SIZE, "value": "tiny"} in pod["spec"]["containers"][0].get("env", [])
        await (play_crashing if stack in broken_in and has_value else play_ready)(objects, pod)


async def down(objects: PlayedObjects, namespace: str) -> set[str]:
    """The stacks of which a Deployment has no ready pod."""
    return {
        it["metadata"]["labels"][STACK]
        for it in await objects.list(DEPLOYMENT, namespace)
        if it["spec"]["replicas"] == 0 or not it.get("status", {}).get("readyReplicas")
    }


async def sizes(objects: PlayedObjects, namespace: str) -> dict[str, str]:
    """Stack to the value of its variable."""
    found: dict[str, str] = {}
    for it in await objects.list(DEPLOYMENT, namespace, {PART: "stt"}):
        (entry,) = it["spec"]["template"]["spec"]["containers"][0]["env"]
        found[it["metadata"]["labels"][STACK]] = entry["value"]
    return found


async def touched(objects: PlayedObjects, namespace: str) -> set[str]:
    """The stacks of which a Deployment's spec was ever changed."""
    return {
        it["metadata"]["labels"][STACK]
        for it in await objects.list(DEPLOYMENT, namespace)
        if it["metadata"]["generation"] > 1
    }


async def one_pass(objects: PlayedObjects, namespace: str, later: float = 0) -> timedelta | None:
    """A pass at a time that lies `later` seconds ahead."""
    body = await objects.get(PROFILE, namespace, "p")
    try:
        return await profile_reconciler(objects).reconcile(body, datetime.now(UTC) + timedelta(seconds=later))
    except ConflictError:
        return timedelta()


async def status_of(objects: PlayedObjects, namespace: str) -> Object:
    """The profile's."""
    return (await objects.get(PROFILE, namespace, "p")).get("status", {})


async def until(
    objects: PlayedObjects, namespace: str, phase: str, batch: int | None = None, broken_in: str = "", later: float = 0
) -> Object:
    """Passes until the stage is in a phase, and in a batch if one is named; its state then."""
    found: Object = {}

    async def is_there() -> bool:
        nonlocal found
        await one_pass(objects, namespace, later)
        await play_stacks(objects, namespace, broken_in)
        stages: list[Object] = (await status_of(objects, namespace)).get("stages", [])
        found = stages[0] if stages else {}
        return found.get("phase") == phase and batch in {None, found.get("batch")}

    await eventually(is_there, f"the stage is {phase} in batch {batch}")
    return found


async def until_reason(objects: PlayedObjects, namespace: str, reason: str) -> str:
    """Passes until the profile waits for a reason; the message."""
    message = ""

    async def is_there() -> bool:
        nonlocal message
        await one_pass(objects, namespace)
        await play_stacks(objects, namespace)
        status = await status_of(objects, namespace)
        found = [it for it in status.get("conditions", ()) if (it["type"], it["reason"]) == ("Progressing", reason)]
        message = found[0]["message"] if found else ""
        return bool(found)

    await eventually(is_there, f"the profile waits for {reason}")
    return message
