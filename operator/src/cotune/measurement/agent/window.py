"""From readings of a card over a window to its tenants."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cotune.measurement.agent.contract import LONGEST_SERIES, Tenant, TenantProcess
from cotune.measurement.agent.ownership import Process

_DECIMALS = 1


@dataclass(frozen=True)
class OwnedReading:
    """The memory of the processes on a card at one moment."""

    held: Mapping[Process, float] = field(default_factory=dict[Process, float])
    """MiB."""
    lost: frozenset[int] = frozenset()
    """Processes that had ended before it could be read whose they were."""


def tenants(readings: Sequence[OwnedReading]) -> tuple[Tenant, ...]:
    """Who held memory, the largest first; containers of one pod are one tenant, and so is the node itself."""
    shares: dict[tuple[str, str], list[float]] = {}
    members: dict[tuple[str, str], dict[int, Process]] = {}
    for number, reading in enumerate(readings):
        for process, mib in reading.held.items():
            key = _key(process)
            shares.setdefault(key, [0.0] * len(readings))[number] += mib
            members.setdefault(key, {})[process.pid] = process
    found = [_tenant(key, shares[key], list(members[key].values())) for key in shares]
    return tuple(sorted(found, key=lambda it: (-it.most_mib, it.pod, it.containers)))[:256]


def lost(readings: Iterable[OwnedReading]) -> tuple[int, ...]:
    """All processes of which it could not be read whose they were, in any reading."""
    readings = tuple(readings)
    known = {it.pid for reading in readings for it in reading.held}
    return tuple(sorted({pid for it in readings for pid in it.lost} - known))[:256]


def _key(process: Process) -> tuple[str, str]:
    owner = process.owner
    return (owner.pod, "" if owner.pod else owner.container)


def _tenant(key: tuple[str, str], share: Sequence[float], members: Sequence[Process]) -> Tenant:
    return Tenant(
        pod=key[0],
        containers=tuple(sorted({it.owner.container for it in members} - {""}))[:64],
        processes=tuple(
            TenantProcess(pid=it.pid, name=it.name[:64], container=it.owner.container)
            for it in sorted(members, key=lambda it: it.pid)
        )[:256],
        least_mib=round(min(share), _DECIMALS),
        most_mib=round(max(share), _DECIMALS),
        memory_mib=tuple(_parts(share)),
    )


def _parts(share: Sequence[float]) -> Iterable[float]:
    parts = min(len(share), LONGEST_SERIES)
    for part in range(parts):
        begin, end = part * len(share) // parts, (part + 1) * len(share) // parts
        yield round(max(share[begin:end]), _DECIMALS)
