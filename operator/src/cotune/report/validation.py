"""The winner's changes one by one: which of them the profile makes, and why the others are left out."""

from dataclasses import dataclass

from cotune.fitness.bootstrap import Interval
from cotune.report.resources import Experiment
from cotune.report.verdict import interval


@dataclass(frozen=True)
class SingleChange:
    """One of them alone."""

    name: str
    """Parameter and value."""
    is_kept: bool
    reason: str
    message: str
    gain: Interval | None
    """In fitness; None: not measured, or too seldom."""


@dataclass(frozen=True)
class Validation:
    """All of them, and those together that are kept."""

    changes: tuple[SingleChange, ...]
    gain: Interval | None
    interaction: float | None
    """What they gain together beyond the sum of their gains alone."""

    @property
    def is_partial(self) -> bool:
        """Whether something of the winner is left out."""
        return not all(it.is_kept for it in self.changes)


def validation(experiment: Experiment) -> Validation | None:
    """None: it has not ended, there was no winner, or no profile was wanted."""
    found = experiment.status.validation
    if found is None:
        return None
    return Validation(
        tuple(
            SingleChange(
                f"{it.parameter}={it.value}",
                it.kept,
                it.reason,
                it.message,
                interval(it.gain) if it.gain is not None else None,
            )
            for it in found.changes
        ),
        interval(found.gain) if found.gain is not None else None,
        float(found.interaction) if found.interaction is not None else None,
    )
