"""Every candidate once, the baseline first."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from cotune.search.sampler import Observation
from cotune.search.space import Candidate, Space


@dataclass(frozen=True)
class GridSampler:
    """Walks the whole space in the order of its parameters."""

    def propose(self, space: Space, observed: Sequence[Observation], limit: int) -> tuple[Candidate, ...]:
        """The next candidates that have not been run."""
        known = {it.candidate for it in observed}
        baseline = space.baseline
        order = itertools.chain((baseline,), (it for it in space if it != baseline))
        return tuple(itertools.islice((it for it in order if it not in known), max(limit, 0)))
