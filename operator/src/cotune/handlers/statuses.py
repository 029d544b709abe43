"""The one write of a pass: its status, if anything in it has changed."""

from datetime import datetime
from typing import Any

from cotune.api.base import ApiModel
from cotune.api.conditions import Condition, ConditionStatus
from cotune.cluster.kinds import Kind
from cotune.cluster.objects import Object, Objects


async def write_status(objects: Objects, kind: Kind, body: Object, old: ApiModel, new: ApiModel) -> bool:
    """Write the status that belongs to `body`; True when something was written.

    Raises:
        ConflictError: the resource has changed since it was read.
    """
    if new == old and "status" in body:
        return False
    metadata = body["metadata"]
    patch: Object = {
        "metadata": {"resourceVersion": metadata["resourceVersion"]},
        # Fields without a value are written as null: a merge patch takes them away.
        "status": new.model_dump(mode="json", by_alias=True),
    }
    await objects.merge(kind, metadata["namespace"], metadata["name"], patch, subresource="status")
    return True


def condition(type_: str, holds: bool | None, generation: int, now: datetime, reason: str, message: str) -> Condition:
    """A condition of this moment; the transition time is corrected when it is merged with the old one.

    `holds` is None where nobody can tell.
    """
    known = ConditionStatus.TRUE if holds else ConditionStatus.FALSE
    return Condition(
        type=type_,
        status=ConditionStatus.UNKNOWN if holds is None else known,
        observed_generation=generation,
        last_transition_time=now,
        reason=reason,
        message=message[:4096],
    )


def status_of(body: Object) -> Any:
    """The status as the API server has it; empty before the first write."""
    return body.get("status") or {}
