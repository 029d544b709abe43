"""What a trial's probe brought back in full: a status has its figures only."""

from typing import Protocol

from cotune.measurement.contract import ProbeResult
from cotune.report.resources import Trial


class RawResultError(ValueError):
    """A raw result that cannot be one; the message is one line."""


class RawResults(Protocol):
    """Where raw results are kept."""

    def of(self, trial: Trial) -> ProbeResult | None:
        """The whole result of a trial; None: it is not there.

        Raises:
            RawResultError: what is there is damaged.
        """
        ...


class NoRawResults:
    """Nobody said where they are."""

    def of(self, trial: Trial) -> ProbeResult | None:
        """Nothing is known."""
        return None
