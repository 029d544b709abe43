"""The interface of samplers, in the words of the field: a study asks for candidates and tells their results."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cotune.search.space import Candidate, Space


@dataclass(frozen=True)
class Observation:
    """What became of a candidate that was run."""

    candidate: Candidate
    fitness: float | None
    """None: failed, invalid or infeasible."""
    standard_error: float | None = None
    """Of the fitness, by what repeats of the same settings differ; None: nothing was measured twice yet."""


class Sampler(Protocol):
    """Chooses candidates.

    What every sampler must keep, whatever its strategy:

    - the baseline comes first, since no gain can be stated without it;
    - it is a pure function of its arguments, so that a restarted operator goes on where the last one stopped;
    - a candidate lies in the space and is never proposed again once it was observed;
    - an empty answer means that the search is over.
    """

    def propose(self, space: Space, observed: Sequence[Observation], limit: int) -> tuple[Candidate, ...]:
        """At most `limit` candidates to run next."""
        ...
