"""What the services do to each other: every component's p95 beside what else was loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

from cotune.api.trial import InterferenceFigure
from cotune.report.candidates import Role


@dataclass(frozen=True)
class Slowdown:
    """One component under one load."""

    p95_ms: float | None
    """None: not measured, or it answered nothing."""
    ratio: float | None
    """Over its p95 alone; None: one of both is not known."""
    is_alone: bool = False


@dataclass(frozen=True)
class InterferenceMatrix:
    """One side's matrix: a row for each component."""

    role: Role
    trial: str
    components: tuple[str, ...]
    cells: tuple[tuple[Slowdown, ...], ...]
    """As rows: beside each component in turn, where beside itself is alone; last with all of them loaded."""


def interference_matrix(role: Role, trial: str, cells: Sequence[InterferenceFigure]) -> InterferenceMatrix | None:
    """None: none was measured."""
    if not cells:
        return None
    components = tuple(dict.fromkeys(it.component for it in cells))
    known = {(frozenset(it.loaded), it.component): float(it.latency.p95) for it in cells if it.latency is not None}

    def slowdown(component: str, load: frozenset[str]) -> Slowdown:
        p95, alone = (known.get((it, component)) for it in (load, frozenset({component})))
        return Slowdown(p95, p95 / alone if p95 is not None and alone else None, len(load) == 1)

    rows = tuple(
        (
            *(slowdown(it, frozenset({it, other})) for other in components),
            slowdown(it, frozenset(components)),
        )
        for it in components
    )
    return InterferenceMatrix(role, trial, components, rows)
