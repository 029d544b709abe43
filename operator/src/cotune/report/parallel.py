"""Every candidate as a line through the values of its parameters to its fitness."""

from collections.abc import Iterable
from dataclasses import dataclass

from cotune.api.experiment import Parameter
from cotune.api.quantities import canonical
from cotune.report.candidates import CandidateSummary, Role, Standing, named
from cotune.report.resources import Experiment
from cotune.search.space import domain

MOST_LINES = 400
"""With more, one sees none of them: the best are shown."""


@dataclass(frozen=True)
class Axis:
    """One parameter."""

    name: str
    ticks: tuple[tuple[str, float], ...]
    """Value, and its place from 0 at the bottom to 1 at the top."""


@dataclass(frozen=True)
class Line:
    """One candidate."""

    name: str
    role: Role
    standing: Standing
    places: tuple[float, ...]
    """On each axis."""
    fitness: float | None


@dataclass(frozen=True)
class ParallelCoordinates:
    """All axes and lines, and how many of them are not shown."""

    axes: tuple[Axis, ...]
    lines: tuple[Line, ...]
    left_out: int

    @property
    def fitness_range(self) -> tuple[float, float] | None:
        """Lowest and highest fitness; None: no candidate has one."""
        found = [it.fitness for it in self.lines if it.fitness is not None]
        return (min(found), max(found)) if found else None


def parallel_coordinates(experiment: Experiment, candidates: Iterable[CandidateSummary]) -> ParallelCoordinates | None:
    """None: there is no trial. Numbers stand where they lie between the smallest and the largest, words evenly."""
    all_of_them = tuple(candidates)
    if not all_of_them:
        return None
    axes = tuple(_axis(it) for it in experiment.spec.parameters)
    shown = [it for number, it in enumerate(all_of_them) if number < MOST_LINES or it.role is not Role.OTHER]
    places = [{canonical(value): place for value, place in axis.ticks} for axis in axes]
    return ParallelCoordinates(
        axes,
        tuple(
            Line(
                named(it.candidate),
                it.role,
                it.standing,
                tuple(
                    known.get(canonical(it.candidate.values.get(axis.name, "")), 0.5)
                    for known, axis in zip(places, axes, strict=True)
                ),
                it.fitness,
            )
            for it in shown
        ),
        len(all_of_them) - len(shown),
    )


def _axis(parameter: Parameter) -> Axis:
    values = domain(parameter)
    if parameter.range is not None and len(values) > 1:
        numbers = [float(it) for it in values]
        low, span = min(numbers), max(numbers) - min(numbers)
        return Axis(parameter.name, tuple((it, (float(it) - low) / span) for it in values))
    last = max(len(values) - 1, 1)
    return Axis(
        parameter.name, tuple((it, number / last if len(values) > 1 else 0.5) for number, it in enumerate(values))
    )
