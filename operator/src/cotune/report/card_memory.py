"""What the card held over time, in every run of both sides of which the readings are kept."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cotune.measurement.contract import ProbeResult
from cotune.report.candidates import Role
from cotune.report.resources import Trial

_MOST_READINGS = 400
"""Of one run: a window of an hour has 36,000."""


@dataclass(frozen=True)
class CardTrace:
    """One run's readings, thinned out so that the largest of every stretch stays."""

    trial: str
    role: Role
    points: tuple[tuple[float, float | None], ...]
    """Seconds and MiB used; None: the driver did not say."""


@dataclass(frozen=True)
class CardMemory:
    """All runs with readings."""

    traces: tuple[CardTrace, ...]
    total_mib: float | None
    """Of the card; None: no run says it."""


def card_memory(results: Mapping[Role, Sequence[tuple[Trial, ProbeResult]]]) -> CardMemory | None:
    """None: no run has readings."""
    traces = tuple(
        CardTrace(trial.name, role, points)
        for role, runs in results.items()
        for trial, result in runs
        if result.card_samples is not None
        and (points := readings(result.card_samples.seconds, result.card_samples.used_mib))
    )
    return CardMemory(traces, _total(it for runs in results.values() for it, _ in runs)) if traces else None


def readings(seconds: Sequence[float], used_mib: Sequence[float | None]) -> tuple[tuple[float, float | None], ...]:
    """Both together, thinned out so that the largest of every stretch stays; empty where the driver never said."""
    pairs = tuple(zip(seconds, used_mib, strict=False))
    if not any(used is not None for _, used in pairs):
        return ()
    stride = max(1, -(-len(pairs) // _MOST_READINGS))
    return tuple(_largest(pairs[at : at + stride]) for at in range(0, len(pairs), stride))


def _largest(stretch: Sequence[tuple[float, float | None]]) -> tuple[float, float | None]:
    return max(stretch, key=lambda it: -1.0 if it[1] is None else it[1])


def _total(trials: Iterable[Trial]) -> float | None:
    """The least free and the most used memory are of the same reading."""
    for it in trials:
        free, used = it.measured.get("gpu.freeMiB"), it.measured.get("gpu.usedMiB")
        if free is not None and used is not None:
            return free + used
    return None
