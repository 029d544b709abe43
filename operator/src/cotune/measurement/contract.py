"""What the operator tells the probe, and what the probe answers.

The configuration travels as JSON in the environment variable `COTUNE_PROBE`; the result is the last line that the probe
prints, as one line of JSON.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self, cast

from pydantic import Field, model_validator

from cotune.api.base import ApiModel, ComponentName, map_list
from cotune.api.experiment import Arrivals, ArrivalType, Protocol
from cotune.api.trial import Measurement

CONFIGURATION_VARIABLE = "COTUNE_PROBE"
HEALTH_PORT = 8080
GRACE_SECONDS = 30.0
LARGEST_ALLOCATION = "gpu.largestAllocMiB"
DRAINED_PATH = "/drained"
"""Answers 200 once the card was seen drained (at once without a card), 503 before: the pod's readiness."""


class ProbeStream(ApiModel):
    """The load on one component."""

    component: ComponentName
    protocol: Protocol
    host: Annotated[str, Field(min_length=1, max_length=253)]
    """The component's Service; it accepts connections when the component is ready, and only then."""
    port: Annotated[int, Field(ge=1, le=65535)]
    arrivals: Arrivals
    prompt_tokens: Annotated[int, Field(ge=1)] | None = None
    output_tokens: Annotated[int, Field(ge=1)] | None = None
    length_spread: Annotated[float, Field(ge=0, le=2)] = 0.0
    shared_prefix_tokens: Annotated[int, Field(ge=1)] | None = None
    trace: str | None = None
    """For arrivals of type Trace: the file that was recorded."""
    dataset: str | None = None
    """For language models: the file with prompts."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 300
    warmup_seconds: Annotated[float, Field(ge=0)] | None = None
    """Left out: the configuration's."""
    corpus: str | None = None
    """For OpenAITranscriptions: the folder that holds `*.wav` and `transcripts.json`."""
    path: str = "/"
    """For HTTP: what is asked for with GET."""


class ProbeConfiguration(ApiModel):
    """All that a probe does in its life."""

    gpu: bool
    """Whether there is a card to be watched; without one no `gpu.*` metric is reported."""
    largest_allocation: bool | None = None
    """Whether the card is asked after the window for the largest allocation that still succeeds: that disturbs."""
    seed: int
    """Of the arrivals: the same for every candidate."""
    warmup_seconds: Annotated[float, Field(ge=0)]
    duration_seconds: Annotated[float, Field(gt=0)]
    cooldown_seconds: Annotated[float, Field(ge=0)] = 0
    """For how long the load goes on after the window."""
    grace_seconds: Annotated[float, Field(ge=0)] = GRACE_SECONDS
    """How long after the window its answers are waited for."""
    streams: Annotated[tuple[ProbeStream, ...], Field(min_length=1)]


class Steadiness(StrEnum):
    """Whether a stream's latencies were those of a steady state."""

    STEADY = "Steady"
    UNSTEADY = "Unsteady"
    """They rise, fall or jump over at least half of the window."""
    TOO_FEW = "TooFew"
    """Fewer than 100 requests: nothing can be said."""


class ErrorCount(ApiModel):
    """How many requests failed in one way."""

    kind: str
    count: Annotated[int, Field(ge=1)]


class Spread(ApiModel):
    """A distribution in milliseconds."""

    p50: float
    p95: float
    p99: float
    largest: float
    samples: Annotated[int, Field(ge=1)]
    """All of them, the censored ones among them."""
    censored: Annotated[int, Field(ge=0)] = 0
    """Given up: it would have taken at least so long."""


class ConcurrencyStep(ApiModel):
    """One step of a closed loop's sweep."""

    concurrency: Annotated[int, Field(ge=1)]
    throughput: float
    """Good answers a second."""
    latency: Spread | None = None


class RawHistogram(ApiModel):
    """All values of one quantity, in microseconds, to three digits."""

    name: str
    """`latency` and `firstToken` from the due time, `service` from the moment of sending, `betweenTokens`,
    `scheduleError`."""
    encoded: Annotated[str, Field(max_length=1 << 18)]
    """HdrHistogram's compressed V2 format in base64."""


class StreamReport(ApiModel):
    """How one stream's load went: what a person, or a gate, needs to believe the measurements."""

    component: ComponentName
    stream: Annotated[int, Field(ge=0)]
    """Its place in the configuration."""
    arrivals: ArrivalType
    requests: Annotated[int, Field(ge=0)]
    """That were due in the window."""
    errors: tuple[ErrorCount, ...] = ()
    latency: Spread | None = None
    schedule_error: Spread | None = None
    """How late the probe itself sent; left out for a closed loop, which has no schedule."""
    steadiness: Steadiness
    run_in_requests: Annotated[int, Field(ge=0)] = 0
    """Of the window's requests so many at the beginning do not belong to the steady state."""
    backoff_seconds: float = 0.0
    """For which the clients of a closed loop paused after errors, all together. An open loop never does."""
    prompt_tokens: Annotated[int, Field(ge=0)] = 0
    output_tokens: Annotated[int, Field(ge=0)] = 0
    """Both as the server's `usage` says, summed over its answers."""
    steps: tuple[ConcurrencyStep, ...] = ()
    histograms: tuple[RawHistogram, ...] = ()


class CardProcess(ApiModel):
    """A process on the card as NVML lists it; whose it is, is not known here."""

    pid: int
    least_mib: Annotated[float, Field(ge=0, alias="leastMiB")]
    """The least that it held in any reading of the window."""


class CardConduct(ApiModel):
    """What else NVML showed over the window: by it the operator judges whether the figures may count."""

    uuid: Annotated[str, Field(max_length=96)]
    readings: Annotated[int, Field(ge=1)]
    rise_mib: Annotated[float, Field(alias="riseMiB")]
    """The card's least used memory over the window, less what was used when it was seen drained."""
    processes: Annotated[tuple[CardProcess, ...], Field(max_length=256)]
    """Listed in the first reading."""
    are_all_listed: bool
    """Whether the listed processes account for what is used: those of other containers are not always listed."""
    newcomers: Annotated[tuple[CardProcess, ...], Field(max_length=256)] = ()
    """Listed in the window and not in its first reading."""
    throttled: Annotated[int | None, Field(ge=0)] = None
    """Readings in which heat or the board's power supply slowed the clocks; None: the driver does not say."""
    throttle_reasons: Annotated[tuple[str, ...], Field(max_length=8)] = ()
    sm_clock_mhz: Annotated[int | None, Field(ge=0)] = None
    """The least; None: the driver does not say. So with the following."""
    power_watts: Annotated[float | None, Field(ge=0)] = None
    """The greatest."""
    temperature_celsius: int | None = None
    """The greatest."""
    uncorrected_ecc_errors: Annotated[int | None, Field(ge=0)] = None
    """New ones in the window."""


MOST_CARD_SAMPLES = 2_000

_Samples = Field(max_length=MOST_CARD_SAMPLES)


class CardSamples(ApiModel):
    """The readings of the window, one entry for each in every list; thinned evenly where there were too many."""

    seconds: Annotated[tuple[float, ...], _Samples]
    """From the start of the window."""
    used_mib: Annotated[tuple[float, ...], Field(max_length=MOST_CARD_SAMPLES, alias="usedMiB")]
    """Their greatest is that of all readings, however many were left out."""
    utilization: Annotated[tuple[float, ...], _Samples]
    """0 to 1."""
    sm_clock_mhz: Annotated[tuple[int | None, ...], Field(max_length=MOST_CARD_SAMPLES, alias="smClockMHz")]
    """None: the driver does not say. So with the following."""
    power_watts: Annotated[tuple[float | None, ...], _Samples]
    temperature_celsius: Annotated[tuple[int | None, ...], _Samples]

    @model_validator(mode="after")
    def _is_parallel(self) -> Self:
        lengths = {len(cast("tuple[object, ...]", getattr(self, it))) for it in type(self).model_fields}
        if len(lengths) > 1:
            raise ValueError(f"the lists have {sorted(lengths)} entries, and one reading has one in each")
        return self


class Punctuality(ApiModel):
    """How well the probe kept one component's schedule."""

    component: ComponentName
    requests: Annotated[int, Field(ge=0)]
    """That were due in the window."""
    late_p99_ms: Annotated[float, Field(ge=0)]
    """How late the probe itself sent."""


class Conduct(ApiModel):
    """How the measurement went: not what it says, but whether it may be believed."""

    started_at: datetime
    ended_at: datetime
    """Of the window."""
    punctuality: Annotated[tuple[Punctuality, ...], Field(max_length=16)] = ()
    card: CardConduct | None = None
    """None without a card."""


class InterferenceCell(ApiModel):
    """One component's latencies while so many were loaded."""

    loaded: tuple[ComponentName, ...]
    """It alone, it and another, or all: the window itself."""
    component: ComponentName
    latency: Spread | None = None
    """Over all of its streams; None: not one request was answered."""


class ProbeResult(ApiModel):
    """What was measured, in the names and units of the resources."""

    measurements: Annotated[tuple[Measurement, ...], Field(max_length=256, json_schema_extra=map_list("metric"))]
    errors: Annotated[tuple[str, ...], Field(max_length=16)] = ()
    """The first errors of requests, each at most 300 characters: what a person reads first when errorRate is not 0."""
    streams: Annotated[tuple[StreamReport, ...], Field(max_length=32)] = ()
    """In the order of the configuration."""
    processor_wait_seconds: float | None = None
    """Of warm-up, window and cool-down: for how long the probe was ready to run and its core was somebody else's. None:
    the kernel does not say."""
    interference: Annotated[tuple[InterferenceCell, ...], Field(max_length=72)] = ()
    """The rounds' cells, and the window's; empty: it was not asked for."""
    conduct: Conduct | None = None
    """None: an older probe, of whose figures nothing can be said."""
    card_samples: CardSamples | None = None
    """None without a card."""
