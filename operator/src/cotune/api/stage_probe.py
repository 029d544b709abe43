"""The probe of a stage: the load that cotune itself sends to its services, and what came of it."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from cotune.api.base import ApiModel, ObjectName, Rule, map_list, with_rules
from cotune.api.gate import FEWEST_RUNS
from cotune.api.trial import Measurement
from cotune.api.workload import REQUESTS_FIT, STREAM_RULES, Protocol, Stream, config_maps

MOST_RUNS = 20
MOST_SPOILED = 3
"""Runs without a figure that are made again, in a row of runs."""

_LANGUAGE_MODELS = "['OpenAICompletions', 'OpenAIChat']"


class StageStream(Stream):
    """The requests that one service of the stage gets.

    Only arrivals whose rate is known beforehand, and steady: the owner of the namespace has said how much may come.
    """

    model_config = with_rules(
        *STREAM_RULES,
        Rule(
            "self.arrivals.type in ['Poisson', 'Constant']",
            "only Poisson and Constant have a rate that the grant's limit can be held against",
            ".arrivals.type",
        ),
        Rule(
            f"!(self.protocol in {_LANGUAGE_MODELS}) || "
            "(has(self.promptTokens) || has(self.datasetRef)) && has(self.outputTokens)",
            "a stream to OpenAICompletions or OpenAIChat needs promptTokens (or datasetRef) and outputTokens",
        ),
        Rule(
            "self.protocol != 'OpenAITranscriptions' || has(self.corpusRef)",
            "a stream to OpenAITranscriptions needs corpusRef",
        ),
        Rule(
            "!has(self.qualityRef)",
            "questions would come on top of the rate: quality is measured in trials",
            ".qualityRef",
        ),
    )

    protocol: Protocol


class StageProbe(ApiModel):
    """Runs of load on services of the stage while it bakes, spread evenly over the bake time.

    For a gate with `againstBaseline` as many before its first workload is stopped, one after the other.
    """

    model_config = with_rules(
        Rule(
            "self.streams.all(s, self.streams.all(t, s.component != t.component || s.protocol == t.protocol))",
            "streams to the same component have different protocols",
            ".streams",
        ),
        Rule(
            "self.streams.all(s, !has(s.warmupSeconds) || s.warmupSeconds <= self.warmupSeconds)",
            "a stream's warm-up is longer than the probe's",
            ".streams",
        ),
        REQUESTS_FIT,
    )

    warmup_seconds: Annotated[int, Field(ge=0, le=86_400)] = 20
    duration_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    """Of the window of each run: only requests that are due in it are measured."""
    cooldown_seconds: Annotated[int, Field(ge=0, le=86_400)] = 0
    """The load goes on for so long, so that the window's last requests are answered under it."""
    runs: Annotated[int, Field(ge=FEWEST_RUNS, le=MOST_RUNS)] = 5
    """How many; a gate is decided when all of them are there."""
    streams: Annotated[tuple[StageStream, ...], Field(min_length=1, max_length=16)]

    @property
    def load_seconds(self) -> int:
        """Of one run, from the first request of the warm-up to the last of the cool-down."""
        return self.warmup_seconds + self.duration_seconds + self.cooldown_seconds

    @property
    def config_maps(self) -> tuple[str, ...]:
        """The ConfigMaps that the streams read, by name."""
        return config_maps(self.streams)


_MIXED_IN = (
    "(!g.probe.metric.contains('.wer.') || has(s.corpusRef) && has(s.corpusRef.noise) && "
    "(g.probe.metric.contains('.wer.snr') ? "
    "int(g.probe.metric.substring(g.probe.metric.lastIndexOf('.snr') + 4).replace('Minus', '-')) "
    "in s.corpusRef.noise.snrDb : s.corpusRef.noise.clean))"
)
_OF_SPEECH = "(g.probe.metric.contains('.wer') || g.probe.metric.endsWith('.realTimeFactor'))"
_OF_TOKENS = (
    "(g.probe.metric.contains('.ttft.') || g.probe.metric.contains('.itl.') || "
    "g.probe.metric.endsWith('.tokensPerSecond'))"
)

PROBED_STAGE_RULES = (
    Rule(
        "!has(self.probe) || size(self.batches) == 1 && self.batches[0] == '100%'",
        "a Service has the pods of all stacks behind it, those of later batches too: with batches give no probe",
        ".batches",
    ),
    Rule(
        "has(self.probe) == self.gates.exists(g, has(g.probe))",
        "a gate with a probe needs the stage's probe, and the probe a gate that names one of its figures",
        ".probe",
    ),
    Rule(
        "!has(self.probe) || self.gates.all(g, !has(g.probe) || self.probe.streams.exists(s, "
        f"g.probe.metric.startsWith(s.component + '.') && {_MIXED_IN} && "
        f"(!{_OF_SPEECH} || s.protocol == 'OpenAITranscriptions') && "
        f"(!{_OF_TOKENS} || s.protocol in {_LANGUAGE_MODELS})))",
        "no stream of the probe measures a gate's metric: wer and realTimeFactor need OpenAITranscriptions, ttft, itl "
        "and tokensPerSecond a language model, wer under a condition that noise",
        ".gates",
    ),
    Rule(
        "!has(self.probe) || self.gates.all(g, !has(g.probe) || "
        "self.probe.streams.filter(s, g.probe.metric.startsWith(s.component + '.'))"
        ".map(s, has(s.arrivals.ratePerSecond) ? double(s.arrivals.ratePerSecond) : 0.0).sum() * "
        "double(self.probe.durationSeconds) >= double(g.probe.minimumRequests))",
        "fewer requests are due in a run than minimumRequests of a gate",
        ".probe.durationSeconds",
    ),
    Rule(
        "!has(self.probe) || self.probe.runs * "
        "(self.probe.warmupSeconds + self.probe.durationSeconds + self.probe.cooldownSeconds) <= self.bakeSeconds",
        "the probe's runs, each with warm-up, window and cool-down, do not fit into bakeSeconds",
        ".bakeSeconds",
    ),
)
"""Of a stage, beside its own: how its gates and its probe go together."""


class ProbeRun(ApiModel):
    """One run of a stage's probe that is over."""

    number: Annotated[int, Field(ge=1)]
    """Among all that were begun for the stage."""
    ended_at: datetime
    measurements: Annotated[tuple[Measurement, ...], Field(max_length=16, json_schema_extra=map_list("metric"))] = ()
    """What the stage's gates name."""
    error: Annotated[str, Field(max_length=512)] = ""
    """Why there are none."""


_Runs = Annotated[
    tuple[ProbeRun, ...], Field(max_length=MOST_RUNS + MOST_SPOILED, json_schema_extra=map_list("number"))
]


class StageProbeStatus(ApiModel):
    """What the probe of a stage has measured."""

    load: Annotated[str, Field(max_length=16)]
    """Digest of what is sent and which figures are wanted; with another one all runs are made anew."""
    begun: Annotated[int, Field(ge=0)] = 0
    """How many runs were begun."""
    pod: ObjectName | None = None
    """The pod of the last of them in the profile's namespace, until it is deleted."""
    pod_since: datetime | None = None
    baseline_of: Annotated[str, Field(max_length=16)] | None = None
    """Digest of the workloads as they were when the baseline was measured."""
    baseline: _Runs = ()
    """Before the stage began."""
    runs: _Runs = ()
    """While it bakes."""
