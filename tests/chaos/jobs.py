"""What the operator does, job by job, each from its beginning to its end on a real API server."""

import functools
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta

from apiserver.test_copies import create_experiment as create_simpler
from apiserver.test_copies import create_target, trials
from apiserver.test_copies import play_trials as play_copies
from apiserver.test_gitops import kept_stage
from apiserver.test_reconcilers import (
    create_experiment,
    create_profile,
    create_stage,
    drive,
    experiment_reconciler,
    experiment_run,
    first_trial,
    play_trial_pods,
    play_trials,
    play_workloads,
    profile_reconciler,
    templates,
    trial_reconciler,
    trial_run,
)
from cotune.api.grant import GrantSpec
from cotune.cluster.cards import ANNOTATION_QUARANTINED_UNTIL, Cards
from cotune.cluster.downtimes import KEPT as RECORDS_KEPT
from cotune.cluster.downtimes import Downtimes
from cotune.cluster.events import Events
from cotune.cluster.kinds import CONTROLLER_REVISION, DEPLOYMENT, EXPERIMENT, GRANT, LEASE, POD, PROFILE, SERVICE, TRIAL
from cotune.cluster.objects import Object
from cotune.cluster.quiesces import NAME as QUIESCED
from cotune.cluster.revisions import KEPT, Revisions
from cotune.handlers.card_memory import CardMemory
from cotune.handlers.profile import ProfileReconciler
from cotune.rollout.downtime import Outage
from cotune.rollout.state import Revision, WorkloadRevision
from support.played_agents import PlayedAgent, answering
from support.played_cluster import PlayedObjects, eventually, new_namespace, play_node
from support.played_git import KUSTOMIZE, play_values
from support.played_probes import AGAINST, PlayedKubelet, create_probed_stage, gate, probe_pods
from support.played_quiesce import create_production, create_quiescing, passes_of_trials, trial_pods
from support.played_stacks import create_stacks, play_stacks
from support.played_stage import play_pods_on_a_node
from support.resources import manifest

Job = Callable[[PlayedObjects, str], Awaitable[Object]]
"""Does it in a namespace; what is there in the end. The same every time, whatever happens on the way."""

MADE = {"GpuTrial", "GpuProfile", "Pod", "Service", "ControllerRevision", "Lease"}
_CARD_NODE = "chaos-card"
OURS = {"app.kubernetes.io/managed-by": "cotune"}


async def experiment(objects: PlayedObjects, namespace: str) -> Object:
    """Two candidates, a verdict, a profile; the trials are played."""
    _, end = await experiment_run(objects, namespace, None)
    return end | _once(objects)


async def trial(objects: PlayedObjects, namespace: str) -> Object:
    """One candidate on one card."""
    _, end = await trial_run(objects, namespace, None)
    return {key: value for key, value in end.items() if key != "created"} | _once(objects)


async def trial_on_a_failing_card(objects: PlayedObjects, namespace: str) -> Object:
    """A trial that is Invalid, on a card that others had before, and that is left alone for a while."""
    given_back: Object = {"apiVersion": LEASE.api_version, "kind": LEASE.name, "spec": {"holderIdentity": ""}}
    await objects.create(LEASE, namespace, given_back | {"metadata": {"name": "card-lab"}})
    await create_experiment(objects, namespace, shares=True)
    name = await first_trial(objects, namespace)
    play = functools.partial(play_trial_pods, objects, namespace, name, xids=[79])

    async def one_pass(body: Object, now: datetime) -> timedelta | None:
        return await trial_reconciler(objects, namespace).reconcile(body, now)

    await drive(objects, TRIAL, namespace, name, one_pass, play, None)
    status = (await objects.get(TRIAL, namespace, name))["status"]
    lease = await objects.get(LEASE, namespace, "card-lab")
    return {
        "outcome": (status["phase"], status["reason"], status["measurements"]),
        "holder": await Cards(objects, namespace).holder("lab"),
        "quarantined": ANNOTATION_QUARANTINED_UNTIL in lease["metadata"].get("annotations", {}),
        "left": [await objects.list(kind, namespace) for kind in (POD, SERVICE)],
        **_once(objects),
    }


async def rollout(objects: PlayedObjects, namespace: str, broken: bool = False) -> Object:
    """A profile over staging and production; with `broken`, its values let nothing start."""
    production = await new_namespace(objects)
    return await roll_out(objects, namespace, {"staging": namespace, "production": production}, broken)


async def rollback(objects: PlayedObjects, namespace: str) -> Object:
    """The same with values that let nothing start: production is never touched."""
    return await rollout(objects, namespace, broken=True)


async def rollout_over_old_revisions(objects: PlayedObjects, namespace: str) -> Object:
    """A stage whose namespace keeps more revisions, and more records of downtime, than are kept."""
    await create_stage(objects, namespace)
    [grant] = await objects.list(GRANT, namespace)
    targets = {it.component: it for it in GrantSpec.model_validate(grant["spec"]).targets}
    for replicas in range(2, KEPT + 4):
        state = Revision(tuple(WorkloadRevision(it, {}, replicas) for it in ("judge", "stt")))
        await Revisions(objects, namespace).ensure(state, targets, None, "x/old")
    for minutes in range(1, RECORDS_KEPT + 2):
        ended = datetime(2026, 1, 1, 12, tzinfo=UTC) - timedelta(minutes=minutes)
        await Downtimes(objects, namespace).record(Outage("x/old", "only", ended, ended), "old")
    end = await roll_out(objects, namespace, {"only": namespace}, broken=False, is_made=True)
    # One more may stay until the next stage: what is listed may be older than the newest.
    kept = end.pop("revisions")["only"]
    [stage] = (await objects.get(PROFILE, namespace, "p"))["status"]["stages"]
    outages = await Downtimes(objects, namespace).outages()
    end["downtimes"] = {
        "own": sum(it.profile != "x/old" for it in outages),
        "is pruned": len(outages) <= RECORDS_KEPT + 1,
    }
    in_use = {stage["revision"], stage["lastGoodRevision"]} <= set(kept)
    return end | {"in use": in_use, "is pruned": KEPT <= len(kept) <= KEPT + 1}


async def rollback_to_a_revision(objects: PlayedObjects, namespace: str) -> Object:
    """A promoted stage that is taken back to what it had before, and forth again."""
    end = await roll_out(objects, namespace, {"only": namespace}, broken=False)
    [stage] = (await objects.get(PROFILE, namespace, "p"))["status"]["stages"]
    taken: list[Object] = []
    for revision in (stage["lastGoodRevision"], stage["revision"]):
        body = await objects.get(PROFILE, namespace, "p")
        stages = [body["spec"]["rollout"]["stages"][0] | {"toRevision": revision}]
        await objects.merge(PROFILE, namespace, "p", {"spec": {"rollout": {"stages": stages}}})

        async def one_pass(body: Object, now: datetime) -> timedelta | None:
            return await profile_reconciler(objects).reconcile(body, now)

        async def play() -> None:
            await play_workloads(objects, namespace, False)

        await drive(objects, PROFILE, namespace, "p", one_pass, play, None)
        after = await objects.get(PROFILE, namespace, "p")
        [state] = after["status"]["stages"]
        asked = {name: state["asked"][name] for name in ("revision", "outcome")}
        values = {name: template["spec"] for name, (template, _) in (await templates(objects, namespace)).items()}
        taken.append({"phase": state["phase"], "asked": asked, "values": values})
    return {
        "promoted": end["phase"],
        "taken": taken,
        "finalizers": after["metadata"].get("finalizers", []),
        "changes": await _changes(objects, namespace),
        "revisions": await _revisions(objects, namespace),
        **_once(objects),
    }


async def deletion(objects: PlayedObjects, namespace: str) -> Object:
    """A profile that is deleted in the middle of its stage."""
    await create_stage(objects, namespace)
    before = await templates(objects, namespace)
    await create_profile(objects, namespace, namespace)
    is_deleted = False

    async def one_pass(body: Object, now: datetime) -> timedelta | None:
        return await profile_reconciler(objects).reconcile(body, now)

    async def play() -> None:
        nonlocal is_deleted
        await play_workloads(objects, namespace, False)
        changed, _ = (await templates(objects, namespace))["whisper"]
        if not is_deleted and changed != before["whisper"][0]:
            is_deleted = True
            await objects.delete(PROFILE, namespace, "p")

    await drive(objects, PROFILE, namespace, "p", one_pass, play, None)
    return {
        "profile": await objects.find(PROFILE, namespace, "p"),
        "is as before": await templates(objects, namespace) == before,
        "changes": await _changes(objects, namespace),
        "revisions": await _revisions(objects, namespace),
    }


async def surge(objects: PlayedObjects, namespace: str) -> Object:
    """A stage whose stack is changed behind a bridge: the bridge comes and goes, and is made once."""
    await create_stage(objects, namespace)
    await objects.merge(GRANT, namespace, "from-the-lab", {"spec": {"allow": ["Rollout", "Surge"]}})
    end = await roll_out(objects, namespace, {"only": namespace}, broken=False, is_made=True)
    [stage] = (await objects.get(PROFILE, namespace, "p"))["status"]["stages"]
    return end | {"surge": (stage["surge"]["phase"], stage["surge"]["reason"])}


async def stage_beside_held_memory(objects: PlayedObjects, namespace: str) -> Object:
    """A stage whose first pods hold memory on the card after Kubernetes has forgotten them; agents are played."""
    await play_node(objects, _CARD_NODE, {"kubernetes.io/hostname": _CARD_NODE}, dedicated=False)
    await create_stage(objects, namespace, card_node=_CARD_NODE)

    async def are_ready() -> bool:
        await play_pods_on_a_node(objects, namespace)
        found = await objects.list(DEPLOYMENT, namespace)
        return all(it.get("status", {}).get("readyReplicas") == it["spec"]["replicas"] for it in found)

    await eventually(are_ready, "a ready pod of each workload")  # How often a stage waits for that would differ.
    await create_profile(objects, namespace, namespace)
    first = {str(it["metadata"]["uid"]) for it in await objects.list(POD, namespace)}
    agent = PlayedAgent(_CARD_NODE, held=dict.fromkeys(first, 4200.0), frees_after=5)
    beside: set[str] = set()

    async def play() -> None:
        await play_pods_on_a_node(objects, namespace)
        if agent.held:
            beside.update(str(it["metadata"]["uid"]) for it in await objects.list(POD, namespace))

    async with answering(agent) as agents:

        async def one_pass(body: Object, now: datetime) -> timedelta | None:
            memory = CardMemory(agents)
            return await ProfileReconciler(objects, Events(objects, "test"), memory=memory).reconcile(body, now)

        await drive(objects, PROFILE, namespace, "p", one_pass, play, None)
    after = await objects.get(PROFILE, namespace, "p")
    [stage] = after["status"]["stages"]
    return {
        "phase": stage["phase"],
        "memory": stage.get("memory"),
        "was asked": len(agent.asked) > 5,
        "started beside what is held": len(beside - first),
        "finalizers": after["metadata"].get("finalizers", []),
        "changes": await _changes(objects, namespace),
        **_once(objects),
    }


async def stage_through_git(objects: PlayedObjects, namespace: str) -> Object:
    """A stage whose values are committed once it waits for them: no workload is written to."""
    await kept_stage(objects, namespace, KUSTOMIZE, "Git")
    is_committed = False

    async def one_pass(body: Object, now: datetime) -> timedelta | None:
        return await profile_reconciler(objects).reconcile(body, now)

    async def play() -> None:
        nonlocal is_committed
        await play_values(objects, namespace)
        if not is_committed and await _phases(objects, namespace):
            is_committed = True
            await KUSTOMIZE.sync(objects, namespace, size="tiny")

    await drive(objects, PROFILE, namespace, "p", one_pass, play, None)
    return {
        "stages": await _phases(objects, namespace),
        "templates": await templates(objects, namespace),
        "changes": await _changes(objects, namespace),
        "revisions": await _revisions(objects, namespace),
        **_once(objects),
    }


async def stage_with_a_probe(objects: PlayedObjects, namespace: str) -> Object:
    """A stage that measures itself before it begins, and while it bakes."""
    await create_probed_stage(objects, namespace, [gate(againstBaseline=AGAINST, deadlineSeconds=600)])
    kubelet = PlayedKubelet(objects, namespace)

    async def one_pass(body: Object, now: datetime) -> timedelta | None:
        return await profile_reconciler(objects).reconcile(body, now)

    await drive(objects, PROFILE, namespace, "p", one_pass, kubelet.play, None)
    [state] = (await objects.get(PROFILE, namespace, "p"))["status"]["stages"]
    measured = {
        series: [(it["number"], it.get("error", ""), it["measurements"]) for it in state["probe"][series]]
        for series in ("baseline", "runs")
    }
    return {
        "stages": await _phases(objects, namespace),
        "measured": measured,
        "gate": state["gates"][0]["outcome"],
        "pods of probes": await probe_pods(objects, namespace),
        "changes": await _changes(objects, namespace),
        **_once(objects),
    }


async def batches(objects: PlayedObjects, namespace: str) -> Object:
    """Four stacks in three batches; in the second one a stack does not come up: what was changed goes back."""
    await create_stacks(objects, namespace, "abcd", ["1", "75%", "100%"])
    before = await templates(objects, namespace)

    async def one_pass(body: Object, now: datetime) -> timedelta | None:
        return await profile_reconciler(objects).reconcile(body, now)

    async def play() -> None:
        await play_stacks(objects, namespace, broken_in="c")

    await drive(objects, PROFILE, namespace, "p", one_pass, play, None)
    after = await objects.get(PROFILE, namespace, "p")
    [stage] = after["status"]["stages"]
    return {
        "phase": stage["phase"],
        "batches": [(it["stacks"], it.get("startedAt") is not None) for it in stage["batches"]],
        "finalizers": after["metadata"].get("finalizers", []),
        "is as before": await templates(objects, namespace) == before,
        "changes": await _changes(objects, namespace),
        "revisions": await _revisions(objects, namespace),
        "downtimes": len(await Downtimes(objects, namespace).outages()),
        **_once(objects),
    }


async def experiment_on_a_copy(objects: PlayedObjects, namespace: str) -> Object:
    """An experiment that is simpler than its first stage: its change is validated on a copy of what runs there."""
    target = await create_target(objects, namespace, "CopySpec")
    await create_simpler(objects, namespace, target)

    async def one_pass(body: Object, now: datetime) -> timedelta | None:
        return await experiment_reconciler(objects).reconcile(body, now)

    await drive(
        objects, EXPERIMENT, namespace, "voice", one_pass, functools.partial(play_copies, objects, namespace), None
    )
    status = (await objects.get(EXPERIMENT, namespace, "voice"))["status"]
    return {
        "phase": status["phase"],
        "validation": [(it["parameter"], it["value"], it["reason"]) for it in status["validation"]["changes"]],
        "trials": [(purpose, value, ref is not None) for purpose, value, ref in await trials(objects, namespace)],
        "copies": len(await objects.list(CONTROLLER_REVISION, namespace)),
        "profiles": [it["spec"]["changes"] for it in await objects.list(PROFILE, namespace)],
        **_once(objects),
    }


async def quiesce(objects: PlayedObjects, namespace: str) -> Object:
    """An experiment from its beginning to its end, for which production is stopped once; the trials are played."""
    production = await new_namespace(objects)
    await create_production(objects, production, namespace)
    before = await templates(objects, production)
    await create_quiescing(objects, namespace, production)

    async def one_pass(body: Object, now: datetime) -> timedelta | None:
        return await experiment_reconciler(objects).reconcile(body, now)

    async def play() -> None:
        await play_trials(objects, namespace)
        await play_workloads(objects, production, False)

    await drive(objects, EXPERIMENT, namespace, "voice", one_pass, play, None)
    after = await objects.get(EXPERIMENT, namespace, "voice")
    return {
        "phase": after["status"]["phase"],
        "production": (after["status"]["quiesce"]["phase"], after["status"]["quiesce"]["reason"]),
        "verdict": after["status"]["verdict"]["outcome"],
        "finalizers": after["metadata"].get("finalizers", []),
        **await _production(objects, production, before),
        **_once(objects),
    }


async def quiesce_that_ends_early(objects: PlayedObjects, namespace: str) -> Object:
    """An experiment that is deleted while one of its trials measures in production's place."""
    production = await new_namespace(objects)
    await create_production(objects, production, namespace)
    before = await templates(objects, production)
    await create_quiescing(objects, namespace, production)

    passes = 0
    """Since the deletion."""

    async def one_pass(body: Object, now: datetime) -> timedelta | None:
        nonlocal passes
        again = await experiment_reconciler(objects).reconcile(body, now)
        passes += "deletionTimestamp" in body["metadata"]
        if passes != 1:  # Trials have workers of their own: the experiment's may be the first to find a pod of theirs.
            await passes_of_trials(objects, namespace)
        return again

    async def play() -> None:
        await play_workloads(objects, production, False)
        trials = await objects.list(TRIAL, namespace)
        if any(it.get("status", {}).get("phase") == "Measuring" for it in trials):
            await objects.delete(EXPERIMENT, namespace, "voice")

    await drive(objects, EXPERIMENT, namespace, "voice", one_pass, play, None)
    return {
        "experiment": await objects.find(EXPERIMENT, namespace, "voice"),
        "pods of trials": await trial_pods(objects, namespace),
        **await _production(objects, production, before),
        **_once(objects),
    }


async def _production(objects: PlayedObjects, namespace: str, before: Object) -> Object:
    return {
        "is as before": await templates(objects, namespace) == before,
        "changes": await _changes(objects, namespace),
        "record": await objects.find(CONTROLLER_REVISION, namespace, QUIESCED),
        "downtimes": len(await Downtimes(objects, namespace).outages()),
    }


JOBS: Mapping[str, Job] = {
    "rollout": rollout,
    "rollback": rollback,
    "rollback to a revision": rollback_to_a_revision,
    "deletion in the middle": deletion,
    "rollout over old revisions": rollout_over_old_revisions,
    "surge": surge,
    "stage beside held memory": stage_beside_held_memory,
    "stage through Git": stage_through_git,
    "stage with a probe": stage_with_a_probe,
    "batches": batches,
    "trial": trial,
    "trial on a failing card": trial_on_a_failing_card,
    "experiment": experiment,
    "experiment on a copy": experiment_on_a_copy,
    "quiesce": quiesce,
    "quiesce that ends early": quiesce_that_ends_early,
}


async def roll_out(
    objects: PlayedObjects,
    namespace: str,
    stages: Mapping[str, str],
    broken: bool,
    is_made: bool = False,
    patience_seconds: int = 60,
) -> Object:
    """A profile over these stages, by name and namespace, until it is over.

    Args:
        objects: plays the kubelets unless it has one.
        namespace: of the profile.
        stages: the namespaces.
        broken: the values let nothing start; of what a real kubelet starts, its maker has seen to that.
        is_made: workloads and grants are there.
        patience_seconds: the readiness deadline, and how long the whole may take.
    """
    for stage in stages.values():
        if not is_made:
            await create_stage(objects, stage)
        [grant] = await objects.list(GRANT, stage)
        invited = {"spec": {"from": [{"namespace": namespace}]}}
        await objects.merge(GRANT, stage, grant["metadata"]["name"], invited)
    before = {name: await templates(objects, stage) for name, stage in stages.items()}
    body = manifest("GpuProfile")
    body["metadata"] = {"name": "p", "namespace": namespace}
    body["spec"]["changes"][0] |= {"from": "small", "to": "tiny"}
    # A guard would go on looking after the promotion: the job is over then.
    times = {"readinessDeadlineSeconds": patience_seconds, "bakeSeconds": 0, "guardSeconds": 0}
    body["spec"]["rollout"] = {
        "stages": [{"name": name, "namespace": stage, **times} for name, stage in stages.items()]
    }
    await objects.create(PROFILE, namespace, body)

    async def one_pass(body: Object, now: datetime) -> timedelta | None:
        return await profile_reconciler(objects).reconcile(body, now)

    async def play() -> None:
        phases = await _phases(objects, namespace)
        for number, (name, stage) in enumerate(stages.items()):
            if not objects.has_kubelet:
                await play_workloads(objects, stage, broken)
            earlier = list(stages)[:number]
            if any(phases.get(it) != "Promoted" for it in earlier):
                assert await templates(objects, stage) == before[name], f"{name} was touched before {earlier}"

    await drive(objects, PROFILE, namespace, "p", one_pass, play, None, patience_seconds)
    after = await objects.get(PROFILE, namespace, "p")
    return {
        "phase": after["status"]["phase"],
        "stages": await _phases(objects, namespace),
        "finalizers": after["metadata"].get("finalizers", []),
        "templates": {name: await templates(objects, stage) for name, stage in stages.items()},
        "is as before": {name: await templates(objects, stage) == before[name] for name, stage in stages.items()},
        "changes": {name: await _changes(objects, stage) for name, stage in stages.items()},
        "revisions": {name: await _revisions(objects, stage) for name, stage in stages.items()},
        "downtimes": {name: len(await Downtimes(objects, stage).outages()) for name, stage in stages.items()},
        **_once(objects),
    }


async def _phases(objects: PlayedObjects, namespace: str) -> dict[str, str]:
    status = (await objects.get(PROFILE, namespace, "p")).get("status", {})
    return {it["name"]: it["phase"] for it in status.get("stages", ())}


async def _changes(objects: PlayedObjects, namespace: str) -> dict[str, int]:
    """How often each workload's spec was changed: a change that is made twice counts twice."""
    return {it["metadata"]["name"]: it["metadata"]["generation"] for it in await objects.list(DEPLOYMENT, namespace)}


async def _revisions(objects: PlayedObjects, namespace: str) -> list[str]:
    """Their names, which say what is in them. Numbers only order them, and after a list that is old one comes twice."""
    return sorted(it["metadata"]["name"] for it in await objects.list(CONTROLLER_REVISION, namespace, OURS))


def _once(objects: PlayedObjects) -> Object:
    """What was made, by kind, and what of it more than once: no repeat runs twice."""
    made = [it for it in objects.created if it.split("/")[0] in MADE]
    twice = [name for name, times in Counter(made).items() if times > 1]
    return {"made": dict(Counter(it.split("/")[0] for it in made)), "made twice": twice}
