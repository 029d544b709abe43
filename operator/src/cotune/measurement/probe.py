"""One probe's life: the card drained, every service there, warm, then all of them loaded at once."""

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from cotune.api.experiment import Protocol
from cotune.measurement.arrivals import schedule
from cotune.measurement.card import Card, Reading, card_conduct
from cotune.measurement.clients import Answer, Client, CompletionsClient, HttpClient, TranscriptionsClient
from cotune.measurement.contract import Conduct, ProbeConfiguration, ProbeResult, ProbeStream, Punctuality
from cotune.measurement.corpus import Clip, read_corpus
from cotune.measurement.largest_allocation import measure_largest_allocation
from cotune.measurement.open_loop import StreamResult, run_open_loop
from cotune.measurement.results import (
    ComponentRecord,
    card_measurements,
    component_measurements,
    largest_allocation_measurement,
)
from cotune.measurement.vllm_metrics import cache_facts

_REQUEST_SECONDS = 300
_RETRY_SECONDS, _REPORT_SECONDS = 0.25, 10.0
_WARM_UP_SEED = 1_000_003
"""Added to the seed of the warm-up's arrivals: its load is like the window's, not the same."""
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
    """One stream: when it sends, and with which client.

    Warm-up and window share the client: it knows the model's name by then, and never sends a prompt twice.
    """

    stream: ProbeStream
    client: Client
    warm_up: tuple[float, ...]
    window: tuple[float, ...]


Corpora = Mapping[str, Sequence[Clip]]
"""The clips by the folder that holds them."""


def read_corpora(configuration: ProbeConfiguration) -> Corpora:
    """Everything that the load is made of, so that what is missing is known before anything is waited for.

    Raises:
        ValueError: a stream says too little for its protocol, or a corpus (`CorpusError`) is not there.
    """
    for stream in configuration.streams:
        schedule(stream.arrivals, 0.0, 0)
        match stream.protocol:
            case Protocol.OPENAI_COMPLETIONS:
                if stream.prompt_tokens is None or stream.output_tokens is None:
                    raise ValueError(f"{stream.component}: OpenAICompletions needs promptTokens and outputTokens")
            case Protocol.OPENAI_TRANSCRIPTIONS:
                if stream.corpus is None:
                    raise ValueError(f"{stream.component}: OpenAITranscriptions needs a corpus")
            case Protocol.HTTP:
                pass
    return {it.corpus: read_corpus(Path(it.corpus)) for it in configuration.streams if it.corpus is not None}


@dataclass(frozen=True)
class DrainedCard:
    """The card of a trial."""

    card: Card
    drained: Reading
    """Before any service was started."""


async def run_probe(
    configuration: ProbeConfiguration, corpora: Corpora, card: DrainedCard | None, say: Say
) -> ProbeResult:
    """Wait for the services, warm them up, measure.

    Args:
        configuration: what to do.
        corpora: from `read_corpora`.
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
    timeout = aiohttp.ClientTimeout(total=_REQUEST_SECONDS)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        sources = _sources(configuration, session, corpora)
        say(f"warming up for {configuration.warmup_seconds:g} s")
        await _warm_up(sources, corpora, configuration)
        say(f"measuring for {configuration.duration_seconds:g} s")
        return await _measure(sources, session, card, configuration, say)


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


async def _warm_up(sources: Sequence[_Source], corpora: Corpora, configuration: ProbeConfiguration) -> None:
    """Every clip once, for the first of a length is slow; then a load like the window's. All is thrown away."""

    async def first_requests(source: _Source) -> None:
        clips = corpora.get(source.stream.corpus or "", ())
        for _ in range(max(len(clips), 1)):
            await asyncio.gather(source.client.send(Answer()), return_exceptions=True)

    await asyncio.gather(*(first_requests(it) for it in sources))
    loads = (
        _load([(it.client, it.warm_up) for it in several], ComponentRecord(), 0.0, configuration.grace_seconds)
        for several in _by_component(sources)
    )
    await asyncio.gather(*loads)


async def _measure(
    sources: Sequence[_Source],
    session: aiohttp.ClientSession,
    card: DrainedCard | None,
    configuration: ProbeConfiguration,
    say: Say,
) -> ProbeResult:
    seconds = configuration.duration_seconds
    groups = _by_component(sources)
    records = [ComponentRecord() for _ in groups]
    loads = (
        _load([(it.client, it.window) for it in group], record, seconds, configuration.grace_seconds)
        for group, record in zip(groups, records, strict=True)
    )
    started_at = datetime.now(UTC)
    readings, loops = await asyncio.gather(_watched(card, seconds), asyncio.gather(*loads))
    conduct = Conduct(
        started_at=started_at,
        ended_at=datetime.now(UTC),
        punctuality=tuple(
            Punctuality(component=group[0].stream.component, requests=it.requests, late_p99_ms=it.schedule_error_p99)
            for group, it in zip(groups, loops, strict=True)
        ),
        card=card_conduct(card.card.uuid, card.drained, readings) if card is not None else None,
    )
    measurements = list(card_measurements(readings))
    for group, record, loop in zip(groups, records, loops, strict=True):
        stream = group[0].stream
        say(f"{stream.component}: {loop.requests} requests, sent at most {loop.schedule_error_p99:.1f} ms late (p99)")
        is_language_model = stream.protocol is Protocol.OPENAI_COMPLETIONS
        cache = await cache_facts(session, _url(stream)) if is_language_model else None
        measurements += component_measurements(stream.component, record, loop, seconds, cache)
    if card is not None and configuration.largest_allocation:
        largest, unknown = await measure_largest_allocation()
        if largest is None:
            say(f"the largest allocation is not known: {unknown}")
        else:
            measurements.append(largest_allocation_measurement(largest))
    errors = [
        f"{group[0].stream.component}: {it}"
        for group, record in zip(groups, records, strict=True)
        for it in record.errors
    ]
    return ProbeResult(measurements=tuple(measurements), errors=tuple(it[:300] for it in errors[:16]), conduct=conduct)


async def _watched(card: DrainedCard | None, seconds: float) -> list[Reading]:
    if card is None:
        return []
    return await card.card.watch(seconds)


def _by_component(sources: Sequence[_Source]) -> list[list[_Source]]:
    """The streams by component: its metrics are over all of its streams."""
    groups: defaultdict[str, list[_Source]] = defaultdict(list)
    for source in sources:
        groups[source.stream.component].append(source)
    return list(groups.values())


async def _load(
    streams: Sequence[tuple[Client, tuple[float, ...]]], record: ComponentRecord, seconds: float, grace: float
) -> StreamResult:
    """All streams of one component as one open loop."""
    arrivals = sorted((due, index) for index, (_, times) in enumerate(streams) for due in times)
    order = iter([index for _, index in arrivals])
    end = time.monotonic() + seconds

    async def send() -> None:
        client, _ = streams[next(order)]
        answer = Answer()
        try:
            await client.send(answer)
        except asyncio.CancelledError:
            record.unfinished.append(answer)
            raise
        except Exception as error:
            record.failed(error)
            raise
        record.answered(answer, time.monotonic() <= end)

    return await run_open_loop([due for due, _ in arrivals], send, grace)


def _sources(configuration: ProbeConfiguration, session: aiohttp.ClientSession, corpora: Corpora) -> list[_Source]:
    seeds = itertools.count(configuration.seed, step=10_007)
    return [
        _Source(
            stream,
            _client(stream, session, corpora, seed),
            schedule(stream.arrivals, configuration.warmup_seconds, seed + _WARM_UP_SEED),
            schedule(stream.arrivals, configuration.duration_seconds, seed),
        )
        for stream, seed in zip(configuration.streams, seeds, strict=False)
    ]


def _client(stream: ProbeStream, session: aiohttp.ClientSession, corpora: Corpora, seed: int) -> Client:
    url = _url(stream)
    match stream.protocol:
        case Protocol.OPENAI_COMPLETIONS:
            return CompletionsClient(session, url, stream.prompt_tokens or 0, stream.output_tokens or 0, seed)
        case Protocol.OPENAI_TRANSCRIPTIONS:
            return TranscriptionsClient(session, url, corpora[stream.corpus or ""])
        case Protocol.HTTP:
            return HttpClient(session, url + stream.path)


def _url(stream: ProbeStream) -> str:
    return f"http://{stream.host}:{stream.port}"
