"""Who leads, as a Lease says it: the rules of client-go's leader election, without clock or network.

Clocks of several machines are never compared. A candidate notes by its own monotonic clock when it last saw the Lease
change, and counts the holder's duration from there; the times inside of the Lease are for people. A leader counts from
before it sent its last renewal, and for a shorter time: so it has ended before anybody else may begin, as long as no
clock runs faster than another by more than `duration / renew_deadline`.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

_MICRO_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True)
class Timing:
    """Seconds.

    Raises:
        ValueError: a leader could outlast its Lease, or would have no second try.
    """

    duration: float = 12.0
    """Others leave a Lease alone for so long after they saw it change."""
    renew_deadline: float = 8.0
    """A leader that has not renewed its Lease for so long ends."""
    retry: float = 2.0
    """Between two looks at the Lease, or two renewals."""

    def __post_init__(self) -> None:
        if not 0 < 2 * self.retry <= self.renew_deadline < self.duration:
            raise ValueError(
                f"a Lease of {self.duration:g} s, renewed within {self.renew_deadline:g} s, tried every "
                f"{self.retry:g} s: the deadline must be shorter than the Lease and leave time for two tries"
            )


@dataclass(frozen=True)
class Term:
    """What a Lease says."""

    holder: str
    """Empty: nobody, it was given back."""
    duration: float
    """Seconds, as the holder wants it: a candidate may have been told another duration."""
    acquired: datetime
    renewed: datetime
    transitions: int
    """How often the holder was another one than before."""

    @classmethod
    def parse(cls, spec: dict[str, Any]) -> "Term":
        """A Lease's `spec`; what is missing or malformed is a Lease that nobody holds."""
        try:
            return cls(
                holder=str(spec.get("holderIdentity") or ""),
                duration=float(spec.get("leaseDurationSeconds") or 0),
                acquired=_moment(spec.get("acquireTime")),
                renewed=_moment(spec.get("renewTime")),
                transitions=int(spec.get("leaseTransitions") or 0),
            )
        except (TypeError, ValueError):
            return cls("", 0, _moment(None), _moment(None), 0)

    def spec(self) -> dict[str, Any]:
        """A Lease's `spec`."""
        return {
            "holderIdentity": self.holder,
            # Whole seconds only: rounded up, for others may wait longer and never shorter.
            "leaseDurationSeconds": max(1, -int(-self.duration // 1)),
            "acquireTime": self.acquired.strftime(_MICRO_TIME),
            "renewTime": self.renewed.strftime(_MICRO_TIME),
            "leaseTransitions": self.transitions,
        }


@dataclass(frozen=True)
class Seen:
    """The Lease as it was last seen, and since when it has said so."""

    term: Term | None
    """None: there is no Lease."""
    since: float
    """By the monotonic clock of whoever looks; seconds."""


def look(before: Seen | None, term: Term | None, now: float) -> Seen:
    """Note what the Lease says now; one that says the same as before was seen then, not now."""
    return before if before is not None and before.term == term else Seen(term, now)


def claim(identity: str, timing: Timing, seen: Seen, now: float, wall: datetime) -> Term | None:
    """What to write into the Lease to lead, or to go on leading; None: somebody else leads.

    Args:
        identity: of the candidate, unlike anybody else's.
        timing: of the candidate.
        seen: what the Lease says, and since when.
        now: by the clock of `seen`.
        wall: what the Lease shall say that the time is.
    """
    held = seen.term
    if held is None:
        return Term(identity, timing.duration, wall, wall, 0)
    if held.holder == identity:
        return replace(held, duration=timing.duration, renewed=wall)
    if held.holder and now < seen.since + held.duration:
        return None
    return Term(identity, timing.duration, wall, wall, held.transitions + 1)


def released(held: Term, wall: datetime) -> Term:
    """What to write into a Lease that is given back: the next candidate need not wait for its end."""
    return replace(held, holder="", duration=1, renewed=wall)


def _moment(text: object) -> datetime:
    return datetime.fromisoformat(text) if isinstance(text, str) else datetime.fromtimestamp(0, UTC)
