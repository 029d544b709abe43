"""From what was recorded to named metrics. A metric that is not known is absent, never 0."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from statistics import fmean

from cotune.api.trial import Measurement
from cotune.measurement.card import Reading
from cotune.measurement.clients import Answer
from cotune.measurement.contract import LARGEST_ALLOCATION
from cotune.measurement.latency import LatencyRecorder, Percentiles
from cotune.measurement.open_loop import StreamResult
from cotune.measurement.vllm_metrics import CacheFacts
from cotune.measurement.word_error_rate import word_error_rate

_DECIMALS = 6
_LARGEST_ERRORS = 16


@dataclass
class ComponentRecord:
    """The answers of one component during the window."""

    answers: list[Answer] = field(default_factory=list[Answer])
    unfinished: list[Answer] = field(default_factory=list[Answer])
    """Requests that were given up at the end: how long they had waited counts, what they would have said does not."""
    in_window: int = 0
    """Answers that were complete before the window ended."""
    tokens_in_window: int = 0
    errors: list[str] = field(default_factory=list[str])

    def answered(self, answer: Answer, is_in_window: bool) -> None:
        """Count an answer."""
        self.answers.append(answer)
        if is_in_window:
            self.in_window += 1
            self.tokens_in_window += answer.tokens

    def failed(self, error: BaseException) -> None:
        """Keep the first errors: what a person reads when the error rate is not 0."""
        if len(self.errors) < _LARGEST_ERRORS:
            self.errors.append(f"{type(error).__name__}: {error}"[:300])


def component_measurements(
    name: str, record: ComponentRecord, loop: StreamResult, seconds: float, cache: CacheFacts | None
) -> Iterator[Measurement]:
    """All metrics of one component; `seconds` is the length of the window.

    Nothing of its load is known without a single request.
    """
    answers = record.answers
    if loop.latency is not None:
        yield from _percentiles(f"{name}.latency", loop.latency, ("p50", "p95", "p99"))
    if loop.requests:
        yield _of(f"{name}.throughput", record.in_window / seconds, loop.requests)
        yield _of(f"{name}.errorRate", loop.error_rate, loop.requests)
    streamed = [it for it in (*answers, *record.unfinished) if it.first_token is not None]
    if first := _recorded([it.first_token for it in streamed if it.first_token is not None]):
        yield from _percentiles(f"{name}.ttft", first, ("p50", "p95", "p99"))
        yield _of(f"{name}.tokensPerSecond", record.tokens_in_window / seconds, first.samples)
    if between := _recorded([gap for it in streamed for gap in it.between_tokens]):
        yield from _percentiles(f"{name}.itl", between, ("p50", "p95"))
    heard = [it.heard for it in answers if it.heard is not None]
    if (rate := word_error_rate(heard)) is not None:
        yield _of(f"{name}.wer", rate, len(heard))
    if audio := sum(it.audio_seconds for it in answers):
        yield _of(f"{name}.realTimeFactor", sum(it.processing_seconds for it in answers) / audio, len(answers))
    if cache is not None:
        yield _of(f"{name}.kvCache.tokens", cache.tokens, 1)
        if cache.concurrency is not None:
            yield _of(f"{name}.kvCache.concurrency", cache.concurrency, 1)


def card_measurements(readings: Sequence[Reading]) -> Iterator[Measurement]:
    """The card's metrics over the window; nothing without a reading."""
    if readings:
        yield _of("gpu.freeMiB", min(it.free_mib for it in readings), len(readings))
        yield _of("gpu.usedMiB", max(it.used_mib for it in readings), len(readings))
        yield _of("gpu.utilization", fmean(it.utilization for it in readings), len(readings))


def largest_allocation_measurement(mib: float) -> Measurement:
    """The one that was tried once, after the window."""
    return _of(LARGEST_ALLOCATION, mib, 1)


def _recorded(seconds: Sequence[float]) -> Percentiles | None:
    recorder = LatencyRecorder()
    for value in seconds:
        recorder.finished(0.0, value)
    return recorder.percentiles()


def _percentiles(metric: str, found: Percentiles, which: Sequence[str]) -> Iterator[Measurement]:
    values = {"p50": found.p50, "p95": found.p95, "p99": found.p99}
    return (_of(f"{metric}.{it}", values[it], found.samples) for it in which)


def _of(metric: str, value: float, samples: int) -> Measurement:
    text = format(round(Decimal(value), _DECIMALS), "f")
    return Measurement(metric=metric, value=text.rstrip("0").rstrip(".") if "." in text else text, samples=samples)
