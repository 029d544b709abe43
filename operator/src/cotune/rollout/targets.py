"""Which workloads a stage means: what the grants of its namespace allow, and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cotune.api.downtime import DowntimeBudget
from cotune.api.grant import GrantSpec, GrantTarget, Permission
from cotune.api.profile import Change, ProfileSpec
from cotune.api.quantities import canonical
from cotune.rollout.state import StoredRevision


@dataclass(frozen=True)
class Targets:
    """The workload of every component of the stack, in the order in which they start."""

    by_component: Mapping[str, GrantTarget]
    budgets: tuple[DowntimeBudget, ...] = ()
    """What the namespace's owner lets a stage cost: all of them hold."""
    may_surge: bool = False
    """Whether the owner lets copies of all of them run beside them."""


@dataclass(frozen=True)
class Refusal:
    """Why a stage may not be touched, as a condition says it."""

    reason: str
    message: str


def resolve(spec: ProfileSpec, source: str, namespace: str, grants: Sequence[GrantSpec]) -> Targets | Refusal:
    """The targets of a profile of namespace `source` in a stage's namespace."""
    inviting = _inviting(source, grants)
    if not inviting:
        return _uninvited(source, namespace)
    found: dict[str, GrantTarget] = {}
    for component in spec.start_order:
        targets = [it for grant in inviting for it in grant.targets if it.component == component]
        if not targets:
            return Refusal("WorkloadNotFound", f"no grant in namespace {namespace} names a workload for {component}")
        if len({(it.workload_ref, it.container) for it in targets}) > 1:
            return Refusal("AmbiguousGrant", f"grants in namespace {namespace} name several workloads for {component}")
        needed = [it for it in spec.changes if it.component == component]
        granted = [it for it in targets if all(_allows(it, change) for change in needed)]
        if not granted:
            wanted = ", ".join(f"{it.env}={it.to}" for it in needed)
            return Refusal("ChangeNotGranted", f"no grant in namespace {namespace} lets {component} have {wanted}")
        found[component] = granted[0]
    budgets = tuple(it.downtime_budget for it in inviting if it.downtime_budget is not None)
    return Targets(found, budgets, _may_surge(spec, found, inviting))


def not_granted(stored: StoredRevision, source: str, namespace: str, grants: Sequence[GrantSpec]) -> Refusal | None:
    """Why today's grants do not let a namespace have a stored revision of its own; None: they do.

    Values of a template that cotune had not marked were its owner's: nobody has to grant those.
    """
    inviting = _inviting(source, grants)
    if not inviting:
        return _uninvited(source, namespace)
    for it in stored.revision.workloads:
        meant = stored.targets[it.component]
        targets = [
            target
            for grant in inviting
            for target in grant.targets
            if (target.component, target.workload_ref, target.container)
            == (meant.component, meant.workload_ref, meant.container)
        ]
        if not targets:
            workload = f"Deployment {meant.workload_ref.name}, container {meant.container}"
            return Refusal("WorkloadNotFound", f"no grant in namespace {namespace} names {workload} for {it.component}")
        if stored.markers[it.component] is None:
            continue
        wanted = {env: value for env, value in it.values.items() if value is not None}
        if not any(all(_has(target, env, value) for env, value in wanted.items()) for target in targets):
            said = ", ".join(f"{env}={value}" for env, value in wanted.items())
            return Refusal("ChangeNotGranted", f"no grant in namespace {namespace} lets {it.component} have {said}")
    return None


def ignored_by_git_ops(stored: StoredRevision, source: str, grants: Sequence[GrantSpec]) -> frozenset[str]:
    """The components of a stored revision of whose workload the owner says today that its GitOps tool ignores them."""
    theirs = [it for grant in _inviting(source, grants) for it in grant.targets if it.ignored_by_git_ops]
    return frozenset(
        name
        for name, meant in stored.targets.items()
        if any(
            (it.component, it.workload_ref, it.container) == (name, meant.workload_ref, meant.container)
            for it in theirs
        )
    )


def _may_surge(spec: ProfileSpec, found: Mapping[str, GrantTarget], inviting: Sequence[GrantSpec]) -> bool:
    """Whether grants with that permission name each workload, with the values that its copy would have."""
    theirs = [target for it in inviting if Permission.SURGE in it.allow for target in it.targets]
    return all(
        any(
            (it.component, it.workload_ref, it.container) == (name, meant.workload_ref, meant.container)
            and all(_allows(it, change) for change in spec.changes if change.component == name)
            for it in theirs
        )
        for name, meant in found.items()
    )


def _inviting(source: str, grants: Sequence[GrantSpec]) -> Sequence[GrantSpec]:
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
