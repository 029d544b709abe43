"""Which candidate wins, and whether it wins at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

from cotune.search.space import Candidate


@dataclass(frozen=True)
class Result:
    """All repeats of one candidate."""

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
    """What the ranking says."""

    WINNER = "Winner"
    BASELINE_IS_BEST = "BaselineIsBest"
    BASELINE_FAILED = "BaselineFailed"
    WITHIN_NOISE = "WithinNoise"


@dataclass(frozen=True)
class Ranking:
    """The verdict and the feasible candidates, best first."""

    verdict: Verdict
    order: tuple[Result, ...]

    @property
    def winner(self) -> Result | None:
        """The candidate to roll out, if there is one."""
        return self.order[0] if self.verdict is Verdict.WINNER else None


def rank(results: Sequence[Result], baseline: Candidate) -> Ranking:
    """Order the candidates and judge the best against the baseline.

    The best wins when every one of its repeats beats every repeat of the baseline; overlapping repeats are
    `WithinNoise`. With a single repeat nothing is known of the noise and the larger fitness wins.
    """
    order = tuple(sorted((it for it in results if it.is_feasible), key=lambda it: (-it.fitness, it.candidate.digest)))
    reference = next((it for it in order if it.candidate == baseline), None)
    if reference is None:
        return Ranking(Verdict.BASELINE_FAILED, order)
    best = order[0]
    if best.candidate == baseline or best.fitness == reference.fitness:
        return Ranking(Verdict.BASELINE_IS_BEST, order)
    if min(best.fitnesses) <= max(reference.fitnesses):
        return Ranking(Verdict.WITHIN_NOISE, order)
    return Ranking(Verdict.WINNER, order)
