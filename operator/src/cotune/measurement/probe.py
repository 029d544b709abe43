"""One probe's life: the card drained, every service there, warm, then all of them loaded at once."""

import asyncio
import gc
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp

from cotune.api.workload import ArrivalType, Protocol
from cotune.measurement.agent.client import NodeAgent, UnknownError, find_agent
from cotune.measurement.agent.contract import NODE_VARIABLE, NodeReport
from cotune.measurement.arrivals import schedule, stream_seed
from cotune.measurement.card import Card, Reading, card_conduct, card_samples
from cotune.measurement.clients import Answer, Client, HttpClient, LanguageModelClient, TranscriptionsClient
from cotune.measurement.contract import (
    CardConduct,
    Conduct,
    InterferenceCell,
    ProbeConfiguration,
    ProbeInterference,
    ProbeResult,
    ProbeStream,
    Punctuality,
    RoundConduct,
    StreamReport,
)
from cotune.measurement.engine import EngineFacts, watch_engine
from cotune.measurement.examination import Examination
from cotune.measurement.inputs import Inputs
from cotune.measurement.interference import interference_cell, slowdowns
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
    engine_measurements,
    largest_allocation_measurement,
    quality_measurement,
    quality_report,
    stream_report,
)
from cotune.measurement.service_counters import service_facts
from cotune.measurement.vllm_metrics import cache_facts
from cotune.measurement.xid import XidWatch

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
    duration_seconds: float
    cooldown_seconds: float
    round: int = 0
    """Of the interference matrix; 0: the window."""

    def plan(self) -> Iterator[tuple[float, Request]]:
        """Due times from the start of the window, and requests: warm-up, window and cool-down without a gap."""
        for phase, begin, seconds in (
            (Phase.WARM_UP, -self.warmup_seconds, self.warmup_seconds),
            (Phase.WINDOW, 0.0, self.duration_seconds),
            (Phase.COOL_DOWN, self.duration_seconds, self.cooldown_seconds),
        ):
            times = schedule(self.stream.arrivals, seconds, self.seed + phase, self.trace)
            for number, due in enumerate(times):
                recorded = self.trace[number] if self.trace else None
                request = self.lengths.request(self.seed, phase, number, recorded)
                yield begin + due, request.in_round(self.round)


@dataclass(frozen=True)
class DrainedCard:
    """The card of a trial."""

    card: Card
    drained: Reading
    """Before any service was started."""
    errors: XidWatch
    """Listens since then."""


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
        is_paced = bool(configuration.paces_first_requests)
        await asyncio.gather(*(_first_requests(it, inputs, is_paced) for it in sources))
        agent = await _agent(configuration, session, card, say)
        # A collection of garbage over all that was read would hold back requests for milliseconds.
        gc.collect()
        gc.freeze()
        start = time.monotonic() + _LEAD_SECONDS + warm_up
        window = Window(start, configuration.duration_seconds, configuration.grace_seconds)
        questions = _examinations(configuration, session, inputs)
        return await _measure(sources, questions, window, session, card, agent, configuration, say)


async def _agent(
    configuration: ProbeConfiguration, session: aiohttp.ClientSession, card: DrainedCard | None, say: Say
) -> NodeAgent | None:
    if card is None or configuration.node_agent is None:
        return None
    try:
        return await find_agent(session, configuration.node_agent, os.environ.get(NODE_VARIABLE, ""), card.card.uuid)
    except UnknownError as error:
        say(f"whose the processes on the card are is not known: {error}")
        return None


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


async def _first_requests(source: _Source, inputs: Inputs, is_paced: bool) -> None:
    """Every clip once, for the first of a length is slow; of any other service one answer. All is thrown away."""
    rate = source.stream.arrivals.rate_per_second
    apart = 1 / float(rate) if is_paced and rate is not None else 0.0
    clips = inputs.corpora.get(source.number, ())
    # With noise in it, a clip is as long as before.
    numbers = {clip.name: number for number, clip in reversed(list(enumerate(clips)))}.values()
    for number in sorted(numbers) or [0]:
        prepared = source.target.client.prepare(source.lengths.request(source.seed, Phase.FIRST, number))
        sending = asyncio.wait_for(source.target.client.send(prepared, Answer()), source.target.timeout_seconds)
        await asyncio.gather(sending, asyncio.sleep(apart), return_exceptions=True)


async def _load(source: _Source, record: StreamRecord) -> tuple[Step, ...]:
    arrivals = source.stream.arrivals
    if arrivals.type is ArrivalType.CLOSED_LOOP:
        requests = requests_from(source.lengths, source.seed, Phase.WINDOW, source.round)
        concurrencies = arrivals.concurrency or ()
        return await run_closed_loop(concurrencies, requests, source.target, record, -source.warmup_seconds)
    await run_open_loop(source.plan(), source.target, record)
    return ()


async def _measure(
    sources: Sequence[_Source],
    examinations: Sequence[Examination],
    window: Window,
    session: aiohttp.ClientSession,
    card: DrainedCard | None,
    agent: NodeAgent | None,
    configuration: ProbeConfiguration,
    say: Say,
) -> ProbeResult:
    records = [StreamRecord(window) for _ in sources]
    loads = (_load(it, record) for it, record in zip(sources, records, strict=True))
    before = _processor_wait()
    readings, node, engines, swept, examined = await asyncio.gather(
        _watched(card, window, "measuring", say),
        _seen_by_node(agent, window, say),
        _engines(sources, window, session),
        asyncio.gather(*loads),
        asyncio.gather(*(it.run(window) for it in examinations)),
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
        if (engine := engines.get(name)) is not None:
            measurements += engine_measurements(name, engine)
        answers = [record for it, record in zip(examinations, examined, strict=True) if it.component == name]
        if (quality := quality_measurement(name, answers)) is not None:
            measurements.append(quality)
            say(f"{name}: quality {quality.value} of {quality.samples} questions")
    started_at = _as_date(window.start)
    rounds = await _interference(sources, card, configuration, say)
    together = [interference_cell(tuple(groups), it, group) for it, group in groups.items()] if rounds else []
    cells = [cell for it in rounds for cell in it.cells]
    measurements += slowdowns(together, cells)
    if card is not None and configuration.largest_allocation:
        largest, unknown = await measure_largest_allocation()
        if largest is None:
            say(f"the largest allocation is not known: {unknown}")
        else:
            measurements.append(largest_allocation_measurement(largest))
    services = await asyncio.gather(*(service_facts(session, name, url) for name, url in _urls(sources).items()))
    errors = [f"{name}: {it}" for name, group in groups.items() for record in group for it in record.examples]
    errors += [
        f"{it.component}, a question: {example}"
        for it, record in zip(examinations, examined, strict=True)
        for example in record.examples
    ]
    conduct = Conduct(
        started_at=started_at,
        ended_at=started_at + timedelta(seconds=window.seconds),
        punctuality=tuple(_punctuality(name, reports) for name in groups),
        card=_conduct(card, window, readings, node) if card is not None else None,
        rounds=tuple(it.conduct for it in rounds),
    )
    return ProbeResult(
        measurements=tuple(measurements),
        errors=tuple(it[:300] for it in errors[:16]),
        streams=tuple(reports),
        interference=(*cells, *together),
        node=node,
        services=tuple(services),
        quality=tuple(
            quality_report(it.component, it.stream, record) for it, record in zip(examinations, examined, strict=True)
        ),
        conduct=conduct,
        card_identity=await asyncio.to_thread(card.card.identity) if card is not None else None,
        card_samples=card_samples(readings) if card is not None else None,
        processor_wait_seconds=None if before is None or after is None else round(after - before, 6),
    )


@dataclass(frozen=True)
class _Round:
    """One round of the interference matrix."""

    cells: Sequence[InterferenceCell]
    conduct: RoundConduct


async def _interference(
    sources: Sequence[_Source], card: DrainedCard | None, configuration: ProbeConfiguration, say: Say
) -> list[_Round]:
    """One round after the other: each begins when the last has its answers, or has given them up."""
    asked = configuration.interference
    if asked is None:
        return []
    grace = configuration.grace_seconds
    return [
        await _one_round(loaded, number, sources, card, asked, grace, say)
        for number, loaded in enumerate(asked.rounds, 1)
    ]


async def _one_round(
    loaded: Sequence[str],
    number: int,
    sources: Sequence[_Source],
    card: DrainedCard | None,
    asked: ProbeInterference,
    grace_seconds: float,
    say: Say,
) -> _Round:
    chosen = [
        replace(it, warmup_seconds=asked.warmup_seconds, duration_seconds=asked.duration_seconds, round=number)
        for it in sources
        if it.stream.component in loaded
    ]
    window = Window(time.monotonic() + _LEAD_SECONDS + asked.warmup_seconds, asked.duration_seconds, grace_seconds)
    records = [StreamRecord(window) for _ in chosen]
    loads = (_load(it, record) for it, record in zip(chosen, records, strict=True))
    what = f"measuring {' and '.join(loaded)} without the others"
    readings, swept = await asyncio.gather(_watched(card, window, what, say), asyncio.gather(*loads))
    reports = [
        stream_report(it.stream.component, it.number, it.stream.arrivals.type, record, steps)
        for it, record, steps in zip(chosen, records, swept, strict=True)
    ]
    cells = [
        interference_cell(
            loaded, name, [record for it, record in zip(chosen, records, strict=True) if it.stream.component == name]
        )
        for name in loaded
    ]
    started_at = _as_date(window.start)
    conduct = RoundConduct(
        loaded=tuple(loaded),
        started_at=started_at,
        ended_at=started_at + timedelta(seconds=window.seconds),
        punctuality=tuple(_punctuality(name, reports) for name in loaded),
        card=card_conduct(card.card.uuid, card.drained, readings) if card is not None else None,
    )
    return _Round(cells, conduct)


def _as_date(moment: float) -> datetime:
    """A moment of `time.monotonic()`, which has just been."""
    return datetime.now(UTC) - timedelta(seconds=time.monotonic() - moment)


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


async def _watched(card: DrainedCard | None, window: Window, what: str, say: Say) -> list[Reading]:
    await asyncio.sleep(max(window.start - time.monotonic(), 0.0))
    say(f"{what} for {window.seconds:g} s")
    if card is None:
        return []
    return await card.card.watch(window.seconds)


async def _seen_by_node(agent: NodeAgent | None, window: Window, say: Say) -> NodeReport | None:
    if agent is None:
        return None
    await asyncio.sleep(max(window.start - time.monotonic(), 0.0))
    try:
        return await agent.window(window.seconds)
    except UnknownError as error:
        say(f"whose the processes on the card are is not known: {error}")
        return None


async def _engines(
    sources: Sequence[_Source], window: Window, session: aiohttp.ClientSession
) -> Mapping[str, EngineFacts]:
    """Of the language models whose servers are vLLM."""
    urls = _urls([it for it in sources if it.stream.protocol.is_language_model])
    await asyncio.sleep(max(window.start - time.monotonic(), 0.0))
    found = await asyncio.gather(*(watch_engine(session, it, window.seconds) for it in urls.values()))
    return {name: facts for name, facts in zip(urls, found, strict=True) if facts is not None}


def _conduct(card: DrainedCard, window: Window, readings: Sequence[Reading], node: NodeReport | None) -> CardConduct:
    # What both were told is told twice, not two errors.
    told = card.errors.since(window.start)
    xids = told if told is not None else (node.xids if node is not None else None)
    return card_conduct(card.card.uuid, card.drained, readings, xids, card.card.needs_reset())


def _urls(sources: Sequence[_Source]) -> dict[str, str]:
    return {it.stream.component: _url(it.stream) for it in sources}


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
            duration_seconds=configuration.duration_seconds,
            cooldown_seconds=configuration.cooldown_seconds,
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
