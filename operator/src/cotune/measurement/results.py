"""From what was recorded to named metrics. A metric that is not known is absent, never 0."""

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean

from cotune.api.trial import Measurement
from cotune.api.workload import ArrivalType
from cotune.measurement.card import Reading
from cotune.measurement.contract import (
    LARGEST_ALLOCATION,
    MOST_SHOWN,
    MOST_WRONG,
    ConcurrencyStep,
    ErrorCount,
    QualityReport,
    RawHistogram,
    Spread,
    Steadiness,
    StreamReport,
)
from cotune.measurement.engine import EngineFacts
from cotune.measurement.latency import LatencyRecorder, Percentiles
from cotune.measurement.load import Step
from cotune.measurement.quality import goodness
from cotune.measurement.record import StreamRecord
from cotune.measurement.stated import measurement, percentiles
from cotune.measurement.steady_state import steady_state
from cotune.measurement.vllm_metrics import CacheFacts
from cotune.measurement.word_error_rate import word_error_rate

_DECIMALS = 6


def component_measurements(
    name: str, records: Sequence[StreamRecord], cache: CacheFacts | None
) -> Iterator[Measurement]:
    """All metrics of one component, over all of its streams.

    Nothing of its load is known without a single request, and nothing of its tokens where the server does not say them.
    """
    seconds = records[0].window.seconds
    requests = sum(it.requests for it in records)
    if latency := _of_all(it.latency for it in records):
        yield from percentiles(name, "latency", latency)
    if requests:
        yield measurement(f"{name}.throughput", sum(it.answered_in_window for it in records) / seconds, requests)
        yield measurement(f"{name}.errorRate", sum(it.errors.total() for it in records) / requests, requests)
    if first := _of_all(it.first_token for it in records):
        yield from percentiles(name, "ttft", first)
        if not any(it.tokens_unknown for it in records):
            tokens = sum(it.tokens_in_window for it in records)
            yield measurement(f"{name}.tokensPerSecond", tokens / seconds, first.samples)
    if between := _of_all(it.between_tokens for it in records):
        yield from percentiles(name, "itl", between)
    heard = [one for it in records for one in it.heard]
    if (rate := word_error_rate(heard)) is not None:
        yield measurement(f"{name}.wer", rate, len(heard))
    for condition in sorted({it.condition for it in heard if it.condition is not None}):
        under_it = [it for it in heard if it.condition == condition]
        if (rate := word_error_rate(under_it)) is not None:
            yield measurement(f"{name}.wer.{condition}", rate, len(under_it))
    if audio := sum(it.audio_seconds for it in records):
        yield measurement(f"{name}.realTimeFactor", sum(it.processing_seconds for it in records) / audio, len(heard))
    if cache is not None:
        yield measurement(f"{name}.kvCache.tokens", cache.tokens, 1)
        if cache.concurrency is not None:
            yield measurement(f"{name}.kvCache.concurrency", cache.concurrency, 1)


def engine_measurements(name: str, facts: EngineFacts) -> Iterator[Measurement]:
    """What a vLLM server says of its queue and its cache over the window."""
    if facts.preemptions is not None:
        yield measurement(f"{name}.preemptions", facts.preemptions, facts.readings)
    if facts.most_waiting is not None and facts.mean_waiting is not None:
        yield measurement(f"{name}.queue.max", facts.most_waiting, facts.readings)
        yield measurement(f"{name}.queue.mean", facts.mean_waiting, facts.readings)
    if facts.most_cache_usage is not None:
        yield measurement(f"{name}.kvCache.usage", facts.most_cache_usage, facts.readings)


def quality_measurement(name: str, records: Sequence[StreamRecord]) -> Measurement | None:
    """The share of right answers to all questions of one component; None without a question.

    One without an answer counts as wrong: a server that refuses what it does not know well is no better for it.
    """
    asked = sum(it.requests for it in records)
    if not asked:
        return None
    return measurement(f"{name}.quality", sum(goodness(reply) for it in records for reply in it.replies) / asked, asked)


def quality_report(component: str, number: int, record: StreamRecord) -> QualityReport:
    """What came of the questions of one stream."""
    marks = [goodness(it) for it in record.replies]
    return QualityReport(
        component=component,
        stream=number,
        asked=record.requests,
        answered=len(marks),
        goodness=round(sum(marks), _DECIMALS),
        wrong=tuple(
            f"{it.question.shown()}: {it.text.strip()!r}"[:MOST_SHOWN]
            for it, mark in zip(record.replies, marks, strict=True)
            if mark < 1 and not it.question.logprobs
        )[:MOST_WRONG],
        errors=tuple(ErrorCount(kind=kind, count=count) for kind, count in sorted(record.errors.items())),
    )


def stream_report(
    component: str, number: int, arrivals: ArrivalType, record: StreamRecord, steps: Sequence[Step]
) -> StreamReport:
    """How the load of one stream went."""
    steady = steady_state(record.latencies_by_due_time())
    kept = {
        "latency": record.latency,
        "service": record.service,
        "firstToken": record.first_token,
        "betweenTokens": record.between_tokens,
        "scheduleError": record.lateness,
    }
    return StreamReport(
        component=component,
        stream=number,
        arrivals=arrivals,
        requests=record.requests,
        errors=tuple(ErrorCount(kind=kind, count=count) for kind, count in sorted(record.errors.items())),
        latency=spread_of(record.latency.percentiles()),
        schedule_error=spread_of(record.lateness.percentiles()),
        steadiness=Steadiness.TOO_FEW
        if steady is None
        else (Steadiness.STEADY if steady.is_steady else Steadiness.UNSTEADY),
        run_in_requests=steady.skipped if steady is not None else 0,
        backoff_seconds=round(record.backoff_seconds, 3),
        prompt_tokens=record.prompt_tokens,
        output_tokens=record.output_tokens,
        steps=tuple(
            ConcurrencyStep(
                concurrency=it.concurrency,
                throughput=round(it.answered / it.seconds, _DECIMALS),
                latency=spread_of(it.latency),
            )
            for it in steps
        ),
        histograms=tuple(
            RawHistogram(name=name, encoded=it.encoded()) for name, it in kept.items() if it.percentiles() is not None
        ),
    )


def card_measurements(readings: Sequence[Reading]) -> Iterator[Measurement]:
    """The card's metrics over the window; nothing without a reading."""
    if readings:
        yield measurement("gpu.freeMiB", min(it.free_mib for it in readings), len(readings))
        yield measurement("gpu.usedMiB", max(it.used_mib for it in readings), len(readings))
        yield measurement("gpu.utilization", fmean(it.utilization for it in readings), len(readings))


def largest_allocation_measurement(mib: float) -> Measurement:
    """The one that was tried once, after the window."""
    return measurement(LARGEST_ALLOCATION, mib, 1)


def _of_all(recorders: Iterable[LatencyRecorder]) -> Percentiles | None:
    return LatencyRecorder.merged(recorders).percentiles()


def spread_of(found: Percentiles | None) -> Spread | None:
    """As the result has it."""
    if found is None:
        return None
    return Spread(
        p50=found.p50,
        p95=found.p95,
        p99=found.p99,
        largest=found.largest,
        samples=found.samples,
        censored=found.censored,
    )
