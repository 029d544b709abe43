"""What the operator tells the probe, and what the probe answers.

The configuration travels as JSON in the environment variable `COTUNE_PROBE`; the result is the last line that the probe
prints, as one line of JSON.
"""

from typing import Annotated

from pydantic import Field

from cotune.api.base import ApiModel, ComponentName, map_list
from cotune.api.experiment import Arrivals, Protocol
from cotune.api.trial import Measurement

CONFIGURATION_VARIABLE = "COTUNE_PROBE"
HEALTH_PORT = 8080
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
    grace_seconds: Annotated[float, Field(ge=0)] = 30
    """How long answers are waited for after the last request was sent."""
    streams: Annotated[tuple[ProbeStream, ...], Field(min_length=1)]


class ProbeResult(ApiModel):
    """What was measured, in the names and units of the resources."""

    measurements: Annotated[tuple[Measurement, ...], Field(max_length=256, json_schema_extra=map_list("metric"))]
    errors: Annotated[tuple[str, ...], Field(max_length=16)] = ()
    """The first errors of requests, each at most 300 characters: what a person reads first when errorRate is not 0."""
