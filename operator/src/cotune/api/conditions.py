"""Conditions as Kubernetes and its tools (`kubectl wait`, Argo CD, Flux) understand them."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from cotune.api.base import ApiModel


class ConditionStatus(StrEnum):
    """Whether the condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """One observation of a resource; a list of them is keyed by `type`."""

    type: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
    status: ConditionStatus
    observed_generation: Annotated[int, Field(ge=0)]
    """The generation of the spec that was looked at."""
    last_transition_time: datetime
    """When `status` last changed."""
    reason: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
    message: Annotated[str, Field(max_length=4096)]


def with_condition(conditions: Sequence[Condition], new: Condition) -> tuple[Condition, ...]:
    """The list with `new` in it, unless a newer generation has already been observed.

    The transition time of an unchanged status stays, so that the time always says when the status changed.
    """
    old = next((it for it in conditions if it.type == new.type), None)
    if old is None:
        return (*conditions, new)
    if old.observed_generation > new.observed_generation:
        return tuple(conditions)
    if old.status == new.status:
        new = new.model_copy(update={"last_transition_time": old.last_transition_time})
    return tuple(new if it.type == new.type else it for it in conditions)


def looked_at(conditions: Sequence[Condition], generation: int) -> tuple[Condition, ...]:
    """The list after a pass over this generation: what the pass has not said anew still holds."""
    return tuple(
        it.model_copy(update={"observed_generation": max(it.observed_generation, generation)}) for it in conditions
    )
