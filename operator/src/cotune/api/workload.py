"""The load on services: what they speak, when requests are sent, and what is in them."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from cotune.api.base import ApiModel, ComponentName, Rule, with_rules
from cotune.api.corpus import CorpusRef
from cotune.api.quantities import DecimalString


class Protocol(StrEnum):
    """What a component speaks, and so which load the probe sends to it."""

    OPENAI_COMPLETIONS = "OpenAICompletions"
    OPENAI_CHAT = "OpenAIChat"
    OPENAI_TRANSCRIPTIONS = "OpenAITranscriptions"
    HTTP = "HTTP"

    @property
    def is_language_model(self) -> bool:
        """Whether it streams tokens, and its server may be vLLM."""
        return self in {Protocol.OPENAI_COMPLETIONS, Protocol.OPENAI_CHAT}


class ArrivalType(StrEnum):
    """How the requests of a stream are spaced."""

    POISSON = "Poisson"
    CONSTANT = "Constant"
    BURST = "Burst"
    """Several requests at the same moment; the bursts themselves come as a Poisson process."""
    TRACE = "Trace"
    """As they were recorded."""
    CLOSED_LOOP = "ClosedLoop"
    """Each client sends its next request when its last was answered. It slows down with the server and so cannot see
    what the server's users see: for capacity, not for latency."""


MOST_REQUESTS_A_SECOND = 1_000
MOST_REQUESTS = 1_000_000
"""Of one stream in warm-up, window and cool-down: the probe keeps something of each of them in memory."""

REQUESTS_FIT = Rule(
    "self.streams.all(s, !has(s.arrivals.ratePerSecond) || double(s.arrivals.ratePerSecond) * "
    "double(self.warmupSeconds + self.durationSeconds + self.cooldownSeconds)"
    f" <= {MOST_REQUESTS}.0)",
    f"a stream has more than {MOST_REQUESTS} requests in warm-up, window and cool-down",
    ".streams",
)


class FileRef(ApiModel):
    """A file in a ConfigMap of the namespace of the experiment, or of the profile."""

    config_map: Annotated[str, Field(min_length=1, max_length=253)]
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]


class Arrivals(ApiModel):
    """When requests are sent, whatever the answers take: an open loop, but for `ClosedLoop`."""

    model_config = with_rules(
        Rule(
            "(self.type in ['Poisson', 'Constant', 'Burst']) == has(self.ratePerSecond)",
            "ratePerSecond belongs to types Poisson, Constant and Burst, and only to them",
            ".ratePerSecond",
        ),
        Rule("(self.type == 'Burst') == has(self.burstSize)", "burstSize belongs to type Burst, and only to it"),
        Rule("(self.type == 'Trace') == has(self.traceRef)", "traceRef belongs to type Trace, and only to it"),
        Rule(
            "(self.type == 'ClosedLoop') == has(self.concurrency)",
            "concurrency belongs to type ClosedLoop, and only to it",
        ),
        Rule(
            "!has(self.ratePerSecond) || double(self.ratePerSecond) > 0.0",
            "ratePerSecond must be greater than 0",
            ".ratePerSecond",
        ),
        Rule(
            f"!has(self.ratePerSecond) || double(self.ratePerSecond) <= {MOST_REQUESTS_A_SECOND}.0",
            f"ratePerSecond must be at most {MOST_REQUESTS_A_SECOND}: one probe sends no more in time",
            ".ratePerSecond",
        ),
    )

    type: ArrivalType = ArrivalType.POISSON
    rate_per_second: DecimalString | None = None
    """The mean over time. Greater than 0 and at most 1000."""
    burst_size: Annotated[int, Field(ge=2, le=1000)] | None = None
    """Requests that come at the same moment."""
    trace_ref: FileRef | None = None
    """JSON lines, each with `at` (seconds from the start, ascending) and, where they are known, `promptTokens` and
    `outputTokens`. Warm-up and cool-down replay its beginning; after its end nothing is sent."""
    concurrency: (
        Annotated[tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(min_length=1, max_length=16)] | None
    ) = None
    """How many clients; several figures make a sweep, which splits the window into equal parts."""


STREAM_RULES = (
    Rule(
        "!has(self.lengthSpread) || (double(self.lengthSpread) >= 0.0 && double(self.lengthSpread) <= 2.0)",
        "lengthSpread must lie between 0 and 2",
        ".lengthSpread",
    ),
    Rule(
        "!has(self.sharedPrefixTokens) || (has(self.promptTokens) && self.sharedPrefixTokens < self.promptTokens)",
        "sharedPrefixTokens must be smaller than promptTokens",
        ".sharedPrefixTokens",
    ),
)


class Stream(ApiModel):
    """The requests that one component gets."""

    model_config = with_rules(*STREAM_RULES)

    component: ComponentName
    arrivals: Arrivals
    prompt_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """The mean length of made-up prompts."""
    output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """The mean length of answers."""
    length_spread: DecimalString | None = None
    """The standard deviation of both lengths as a share of their mean, log-normal, cut at eight times the mean; left
    out: all are of the same length."""
    shared_prefix_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """So many tokens at the beginning are the same in all made-up prompts, for prefix caches; left out: none."""
    dataset_ref: FileRef | None = None
    """Prompts to be sent instead of made-up ones, in a seeded order: JSON lines, each with `prompt` or (chat)
    `messages`, and, where it is known, `outputTokens`."""
    corpus_ref: CorpusRef | None = None
    quality_ref: FileRef | None = None
    """Questions whose answers are known, asked once each within the window, under the load: JSON lines, each with
    `prompt` or (chat) `messages`, and with `expect` or recorded `logprobs`. They make `<c>.quality`."""
    path: Annotated[str, Field(max_length=253, pattern=r"^/")] | None = None
    """For HTTP: the path that is asked for."""
    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 300
    """An answer that takes longer is an error, and counts in the latencies with the time that it was waited for."""
    warmup_seconds: Annotated[int, Field(ge=0, le=86_400)] | None = None
    """Left out: the workload's."""


def config_maps(streams: Iterable[Stream]) -> tuple[str, ...]:
    """The ConfigMaps that streams read, by name."""
    references = (
        reference.config_map
        for it in streams
        for reference in (it.corpus_ref, it.dataset_ref, it.quality_ref, it.arrivals.trace_ref)
        if reference is not None
    )
    return tuple(sorted({it for it in references if it is not None}))
