"""One probe's life: the card drained, every service there, warm, then all of them loaded at once."""

import asyncio
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from cotune.api.experiment import Protocol
from cotune.measurement.arrivals import schedule
from cotune.measurement.card import Card, Reading
from cotune.measurement.clients import Client, CompletionsClient, HttpClient, TranscriptionsClient
from cotune.measurement.contract import ProbeConfiguration, ProbeResult, ProbeStream
from cotune.measurement.corpus import Clip, read_corpus
from cotune.measurement.open_loop import StreamResult, run_open_loop
from cotune.measurement.results import ComponentRecord, card_measurements, component_measurements
from cotune.measurement.vllm_metrics import cache_facts

_REQUEST_SECONDS = 300
_RETRY_SECONDS, _REPORT_SECONDS = 0.25, 10.0
_WARM_UP_SEED = 1_000_003
"""Added to the seed during the warm-up: the window's prompts must not be in any cache."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Source:
    """One stream: when it sends, and with which client."""

    stream: ProbeStream
    client: Client
    schedule: tuple[float, ...]


async def run_probe(configuration: ProbeConfiguration, card: Card | None, say: Say) -> ProbeResult:
    """Wait for the services, warm them up, measure.

    Args:
        configuration: what to do.
        card: None where the stack runs on the CPU.
        say: takes lines of progress.

    Raises:
        CorpusError: a corpus is not there.
        CardError: the card cannot be read.
    """
    corpora = {it.corpus: read_corpus(Path(it.corpus)) for it in configuration.streams if it.corpus is not None}
    await _wait_for_services(configuration.streams, say)
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0)  # An open loop never waits for a free connection.
        timeout = aiohttp.ClientTimeout(total=_REQUEST_SECONDS)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, timeout=timeout))
        say("warming up")
        await _warm_up(configuration, session, corpora)
        say(f"measuring for {configuration.duration_seconds:g} s")
        return await _measure(configuration, session, corpora, card)


async def _wait_for_services(streams: Sequence[ProbeStream], say: Say) -> None:
    """Until every Service accepts a connection: it does when its pod is ready."""
    waiting: dict[str, tuple[str, int]] = {it.component: (it.host, it.port) for it in streams}
    reported, said_at = "", 0.0
    while waiting:
        answers = await asyncio.gather(*(_accepts(host, port) for host, port in waiting.values()))
        waiting = {name: at for (name, at), there in zip(waiting.items(), answers, strict=True) if not there}
        line = f"waiting for {', '.join(waiting)}" if waiting else "all services answer"
        if line != reported or time.monotonic() - said_at > _REPORT_SECONDS:
            say(line)
            reported, said_at = line, time.monotonic()
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


async def _warm_up(
    configuration: ProbeConfiguration, session: aiohttp.ClientSession, corpora: Mapping[str, Sequence[Clip]]
) -> None:
    """Every clip once, for the first of a length is slow; then the load of the window, thrown away."""
    seed = configuration.seed + _WARM_UP_SEED
    sources = _sources(configuration, session, corpora, seed, configuration.warmup_seconds)

    async def first_requests(source: _Source) -> None:
        clips = corpora.get(source.stream.corpus or "", ())
        for _ in range(max(len(clips), 1)):
            await asyncio.gather(source.client.send(), return_exceptions=True)

    await asyncio.gather(*(first_requests(it) for it in sources))
    loads = (_load(several, ComponentRecord(), 0.0, configuration.grace_seconds) for several in sources_of(sources))
    await asyncio.gather(*loads)


async def _measure(
    configuration: ProbeConfiguration,
    session: aiohttp.ClientSession,
    corpora: Mapping[str, Sequence[Clip]],
    card: Card | None,
) -> ProbeResult:
    seconds = configuration.duration_seconds
    groups = sources_of(_sources(configuration, session, corpora, configuration.seed, seconds))
    records = [ComponentRecord() for _ in groups]
    readings: list[Reading] = []
    async with AsyncExitStack() as stack:
        if card is not None:
            readings = (await stack.enter_async_context(card.watched())).readings
        loops = await asyncio.gather(
            *(
                _load(group, record, seconds, configuration.grace_seconds)
                for group, record in zip(groups, records, strict=True)
            )
        )
    measurements = list(card_measurements(readings))
    for group, record, loop in zip(groups, records, loops, strict=True):
        stream = group[0].stream
        is_language_model = stream.protocol is Protocol.OPENAI_COMPLETIONS
        cache = await cache_facts(session, _url(stream)) if is_language_model else None
        measurements += component_measurements(stream.component, record, loop, seconds, cache)
    errors = [
        f"{group[0].stream.component}: {it}"
        for group, record in zip(groups, records, strict=True)
        for it in record.errors
    ]
    return ProbeResult(measurements=tuple(measurements), errors=tuple(it[:300] for it in errors[:16]))


def sources_of(sources: Sequence[_Source]) -> "list[list[_Source]]":
    """The streams by component: its metrics are over all of its streams."""
    groups: defaultdict[str, list[_Source]] = defaultdict(list)
    for source in sources:
        groups[source.stream.component].append(source)
    return list(groups.values())


async def _load(group: Sequence[_Source], record: ComponentRecord, seconds: float, grace: float) -> StreamResult:
    """All streams of one component as one open loop."""
    arrivals = sorted((due, index) for index, source in enumerate(group) for due in source.schedule)
    order = iter([index for _, index in arrivals])
    end = time.monotonic() + seconds

    async def send() -> None:
        try:
            answer = await group[next(order)].client.send()
        except Exception as error:
            record.failed(error)
            raise
        record.answered(answer, time.monotonic() <= end)

    return await run_open_loop([due for due, _ in arrivals], send, grace)


def _sources(
    configuration: ProbeConfiguration,
    session: aiohttp.ClientSession,
    corpora: Mapping[str, Sequence[Clip]],
    seed: int,
    seconds: float,
) -> list[_Source]:
    seeds = itertools.count(seed, step=10_007)
    return [
        _Source(stream, _client(stream, session, corpora, number), schedule(stream.arrivals, seconds, number))
        for stream, number in zip(configuration.streams, seeds, strict=False)
    ]


def _client(
    stream: ProbeStream, session: aiohttp.ClientSession, corpora: Mapping[str, Sequence[Clip]], seed: int
) -> Client:
    url = _url(stream)
    match stream.protocol:
        case Protocol.OPENAI_COMPLETIONS:
            if stream.prompt_tokens is None or stream.output_tokens is None:
                raise ValueError(f"{stream.component}: OpenAICompletions needs promptTokens and outputTokens")
            return CompletionsClient(session, url, stream.prompt_tokens, stream.output_tokens, seed)
        case Protocol.OPENAI_TRANSCRIPTIONS:
            if stream.corpus is None:
                raise ValueError(f"{stream.component}: OpenAITranscriptions needs a corpus")
            return TranscriptionsClient(session, url, corpora[stream.corpus])
        case Protocol.HTTP:
            return HttpClient(session, url + stream.path)


def _url(stream: ProbeStream) -> str:
    return f"http://{stream.host}:{stream.port}"
