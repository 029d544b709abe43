"""A trial as an experiment sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cotune.api.trial import Prediction, Purpose, TrialPhase
from cotune.search.space import Candidate


@dataclass(frozen=True)
class ObservedTrial:
    """One trial of the experiment, read once."""

    name: str
    candidate: Candidate
    repeat: int
    phase: TrialPhase
    is_judged: bool
    """A measured trial is judged when the baseline's result is known; all others at their end."""
    fitness: float | None
    """None: not judged yet, failed, invalid or infeasible."""
    reason: str = ""
    message: str = ""
    prediction: Prediction | None = None
    is_skipped: bool = False
    seconds: float | None = None
    """For which it held a card; None: it has not ended, or never had one."""
    purpose: Purpose = Purpose.SEARCH
    series: int = 0
    """Which comparison of its purpose it belongs to."""
    is_elsewhere: bool = False
    """It ran on another stack than the search, so that its figures are compared with none of the search's."""
    started: float | None = None
    """Seconds since 1970; None: not yet."""
    measurements: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def is_feasible(self) -> bool:
        """Whether it was measured and keeps all constraints."""
        return self.fitness is not None
