"""One probe's life: the card drained, every service there, warm, then all of them loaded at once."""

import asyncio
import gc
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp

from cotune.api.experiment import ArrivalType, Protocol
from cotune.measurement.arrivals import schedule, stream_seed
from cotune.measurement.card import Card, Reading, card_conduct
from cotune.measurement.clients import Answer, Client, HttpClient, LanguageModelClient, TranscriptionsClient
from cotune.measurement.contract import Conduct, ProbeConfiguration, ProbeResult, ProbeStream, Punctuality, StreamReport
from cotune.measurement.examination import Examination
from cotune.measurement.inputs import Inputs
from cotune.measurement.largest_allocation import measure_largest_allocation
from cotune.measurement.load import Step, Target, run_closed_loop, run_open_loop
from cotune.measurement.prompts import prompt
from cotune.measurement.quality_client import QualityClient
from cotune.measurement.record import StreamRecord, Window
from cotune.measurement.requests import (
    Lengths,
    Phase,
    Recorded,
    Request,
    requests_from,
    shuffled,
)
from cotune.measurement.results import (
    card_measurements,
    component_measurements,
    largest_allocation_measurement,
    quality_measurement,
    quality_report,
    stream_report,
)
from cotune.measurement.vllm_metrics import cache_facts

_RETRY_SECONDS, _REPORT_SECONDS = 0.25, 10.0
_LEAD_SECONDS = 0.1
"""From the decision to begin to the first request: all streams begin at the same moment."""
_SCHEDULER = Path("/proc/self/schedstat")
_KEEP_ALIVE_SECONDS = 2
"""Shorter than the servers' own (uvicorn: 5 s): a request must not meet a connection that is just being closed."""
_NAMES_KEPT_SECONDS = 24 * 3600
"""No look-up of a name falls into the window: it would count as the service's latency."""

Say = Callable[[str], None]


class Progress:
    """Says what is waited for when that changes, and from time to time when it does not."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._said, self._at = "", 0.0

    def __call__(self, line: str) -> None:
        """Say the line, unless it was said a moment ago."""
        if line != self._said or time.monotonic() - self._at > _REPORT_SECONDS:
            self._say(line)
            self._said, self._at = line, time.monotonic()


@dataclass(frozen=True)
class _Source:
    """One stream: what it sends and when."""

    number: int
    stream: ProbeStream
    target: Target
    lengths: Lengths
    seed: int
    trace: Sequence[Recorded]
    warmup_seconds: float

    def plan(self, configuration: ProbeConfiguration) -> Iterator[tuple[float, Request]]:
        """Due times from the start of the window, and requests: warm-up, window and cool-down without a gap."""
        for phase, begin, seconds in (
            (Phase.WARM_UP, -self.warmup_seconds, self.warmup_seconds),
            (Phase.WINDOW, 0.0, configuration.duration_seconds),
            (Phase.COOL_DOWN, configuration.duration_seconds, configuration.cooldown_seconds),
        ):
            times = schedule(self.stream.arrivals, seconds, self.seed + phase, self.trace)
            for number, due in enumerate(times):
                recorded = self.trace[number] if self.trace else None
                yield begin + due, self.lengths.request(self.seed, phase, number, recorded)


@dataclass(frozen=True)
class DrainedCard:
    """The card of a trial."""

    card: Card
    drained: Reading
    """Before any service was started."""


async def run_probe(
    configuration: ProbeConfiguration, inputs: Inputs, card: DrainedCard | None, say: Say
) -> ProbeResult:
    """Wait for the services, warm them up, measure.

    Args:
        configuration: what to do.
        inputs: what the load is made of, all of it.
        card: None where the stack runs on the CPU.
        say: takes lines of progress.

    Raises:
        CardError: the card cannot be read.
    """
    await _wait_for_services(configuration.streams, Progress(say))
    connector = aiohttp.TCPConnector(
        limit=0,  # An open loop never waits for a free connection.
        keepalive_timeout=_KEEP_ALIVE_SECONDS,
        ttl_dns_cache=_NAMES_KEPT_SECONDS,
    )
    timeout = aiohttp.ClientTimeout(total=None)  # Every stream has its own, over the whole of a request.
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        sources = _sources(configuration, session, inputs)
        warm_up = max(it.warmup_seconds for it in sources)
        say(f"warming up for {warm_up:g} s")
        await asyncio.gather(*(_first_requests(it, inputs) for it in sources))
        # A collection of garbage over all that was read would hold back requests for milliseconds.
        gc.collect()
        gc.freeze()
        start = time.monotonic() + _LEAD_SECONDS + warm_up
        window = Window(start, configuration.duration_seconds, configuration.grace_seconds)
        questions = _examinations(configuration, session, inputs)
        return await _measure(sources, questions, window, session, card, configuration, say)


async def _wait_for_services(streams: Sequence[ProbeStream], progress: Progress) -> None:
    """Until every Service accepts a connection: it does when its pod is ready."""
    waiting: dict[str, tuple[str, int]] = {it.component: (it.host, it.port) for it in streams}
    while waiting:
        answers = await asyncio.gather(*(_accepts(host, port) for host, port in waiting.values()))
        waiting = {name: at for (name, at), there in zip(waiting.items(), answers, strict=True) if not there}
        progress(f"waiting for {', '.join(waiting)}" if waiting else "all services answer")
        if waiting:
            await asyncio.sleep(_RETRY_SECONDS)


async def _accepts(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(2):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            await writer.wait_closed()
    except (OSError, TimeoutError):  # The name may not resolve yet, and an empty Service refuses.
        return False
    return True


async def _first_requests(source: _Source, inputs: Inputs) -> None:
    """Every clip once, for the first of a length is slow; of any other service one answer. All is thrown away."""
    clips = inputs.corpora.get(source.number, ())
    # With noise in it, a clip is as long as before.
    numbers = {clip.name: number for number, clip in reversed(list(enumerate(clips)))}.values()
    for number in sorted(numbers) or [0]:
        prepared = source.target.client.prepare(source.lengths.request(source.seed, Phase.FIRST, number))
        sending = asyncio.wait_for(source.target.client.send(prepared, Answer()), source.target.timeout_seconds)
        await asyncio.gather(sending, return_exceptions=True)


async def _load(source: _Source, record: StreamRecord, configuration: ProbeConfiguration) -> tuple[Step, ...]:
    arrivals = source.stream.arrivals
    if arrivals.type is ArrivalType.CLOSED_LOOP:
        requests = requests_from(source.lengths, source.seed, Phase.WINDOW)
        concurrencies = arrivals.concurrency or ()
        return await run_closed_loop(concurrencies, requests, source.target, record, -source.warmup_seconds)
    await run_open_loop(source.plan(configuration), source.target, record)
    return ()


async def _measure(
    sources: Sequence[_Source],
    examinations: Sequence[Examination],
    window: Window,
    session: aiohttp.ClientSession,
    card: DrainedCard | None,
    configuration: ProbeConfiguration,
    say: Say,
) -> ProbeResult:
    records = [StreamRecord(window) for _ in sources]
    loads = (_load(it, record, configuration) for it, record in zip(sources, records, strict=True))
    before = _processor_wait()
    readings, swept, examined = await asyncio.gather(
        _watched(card, window, say), asyncio.gather(*loads), asyncio.gather(*(it.run(window) for it in examinations))
    )
    after = _processor_wait()
    groups: defaultdict[str, list[StreamRecord]] = defaultdict(list)
    measurements = list(card_measurements(readings))
    reports: list[StreamReport] = []
    for source, record, steps in zip(sources, records, swept, strict=True):
        name = source.stream.component
        groups[name].append(record)
        reports.append(stream_report(name, source.number, source.stream.arrivals.type, record, steps))
        late = reports[-1].schedule_error
        error = f"sent {late.p99:.2f} ms late (p99)" if late is not None else "as fast as they were answered"
        say(f"{name}: {record.requests} requests, {error}, {reports[-1].steadiness.value}")
    for name, group in groups.items():
        stream = next(it.stream for it in sources if it.stream.component == name)
        cache = await cache_facts(session, _url(stream)) if stream.protocol.is_language_model else None
        measurements += component_measurements(name, group, cache)
        answers = [record for it, record in zip(examinations, examined, strict=True) if it.component == name]
        if (quality := quality_measurement(name, answers)) is not None:
            measurements.append(quality)
            say(f"{name}: quality {quality.value} of {quality.samples} questions")
    if card is not None and configuration.largest_allocation:
        largest, unknown = await measure_largest_allocation()
        if largest is None:
            say(f"the largest allocation is not known: {unknown}")
        else:
            measurements.append(largest_allocation_measurement(largest))
    errors = [f"{name}: {it}" for name, group in groups.items() for record in group for it in record.examples]
    errors += [
        f"{it.component}, a question: {example}"
        for it, record in zip(examinations, examined, strict=True)
        for example in record.examples
    ]
    started_at = datetime.now(UTC) - timedelta(seconds=time.monotonic() - window.start)
    conduct = Conduct(
        started_at=started_at,
        ended_at=started_at + timedelta(seconds=window.seconds),
        punctuality=tuple(_punctuality(name, reports) for name in groups),
        card=card_conduct(card.card.uuid, card.drained, readings) if card is not None else None,
    )
    return ProbeResult(
        measurements=tuple(measurements),
        errors=tuple(it[:300] for it in errors[:16]),
        streams=tuple(reports),
        quality=tuple(
            quality_report(it.component, it.stream, record) for it, record in zip(examinations, examined, strict=True)
        ),
        conduct=conduct,
        processor_wait_seconds=None if before is None or after is None else round(after - before, 6),
    )


def _processor_wait() -> float | None:
    """Seconds that the thread of the event loop has spent in the kernel's run queue (sched-stats.rst)."""
    try:
        return int(_SCHEDULER.read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return None


def _punctuality(component: str, reports: Sequence[StreamReport]) -> Punctuality:
    """Over all streams of the component, the latest of them; a closed loop has no schedule to be late on."""
    streams = [it for it in reports if it.component == component]
    late = [it.schedule_error.p99 for it in streams if it.schedule_error is not None]
    return Punctuality(
        component=component, requests=sum(it.requests for it in streams), late_p99_ms=max(late, default=0.0)
    )


async def _watched(card: DrainedCard | None, window: Window, say: Say) -> list[Reading]:
    await asyncio.sleep(max(window.start - time.monotonic(), 0.0))
    say(f"measuring for {window.seconds:g} s")
    if card is None:
        return []
    return await card.card.watch(window.seconds)


def _sources(configuration: ProbeConfiguration, session: aiohttp.ClientSession, inputs: Inputs) -> list[_Source]:
    default = configuration.warmup_seconds
    return [
        _Source(
            number=number,
            stream=stream,
            target=Target(
                _client(stream, number, session, inputs, seed),
                stream.timeout_seconds,
                stream.protocol.is_language_model,
            ),
            lengths=Lengths(stream.prompt_tokens, stream.output_tokens, stream.length_spread),
            seed=seed,
            trace=inputs.traces.get(stream.trace or "", ()),
            warmup_seconds=default if stream.warmup_seconds is None else stream.warmup_seconds,
        )
        for number, stream in enumerate(configuration.streams)
        for seed in (stream_seed(configuration.seed, number),)
    ]


def _examinations(
    configuration: ProbeConfiguration, session: aiohttp.ClientSession, inputs: Inputs
) -> list[Examination]:
    found: list[Examination] = []
    for number, stream in enumerate(configuration.streams):
        if stream.questions is not None:
            questions = inputs.questions[stream.questions]
            client = QualityClient(session, _url(stream), questions, chat=stream.protocol is Protocol.OPENAI_CHAT)
            found.append(Examination(stream.component, number, questions, Target(client, stream.timeout_seconds)))
    return found


def _client(stream: ProbeStream, number: int, session: aiohttp.ClientSession, inputs: Inputs, seed: int) -> Client:
    url = _url(stream)
    match stream.protocol:
        case Protocol.OPENAI_COMPLETIONS | Protocol.OPENAI_CHAT:
            shared = stream.shared_prefix_tokens
            return LanguageModelClient(
                session,
                url,
                chat=stream.protocol is Protocol.OPENAI_CHAT,
                prefix=prompt(shared, seed) if shared else "",
                dataset=shuffled(inputs.datasets[stream.dataset], seed) if stream.dataset else (),
            )
        case Protocol.OPENAI_TRANSCRIPTIONS:
            return TranscriptionsClient(session, url, inputs.corpora[number])
        case Protocol.HTTP:
            return HttpClient(session, url + stream.path)


def _url(stream: ProbeStream) -> str:
    return f"http://{stream.host}:{stream.port}"
