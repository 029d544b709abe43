"""What a stage costs: how long its services are expected to be down, how long they were, and how much they may be."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from cotune.api.base import ApiModel, ComponentName, DnsLabel, map_list

_SECONDS_PER_DAY = 86_400


class WhenUnknown(StrEnum):
    """What becomes of a stage with a budget whose downtime nobody can tell beforehand."""

    WAIT = "Wait"
    BEGIN = "Begin"


class DowntimeBudget(ApiModel):
    """How long the services of a namespace may be down for changes; a way back is never held up by it.

    Counted are the downtimes that rollouts of any profile have cost there, ways back included, each in full until 24
    hours after its end. A stage whose expected downtime is more than what is left waits.
    """

    seconds_per_day: Annotated[int, Field(ge=1, le=_SECONDS_PER_DAY)]
    cooldown_seconds: Annotated[int, Field(ge=0, le=604_800)] = 0
    """How long after the end of the last downtime the next change may begin."""
    on_unknown: WhenUnknown = WhenUnknown.WAIT
    """`Wait`: a stage of which no start was measured does not begin. `Begin`: it does while anything is left."""


class ExpectedDowntime(ApiModel):
    """How long the services of the next stage will be down, as far as measurements tell."""

    stage: DnsLabel
    seconds: Annotated[int, Field(ge=0)] | None = None
    """Left out: unknown; the message says what was not measured."""
    message: Annotated[str, Field(max_length=2048)] = ""
    """What it is the sum of, and where each of it was measured."""


class MeasuredStart(ApiModel):
    """How long one component took to start in a stage."""

    component: ComponentName
    seconds: Annotated[int, Field(ge=0)]
    """From the making of its pods until all of them were ready."""


class StageDowntime(ApiModel):
    """How long a stage has kept its services down; bake time is none of it."""

    expected_seconds: Annotated[int, Field(ge=0)] | None = None
    """As computed when the stage began; left out: unknown."""
    since: datetime | None = None
    """Since when they are down; left out: they are not."""
    measured_seconds: Annotated[int, Field(ge=0)] | None = None
    """From the first stop until all of them were ready, the way back added; left out: it was not over yet."""
    error_seconds: int | None = None
    """How much longer than expected the change took to be ready; negative: less long."""
    starts: Annotated[tuple[MeasuredStart, ...], Field(max_length=16, json_schema_extra=map_list("component"))] = ()
    """How long the components took to start with the profile's values; later stages are expected to need as long."""
