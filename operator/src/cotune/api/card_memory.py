"""What the pods that a stage has stopped may still hold on their cards."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from cotune.api.base import ApiModel, WorkloadKey, map_list

MOST_PODS = 256


class MemoryReason(StrEnum):
    """Why a start waits for a card's memory, or does not any longer."""

    HELD = "MemoryHeld"
    """Processes of pods that Kubernetes has no more hold memory: the stack is not started beside them."""
    STILL_HELD = "MemoryStillHeld"
    """They did for too long: the way back starts all the same."""
    UNKNOWN = "MemoryUnknown"
    """Nobody says what they hold: the stack is started as without a node agent."""


class StagePod(ApiModel):
    """A pod of the stage with a share of a card."""

    uid: Annotated[str, Field(max_length=64)]
    component: WorkloadKey
    node: Annotated[str, Field(max_length=253)]


class StageMemory(ApiModel):
    """Which pods of the stage may hold memory on a card, until NVML says that nothing of theirs is left."""

    pods: Annotated[tuple[StagePod, ...], Field(max_length=MOST_PODS, json_schema_extra=map_list("uid"))] = ()
    waiting_since: datetime | None = None
    """Since when a start waits for memory; left out: none does."""
    reason: MemoryReason | None = None
    message: Annotated[str, Field(max_length=2048)] = ""
