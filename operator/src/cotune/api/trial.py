"""`GpuTrial`: one candidate run once on one card. The operator makes it; nobody edits it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from cotune.api.base import (
    SET_LIST,
    ApiModel,
    ComponentName,
    DnsLabel,
    MetricName,
    ObjectName,
    Rule,
    map_list,
    with_rules,
)
from cotune.api.conditions import Condition
from cotune.api.quantities import DecimalString, Value


class Assignment(ApiModel):
    """One parameter's value in a candidate."""

    name: Annotated[str, Field(min_length=1, max_length=50, pattern=r"^[a-z][A-Za-z0-9]*$")]
    value: Value


class PredictedServer(ApiModel):
    """What the planner says of one language model, and what of earlier starts went into it."""

    component: ComponentName
    model: Annotated[str, Field(max_length=64)]
    """Digest of the model's configuration and of what the formulas make of it on this card."""
    card: Annotated[str, Field(max_length=63)]
    image: Annotated[str, Field(max_length=512)] = ""
    """Of the server's container, as the template names it."""
    kv_cache_tokens: Annotated[int, Field(ge=0)]
    kv_cache_bytes: int
    """Negative: so much is missing."""
    offset_bytes: int = 0
    """What earlier starts took beyond the formulas; `kvCacheBytes` has it subtracted already."""
    if_compiled_bytes: Annotated[int, Field(ge=0)] = 0
    """What it leaves less if it compiles its model; 0 where that is assumed, as in a fresh container."""
    if_loaded_bytes: Annotated[int, Field(ge=0)] = 0
    """What it leaves more if it loads an earlier start's compilation."""


class PredictedHolding(ApiModel):
    """By what one component is known to be on the card."""

    component: ComponentName
    least_mib: Annotated[int, Field(ge=0, alias="leastMiB")]
    """What its processes hold at least once it serves: weights and a CUDA context, or half of what was declared."""


class PredictedService(ApiModel):
    """A component whose memory is to be learned, and what it counted as in this prediction."""

    component: ComponentName
    card: Annotated[str, Field(max_length=63)]
    settings: Annotated[str, Field(max_length=20_000)] = ""
    """Its image and the values of the variables that are bound to it."""
    counted_mib: Annotated[int, Field(ge=0, alias="countedMiB")]
    """0: nothing was known of it."""


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
    servers: Annotated[tuple[PredictedServer, ...], Field(max_length=16, json_schema_extra=map_list("component"))] = ()
    """The language models, as far as the plan came."""
    holdings: Annotated[
        tuple[PredictedHolding, ...], Field(max_length=16, json_schema_extra=map_list("component"))
    ] = ()
    """Of the components whose memory is planned, as far as the plan came."""
    services: Annotated[
        tuple[PredictedService, ...], Field(max_length=16, json_schema_extra=map_list("component"))
    ] = ()
    """Of the components whose memory is learned, all of them where everything fits."""


class Purpose(StrEnum):
    """What a trial is run for."""

    SEARCH = "Search"
    DRIFT = "Drift"
    """The baseline once more, to see whether the card or the services have changed since the search began."""
    CONFIRMATION = "Confirmation"
    """The best candidate of the search or the baseline, for the verdict."""
    VALIDATION = "Validation"
    """Some of the winner's changes or the baseline, to see which changes hold on their own and together."""


class TrialSpec(ApiModel):
    """What is run."""

    model_config = with_rules(Rule("self == oldSelf", "a trial's spec is immutable"))

    experiment: DnsLabel
    """The experiment of the same namespace that owns the trial."""
    candidate: Annotated[tuple[Assignment, ...], Field(min_length=1, max_length=16, json_schema_extra=map_list("name"))]
    repeat: Annotated[int, Field(ge=0, le=99_999)] = 0
    """Which of the candidate's repeats this is, counted from 0; invalid ones are counted and run again."""
    purpose: Purpose = Purpose.SEARCH
    """What it is run for: confirming runs are no part of the search, and the search's are none of the verdict."""
    series: Annotated[int, Field(ge=0, le=16)] = 0
    """Which comparison of its purpose it belongs to: runs are compared with runs of the same series only."""
    stack_ref: ObjectName | None = None
    """The ControllerRevision that has the pod templates. Left out: the experiment spells them out."""
    generation: Annotated[int, Field(ge=0)] = 0
    parents: Annotated[tuple[DnsLabel, ...], Field(max_length=8, json_schema_extra=dict(SET_LIST))] = ()
    """The trials from which the search derived this one."""
    prediction: Prediction | None = None
    """Left out: the planner knows too little of the stack or of the card."""
    skipped: bool = False
    """It cannot start by arithmetic, or no node shares its card as it wants it, and is not run."""


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


class ObservedServer(ApiModel):
    """What a language model's log says of its start; what it does not say is left out."""

    component: ComponentName
    version: Annotated[str, Field(max_length=100)] = ""
    """Of the server."""
    kv_cache_tokens: Annotated[int | None, Field(ge=0)] = None
    kv_cache_gib: Annotated[DecimalString | None, Field(alias="kvCacheGiB")] = None
    """Available for the KV cache; negative in a start that failed for want of it."""
    weights_gib: Annotated[DecimalString | None, Field(alias="weightsGiB")] = None
    activations_gib: Annotated[DecimalString | None, Field(alias="activationsGiB")] = None
    non_torch_gib: Annotated[DecimalString | None, Field(alias="nonTorchGiB")] = None
    graphs_gib: Annotated[DecimalString | None, Field(alias="graphsGiB")] = None
    compiled: bool | None = None
    """Whether it compiled its model, or loaded what an earlier start had compiled."""


class Device(StrEnum):
    """Where a component computes."""

    CUDA = "cuda"
    CPU = "cpu"


class ObservedDevice(ApiModel):
    """Where a component computed over the window, as the node agent saw it.

    `cuda`: its processes held on the card of the trial what they were planned to hold at least; a bare context does not
    count.
    """

    component: ComponentName
    device: Device
    least_mib: Annotated[int, Field(ge=0, alias="leastMiB")]
    """What its processes held on the card, in any reading."""
    most_mib: Annotated[int, Field(ge=0, alias="mostMiB")]


class PredictionError(ApiModel):
    """A predicted figure beside the measured one."""

    metric: MetricName
    predicted: DecimalString
    measured: DecimalString
    message: Annotated[str, Field(max_length=200)]
    """Both in words, and the difference as a share of what was predicted."""


class LatencySpread(ApiModel):
    """Latencies in milliseconds."""

    p50: DecimalString
    p95: DecimalString
    p99: DecimalString
    largest: DecimalString
    samples: Annotated[int, Field(ge=1)]
    """All of them, the censored ones among them."""
    censored: Annotated[int, Field(ge=0)] = 0
    """Given up: it would have taken at least so long."""


class InterferenceFigure(ApiModel):
    """One service's latencies while so many were loaded."""

    loaded: Annotated[
        tuple[ComponentName, ...],
        Field(min_length=1, max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ]
    """It alone, it and another, or all: the window itself."""
    component: ComponentName
    latency: LatencySpread | None = None
    """Left out: not one request was answered."""


MOST_INTERFERENCE_FIGURES = 72
"""8 services alone, in pairs and together; or 16 alone and together."""


class Artifact(ApiModel):
    """The record of the trial in the artifact store."""

    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
    """Of the record's bytes, by which it is stored; `cotune verify` checks it."""
    bytes: Annotated[int, Field(ge=1)]


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
    servers: Annotated[tuple[ObservedServer, ...], Field(max_length=16, json_schema_extra=map_list("component"))] = ()
    """What later predictions learn from."""
    interference: Annotated[
        tuple[InterferenceFigure, ...],
        Field(max_length=MOST_INTERFERENCE_FIGURES, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    """Where `workload.interference` asks for it: every service alone, in pairs if that is asked for, and together."""
    devices: Annotated[tuple[ObservedDevice, ...], Field(max_length=16, json_schema_extra=map_list("component"))] = ()
    """Empty: no node agent has seen whose the processes on the card were, so that it is not known."""
    prediction_errors: Annotated[
        tuple[PredictionError, ...], Field(max_length=17, json_schema_extra=map_list("metric"))
    ] = ()
    fitness: DecimalString | None = None
    """Only a feasible trial has one."""
    artifact: Artifact | None = None
    """Left out: nothing was stored; the condition ArtifactStored says why."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32, json_schema_extra=map_list("type"))] = ()
