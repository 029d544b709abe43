"""Which candidate of the search is worth confirming."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

from cotune.search.space import Candidate


@dataclass(frozen=True)
class Result:
    """All repeats of one candidate in the search."""

    candidate: Candidate
    fitnesses: tuple[float, ...]
    """One per feasible repeat."""
    repeats: int
    """How many repeats were run; an infeasible or failed one has no fitness."""

    @property
    def is_feasible(self) -> bool:
        """Whether every repeat was: a candidate that fails now and then is no candidate for production."""
        return self.repeats > 0 and len(self.fitnesses) == self.repeats

    @property
    def fitness(self) -> float:
        """The mean over the repeats."""
        return fmean(self.fitnesses)


class Verdict(StrEnum):
    """How an experiment ends."""

    WINNER = "Winner"
    PARTIAL_WINNER = "PartialWinner"
    NO_DEPLOYABLE_CHANGE = "NoDeployableChange"
    BASELINE_IS_BEST = "BaselineIsBest"
    BASELINE_FAILED = "BaselineFailed"
    WITHIN_NOISE = "WithinNoise"
    NOT_CONFIRMED = "NotConfirmed"


@dataclass(frozen=True)
class Ranking:
    """The feasible candidates, best first."""

    order: tuple[Result, ...]
    baseline: Result | None
    """None: the baseline is not feasible."""

    @property
    def challenger(self) -> Result | None:
        """The best candidate, where the search saw it above the baseline: luck may be part of it."""
        if self.baseline is None or self.order[0].fitness <= self.baseline.fitness:
            return None
        return self.order[0]


def rank(results: Sequence[Result], baseline: Candidate) -> Ranking:
    """Order the candidates, in the same order whatever that of their arrival."""
    order = tuple(sorted((it for it in results if it.is_feasible), key=lambda it: (-it.fitness, it.candidate.digest)))
    return Ranking(order, next((it for it in order if it.candidate == baseline), None))
