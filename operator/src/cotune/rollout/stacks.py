"""The same stack several times in one namespace: which Deployments are one stack, and how its components are named.

A component of the only stack that a grant names is called by its name. Where a grant selects workloads, it is
`STACK/COMPONENT`, wherever components are told apart: in what is observed, in actions, revisions and statuses.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cotune.api.grant import GrantSpec, GrantTarget, WorkloadRef
from cotune.api.profile import ProfileSpec, StageStatus

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class LabelledWorkload:
    """A Deployment of a namespace, as far as selectors are concerned."""

    name: str
    labels: Mapping[str, str]


def key_of(stack: str, component: str) -> str:
    """How a component of a stack is called; that of the only stack, which has no name, by its own name."""
    return f"{stack}/{component}" if stack else component


def stack_of(key: str) -> str:
    """The stack of a component's key; empty: the only one."""
    return key.rpartition("/")[0]


def component_of(key: str) -> str:
    """The component that a key means."""
    return key.rpartition("/")[2]


def stacks_in(keys: Iterable[str]) -> tuple[str, ...]:
    """The stacks that have names, each once, in the order in which they come."""
    return tuple(dict.fromkeys(stack for it in keys if (stack := stack_of(it))))


def of_stacks(by_key: Mapping[str, Seen], stacks: Iterable[str]) -> dict[str, Seen]:
    """What belongs to these stacks."""
    wanted = frozenset(stacks)
    return {key: it for key, it in by_key.items() if stack_of(key) in wanted}


def spread(spec: ProfileSpec, stacks: Sequence[str]) -> ProfileSpec:
    """The profile as its stage in a namespace with these stacks has it: each component once for each of them.

    What is decided of a component is then decided of each stack's; without stacks it is the profile itself.
    """
    if not stacks:
        return spec
    expect = spec.expect
    if expect is not None:
        starts = tuple(
            it.model_copy(update={"component": key_of(stack, it.component)})
            for stack in stacks
            for it in expect.startup_seconds
        )
        expect = expect.model_copy(update={"startup_seconds": starts})
    changes = tuple(
        it.model_copy(update={"component": key_of(stack, it.component)}) for stack in stacks for it in spec.changes
    )
    order = tuple(key_of(stack, it) for stack in stacks for it in spec.start_order)
    return spec.model_copy(update={"changes": changes, "start_order": order, "expect": expect})


def stacks_of_stage(state: StageStatus) -> tuple[str, ...]:
    """The stacks of a stage that has begun, in the order of its batches; none: the only one has no name."""
    return tuple(stack for batch in state.batches for stack in batch.stacks)


@dataclass(frozen=True)
class Bound:
    """A target of a grant, and the one workload that it means here."""

    stack: str
    """Empty: the grant names the workload. It may also be the value of a label that is not there."""
    target: GrantTarget
    """With a `workloadRef`."""
    is_selected: bool


def bound(grant: GrantSpec, workloads: Sequence[LabelledWorkload]) -> list[Bound]:
    """The targets of a grant, a selecting one once for each of the workloads that it matches."""
    found: list[Bound] = []
    for target in grant.targets:
        if target.workload_selector is None:
            found.append(Bound("", target, is_selected=False))
            continue
        for it in workloads:
            if selects(target, it.labels):
                reference = WorkloadRef(api_version="apps/v1", kind="Deployment", name=it.name)
                named = target.model_copy(update={"workload_ref": reference, "workload_selector": None})
                found.append(Bound(it.labels.get(grant.stack_label or "", ""), named, is_selected=True))
    return found


def selects(target: GrantTarget, labels: Mapping[str, str]) -> bool:
    """Whether a target's selector matches a workload with these labels."""
    selector = target.workload_selector
    return selector is not None and all(labels.get(name) == value for name, value in selector.match_labels.items())


def appeared(grants: Sequence[GrantSpec], workloads: Sequence[LabelledWorkload], begun: Iterable[str]) -> Sequence[str]:
    """The stacks that the grants select and that were not there when a stage began."""
    now = {it.stack for grant in grants for it in bound(grant, workloads) if it.is_selected and it.stack}
    return sorted(now - set(begun))
