"""What the operator tells the probe, and what the probe answers.

The configuration travels as JSON in the environment variable `COTUNE_PROBE`; the result is the last line that the probe
prints, as one line of JSON.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self, cast

from pydantic import Field, model_validator

from cotune.api.base import ApiModel, ComponentName, map_list
from cotune.api.corpus import Noise, UrlSource
from cotune.api.trial import MOST_INTERFERENCE_FIGURES, Measurement
from cotune.api.workload import Arrivals, ArrivalType, Protocol
from cotune.measurement.agent.contract import NodeReport

CONFIGURATION_VARIABLE = "COTUNE_PROBE"
HEALTH_PORT = 8080
GRACE_SECONDS = 30.0
LARGEST_ALLOCATION = "gpu.largestAllocMiB"
MOST_WRONG, MOST_SHOWN = 8, 200
"""Wrong answers that a result shows, and characters of each."""
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
    """For OpenAITranscriptions: the folder that holds `*.wav` and `transcripts.json`; or"""
    corpus_url: UrlSource | None = None
    """where the archive is that holds them."""
    noise: Noise | None = None
    """What is mixed into the clips."""
    questions: str | None = None
    """For language models: the file with questions whose answers are known."""
    path: str = "/"
    """For HTTP: what is asked for with GET."""


class ProbeInterference(ApiModel):
    """Rounds of load after the window, each on some of the services."""

    duration_seconds: Annotated[float, Field(gt=0)]
    """Of a round's own window."""
    warmup_seconds: Annotated[float, Field(ge=0)] = 0
    rounds: Annotated[tuple[tuple[ComponentName, ...], ...], Field(min_length=1, max_length=64)]
    """The components that are loaded in each round."""


class ProbeConfiguration(ApiModel):
    """All that a probe does in its life."""

    gpu: bool
    """Whether there is a card to be watched; without one no `gpu.*` metric is reported."""
    largest_allocation: bool | None = None
    """Whether the card is asked after the window for the largest allocation that still succeeds: that disturbs."""
    node_agent: Annotated[str, Field(max_length=300)] | None = None
    """Host name and port of the agents of all nodes; the own one is found among them. None: there are none."""
    seed: int
    """Of the arrivals: the same for every candidate."""
    warmup_seconds: Annotated[float, Field(ge=0)]
    duration_seconds: Annotated[float, Field(gt=0)]
    cooldown_seconds: Annotated[float, Field(ge=0)] = 0
    """For how long the load goes on after the window."""
    grace_seconds: Annotated[float, Field(ge=0)] = GRACE_SECONDS
    """How long after the window its answers are waited for."""
    streams: Annotated[tuple[ProbeStream, ...], Field(min_length=1)]
    paces_first_requests: bool | None = None
    """Whether those before the warm-up are sent no faster than the stream's rate, too: others use the services."""
    interference: ProbeInterference | None = None
    """What is measured after the window; left out: nothing."""


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


class QualityReport(ApiModel):
    """What came of the questions of one stream: they are no part of its load, and of none of its figures."""

    component: ComponentName
    stream: Annotated[int, Field(ge=0)]
    """Its place in the configuration."""
    asked: Annotated[int, Field(ge=0)]
    answered: Annotated[int, Field(ge=0)]
    """Not refused, cut or timed out: what was not answered counts as wrong."""
    goodness: Annotated[float, Field(ge=0)]
    """Right answers; with recorded log-probabilities parts of one."""
    wrong: Annotated[tuple[Annotated[str, Field(max_length=MOST_SHOWN)], ...], Field(max_length=MOST_WRONG)] = ()
    """The first wrong answers, each after the end of its question."""
    errors: tuple[ErrorCount, ...] = ()


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
    xids: Annotated[tuple[int, ...] | None, Field(max_length=64)] = None
    """Critical errors (NVIDIA's Xid numbers) in the window; None: nobody was told of them."""
    needs_reset: bool | None = None
    """Whether memory with uncorrectable errors waits for a reset to be replaced."""


class CardIdentity(ApiModel):
    """Which card it was, and what drove it; None: the driver does not say."""

    uuid: Annotated[str, Field(max_length=96)]
    product: Annotated[str, Field(max_length=100)] | None = None
    memory_mib: Annotated[float, Field(ge=0, alias="memoryMiB")]
    """All of it, the driver's own share included."""
    driver_version: Annotated[str, Field(max_length=80)] | None = None
    cuda_version: Annotated[str, Field(max_length=20)] | None = None
    """The newest that the driver can serve, such as `12.8`; that of a server's own libraries is in its image."""
    nvml_version: Annotated[str, Field(max_length=80)] | None = None


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


class RoundConduct(ApiModel):
    """How one round of the interference matrix went."""

    loaded: Annotated[tuple[ComponentName, ...], Field(min_length=1, max_length=16)]
    started_at: datetime
    ended_at: datetime
    punctuality: Annotated[tuple[Punctuality, ...], Field(max_length=16)]
    card: CardConduct | None = None
    """None without a card."""


class Conduct(ApiModel):
    """How the measurement went: not what it says, but whether it may be believed."""

    started_at: datetime
    ended_at: datetime
    """Of the window."""
    punctuality: Annotated[tuple[Punctuality, ...], Field(max_length=16)] = ()
    card: CardConduct | None = None
    """None without a card."""
    rounds: Annotated[tuple[RoundConduct, ...], Field(max_length=64)] = ()
    """Of the interference matrix, in their order."""


class InterferenceCell(ApiModel):
    """One component's latencies while so many were loaded."""

    loaded: tuple[ComponentName, ...]
    """It alone, it and another, or all: the window itself."""
    component: ComponentName
    latency: Spread | None = None
    """Over all of its streams; None: not one request was answered."""


class ServiceFacts(ApiModel):
    """What one service's own counters say beside its metrics."""

    component: ComponentName
    out_of_memory: Annotated[int | None, Field(ge=0)] = None
    """Since its start; None: it does not count them."""


class ProbeResult(ApiModel):
    """What was measured, in the names and units of the resources."""

    measurements: Annotated[tuple[Measurement, ...], Field(max_length=256, json_schema_extra=map_list("metric"))]
    errors: Annotated[tuple[str, ...], Field(max_length=16)] = ()
    """The first errors of requests, each at most 300 characters: what a person reads first when errorRate is not 0."""
    streams: Annotated[tuple[StreamReport, ...], Field(max_length=32)] = ()
    """In the order of the configuration."""
    quality: Annotated[tuple[QualityReport, ...], Field(max_length=32)] = ()
    """Of the streams that have questions."""
    processor_wait_seconds: float | None = None
    """Of warm-up, window and cool-down: for how long the probe was ready to run and its core was somebody else's. None:
    the kernel does not say."""
    interference: Annotated[tuple[InterferenceCell, ...], Field(max_length=MOST_INTERFERENCE_FIGURES)] = ()
    """The rounds' cells, and the window's; empty: it was not asked for."""
    node: NodeReport | None = None
    """What the node agent saw over the window; None: it was not there."""
    services: Annotated[tuple[ServiceFacts, ...], Field(max_length=16)] = ()
    """What the services say of themselves."""
    conduct: Conduct | None = None
    """None: an older probe, of whose figures nothing can be said."""
    card_identity: CardIdentity | None = None
    """None without a card."""
    card_samples: CardSamples | None = None
    """None without a card."""
