"""Which workloads a stage means: what the grants of its namespace allow, and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cotune.api.batches import MOST_STACKS, MOST_WORKLOADS
from cotune.api.downtime import DowntimeBudget
from cotune.api.grant import GrantSpec, GrantTarget, Permission
from cotune.api.profile import Change, ProfileSpec
from cotune.api.quantities import canonical
from cotune.rollout.stacks import (
    Bound,
    LabelledWorkload,
    appeared,
    bound,
    component_of,
    key_of,
    selects,
    stack_of,
    stacks_in,
)
from cotune.rollout.state import StoredRevision


@dataclass(frozen=True)
class Targets:
    """The workload of every component of the stack, in the order in which they start, one stack after the other."""

    by_component: Mapping[str, GrantTarget]
    """By the components' keys (`cotune.rollout.stacks`)."""
    budgets: tuple[DowntimeBudget, ...] = ()
    """What the namespace's owner lets a stage cost: all of them hold."""
    appeared: tuple[str, ...] = ()
    """Stacks that were not there when the stage began."""
    may_surge: bool = False
    """Whether the owner lets copies of all of them run beside them; never of several stacks."""

    @property
    def stacks(self) -> tuple[str, ...]:
        """The stacks that a grant selects, in the order of their names; none: the grants name the only one."""
        return stacks_in(self.by_component)


@dataclass(frozen=True)
class Refusal:
    """Why a stage may not be touched, as a condition says it."""

    reason: str
    message: str


def resolve(
    spec: ProfileSpec,
    source: str,
    namespace: str,
    grants: Sequence[GrantSpec],
    workloads: Sequence[LabelledWorkload] = (),
) -> Targets | Refusal:
    """The targets of a profile of namespace `source` in a stage's namespace.

    Args:
        spec: the profile.
        source: its namespace.
        namespace: the stage's.
        grants: all that are there.
        workloads: the Deployments there that some grant selects.
    """
    invited = inviting(source, grants)
    if not invited:
        return _uninvited(source, namespace)
    bindings = [it for grant in invited for it in bound(grant, workloads)]
    selecting = [it for grant in invited for it in grant.targets if it.workload_selector is not None]
    stacks: Sequence[str] = [""]
    if any(it.component in spec.start_order for it in selecting):
        found_stacks = _stacks(spec, namespace, bindings)
        if isinstance(found_stacks, Refusal):
            return found_stacks
        stacks = found_stacks
    found: dict[str, GrantTarget] = {}
    for stack in stacks:
        for component in spec.start_order:
            known = [it.target for it in bindings if (it.stack, it.target.component) == (stack, component)]
            target = _target(spec, namespace, stack, component, known)
            if isinstance(target, Refusal):
                return target
            found[key_of(stack, component)] = target
    may_surge = not stacks_in(found) and _may_surge(spec, found, invited)
    return Targets(found, _budgets(invited), may_surge=may_surge)


def _stacks(spec: ProfileSpec, namespace: str, bindings: Sequence[Bound]) -> Sequence[str] | Refusal:
    """The names of the stacks, in order, if each has one workload of each component."""
    own = [it for it in bindings if it.target.component in spec.start_order]
    if named := [it.target.workload.name for it in own if not it.is_selected]:
        message = f"grants in namespace {namespace} select stacks, and name Deployment {', '.join(named)} beside them"
        return Refusal("AmbiguousGrant", message)
    if nameless := sorted({it.target.workload.name for it in own if not it.stack}):
        message = (
            f"namespace {namespace}: Deployment {', '.join(nameless)} is selected and lacks the grant's stackLabel"
        )
        return Refusal("StackIncomplete", message)
    stacks = sorted({it.stack for it in own})
    if not stacks:
        message = f"namespace {namespace} has no Deployment that the grant's workloadSelectors match"
        return Refusal("WorkloadNotFound", message)
    missing: list[str] = []
    doubled: list[str] = []
    for stack in stacks:
        for component in spec.start_order:
            names = sorted({it.target.workload.name for it in own if _is_of(it, stack, component)})
            if not names:
                missing.append(f"stack {stack} has no Deployment of {component}")
            elif len(names) > 1:
                doubled.append(f"stack {stack} has {len(names)} Deployments of {component}: {', '.join(names)}")
    if missing:
        return Refusal("StackIncomplete", f"namespace {namespace}: {_listed(missing)}")
    if doubled:
        return Refusal("StackAmbiguous", f"namespace {namespace}: {_listed(doubled)}")
    if len(stacks) > MOST_STACKS or len(stacks) * len(spec.start_order) > MOST_WORKLOADS:
        message = (
            f"namespace {namespace} has {len(stacks)} stacks of {len(spec.start_order)} workloads: a stage takes "
            f"{MOST_STACKS} stacks and {MOST_WORKLOADS} workloads at most"
        )
        return Refusal("TooManyStacks", message)
    return stacks


def _is_of(it: Bound, stack: str, component: str) -> bool:
    return (it.stack, it.target.component) == (stack, component)


def _target(
    spec: ProfileSpec, namespace: str, stack: str, component: str, targets: Sequence[GrantTarget]
) -> GrantTarget | Refusal:
    """The target of one component that lets it have what the profile changes."""
    who = key_of(stack, component)
    if not targets:
        return Refusal("WorkloadNotFound", f"no grant in namespace {namespace} names a workload for {who}")
    if len({(it.workload, it.container) for it in targets}) > 1:
        return Refusal("AmbiguousGrant", f"grants in namespace {namespace} name several workloads for {who}")
    needed = [it for it in spec.changes if it.component == component]
    granted = [it for it in targets if all(_allows(it, change) for change in needed)]
    if not granted:
        wanted = ", ".join(f"{it.env}={it.to}" for it in needed)
        return Refusal("ChangeNotGranted", f"no grant in namespace {namespace} lets {who} have {wanted}")
    return granted[0]


def still_granted(
    spec: ProfileSpec,
    source: str,
    namespace: str,
    grants: Sequence[GrantSpec],
    workloads: Sequence[LabelledWorkload],
    begun: Mapping[str, GrantTarget],
) -> Targets | Refusal:
    """The targets of a stage of several stacks that has begun, if the grants still mean each of them.

    A workload that has appeared since is no reason to turn back, nor is one that is gone: it is waited for.

    Args:
        spec: the profile.
        source: its namespace.
        namespace: the stage's.
        grants: all that are there.
        workloads: the Deployments there that some grant selects.
        begun: key to the workload that was meant when the stage began.
    """
    invited = inviting(source, grants)
    if not invited:
        return _uninvited(source, namespace)
    labels = {it.name: it.labels for it in workloads}
    for key, meant in begun.items():
        component, name = component_of(key), meant.workload.name
        known = [
            target
            for grant in invited
            for target in grant.targets
            if (target.component, target.container) == (component, meant.container)
            and target.workload_selector is not None
            and (
                name not in labels
                or (selects(target, labels[name]) and labels[name].get(grant.stack_label or "") == stack_of(key))
            )
        ]
        if not known:
            message = f"no grant in namespace {namespace} selects Deployment {name} for {key} any more"
            return Refusal("WorkloadNotFound", message)
        allowed = _target(
            spec, namespace, stack_of(key), component, [it.model_copy(update=_names(meant)) for it in known]
        )
        if isinstance(allowed, Refusal):
            return allowed
    return Targets(begun, _budgets(invited), tuple(appeared(invited, workloads, stacks_in(begun))))


def _names(meant: GrantTarget) -> dict[str, object]:
    return {"workload_ref": meant.workload, "workload_selector": None}


def _budgets(invited: Sequence[GrantSpec]) -> tuple[DowntimeBudget, ...]:
    return tuple(it.downtime_budget for it in invited if it.downtime_budget is not None)


def _listed(what: Sequence[str]) -> str:
    more = f"; and {len(what) - 8} more" if len(what) > 8 else ""
    return "; ".join(what[:8]) + more


def not_granted(
    stored: StoredRevision,
    source: str,
    namespace: str,
    grants: Sequence[GrantSpec],
    workloads: Sequence[LabelledWorkload] = (),
) -> Refusal | None:
    """Why today's grants do not let a namespace have a stored revision of its own; None: they do.

    Values of a template that cotune had not marked were its owner's: nobody has to grant those.
    """
    invited = inviting(source, grants)
    if not invited:
        return _uninvited(source, namespace)
    for it in stored.revision.workloads:
        meant = stored.targets[it.component]
        targets = [target for grant in invited for target in _meaning(grant, workloads, it.component, meant)]
        if not targets:
            workload = f"Deployment {meant.workload.name}, container {meant.container}"
            return Refusal("WorkloadNotFound", f"no grant in namespace {namespace} names {workload} for {it.component}")
        if stored.markers[it.component] is None:
            continue
        wanted = {env: value for env, value in it.values.items() if value is not None}
        if not any(all(_has(target, env, value) for env, value in wanted.items()) for target in targets):
            said = ", ".join(f"{env}={value}" for env, value in wanted.items())
            return Refusal("ChangeNotGranted", f"no grant in namespace {namespace} lets {it.component} have {said}")
    return None


def ignored_by_git_ops(
    stored: StoredRevision,
    source: str,
    grants: Sequence[GrantSpec],
    workloads: Sequence[LabelledWorkload] = (),
) -> frozenset[str]:
    """The components of a stored revision of whose workload the owner says today that its GitOps tool ignores them."""
    invited = inviting(source, grants)
    return frozenset(
        name
        for name, meant in stored.targets.items()
        if any(it.ignored_by_git_ops for grant in invited for it in _meaning(grant, workloads, name, meant))
    )


def _may_surge(spec: ProfileSpec, found: Mapping[str, GrantTarget], inviting: Sequence[GrantSpec]) -> bool:
    """Whether grants with that permission name each workload, with the values that its copy would have."""
    theirs = [target for it in inviting if Permission.SURGE in it.allow for target in it.targets]
    return all(
        any(
            (it.component, it.workload_ref, it.container) == (name, meant.workload, meant.container)
            and all(_allows(it, change) for change in spec.changes if change.component == name)
            for it in theirs
        )
        for name, meant in found.items()
    )


def _meaning(
    grant: GrantSpec, workloads: Sequence[LabelledWorkload], key: str, meant: GrantTarget
) -> Sequence[GrantTarget]:
    """The targets of a grant that mean a workload, and its container, by this key."""
    return [
        it.target
        for it in bound(grant, workloads)
        if (key_of(it.stack, it.target.component), it.target.workload, it.target.container)
        == (key, meant.workload, meant.container)
    ]


def inviting(source: str, grants: Sequence[GrantSpec]) -> Sequence[GrantSpec]:
    """The grants that allow rollouts from a namespace."""
    return [
        it for it in grants if Permission.ROLLOUT in it.allow and any(origin.namespace == source for origin in it.from_)
    ]


def _uninvited(source: str, namespace: str) -> Refusal:
    return Refusal("NoGrant", f"no GpuTuningGrant in namespace {namespace} allows a rollout from {source}")


def _allows(target: GrantTarget, change: Change) -> bool:
    return _has(target, change.env, change.to)


def _has(target: GrantTarget, env: str, value: str) -> bool:
    if env not in target.env:
        return False
    return target.values is None or canonical(value) in {canonical(it) for it in target.values}
