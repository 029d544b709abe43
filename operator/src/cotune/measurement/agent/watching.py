"""One card as the agent watches it: read while somebody asks, listened to all the time."""

import asyncio
import time
from pathlib import Path

from cotune.measurement.agent.contract import NodeReport
from cotune.measurement.agent.oom_kills import oom_kills
from cotune.measurement.agent.ownership import Ownership, Process
from cotune.measurement.agent.window import OwnedReading, lost, tenants
from cotune.measurement.card import Card, CardError, Reading


class WatchedCard:
    """A card, the errors that its driver tells from now on, and the owners of its processes."""

    def __init__(self, card: Card, cgroups: Path) -> None:
        """Begin to listen.

        Args:
            card: the card.
            cgroups: where the node's control groups are mounted.
        """
        self._card = card
        self._cgroups = cgroups
        self._errors = card.listen()
        self._since = time.monotonic()

    def xids(self) -> tuple[int, ...] | None:
        """All errors since the agent listens; None: they are not told."""
        return self._errors.since(self._since)

    def needs_reset(self) -> bool | None:
        """As the card says."""
        return self._card.needs_reset()

    def read(self) -> tuple[Reading, OwnedReading]:
        """The card now.

        Raises:
            CardError: NVML does not answer.
        """
        reading = self._card.read()
        return reading, _owned(reading, Ownership())

    async def window(self, node: str, seconds: float) -> NodeReport:
        """Watch for so long.

        Raises:
            CardError: NVML does not answer, or does not say what each process holds.
        """
        begin = time.monotonic()
        readings: list[OwnedReading] = []
        ownership = Ownership()
        for it in await self._card.watch(seconds, lambda it: readings.append(_owned(it, ownership))):
            if it.processes > len(it.held):
                raise CardError("NVML does not say what each process holds")
        return NodeReport(
            node=node,
            card=self._card.uuid,
            readings=len(readings),
            tenants=tenants(readings),
            lost=lost(readings),
            kills=await asyncio.to_thread(oom_kills, self._cgroups),
            xids=self._errors.since(begin),
        )

    def close(self) -> None:
        """Stop listening."""
        self._errors.close()


def _owned(reading: Reading, ownership: Ownership) -> OwnedReading:
    held: dict[Process, float] = {}
    gone: set[int] = set()
    for pid, mib in reading.held.items():
        if (process := ownership.of(pid)) is None:
            gone.add(pid)
        else:
            held[process] = mib
    return OwnedReading(held, frozenset(gone))
