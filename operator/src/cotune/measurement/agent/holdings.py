"""What some pods hold on a node's cards at one moment, pods among them that Kubernetes has forgotten."""

import time
from collections.abc import Iterator, Mapping, Set
from typing import Protocol

from cotune.measurement.agent.contract import Holding, NodeHoldings, TenantProcess
from cotune.measurement.agent.ownership import Process
from cotune.measurement.agent.window import OwnedReading
from cotune.measurement.card import CardError, Reading

_ATTEMPTS = 5
_BETWEEN_SECONDS = 0.1
"""A driver lists a process a moment longer than it lives: whose it was cannot be read any more, and soon it is gone."""


class ReadableCard(Protocol):
    """A card whose processes have owners."""

    def read(self) -> tuple[Reading, OwnedReading]:
        """The card now.

        Raises:
            CardError: NVML does not answer.
        """
        ...


def holdings(node: str, cards: Mapping[str, ReadableCard], pods: Set[str]) -> NodeHoldings:
    """What the pods hold, by card.

    Args:
        node: the node's name.
        cards: UUID to card.
        pods: uids.
    """
    held: list[Holding] = []
    unknown: list[str] = []
    for uuid, card in cards.items():
        try:
            reading, owned = _settled(card)
        except CardError as error:
            unknown.append(f"{uuid}: {error}"[:256])
            continue
        if reading.processes > len(reading.held):
            unknown.append(f"{uuid}: NVML does not say what each process holds")
        if owned.lost:
            unknown.append(f"{uuid}: whose processes {', '.join(map(str, sorted(owned.lost)))} were"[:256])
        held += _of(uuid, owned.held, pods)
    return NodeHoldings(node=node, cards=tuple(cards)[:64], held=tuple(held)[:1024], unknown=tuple(unknown)[:64])


def _settled(card: ReadableCard) -> tuple[Reading, OwnedReading]:
    """A reading in which every process has an owner, if there is one soon; else the last one."""
    found = card.read()
    for _ in range(_ATTEMPTS - 1):
        if not found[1].lost:
            break
        time.sleep(_BETWEEN_SECONDS)
        found = card.read()
    return found


def _of(uuid: str, held: Mapping[Process, float], pods: Set[str]) -> Iterator[Holding]:
    by_pod: dict[str, list[Process]] = {}
    for it in held:
        if it.owner.pod in pods:
            by_pod.setdefault(it.owner.pod, []).append(it)
    for pod, processes in sorted(by_pod.items()):
        members = tuple(
            TenantProcess(pid=it.pid, name=it.name[:64], container=it.owner.container)
            for it in sorted(processes, key=lambda it: it.pid)
        )
        yield Holding(pod=pod, card=uuid, mib=round(sum(held[it] for it in processes), 1), processes=members[:256])
