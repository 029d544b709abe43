"""Production is stopped for trials inside a window, and brought back within a stated time."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from cotune.api.base import ApiModel, ComponentName, DnsLabel, Rule, map_list, with_rules
from cotune.api.gate import BeginWindow


class Quiesce(ApiModel):
    """Stop the workloads of a namespace while trials run on their card; a GpuTuningGrant there must allow `Quiesce`.

    Once in each opening of the window at most, and only while trials are left to run. Whatever becomes of the
    experiment meanwhile, the workloads are started again.
    """

    model_config = with_rules(
        Rule(
            "self.restorationSeconds + (has(self.trialSeconds) ? self.trialSeconds : 1) <= self.maximumSeconds",
            "a trial and the restoration do not fit into maximumSeconds",
            ".maximumSeconds",
        ),
        Rule(
            "self.startOrder.all(i, a, self.startOrder.all(j, b, i >= j || a != b))",
            "a component stands twice in startOrder",
            ".startOrder",
        ),
    )

    namespace: DnsLabel
    """Where production runs."""
    start_order: Annotated[
        tuple[ComponentName, ...], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = ()
    """The components in the order in which their workloads start, each ready before the next; they stop in the reverse
    order. Left out: all targets of the grant, in its order."""
    window: BeginWindow
    """When production may be down. It is stopped after the window opens, and ready again before it closes."""
    maximum_seconds: Annotated[int, Field(ge=2, le=86_400)]
    """For how long at a stretch, its restoration included. The grant's own limit holds, too."""
    restoration_seconds: Annotated[int, Field(ge=1, le=43_200)]
    """How long the way back takes at most, from ending a trial until all workloads are ready.

    It begins so long before the time is over; where it took longer the last time, that much earlier. When it takes
    longer than this, the experiment is Degraded, and goes on trying.
    """
    trial_seconds: Annotated[int, Field(ge=1, le=86_400)] | None = None
    """How long a trial takes, until one was measured; none begins that cannot end in time. Left out: as long as its
    deadlines let it take."""


class QuiesceLimits(ApiModel):
    """How long, and when, the owner of a namespace lets its workloads be stopped: the stricter limit holds."""

    maximum_seconds: Annotated[int, Field(ge=2, le=86_400)]
    """At a stretch, the restoration included."""
    window: BeginWindow | None = None
    """Left out: whenever the experiment's window is open."""


class QuiescePhase(StrEnum):
    """How far production is on its way down and back."""

    WAITING = "Waiting"
    """It runs."""
    STOPPING = "Stopping"
    QUIESCED = "Quiesced"
    """None of its pods is left: trials may run."""
    RESTORING = "Restoring"
    DEGRADED = "Degraded"
    """It was not ready in time; what is missing is still worked at."""
    RESTORED = "Restored"
    """It runs again."""


class QuiescedWorkload(ApiModel):
    """One workload as it was before it was stopped."""

    component: ComponentName
    deployment: Annotated[str, Field(min_length=1, max_length=253)]
    container: DnsLabel
    """As the grant names it."""
    replicas: Annotated[int, Field(ge=0)]
    """What it is taken back to."""
    generation: Annotated[int, Field(ge=0)]
    """Of its Deployment. One that runs with another generation was changed by somebody else."""
    uid: Annotated[str, Field(max_length=64)] = ""
    """Of its Deployment. With another one, somebody has made it anew."""


class QuiesceStatus(ApiModel):
    """What has become of production, the last time it was stopped."""

    phase: QuiescePhase = QuiescePhase.WAITING
    namespace: DnsLabel
    workloads: Annotated[
        tuple[QuiescedWorkload, ...], Field(max_length=32, json_schema_extra=map_list("component"))
    ] = ()
    """In the order in which they start."""
    since: datetime | None = None
    """Since when it is down."""
    until: datetime | None = None
    """By when it is ready again."""
    restore_at: datetime | None = None
    """When the way back begins at the latest: a trial that still runs is ended then, and run again another time."""
    phase_started_at: datetime | None = None
    trial_seconds: Annotated[int, Field(ge=0)] | None = None
    """What the next trial is expected to take; none begins later than so long before `restoreAt`."""
    interrupted_seconds: Annotated[int, Field(ge=0)] | None = None
    """The longest that a trial had run when it was ended for want of time: the next is given more."""
    restored_at: datetime | None = None
    """When all of it was ready again."""
    restoration_seconds: Annotated[int, Field(ge=0)] | None = None
    """How long the last way back took."""
    down_seconds: Annotated[int, Field(ge=0)] | None = None
    """How long production was down, the last time."""
    reason: Annotated[str, Field(max_length=64)] = ""
    """Why the way back was taken."""
    message: Annotated[str, Field(max_length=2048)] = ""
