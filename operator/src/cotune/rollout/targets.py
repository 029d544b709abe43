"""Which workloads a stage means: what the grants of its namespace allow, and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cotune.api.downtime import DowntimeBudget
from cotune.api.grant import GrantSpec, GrantTarget, Permission
from cotune.api.profile import Change, ProfileSpec
from cotune.api.quantities import canonical


@dataclass(frozen=True)
class Targets:
    """The workload of every component of the stack, in the order in which they start."""

    by_component: Mapping[str, GrantTarget]
    budgets: tuple[DowntimeBudget, ...] = ()
    """What the namespace's owner lets a stage cost: all of them hold."""


@dataclass(frozen=True)
class Refusal:
    """Why a stage may not be touched, as a condition says it."""

    reason: str
    message: str


def resolve(spec: ProfileSpec, source: str, namespace: str, grants: Sequence[GrantSpec]) -> Targets | Refusal:
    """The targets of a profile of namespace `source` in a stage's namespace."""
    inviting = [
        it for it in grants if Permission.ROLLOUT in it.allow and any(origin.namespace == source for origin in it.from_)
    ]
    if not inviting:
        return Refusal("NoGrant", f"no GpuTuningGrant in namespace {namespace} allows a rollout from {source}")
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
    return Targets(found, tuple(it.downtime_budget for it in inviting if it.downtime_budget is not None))


def _allows(target: GrantTarget, change: Change) -> bool:
    if change.env not in target.env:
        return False
    return target.values is None or canonical(change.to) in {canonical(it) for it in target.values}
