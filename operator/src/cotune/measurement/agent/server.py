"""What an agent serves: its node and windows to probes, holdings to the operator, and metrics to Prometheus."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cotune.measurement.agent.contract import (
    LONGEST_WINDOW_SECONDS,
    MOST_PODS_ASKED,
    Node,
    NodeHoldings,
    NodeReport,
)
from cotune.measurement.agent.holdings import holdings
from cotune.measurement.agent.oom_kills import oom_kills
from cotune.measurement.agent.watching import WatchedCard
from cotune.measurement.card import Card, CardError, card_uuids

_WINDOWS_AT_ONCE = 8
_SIGN_OF_LIFE_SECONDS = 5.0


@dataclass
class NodeCards:
    """The cards of a node; a driver may come later than the agent."""

    node: str
    cgroups: Path
    """Where the node's control groups are mounted."""
    _watched: dict[str, WatchedCard] = field(default_factory=dict[str, WatchedCard])

    def look(self) -> tuple[str, ...]:
        """UUIDs of the cards that are there now; each is listened to from now on."""
        for uuid in card_uuids():
            if uuid not in self._watched:
                with contextlib.suppress(CardError):
                    self._watched[uuid] = WatchedCard(Card(uuid), self.cgroups)
        return tuple(self._watched)

    def card(self, uuid: str) -> WatchedCard | None:
        """One of them."""
        return self._watched.get(uuid)

    def close(self) -> None:
        """Stop listening."""
        for it in self._watched.values():
            it.close()


class Api:
    """What probes and the operator ask."""

    def __init__(self, cards: NodeCards) -> None:
        self._cards = cards
        self._windows = asyncio.Semaphore(_WINDOWS_AT_ONCE)

    def application(self) -> web.Application:
        """The routes."""
        application = web.Application()
        application.add_routes(
            [
                web.get("/healthz", self._health),
                web.get("/v1/node", self._node),
                web.get("/v1/window", self._window),
                web.get("/v1/held", self._held),
            ]
        )
        return application

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _node(self, _: web.Request) -> web.Response:
        uuids = await asyncio.to_thread(self._cards.look)
        return _json(Node(name=self._cards.node, cards=uuids[:64]))

    async def _held(self, request: web.Request) -> web.Response:
        pods = frozenset(request.query.getall("pod", []))
        if not 0 < len(pods) <= MOST_PODS_ASKED:
            return web.Response(status=400, text=f"pod: at least one, at most {MOST_PODS_ASKED}\n")
        return _json(await asyncio.to_thread(self._read, pods))

    def _read(self, pods: frozenset[str]) -> NodeHoldings:
        watched = {uuid: it for uuid in self._cards.look() if (it := self._cards.card(uuid)) is not None}
        return holdings(self._cards.node, watched, pods)

    async def _window(self, request: web.Request) -> web.StreamResponse:
        card = self._cards.card(request.query.get("card", ""))
        seconds = _seconds(request.query.get("seconds", ""))
        if card is None:
            return web.Response(status=404, text="no such card on this node\n")
        if seconds is None:
            return web.Response(status=400, text=f"seconds: a number above 0, at most {LONGEST_WINDOW_SECONDS}\n")
        if self._windows.locked():
            return web.Response(status=429, text=f"{_WINDOWS_AT_ONCE} windows are watched already\n")
        async with self._windows:
            watching = asyncio.create_task(card.window(self._cards.node, seconds))
            try:
                return await _answer(request, watching)
            finally:
                watching.cancel()


async def _answer(request: web.Request, watching: "asyncio.Task[NodeReport]") -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    try:
        while not (await asyncio.wait({watching}, timeout=_SIGN_OF_LIFE_SECONDS))[0]:
            await response.write(b"\n")
        await response.write(watching.result().model_dump_json(by_alias=True).encode())
    except CardError as error:
        # The status is sent already: what is no JSON is no report.
        await response.write(f"error: {error}\n".encode())
    await response.write_eof()
    return response


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 < seconds <= LONGEST_WINDOW_SECONDS else None


def _json(model: Node | NodeHoldings) -> web.Response:
    return web.Response(text=model.model_dump_json(by_alias=True), content_type="application/json")


class NodeCollector(Collector):
    """Reads the cards when Prometheus asks."""

    def __init__(self, cards: NodeCards) -> None:
        self._cards = cards

    def collect(self) -> Iterable[Metric]:
        """What is not known has no sample."""
        held = GaugeMetricFamily(
            "cotune_gpu_memory_bytes", "Memory on a card by container.", labels=["uuid", "pod_uid", "container_id"]
        )
        used = GaugeMetricFamily("cotune_gpu_used_bytes", "Memory in use on a card.", labels=["uuid"])
        ecc = CounterMetricFamily("cotune_gpu_uncorrected_ecc_errors", "Since the driver was loaded.", labels=["uuid"])
        reset = GaugeMetricFamily(
            "cotune_gpu_needs_reset", "1: memory with uncorrectable errors waits for a reset.", labels=["uuid"]
        )
        xids = CounterMetricFamily("cotune_gpu_xids", "Critical errors, as they are told.", labels=["uuid", "xid"])
        for uuid in self._cards.look():
            if (card := self._cards.card(uuid)) is not None:
                with contextlib.suppress(CardError):
                    _card(uuid, card, held, used, ecc, reset, xids)
        kills = CounterMetricFamily(
            "cotune_container_oom_kills", "Kills for want of host memory.", labels=["pod_uid", "container_id"]
        )
        for (pod, container), number in _kills(self._cards.cgroups).items():
            kills.add_metric([pod, container], number)
        return [held, used, ecc, reset, xids, kills]


def _card(
    uuid: str,
    card: WatchedCard,
    held: GaugeMetricFamily,
    used: GaugeMetricFamily,
    ecc: CounterMetricFamily,
    reset: GaugeMetricFamily,
    xids: CounterMetricFamily,
) -> None:
    reading, owned = card.read()
    used.add_metric([uuid], reading.used_mib * (1 << 20))
    by_owner: dict[tuple[str, str], float] = {}
    for process, mib in owned.held.items():
        key = (process.owner.pod, process.owner.container)
        by_owner[key] = by_owner.get(key, 0.0) + mib
    for (pod, container), mib in by_owner.items():
        held.add_metric([uuid, pod, container], mib * (1 << 20))
    if reading.uncorrected_ecc_errors is not None:
        ecc.add_metric([uuid], reading.uncorrected_ecc_errors)
    if (needs := card.needs_reset()) is not None:
        reset.add_metric([uuid], float(needs))
    seen = card.xids() or ()
    for number in sorted(set(seen)):
        xids.add_metric([uuid, str(number)], seen.count(number))


def _kills(cgroups: Path) -> Mapping[tuple[str, str], int]:
    totals: Counter[tuple[str, str]] = Counter()
    for it in oom_kills(cgroups) or ():
        totals[it.pod, it.container] += it.kills
    return totals


def metrics_application(cards: NodeCards) -> web.Application:
    """`/metrics`, on a port of its own: a network policy may let others to it."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(cards))

    async def metrics(_: web.Request) -> web.Response:
        body = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.router.add_get("/metrics", metrics)
    return application
