"""A stage that keeps its services up through a change, on a spare card: when it does, and how far it is."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from cotune.api.base import ApiModel


class Surge(StrEnum):
    """Whether a copy of the stack serves from another card while the stack is stopped."""

    NEVER = "Never"
    IF_ROOM = "IfRoom"
    """Where there is no room, the services are down as long as the change takes."""
    REQUIRE = "Require"
    """Where there is no room, nothing is stopped: the stage waits until there is."""


class SurgePhase(StrEnum):
    """How far the bridge is: the copies of the stage's Deployments, with the new values, on another node."""

    STARTING = "Starting"
    """Nothing of the stack itself is touched."""
    SERVING = "Serving"
    """All of it was ready: the stack is changed behind it, or taken back."""
    REMOVING = "Removing"
    NO_ROOM = "NoRoom"
    """It is gone, for it could not be had; the stage goes on without."""
    FAILED = "Failed"
    """It is gone, for it did not come up; the stage is taken back, and nothing of the stack was touched."""
    DONE = "Done"
    """It is gone."""


class StageSurge(ApiModel):
    """A stage's bridge."""

    phase: SurgePhase
    since: datetime
    """Since when it is in its phase, or, while it starts, has room."""
    reason: Annotated[str, Field(max_length=64)] = ""
    """Why it could not be had, or has failed; empty: neither."""
    message: Annotated[str, Field(max_length=2048)] = ""
    is_required: bool = False
    """It was to wait for room, and so no downtime budget was asked: without a bridge the stage must not go on."""
    served_until: datetime | None = None
    """When all of it was last seen ready, to within ten seconds."""
