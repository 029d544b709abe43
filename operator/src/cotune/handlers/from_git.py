"""What a pass does for workloads that a GitOps tool keeps, and for stages whose values come through Git."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime

from cotune.api.conditions import with_condition
from cotune.api.grant import GrantTarget, WorkloadRef
from cotune.api.profile import ProfilePhase, ProfileSpec, ProfileStatus, Stage, StageStatus
from cotune.cluster.objects import Object, Objects
from cotune.cluster.revisions import Revisions, StoredRevision
from cotune.cluster.workloads import Workload
from cotune.gitops.ownership import Kept, kept
from cotune.handlers.statuses import condition
from cotune.rollout.git import Place, shows_any, to_commit
from cotune.rollout.progress import Waiting, by_name
from cotune.rollout.state import Revision, WorkloadRevision

MANAGED = "ManagedByGitOps"


def keepers(spec: ProfileSpec, found: Mapping[str, Workload]) -> dict[str, Kept]:
    """Who keeps which component's workload as Git has it; what its owner says is ignored does not count as Git's."""
    variables = {name: {it.env for it in spec.changes if it.component == name} for name in found}
    return keepers_of(found, variables, {name for name, it in found.items() if it.target.ignored_by_git_ops})


def keepers_of(
    found: Mapping[str, Workload], variables: Mapping[str, Collection[str]], ignored: Collection[str]
) -> dict[str, Kept]:
    """The same for any variables of the workloads, by component; of the `ignored` ones no field counts as Git's."""
    kept_by: dict[str, Kept] = {}
    for name, it in found.items():
        if (keeper := kept(it.deployment, it.target.container, variables[name])) is not None:
            kept_by[name] = replace(keeper, fields=()) if name in ignored else keeper
    return kept_by


def undone(stage: Stage, found: Mapping[str, Workload], kept_by: Mapping[str, Kept]) -> Waiting | None:
    """Why a stage must not be changed in the cluster: Git would undo it, or would be undone by it."""
    told = [
        f"{it.by} keeps Deployment {found[name].name} and has in Git: {', '.join(it.fields)}"
        for name, it in kept_by.items()
        if it.fields
    ]
    if not told:
        return None
    message = f"namespace {stage.namespace}: {'; '.join(told)}. Take them out of Git, or roll out with strategy Git"
    return Waiting("ManagedByGitOps", message, is_stalled=True)


def with_managed(
    status: ProfileStatus,
    stage: Stage,
    found: Mapping[str, Workload],
    kept_by: Mapping[str, Kept],
    generation: int,
    now: datetime,
) -> ProfileStatus:
    """The status that also says who keeps the workloads of the stage that is to begin."""
    told = "; ".join(f"Deployment {found[name].name} by {it.by}" for name, it in kept_by.items())
    message = f"stage {stage.name}, namespace {stage.namespace}: {told}"
    if kept_by:
        reason = str(next(iter(kept_by.values())).tool)
        seen = condition(MANAGED, True, generation, now, reason, message)
    elif any(it.type == MANAGED for it in status.conditions):
        seen = condition(MANAGED, False, generation, now, "NotRecognised", f"{message}no workload")
    else:
        return status
    return status.model_copy(update={"conditions": with_condition(status.conditions, seen)})


def places(found: Mapping[str, Workload]) -> dict[str, Place]:
    """Component to where its variables stand."""
    return {name: Place(it.name, it.target.container) for name, it in found.items()}


def awaits_commit(status: ProfileStatus) -> bool:
    """Whether the profile waits for somebody to commit its values: nobody waits for it meanwhile."""
    return any((it.type, it.reason) == ("Progressing", "AwaitingCommit") for it in status.conditions)


def awaiting(body: Object, spec: ProfileSpec, stage: Stage, found: Mapping[str, Workload]) -> Waiting:
    """What is to be committed."""
    observed = {name: it.observed for name, it in found.items()}
    metadata = body["metadata"]
    left = to_commit(spec.changes, observed, places(found))
    command = f"kubectl cotune export {metadata['name']} -n {metadata['namespace']} --stage {stage.name}"
    return Waiting("AwaitingCommit", f"stage {stage.name} waits for Git: {left}; `{command}` prints the patch")


async def recorded(
    objects: Objects,
    body: Object,
    spec: ProfileSpec,
    status: ProfileStatus,
    stage: Stage,
    found: Mapping[str, Workload],
    now: datetime,
) -> StageStatus:
    """The stage's record of what was there before its values: it is kept from before the first of them is seen.

    Replicas are no part of the comparison: they are Git's, or an autoscaler's.
    """
    revisions = Revisions(objects, stage.namespace)
    state = by_name(status).get(stage.name)
    current = Revision(
        tuple(WorkloadRevision(it, found[it].observed.values, found[it].observed.replicas) for it in spec.start_order)
    )
    observed = {name: it.observed for name, it in found.items()}
    # Without a revision it has only measured: under strategy Direct, before that was edited.
    if state is not None and state.phase is ProfilePhase.PENDING and state.revision is not None:
        before = await revisions.find(state.last_good_revision or "")
        target = await revisions.find(state.revision or "")
        is_known = before is not None and target is not None
        is_known = is_known and _places(before) == {name: _place(it.target) for name, it in found.items()}
        if is_known and (shows_any(spec.changes, observed) or _values(before) == _values_of(current)):
            return state
    targets = {name: it.target for name, it in found.items()}
    after = current.with_values({(it.component, it.env): it.to for it in spec.changes})
    metadata = body["metadata"]
    profile = f"{metadata['namespace']}/{metadata['name']}"
    markers = {name: it.marker for name, it in found.items()}
    # What came with the commit may never have stood ready: it is the record of a moment, and nowhere to go back to.
    is_good = all(it.is_ready and it.replicas for it in observed.values())
    last_good = await revisions.ensure(current, targets, markers if is_good else None, profile)
    target = await revisions.ensure(after, targets, None, profile)
    marked = {it for it in markers.values() if it is not None}
    await revisions.prune(targets, {last_good.name, target.name, *marked})
    return StageStatus(
        name=stage.name,
        phase=ProfilePhase.PENDING,
        phase_started_at=now,
        revision=target.name,
        last_good_revision=last_good.name,
        probe=state.probe if state is not None else None,
    )


def begun_from_git(state: StageStatus, now: datetime) -> StageStatus:
    """The stage from the moment on at which its workloads have the values."""
    message = f"from revision {state.last_good_revision} to {state.revision}, through Git"
    update = {"phase": ProfilePhase.PROGRESSING, "started_at": now, "phase_started_at": now, "message": message}
    return state.model_copy(update=update)


def _places(stored: StoredRevision | None) -> Mapping[str, tuple[WorkloadRef, str]]:
    return {name: _place(it) for name, it in stored.targets.items()} if stored is not None else {}


def _place(target: GrantTarget) -> tuple[WorkloadRef, str]:
    return target.workload, target.container


def _values(stored: StoredRevision | None) -> Mapping[str, Mapping[str, str | None]]:
    return _values_of(stored.revision) if stored is not None else {}


def _values_of(revision: Revision) -> Mapping[str, Mapping[str, str | None]]:
    return {it.component: dict(it.values) for it in revision.workloads}
