"""`GpuTrial`: one candidate run once on one card. The operator makes it; nobody edits it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from cotune.api.base import SET_LIST, ApiModel, DnsLabel, MetricName, Rule, map_list, with_rules
from cotune.api.conditions import Condition
from cotune.api.quantities import DecimalString, Value


class Assignment(ApiModel):
    """One parameter's value in a candidate."""

    name: Annotated[str, Field(min_length=1, max_length=50, pattern=r"^[a-z][A-Za-z0-9]*$")]
    value: Value


class Prediction(ApiModel):
    """What the planner says of a candidate before it runs."""

    fits: bool
    """Whether every component starts."""
    doubtful: bool = False
    """So near to a bound that the planner's own error could tip it."""
    reason: Annotated[str, Field(max_length=200)] = ""
    """Of the component that does not start: the reason that its failed trial would have."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """The same in figures."""
    kv_cache_tokens: Annotated[int, Field(ge=0)] | None = None
    """Of all language models together."""
    free_mib: Annotated[int | None, Field(ge=0, alias="freeMiB")] = None
    """What is left of the card when all components have started."""


class TrialSpec(ApiModel):
    """What is run."""

    model_config = with_rules(Rule("self == oldSelf", "a trial's spec is immutable"))

    experiment: DnsLabel
    """The experiment of the same namespace that owns the trial."""
    candidate: Annotated[tuple[Assignment, ...], Field(min_length=1, max_length=16, json_schema_extra=map_list("name"))]
    repeat: Annotated[int, Field(ge=0, le=63)] = 0
    """Which of the candidate's repeats this is, counted from 0; invalid ones are counted and run again."""
    generation: Annotated[int, Field(ge=0)] = 0
    parents: Annotated[tuple[DnsLabel, ...], Field(max_length=8, json_schema_extra=dict(SET_LIST))] = ()
    """The trials from which the search derived this one."""
    prediction: Prediction | None = None
    """Left out: the planner knows too little of the stack or of the card."""
    skipped: bool = False
    """It cannot start by arithmetic, and is not run."""


class TrialPhase(StrEnum):
    """How far a trial is."""

    PENDING = "Pending"
    DRAINING = "Draining"
    STARTING = "Starting"
    MEASURING = "Measuring"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"
    INVALID = "Invalid"

    def is_finished(self) -> bool:
        """Whether nothing more will happen to a trial in this phase."""
        return self in {TrialPhase.SUCCEEDED, TrialPhase.FAILED, TrialPhase.SKIPPED, TrialPhase.INVALID}


class Measurement(ApiModel):
    """One metric as it was measured."""

    metric: MetricName
    value: DecimalString
    samples: Annotated[int, Field(ge=0)]
    """How many observations the value rests on."""


class TrialStatus(ApiModel):
    """What came of it."""

    phase: TrialPhase = TrialPhase.PENDING
    reason: Annotated[str, Field(max_length=200)] = ""
    message: Annotated[str, Field(max_length=4096)] = ""
    node: Annotated[str, Field(max_length=253)] | None = None
    started_at: datetime | None = None
    phase_started_at: datetime | None = None
    """Since when the trial is in its phase: what the phase's deadline counts from."""
    finished_at: datetime | None = None
    measurements: Annotated[tuple[Measurement, ...], Field(max_length=256, json_schema_extra=map_list("metric"))] = ()
    fitness: DecimalString | None = None
    """Only a feasible trial has one."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32, json_schema_extra=map_list("type"))] = ()
