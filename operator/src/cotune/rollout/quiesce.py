"""Production is stopped for trials on its card, and comes back: a pure phase machine.

`Waiting -> Stopping -> Quiesced -> Restoring -> Restored`. Everything that may happen leads to Restoring, and nothing
leads away from it but that all workloads are ready again; `Degraded` says that this takes longer than it may, and is
worked at like Restoring.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cotune.api.downtime import DowntimeBudget
from cotune.api.gate import BeginWindow
from cotune.api.grant import GrantSpec, GrantTarget, Permission
from cotune.api.profile import Stage
from cotune.api.quiesce import Quiesce, QuiescedWorkload, QuiescePhase, QuiesceStatus
from cotune.rollout.convergence import Scale, converge, stop
from cotune.rollout.downtime import Estimate, Outage, held, left
from cotune.rollout.foreign import scaled_by_others, with_their_replicas
from cotune.rollout.progress import Waiting
from cotune.rollout.state import ObservedWorkload, Revision, WorkloadRevision
from cotune.rollout.targets import Refusal
from cotune.rollout.windows import span

IN_PROGRESS = frozenset({QuiescePhase.STOPPING, QuiescePhase.QUIESCED, QuiescePhase.RESTORING, QuiescePhase.DEGRADED})
"""Phases in which production may not be as its owner has it."""

ON_THE_WAY_BACK = frozenset({QuiescePhase.RESTORING, QuiescePhase.DEGRADED})

STAGE = "quiesce"
"""In the place of a stage's name, where downtimes are recorded."""

_PODS_OF_TRIALS = timedelta(seconds=60)
"""For which the way back waits for the pods of a trial to be gone: what starts measures the card's free memory."""


@dataclass(frozen=True)
class Ending:
    """Why production is to come back before its time."""

    reason: str
    message: str


@dataclass(frozen=True)
class Allowed:
    """What the grants of a namespace let an experiment do with it."""

    targets: Mapping[str, GrantTarget]
    """Component to workload, in the order in which they start."""
    maximum_seconds: int
    windows: tuple[BeginWindow, ...]
    """All of them must be open."""
    budgets: tuple[DowntimeBudget, ...]


def allowed(quiesce: Quiesce, source: str, grants: Sequence[GrantSpec]) -> Allowed | Refusal:
    """What an experiment of namespace `source` may do; of several grants, and its own limits, the strictest hold."""
    inviting = [
        it for it in grants if Permission.QUIESCE in it.allow and any(origin.namespace == source for origin in it.from_)
    ]
    where = quiesce.namespace
    if not inviting:
        return Refusal("NoGrant", f"no GpuTuningGrant in namespace {where} allows a quiesce from {source}")
    targets: dict[str, GrantTarget] = {}
    for target in (target for grant in inviting for target in grant.targets):
        known = targets.setdefault(target.component, target)
        if (known.workload, known.container) != (target.workload, target.container):
            message = f"grants in namespace {where} name several workloads for {target.component}"
            return Refusal("AmbiguousGrant", message)
    order = quiesce.start_order or tuple(targets)
    if missing := [it for it in order if it not in targets]:
        return Refusal("WorkloadNotFound", f"no grant in namespace {where} names a workload for {', '.join(missing)}")
    limits = [it.quiesce for it in inviting if it.quiesce is not None]
    return Allowed(
        {it: targets[it] for it in order},
        min([quiesce.maximum_seconds, *(it.maximum_seconds for it in limits)]),
        (quiesce.window, *(it.window for it in limits if it.window is not None)),
        tuple(it.downtime_budget for it in inviting if it.downtime_budget is not None),
    )


@dataclass(frozen=True)
class Needs:
    """What must fit into the time at the least, in seconds."""

    stop: int
    trial: int
    restoration: int

    @property
    def seconds(self) -> int:
        """All of it."""
        return self.stop + self.trial + self.restoration

    @property
    def said(self) -> str:
        """The sum, for a person."""
        return f"{self.seconds} s: {self.stop} s to stop, {self.trial} s for a trial, {self.restoration} s to restore"


@dataclass(frozen=True)
class Plan:
    """The times of a quiesce that may begin now."""

    until: datetime
    """Production is ready again."""
    restore_at: datetime
    """The way back begins."""


def plan(may: Allowed, needs: Needs, outages: Sequence[Outage], last: datetime | None, now: datetime) -> Plan | Waiting:
    """When production comes back if it is stopped now; or why it is not.

    Args:
        may: what is allowed.
        needs: what must fit in.
        outages: what has been spent in the namespace.
        last: when it was stopped last for this experiment; once in each opening of the windows.
        now: the time.
    """
    if needs.seconds > may.maximum_seconds:
        message = f"the least is {needs.said}; production may be down for {may.maximum_seconds} s: it never fits"
        return Waiting("QuiesceTooShort", message, is_stalled=True)
    if unknown := _unknown_zone(may.windows):
        return Waiting("UnknownTimeZone", f"the operator knows no time zone {unknown}", is_stalled=True)
    spans = [(it, *span(it, now)) for it in may.windows]
    for window, opens, closes in spans:
        if (closes - opens).total_seconds() < needs.seconds:
            message = f"the least is {needs.said}; the window from {_local(opens, window)} is too short for it"
            return Waiting("QuiesceTooShort", message, is_stalled=True)
    for window, opens, _ in spans:
        if now < opens:
            return Waiting("OutsideWindow", f"the window opens at {_local(opens, window)}")
    window, _, closes = min(spans, key=lambda it: it[2])
    if last is not None and last >= max(opens for _, opens, _ in spans):
        message = f"production was stopped in this window already; the next one opens at {_next(window, closes)}"
        return Waiting("OutsideWindow", message)
    until = min(closes, now + timedelta(seconds=may.maximum_seconds))
    if now + timedelta(seconds=needs.seconds) > until:
        message = (
            f"the least is {needs.said}; the window closes at {_local(closes, window)}, "
            f"the next one opens at {_next(window, closes)}"
        )
        return Waiting("OutsideWindow", message)
    whole = Estimate(needs.seconds, needs.said)
    if (waiting := held(_as_stage(), may.budgets, whole, outages, now)) is not None:
        message = waiting.message.removeprefix(f"stage {STAGE}: ")
        return Waiting(waiting.reason, message, is_stalled=waiting.is_stalled)
    if (seconds := left(may.budgets, outages, now)) is not None:
        until = min(until, now + timedelta(seconds=seconds))
    return Plan(until, until - timedelta(seconds=needs.restoration))


def no_longer(may: Allowed, since: datetime, reserved: timedelta, now: datetime) -> Ending | None:
    """Why a quiesce that has begun must end by what is allowed today; None: it may go on.

    Args:
        may: what is allowed, which may be less than when it began.
        since: when it began.
        reserved: for the way back.
        now: the time.
    """
    if unknown := _unknown_zone(may.windows):
        return Ending("UnknownTimeZone", f"the operator knows no time zone {unknown}")
    spans = [span(it, now) for it in may.windows]
    until = min([since + timedelta(seconds=may.maximum_seconds), *(closes for _, closes in spans)])
    if any(now < opens for opens, _ in spans) or now + reserved >= until:
        return Ending("TimeIsOver", "the time for trials is over")
    return None


def expected_trial(stated: int | None, at_most: timedelta, measured: Sequence[float], interrupted: int | None) -> int:
    """Seconds that the next trial is given.

    Args:
        stated: by the experiment.
        at_most: what a trial's deadlines let it take.
        measured: seconds for which ended trials of the experiment have held the card.
        interrupted: the longest that a trial had run when it was ended for want of time.
    """
    first = stated if stated is not None else _whole(at_most)
    known = _whole(timedelta(seconds=max(measured))) if measured else first
    longest = max(known, interrupted + 1 if interrupted is not None else 0)
    # What was measured while no operator was there is no trial's own: its deadlines end it sooner.
    return min(longest, max(first, _whole(at_most)))


def reserved(quiesce: Quiesce, old: QuiesceStatus | None) -> int:
    """Seconds that are kept for the way back: as it took last time if that was longer than stated, to twice of it.

    What took longer still was mended by somebody, or waited for an operator: it says nothing of the next one.
    """
    last = old.restoration_seconds or 0 if old is not None else 0
    return max(quiesce.restoration_seconds, min(last, 2 * quiesce.restoration_seconds))


def way_back(workloads: Sequence[QuiescedWorkload]) -> Revision:
    """What production was. Only replicas are ever set: what its owner does to the templates meanwhile stays."""
    return Revision(tuple(WorkloadRevision(it.component, {}, it.replicas) for it in workloads))


def is_untouched(workloads: Sequence[QuiescedWorkload], observed: Mapping[str, ObservedWorkload]) -> bool:
    """Whether no workload has been changed since it was recorded."""
    return all(it.component in observed and not _is_another(it, observed[it.component]) for it in workloads)


def _is_another(recorded: QuiescedWorkload, found: ObservedWorkload) -> bool:
    """Whether it has been changed, or made anew, which begins its generations again."""
    return (found.generation, found.uid) != (recorded.generation, recorded.uid)


def taken_over(workloads: Sequence[QuiescedWorkload], observed: Mapping[str, ObservedWorkload]) -> str:
    """What somebody else has done to workloads that are, or are to be, stopped; empty: nothing that matters.

    Stopping one makes another generation of it: one that runs in another than was recorded was started by somebody, or
    changed before cotune had stopped it.
    """
    gone = [f"Deployment {it.deployment} is gone" for it in workloads if it.component not in observed]
    running = [
        f"Deployment {it.deployment} was changed, and is to have {found.replicas} replicas"
        for it in workloads
        if (found := observed.get(it.component)) is not None and found.replicas and _is_another(it, found)
    ]
    return "; ".join(gone + running)


@dataclass(frozen=True)
class QuiesceStep:
    """One pass: the phase that follows, and what to do. Doing it twice does no harm."""

    phase: QuiescePhase
    reason: str
    message: str
    actions: tuple[Scale, ...] = ()
    is_stalled: bool = False
    """Somebody has to do something."""


def decide(
    status: QuiesceStatus,
    observed: Mapping[str, ObservedWorkload],
    pods_of_trials: int,
    ending: Ending | None,
    deadline: timedelta,
    now: datetime,
) -> QuiesceStep:
    """The next step of a quiesce that has begun.

    Args:
        status: how far it is.
        observed: the workloads, by component; those that do not exist are absent.
        pods_of_trials: how many pods of the experiment's trials are still there.
        ending: why it ends now, whatever time is left; None: nothing is known against it.
        deadline: how long the way back may take.
        now: the time.
    """
    match status.phase:
        case QuiescePhase.WAITING | QuiescePhase.RESTORED:
            return QuiesceStep(status.phase, status.reason, status.message)
        case QuiescePhase.STOPPING | QuiescePhase.QUIESCED:
            return _forward(status, observed, ending, now)
        case QuiescePhase.RESTORING | QuiescePhase.DEGRADED:
            return _back(status, observed, pods_of_trials, deadline, now)


def refused(status: QuiesceStatus, why: Ending, deadline: timedelta, now: datetime) -> QuiesceStep:
    """The step of a quiesce whose calls the API server refuses: it turns back, and a way back is gone on with."""
    overdue = now - (status.phase_started_at or now) > deadline
    if status.phase in ON_THE_WAY_BACK:
        phase = QuiescePhase.DEGRADED if overdue else status.phase
        return QuiesceStep(phase, why.reason, why.message, is_stalled=True)
    return QuiesceStep(QuiescePhase.RESTORING, why.reason, why.message, is_stalled=True)


def _forward(
    status: QuiesceStatus, observed: Mapping[str, ObservedWorkload], ending: Ending | None, now: datetime
) -> QuiesceStep:
    if ending is not None:
        return QuiesceStep(QuiescePhase.RESTORING, ending.reason, ending.message)
    if others := taken_over(status.workloads, observed):
        return QuiesceStep(QuiescePhase.RESTORING, "ScaledByOthers", others)
    if status.restore_at is None or now >= status.restore_at:
        reason, message = status.reason or "TimeIsOver", status.message or "the time for trials is over"
        return QuiesceStep(QuiescePhase.RESTORING, reason, message)
    stopping = stop(way_back(status.workloads), observed)
    if not stopping.is_complete:
        actions = tuple(it for it in stopping.actions if isinstance(it, Scale))
        return QuiesceStep(QuiescePhase.STOPPING, "Stopping", f"waiting for {stopping.waiting_for}", actions)
    return QuiesceStep(QuiescePhase.QUIESCED, "Quiesced", f"production in {status.namespace} is stopped")


def _back(
    status: QuiesceStatus,
    observed: Mapping[str, ObservedWorkload],
    pods_of_trials: int,
    deadline: timedelta,
    now: datetime,
) -> QuiesceStep:
    elapsed = now - (status.phase_started_at or now)
    is_degraded = status.phase is QuiescePhase.DEGRADED
    if pods_of_trials and not is_degraded and elapsed < min(_PODS_OF_TRIALS, deadline / 2):
        return QuiesceStep(status.phase, "Restoring", f"waiting for {pods_of_trials} pods of trials to be gone")
    # One that somebody has deleted is not waited for: that is their doing, and nothing would end the wait.
    goal = Revision(tuple(it for it in way_back(status.workloads).workloads if it.component in observed))
    goal = with_their_replicas(goal, observed, scaled_by_others(goal, observed))
    state = converge(goal, observed, in_order=not is_degraded, is_way_back=True)
    if state.is_complete:
        return QuiesceStep(QuiescePhase.RESTORED, "Restored", f"production in {status.namespace} is ready again")
    actions = tuple(it for it in state.actions if isinstance(it, Scale))
    if state.failure is not None:
        component, failure = state.failure
        what = f"{component}: {failure.reason}: {failure.message}"
    else:
        what = f"waiting for {state.waiting_for}"
    if not is_degraded and elapsed <= deadline:
        return QuiesceStep(status.phase, "Restoring", what, actions)
    message = f"production in {status.namespace} is not ready after {deadline.total_seconds():g} s: {what}"
    return QuiesceStep(QuiescePhase.DEGRADED, "RestorationOverdue", message, actions, is_stalled=True)


def is_asked_for(status: QuiesceStatus, observed: Mapping[str, ObservedWorkload]) -> bool:
    """Whether every workload that exists is to have replicas again: all that cotune has taken is given back."""
    return all(
        observed[it.component].replicas > 0 or it.replicas == 0 for it in status.workloads if it.component in observed
    )


def _unknown_zone(windows: Sequence[BeginWindow]) -> str:
    """The first time zone that this Python does not know; empty: it knows all."""
    for it in windows:
        try:
            ZoneInfo(it.time_zone)
        except ZoneInfoNotFoundError:
            return it.time_zone
    return ""


def _as_stage() -> Stage:
    return Stage(name=STAGE, namespace=STAGE)


def _local(moment: datetime, window: BeginWindow) -> str:
    return f"{moment.astimezone(ZoneInfo(window.time_zone)).isoformat(timespec='minutes')} ({window.time_zone})"


def _next(window: BeginWindow, closes: datetime) -> str:
    return _local(span(window, closes)[0], window)


def _whole(duration: timedelta) -> int:
    return -(-duration // timedelta(seconds=1))
