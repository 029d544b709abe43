"""Candidates by the two objectives that weigh most, and those of them that no other beats in both."""

from collections.abc import Iterable
from dataclasses import dataclass

from cotune.api.experiment import Goal, Objective
from cotune.report.candidates import CandidateSummary, Role, Standing, named
from cotune.report.resources import Experiment


@dataclass(frozen=True)
class Point:
    """One measured candidate."""

    name: str
    label: str
    """Its values alone, for a picture."""
    role: Role
    x: float
    y: float
    runs: int
    is_feasible: bool
    is_on_front: bool


@dataclass(frozen=True)
class ParetoFront:
    """Two objectives against each other."""

    x: Objective
    y: Objective
    points: tuple[Point, ...]

    @property
    def front(self) -> tuple[Point, ...]:
        """Those that no other feasible candidate beats in both, along the x axis."""
        return tuple(sorted((it for it in self.points if it.is_on_front), key=lambda it: (it.x, it.y)))


def pareto_front(experiment: Experiment, candidates: Iterable[CandidateSummary]) -> ParetoFront | None:
    """None: there is one objective only, or no candidate was measured in both.

    Of objectives with the same weight, the one that stands first goes first; one that is alike for all candidates tells
    none from another, and comes last.
    """
    measured = [it for it in candidates if it.measured]
    objectives = sorted(
        (it for it in experiment.spec.objectives if all(it.metric in found.means for found in measured)),
        key=lambda it: (len({found.means[it.metric] for found in measured}) < 2, -float(it.weight)),
    )
    if len(objectives) < 2 or not measured:
        return None
    x, y = objectives[:2]
    feasible = [it for it in measured if it.standing is Standing.FEASIBLE]
    best = _undominated(((_cost(x, it), _cost(y, it)), it) for it in feasible)
    return ParetoFront(
        x,
        y,
        tuple(
            Point(
                named(it.candidate),
                " ".join(it.candidate.values.values()),
                it.role,
                it.means[x.metric],
                it.means[y.metric],
                len(it.measured),
                it.standing is Standing.FEASIBLE,
                any(it is found for found in best),
            )
            for it in measured
        ),
    )


def _undominated(
    costs: Iterable[tuple[tuple[float, float], CandidateSummary]],
) -> tuple[CandidateSummary, ...]:
    """Along the first cost, each that is cheaper in the second than all before; equals of the last one, too."""
    found: list[tuple[tuple[float, float], CandidateSummary]] = []
    for cost, it in sorted(costs, key=lambda pair: pair[0]):
        if not found or cost[1] < found[-1][0][1] or cost == found[-1][0]:
            found.append((cost, it))
    return tuple(it for _, it in found)


def _cost(objective: Objective, candidate: CandidateSummary) -> float:
    value = candidate.means[objective.metric]
    match objective.goal:
        case Goal.MINIMIZE:
            return value
        case Goal.MAXIMIZE:
            return -value
        case Goal.TARGET:
            return abs(value - float(objective.target or 0))
