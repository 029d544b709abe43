"""What a stage costs: its services are down from the first stop until all are ready again.

Expected beforehand from what was measured, held against a budget, measured as it happens. What was not measured is
unknown; only for a stop there is a bound without measurement, the pods' grace period.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cotune.api.downtime import DowntimeBudget, MeasuredStart, StageDowntime, WhenUnknown
from cotune.api.profile import Expect, ProfilePhase, Stage, StageStatus
from cotune.rollout.progress import Waiting
from cotune.rollout.stacks import component_of, key_of, stack_of
from cotune.rollout.stage import StageStep
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
    start_order: Sequence[str],
    stops: Mapping[str, Stop],
    expect: Expect | None,
    outages: Sequence[Outage],
    earlier: Sequence[StageStatus] = (),
) -> Estimate:
    """How long the stack will be down: all of it stops, one after the other, and starts, one after the other.

    A start is taken to last as long as it last did in this namespace, in the profile's trial or in one of its earlier
    stages, whichever is longest: the first was measured here, the others with the profile's values.

    Args:
        start_order: the components of the stack.
        stops: by component; those whose workload does not exist are absent.
        expect: the profile's.
        outages: what earlier rollouts have cost in this namespace.
        earlier: the stages of the profile that have begun.
    """
    if missing := [it for it in start_order if it not in stops]:
        return Estimate(None, f"unknown: there is no workload of {', '.join(missing)}")
    if not any(stops[it].is_changed for it in start_order):
        return Estimate(0, "0 s: nothing changes, so nothing is stopped")
    newest_first = sorted(outages, key=lambda it: it.until, reverse=True)
    elsewhere = [_Start(it.component, it.seconds, "in its trial") for it in (expect.startup_seconds if expect else ())]
    for state in earlier:
        measured = state.downtime.starts if state.downtime is not None else ()
        elsewhere += [_Start(it.component, it.seconds, f"in stage {state.name}") for it in measured]
    starts = {it: _start(it, newest_first, elsewhere) for it in start_order}
    if unknown := [it for it, start in starts.items() if start is None]:
        return Estimate(
            None,
            f"unknown: no start of {', '.join(unknown)} was measured, neither here nor in a trial or earlier stage",
        )
    known = {it: start for it, start in starts.items() if start is not None}
    stop, how = _stop(start_order, stops, newest_first)
    seconds = stop + sum(it.seconds for it in known.values())
    parts = [
        f"{stop} s to stop ({how})",
        *(f"{name} {it.seconds} s to start ({it.where})" for name, it in known.items()),
    ]
    return Estimate(seconds, f"{seconds} s: {', '.join(parts)}")


def estimate_batches(
    components: Sequence[str],
    batches: Sequence[Sequence[str]],
    stops: Mapping[str, Stop],
    expect: Expect | None,
    outages: Sequence[Outage],
    earlier: Sequence[StageStatus] = (),
) -> Estimate:
    """How long stacks will be down, one batch after the other; those of a batch are down at the same time.

    Args:
        components: of each stack, in the order in which they start.
        batches: the stacks that change together.
        stops: by key.
        expect: the profile's.
        outages: what earlier rollouts have cost in this namespace.
        earlier: the stages of the profile that have begun.
    """
    seconds, longest = 0, Estimate(0, "0 s: nothing changes, so nothing is stopped")
    for batch in batches:
        of_batch = Estimate(0, longest.said)
        for stack in batch:
            own = {it: stops[key_of(stack, it)] for it in components if key_of(stack, it) in stops}
            found = estimate(components, own, expect, outages, earlier)
            if found.seconds is None:
                return Estimate(None, f"{found.said} (stack {stack})")
            of_batch = max(of_batch, found, key=lambda it: it.seconds or 0)
        seconds += of_batch.seconds or 0
        longest = max(longest, of_batch, key=lambda it: it.seconds or 0)
    if not seconds or len(batches) == 1:
        return longest
    return Estimate(seconds, f"{seconds} s in {len(batches)} batches, each at most {longest.said}")


def held(
    stage: Stage, granted: Sequence[DowntimeBudget], expected: Estimate, outages: Sequence[Outage], now: datetime
) -> Waiting | None:
    """Why a stage must not begin for what it will cost; None: it may.

    An outage counts in full until 24 hours after its end, so that what is left does not change every second.

    Args:
        stage: with the budget of its own, if it has one.
        granted: the budgets of the grants of its namespace.
        expected: what the stage will cost.
        outages: what has been spent in its namespace.
        now: the time.
    """
    if expected.seconds == 0:
        return None
    budgets = _budgets(stage, granted)
    waits = [it for whose, budget in budgets if (it := _held(stage, whose, budget, expected, outages, now)) is not None]
    # What only a person mends is said first.
    return next((it for it in waits if it.is_stalled), waits[0] if waits else None)


def balance(stage: Stage, granted: Sequence[DowntimeBudget], outages: Sequence[Outage], now: datetime) -> str:
    """What is left of each budget that applies to a stage, for a person; empty when none does."""
    return "; ".join(_left_of(whose, it, outages, now) for whose, it in _budgets(stage, granted))


def _budgets(stage: Stage, granted: Sequence[DowntimeBudget]) -> list[tuple[str, DowntimeBudget]]:
    """Whose it is, and the budget."""
    own = [("its downtimeBudget", stage.downtime_budget)] if stage.downtime_budget is not None else []
    return own + [("the downtimeBudget of its grant", it) for it in granted]


def left(budgets: Sequence[DowntimeBudget], outages: Sequence[Outage], now: datetime) -> int | None:
    """What may still be spent now, in seconds; None: nothing limits it."""
    return min((_left(it, outages, now) for it in budgets), default=None)


def _left(budget: DowntimeBudget, outages: Sequence[Outage], now: datetime) -> int:
    return max(budget.seconds_per_day - sum(it.seconds for it in outages if now < it.until + DAY), 0)


def _left_of(whose: str, budget: DowntimeBudget, outages: Sequence[Outage], now: datetime) -> str:
    return f"{_left(budget, outages, now)} s of {budget.seconds_per_day} s a day are left ({whose})"


def _held(
    stage: Stage, whose: str, budget: DowntimeBudget, expected: Estimate, outages: Sequence[Outage], now: datetime
) -> Waiting | None:
    if expected.seconds is None and budget.on_unknown is WhenUnknown.WAIT:
        message = (
            f"stage {stage.name}: {whose} is {budget.seconds_per_day} s a day, and what it will cost is {expected.said}"
        )
        return Waiting("DowntimeUnknown", message, is_stalled=True)
    # Of an unknown downtime it is only certain that it is one.
    needed = expected.seconds if expected.seconds is not None else 1
    allowed = budget.seconds_per_day
    is_expected = f"{needed} s of downtime are expected" if expected.seconds is not None else "its downtime is unknown"
    if needed > allowed:
        message = f"stage {stage.name}: {is_expected}, and {whose} is {allowed} s a day: it never fits"
        return Waiting("DowntimeBudget", message, is_stalled=True)
    fits_at = max(_fits_at(needed, budget, outages, now), _cooled_at(budget, outages, now))
    if fits_at <= now:
        return None
    message = f"stage {stage.name}: {is_expected}, {_left_of(whose, budget, outages, now)}"
    if needed <= _left(budget, outages, now):
        message += f", and the last downtime is less than {budget.cooldown_seconds} s ago"
    return Waiting("DowntimeBudget", f"{message}: it begins at {_rounded_up(fits_at).isoformat()}")


@dataclass(frozen=True)
class Followed:
    """What is known of a stage's downtime after a step."""

    record: StageDowntime
    outage: Outage | None = None
    """That is over with this step: to be put on record."""


def follow(
    profile: str,
    stage: str,
    before: StageDowntime,
    phase: ProfilePhase,
    phase_since: datetime,
    step: StageStep,
    last_good: Revision,
    observed: Mapping[str, ObservedWorkload],
    now: datetime,
    is_last: bool = True,
) -> Followed:
    """The stage's downtime after a step.

    Args:
        profile: namespace and name.
        stage: its name.
        before: what was known.
        phase: of the stage before the step.
        phase_since: since when it was in that phase.
        step: of this pass.
        last_good: what the services were before the stage.
        observed: what they were at the beginning of this pass, by component.
        now: the time.
        is_last: no other batch follows.
    """
    if phase not in {ProfilePhase.PROGRESSING, ProfilePhase.ROLLING_BACK, ProfilePhase.DEGRADED}:
        return Followed(before)  # Nothing is stopped in the others; what is not ready of itself costs no budget.
    is_up = step.phase in {ProfilePhase.BAKING, ProfilePhase.ROLLED_BACK}
    since = before.since
    if since is None and not is_up:
        since = began(phase_since, last_good, observed, bool(step.actions), now)
    if not is_up:
        return Followed(before.model_copy(update={"since": since}))
    if since is None:  # Nothing had to be stopped.
        return Followed(told(before, Outage(profile, stage, now, now), step.phase, is_last))
    outage = ended(profile, stage, since, phase_since, observed, now)
    return Followed(told(before, outage, step.phase, is_last), outage)


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
    # Stacks that were down together count as the slowest.
    first: dict[str, datetime] = {}
    for name, at in made.items():
        first[stack_of(name)] = min(at, first.get(stack_of(name), at))
    stop = _whole(max(first.values()) - since) if first and since >= phase_since else None
    starts: dict[str, int] = {}
    for name, at in ready.items():
        if name in made:
            component = component_of(name)
            starts[component] = max(_whole(at - made[name]), 1, starts.get(component, 0))
    return Outage(profile, stage, since, until, stop, starts)


def told(record: StageDowntime, outage: Outage, phase: ProfilePhase, is_last: bool = True) -> StageDowntime:
    """The stage's record with an outage that is over; how far the estimate was off is told when all is forward."""
    measured = (record.measured_seconds or 0) + outage.seconds
    ended_record = record.model_copy(update={"since": None, "measured_seconds": measured})
    if phase is not ProfilePhase.BAKING:
        return ended_record
    slowest = {it.component: it.seconds for it in record.starts}
    for component, seconds in outage.start_seconds.items():
        slowest[component] = max(seconds, slowest.get(component, 0))
    starts = tuple(MeasuredStart(component=it, seconds=seconds) for it, seconds in slowest.items())
    error = measured - record.expected_seconds if record.expected_seconds is not None and is_last else None
    return ended_record.model_copy(update={"starts": starts, "error_seconds": error})


def corrected(record: StageDowntime, outage: Outage, recorded: Outage, phase: ProfilePhase) -> StageDowntime:
    """The stage's record with an outage as it was written down first, by a pass that died before it could say so."""
    more = recorded.seconds - outage.seconds
    update: dict[str, object] = {"measured_seconds": (record.measured_seconds or 0) + more}
    if phase is ProfilePhase.BAKING:
        starts = tuple(MeasuredStart(component=it, seconds=seconds) for it, seconds in recorded.start_seconds.items())
        error = record.error_seconds + more if record.error_seconds is not None else None
        update |= {"error_seconds": error, "starts": starts}
    return record.model_copy(update=update)


@dataclass(frozen=True)
class _Start:
    component: str
    seconds: int
    where: str


def _start(component: str, newest_first: Sequence[Outage], elsewhere: Sequence[_Start]) -> _Start | None:
    known = [it for it in elsewhere if it.component == component]
    if (here := next((it for it in newest_first if component in it.start_seconds), None)) is not None:
        known.append(_Start(component, here.start_seconds[component], "last time here"))
    return max(known, key=lambda it: it.seconds, default=None)


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
