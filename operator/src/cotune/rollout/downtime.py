"""What a stage costs: its services are down from the first stop until all are ready again.

Expected beforehand from what was measured, held against a budget, measured as it happens. What was not measured is
unknown; only for a stop there is a bound without measurement, the pods' grace period.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cotune.api.downtime import DowntimeBudget, StageDowntime, WhenUnknown
from cotune.api.profile import Expect, ProfilePhase, Stage
from cotune.rollout.progress import Waiting
from cotune.rollout.state import ObservedWorkload, Revision

DAY = timedelta(hours=24)


@dataclass(frozen=True)
class Outage:
    """One time at which a stage kept the services of its namespace down."""

    profile: str
    """Namespace and name."""
    stage: str
    since: datetime
    until: datetime
    stop_seconds: int | None = None
    """From the first stop until the first pod of the new stack was made; None: it went there and back."""
    start_seconds: Mapping[str, int] = field(default_factory=dict[str, int])
    """Component to the seconds from the making of its pods until all of them were ready, rounded up."""

    @property
    def seconds(self) -> int:
        """How long it was, rounded up."""
        return _whole(self.until - self.since)


@dataclass(frozen=True)
class Stop:
    """What is known of a workload before it is stopped."""

    grace_seconds: int
    """Within which its pods are gone: then the kubelet ends them."""
    is_changed: bool
    """Whether the profile gives it another value than it has."""


@dataclass(frozen=True)
class Estimate:
    """An expected downtime."""

    seconds: int | None
    """None: unknown."""
    said: str
    """What it is the sum of, or what is missing."""


def estimate(
    start_order: Sequence[str], stops: Mapping[str, Stop], expect: Expect | None, outages: Sequence[Outage]
) -> Estimate:
    """How long the stack will be down: all of it stops, one after the other, and starts, one after the other.

    A start is taken to last as long as it last did in this namespace, or as long as it did in the profile's trial,
    whichever is longer: the one was measured here, the other with the profile's values.

    Args:
        start_order: the components of the stack.
        stops: by component; those whose workload does not exist are absent.
        expect: the profile's.
        outages: what earlier rollouts have cost in this namespace.
    """
    if missing := [it for it in start_order if it not in stops]:
        return Estimate(None, f"unknown: there is no workload of {', '.join(missing)}")
    if not any(stops[it].is_changed for it in start_order):
        return Estimate(0, "0 s: nothing changes, so nothing is stopped")
    newest_first = sorted(outages, key=lambda it: it.until, reverse=True)
    in_trial = {it.component: it.seconds for it in expect.startup_seconds} if expect is not None else {}
    starts = {it: _start(it, newest_first, in_trial) for it in start_order}
    if unknown := [it for it, start in starts.items() if start is None]:
        return Estimate(
            None, f"unknown: no start of {', '.join(unknown)} was measured, neither in this namespace nor in a trial"
        )
    known = {it: start for it, start in starts.items() if start is not None}
    stop, how = _stop(start_order, stops, newest_first)
    seconds = stop + sum(it.seconds for it in known.values())
    parts = [
        f"{stop} s to stop ({how})",
        *(f"{name} {it.seconds} s to start ({it.where})" for name, it in known.items()),
    ]
    return Estimate(seconds, f"{seconds} s: {', '.join(parts)}")


def held(stage: Stage, expected: Estimate, outages: Sequence[Outage], now: datetime) -> Waiting | None:
    """Why a stage must not begin for what it will cost; None: it may.

    An outage counts in full until 24 hours after its end, so that what is left does not change every second.
    """
    budget = stage.downtime_budget
    if budget is None or expected.seconds == 0:
        return None
    if expected.seconds is None and budget.on_unknown is WhenUnknown.WAIT:
        message = f"stage {stage.name} has a downtimeBudget, and its expected downtime is {expected.said}"
        return Waiting("DowntimeUnknown", message, is_stalled=True)
    # Of an unknown downtime it is only certain that it is one.
    needed = expected.seconds if expected.seconds is not None else 1
    allowed = budget.seconds_per_day
    is_expected = f"{needed} s of downtime are expected" if expected.seconds is not None else "its downtime is unknown"
    if needed > allowed:
        message = f"stage {stage.name}: {is_expected}, and its downtimeBudget is {allowed} s a day: it never fits"
        return Waiting("DowntimeBudget", message, is_stalled=True)
    fits_at = max(_fits_at(needed, budget, outages, now), _cooled_at(budget, outages, now))
    if fits_at <= now:
        return None
    left = max(allowed - sum(it.seconds for it in outages if now < it.until + DAY), 0)
    message = f"stage {stage.name}: {is_expected}, {left} s of {allowed} s a day are left"
    if needed <= left:
        message += f", and the last downtime is less than {budget.cooldown_seconds} s ago"
    return Waiting("DowntimeBudget", f"{message}: it begins at {_rounded_up(fits_at).isoformat()}")


def began(
    phase_since: datetime, last_good: Revision, observed: Mapping[str, ObservedWorkload], is_acted: bool, now: datetime
) -> datetime | None:
    """Since when services are down that were not known to be; None: they are not.

    What was stopped by an operator that died before it could say so is counted from the beginning of the phase: rather
    too much than too little.

    Args:
        phase_since: since when the stage is in its phase.
        last_good: what the services were before.
        observed: what they are at the beginning of a pass, by component.
        is_acted: whether this pass stops any.
        now: the time.
    """
    is_whole = all(
        (seen := observed.get(it.component)) is not None and seen.replicas == it.replicas and seen.is_ready
        for it in last_good.workloads
    )
    if not is_whole:
        return phase_since
    return now if is_acted else None


def ended(
    profile: str,
    stage: str,
    since: datetime,
    phase_since: datetime,
    observed: Mapping[str, ObservedWorkload],
    now: datetime,
) -> Outage:
    """The outage that is over, now that all of `observed` is ready.

    Its end is what the kubelets say of readiness, not when the operator came to look.
    """
    made = {name: it.made_at for name, it in observed.items() if it.made_at is not None}
    # Kubernetes cuts its times to whole seconds: what happened within one seems to have taken none.
    second = since.replace(microsecond=0)
    ready = {name: it.ready_at for name, it in observed.items() if it.ready_at is not None and it.ready_at >= second}
    is_known = bool(ready) and set(ready) == {name for name, it in observed.items() if it.replicas}
    until = min(max(ready.values()) + timedelta(seconds=1), now) if is_known else now
    stop = _whole(min(made.values()) - since) if made and since >= phase_since else None
    starts = {name: max(_whole(at - made[name]), 1) for name, at in ready.items() if name in made}
    return Outage(profile, stage, since, until, stop, starts)


def told(record: StageDowntime, outage: Outage, phase: ProfilePhase) -> StageDowntime:
    """The stage's record with an outage that is over; how far the estimate was off is only told of a way forward."""
    measured = (record.measured_seconds or 0) + outage.seconds
    error = record.error_seconds
    if phase is ProfilePhase.BAKING and record.expected_seconds is not None:
        error = outage.seconds - record.expected_seconds
    return record.model_copy(update={"since": None, "measured_seconds": measured, "error_seconds": error})


@dataclass(frozen=True)
class _Start:
    seconds: int
    where: str


def _start(component: str, newest_first: Sequence[Outage], in_trial: Mapping[str, int]) -> _Start | None:
    here = next((it.start_seconds[component] for it in newest_first if component in it.start_seconds), None)
    measured = ((here, "last time here"), (in_trial.get(component), "in its trial"))
    known = [_Start(seconds, where) for seconds, where in measured if seconds is not None]
    return max(known, key=lambda it: it.seconds) if known else None


def _stop(start_order: Sequence[str], stops: Mapping[str, Stop], newest_first: Sequence[Outage]) -> tuple[int, str]:
    """Seconds, and where they come from; of another stack no stop is taken."""
    stack = set(start_order)
    for it in newest_first:
        if it.stop_seconds is not None and set(it.start_seconds) == stack:
            return it.stop_seconds, "last time here"
    return sum(stops[it].grace_seconds for it in start_order), "their grace periods at most"


def _fits_at(needed: int, budget: DowntimeBudget, outages: Sequence[Outage], now: datetime) -> datetime:
    """When enough of what was spent is a day old."""
    counted = sorted((it for it in outages if now < it.until + DAY), key=lambda it: it.until)
    spent = sum(it.seconds for it in counted)
    at = now
    for it in counted:
        if spent + needed <= budget.seconds_per_day:
            break
        spent -= it.seconds
        at = it.until + DAY
    return at


def _cooled_at(budget: DowntimeBudget, outages: Sequence[Outage], now: datetime) -> datetime:
    last = max((it.until for it in outages), default=None)
    return now if last is None else last + timedelta(seconds=budget.cooldown_seconds)


def _whole(span: timedelta) -> int:
    return max(-(-span // timedelta(seconds=1)), 0)


def _rounded_up(moment: datetime) -> datetime:
    return moment + timedelta(microseconds=-moment.microsecond % 1_000_000)
