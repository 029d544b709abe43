"""The grants of a namespace, and the Deployments that their selectors match."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from cotune.api.grant import GrantSpec, GrantTarget
from cotune.cluster.kinds import DEPLOYMENT, GRANT
from cotune.cluster.objects import Objects
from cotune.rollout.stacks import LabelledWorkload
from cotune.rollout.targets import inviting


class GrantInvalidError(Exception):
    """A grant has what this operator does not know, as with resources that are newer than it; one line."""


@dataclass(frozen=True)
class Invitations:
    """What the owner of a namespace allows there."""

    grants: tuple[GrantSpec, ...]
    workloads: tuple[LabelledWorkload, ...]
    """Those that are selected, in the order of their names; nothing is listed where none selects."""


async def grants_of(objects: Objects, namespace: str) -> tuple[GrantSpec, ...]:
    """All grants of a namespace. One that cannot be read may forbid what the others allow.

    Raises:
        GrantInvalidError: one cannot be read.
    """
    try:
        return tuple(GrantSpec.model_validate(it["spec"]) for it in await objects.list(GRANT, namespace))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise GrantInvalidError(f"a grant of namespace {namespace} cannot be read: {where}: {first['msg']}") from error


async def invitations(objects: Objects, namespace: str, source: str) -> Invitations:
    """Read the grants of a namespace, and what those select that allow rollouts from namespace `source`.

    Raises:
        GrantInvalidError: a grant cannot be read.
        ForbiddenError: a grant selects workloads, and the right to list Deployments there is missing.
    """
    grants = await grants_of(objects, namespace)
    selections: list[dict[str, str]] = []
    for grant in inviting(source, grants):
        for target in grant.targets:
            selector = target.workload_selector
            if selector is not None and selector.match_labels not in selections:
                selections.append(selector.match_labels)
    found: dict[str, LabelledWorkload] = {}
    for labels in selections:
        for it in await objects.list(DEPLOYMENT, namespace, labels):
            name = str(it["metadata"]["name"])
            found[name] = LabelledWorkload(name, it["metadata"].get("labels") or {})
    return Invitations(grants, tuple(found[it] for it in sorted(found)))


async def and_begun(
    objects: Objects, namespace: str, selected: Sequence[LabelledWorkload], begun: Mapping[str, GrantTarget]
) -> tuple[LabelledWorkload, ...]:
    """What is selected, and what a stage has begun with and nobody selects any more: only what is gone is missing."""
    known = {it.name: it for it in selected}
    for name in {it.workload.name for it in begun.values()} - known.keys():
        if (deployment := await objects.find(DEPLOYMENT, namespace, name)) is not None:
            known[name] = LabelledWorkload(name, deployment["metadata"].get("labels") or {})
    return tuple(known[it] for it in sorted(known))
