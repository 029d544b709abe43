"""What the services do to each other: every component's p95 beside what else was loaded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cotune.measurement.contract import InterferenceCell
from cotune.report.candidates import Role


@dataclass(frozen=True)
class Slowdown:
    """One component under one load."""

    p95_ms: float | None
    """None: not measured, or it answered nothing."""
    ratio: float | None
    """Over its p95 alone; None: one of both is not known."""


@dataclass(frozen=True)
class InterferenceMatrix:
    """One side's matrix: a row for each component, a column for each set of loaded components."""

    role: Role
    trial: str
    components: tuple[str, ...]
    loads: tuple[tuple[str, ...], ...]
    cells: tuple[tuple[Slowdown, ...], ...]
    """As rows; a component that was not loaded has no figure."""


def interference_matrix(role: Role, trial: str, cells: Sequence[InterferenceCell]) -> InterferenceMatrix | None:
    """None: none was measured."""
    if not cells:
        return None
    components = tuple(dict.fromkeys(it.component for it in cells))
    loads = _ordered((it.loaded for it in cells), components)
    known = {(frozenset(it.loaded), it.component): it.latency.p95 for it in cells if it.latency is not None}
    alone = {it: known.get((frozenset({it}), it)) for it in components}
    rows = tuple(
        tuple(_slowdown(known.get((frozenset(load), component)), alone[component]) for load in loads)
        for component in components
    )
    return InterferenceMatrix(role, trial, components, loads, rows)


def _slowdown(p95: float | None, alone: float | None) -> Slowdown:
    return Slowdown(p95, p95 / alone if p95 is not None and alone else None)


def _ordered(loads: Iterable[tuple[str, ...]], components: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Those with few components first."""
    place = {it: number for number, it in enumerate(components)}
    unique = {frozenset(it): tuple(sorted(it, key=lambda name: place.get(name, len(place)))) for it in loads}
    return tuple(sorted(unique.values(), key=lambda it: (len(it), [place.get(name, len(place)) for name in it])))
