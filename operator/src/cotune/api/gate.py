"""What a stage must show beyond being ready, and when it may begin."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from cotune.api.base import SET_LIST, ApiModel, DnsLabel, MetricName, Rule, rules, with_rules
from cotune.api.quantities import DecimalString

_LEAST_SAMPLES = 10
LEAST_SAMPLES = f"(has({{0}}.minimumSamples) ? {{0}}.minimumSamples : {_LEAST_SAMPLES})"
"""In CEL, of the gate by that name."""


class Better(StrEnum):
    """Which way a gate's figure is better."""

    MINIMIZE = "Minimize"
    MAXIMIZE = "Maximize"


class Undecided(StrEnum):
    """What a gate amounts to when its deadline has passed and nobody can tell."""

    FAIL = "Fail"
    PASS = "Pass"


class PromQL(ApiModel):
    """Samples from the operator's Prometheus."""

    query: Annotated[str, Field(min_length=1, max_length=4096)]
    """An expression that gives one series, or a scalar."""
    step_seconds: Annotated[int, Field(ge=1, le=3600)] = 15
    """How far apart the samples are, and how often the gate is looked at.

    Give a query with a range, such as `[1m]`, a step of about that range: samples that share most of it are hardly more
    than one.
    """


FEWEST_RUNS = 3
"""Of a stage's probe: with fewer, hardly anything can be said of the noise."""

_MEASURED = (
    "^[a-z]([-a-z0-9]*[a-z0-9])?[.](latency[.]p(50|95|99)|ttft[.]p(50|95|99)|itl[.]p(50|95)|throughput|"
    "tokensPerSecond|errorRate|wer([.](clean|snr(Minus)?[0-9]+))?|realTimeFactor)$"
)


class ProbedMetric(ApiModel):
    """A figure of the stage's own probe: each of its runs is one sample."""

    model_config = with_rules(
        Rule(
            "!self.metric.startsWith('gpu.')",
            "the probe of a stage has no share of the card, and sees nothing of it: ask Prometheus",
            ".metric",
        ),
        Rule(
            f"self.metric.startsWith('gpu.') || self.metric.matches('{_MEASURED}')",
            "not a figure that a stage's probe measures by its own requests: latency, ttft, itl, throughput, "
            "tokensPerSecond, errorRate, wer or realTimeFactor of a component, such as stt.latency.p95",
            ".metric",
        ),
    )

    metric: MetricName
    minimum_requests: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    """A run whose figure rests on fewer does not count, and is made again."""


class AgainstBaseline(ApiModel):
    """The stage after its change against the same stage before it."""

    model_config = with_rules(
        Rule("double(self.tolerance) >= 0.0", "tolerance must not be negative", ".tolerance"),
    )

    goal: Better
    tolerance: DecimalString = "0"
    """By what share of the baseline's mean the figure may be worse; 0.05 is 5 %."""
    window_seconds: Annotated[int, Field(ge=10, le=604_800)] = 1800
    """How long before the stage began the baseline reaches back; for a probe without a meaning: its baseline is as
    many runs before the first workload is stopped."""


class Gate(ApiModel):
    """One figure that the stage must show while it bakes, as the mean of its samples: of Prometheus, or of the stage's
    own probe.

    It is decided by the first look after the bake time that tells. Before, only a figure that is bad beyond any doubt
    (1 in 1,000) ends the stage.
    """

    model_config = with_rules(
        Rule("has(self.promQL) != has(self.probe)", "give either promQL or probe"),
        Rule(
            "!has(self.probe) || !has(self.minimumSamples)",
            "minimumSamples is for promQL: the samples of a probe are its runs, and all of them are needed",
            ".minimumSamples",
        ),
        Rule(
            "!has(self.probe) || self.initialDelaySeconds == 0",
            "initialDelaySeconds is for promQL: a probe has its warm-up",
            ".initialDelaySeconds",
        ),
        Rule(
            "(has(self.max) ? 1 : 0) + (has(self.min) ? 1 : 0) + (has(self.againstBaseline) ? 1 : 0) == 1",
            "give one of max, min and againstBaseline",
        ),
        Rule(
            "double(self.confidence) >= 0.5 && double(self.confidence) <= 0.999",
            "confidence must lie between 0.5 and 0.999",
            ".confidence",
        ),
        Rule(
            "!has(self.againstBaseline) || !has(self.promQL) || self.againstBaseline.windowSeconds >= "
            f"({LEAST_SAMPLES.format('self')} - 1) * self.promQL.stepSeconds",
            "the baseline's window is too short for minimumSamples, stepSeconds apart",
            ".againstBaseline.windowSeconds",
        ),
    )

    name: DnsLabel
    prom_ql: Annotated[PromQL | None, Field(alias="promQL")] = None
    probe: ProbedMetric | None = None
    """In place of `promQL`; what the probe sends is said in the stage's `probe`."""
    max: DecimalString | None = None
    min: DecimalString | None = None
    against_baseline: AgainstBaseline | None = None
    confidence: DecimalString = "0.95"
    """How sure a pass or a fail must be, one-sided."""
    minimum_samples: Annotated[int, Field(ge=3, le=1000)] | None = None
    """With fewer, of the stage or of the baseline, the gate is Inconclusive. Left out: 10."""
    initial_delay_seconds: Annotated[int, Field(ge=0, le=86_400)] = 0
    """Samples from the first so many seconds of the bake time do not count, such as the range of the query."""
    deadline_seconds: Annotated[int, Field(ge=0, le=604_800)] = 600
    """How long after the bake time the stage goes on baking for a gate that is not decided."""
    on_undecided: Undecided = Undecided.FAIL
    """What Inconclusive, NoData, NaN and Error amount to then."""
    dry_run: bool = False
    """Evaluated and reported, but never decides; the stage only waits for its last look."""

    @property
    def least_samples(self) -> int:
        """With fewer nothing is said of the mean."""
        if self.probe is not None:
            return FEWEST_RUNS
        return _LEAST_SAMPLES if self.minimum_samples is None else self.minimum_samples


class GateOutcome(StrEnum):
    """What a gate has shown so far."""

    PASSED = "Passed"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"
    """Too few samples, or they do not tell."""
    NO_DATA = "NoData"
    """The query gave nothing, or the probe's runs do not have the metric."""
    NAN = "NaN"
    """Too few of the samples are numbers, or one is infinite."""
    ERROR = "Error"
    """Prometheus did not answer, or not with one series; or a run of the probe failed."""


class GateStatus(ApiModel):
    """The last look at a gate."""

    name: DnsLabel
    outcome: GateOutcome
    value: Annotated[str, Field(max_length=32)] | None = None
    """The mean while the stage bakes."""
    baseline: Annotated[str, Field(max_length=32)] | None = None
    """The mean before the stage began."""
    samples: Annotated[int, Field(ge=0)] = 0
    """How many samples `value` is the mean of."""
    message: Annotated[str, Field(max_length=1024)] = ""
    at: datetime
    """Up to when samples were taken."""
    observed_generation: Annotated[int, Field(ge=0)]
    """The generation of the spec whose gate this was."""


class Weekday(StrEnum):
    """A day of the week, in the order of `datetime.weekday`."""

    MONDAY = "Monday"
    TUESDAY = "Tuesday"
    WEDNESDAY = "Wednesday"
    THURSDAY = "Thursday"
    FRIDAY = "Friday"
    SATURDAY = "Saturday"
    SUNDAY = "Sunday"


_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9]"


class BeginWindow(ApiModel):
    """When a stage may begin. One that has begun goes on, and a way back is never held up."""

    model_config = with_rules(Rule("self.from != self.to", "from and to are the same time", ".to"))

    days: Annotated[tuple[Weekday, ...], Field(min_length=1, max_length=7, json_schema_extra=dict(SET_LIST))] = tuple(
        Weekday
    )
    """On which days it opens. One over midnight belongs to the day on which it opens."""
    from_: Annotated[str, Field(alias="from", max_length=5, pattern=f"^{_CLOCK}$")] = "00:00"
    to: Annotated[str, Field(max_length=5, pattern=f"^({_CLOCK}|24:00)$")] = "24:00"
    """Before `from`: on the next day."""
    time_zone: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            pattern=r"^[A-Za-z][-+_/A-Za-z0-9]*$",
            json_schema_extra=rules(
                Rule(
                    "self != 'Local' && timestamp('2026-01-01T00:00:00Z').getHours(self) >= 0",
                    "not a time zone of the IANA, such as Europe/Berlin",
                )
            ),
        ),
    ] = "UTC"
    """Of the IANA, such as `Europe/Berlin`.

    When the clocks are put forward, a time that does not exist is meant as much later. When they are put back, of a
    time that comes twice the window opens at the first and closes at the second.
    """
