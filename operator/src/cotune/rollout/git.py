"""A stage whose values come through Git: it is only watched. Nothing in this module makes an action."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cotune.api.profile import Chance, Change, ProfilePhase, Stage
from cotune.rollout.chances import weigh
from cotune.rollout.convergence import lack_values, lacks_values, unbindable
from cotune.rollout.stage import Obstacle, StageStep, blocked, decide
from cotune.rollout.state import ObservedWorkload, Revision


@dataclass(frozen=True)
class Place:
    """Where the variables of a component stand, for a person who looks for them in Git."""

    workload: str
    container: str


def is_shown(target: Revision, observed: Mapping[str, ObservedWorkload]) -> bool:
    """Whether every workload is there and has the values."""
    return all(it.component in observed for it in target.workloads) and not lack_values(target, observed)


def shows_any(changes: Sequence[Change], observed: Mapping[str, ObservedWorkload]) -> bool:
    """Whether one of the changes is there already: a commit that is on its way, one workload after the other."""
    return any(_value(observed, it) == it.to for it in changes)


def to_commit(changes: Sequence[Change], observed: Mapping[str, ObservedWorkload], places: Mapping[str, Place]) -> str:
    """What Git does not have yet, by Deployment and container."""
    left = [it for it in changes if _value(observed, it) != it.to]
    return "; ".join(f"{_place(places, it)}: {it.env}={it.to} ({_is(_value(observed, it))})" for it in left)


def to_revert(
    changes: Sequence[Change],
    last_good: Revision,
    observed: Mapping[str, ObservedWorkload],
    places: Mapping[str, Place],
) -> str:
    """What must go from Git again, by Deployment and container; empty when nothing of the profile is left.

    A value that was there before the stage is not the profile's, unless all of them were: then the commit was there
    before cotune looked, and what was there before that commit is not known.
    """
    values = {it.component: it.values for it in last_good.workloads}
    new = [it for it in changes if values.get(it.component, {}).get(it.env) != it.to] or changes
    told: list[str] = []
    for it in new:
        if _value(observed, it) != it.to:
            continue
        was = values.get(it.component, {}).get(it.env)
        former = it.from_ if was == it.to else was
        into = f"to {former}" if former is not None else "away"
        told.append(f"{_place(places, it)}: {it.env}={it.to} {into}")
    return "; ".join(told)


def decide_from_git(
    stage: Stage,
    phase: ProfilePhase,
    phase_since: datetime,
    target: Revision,
    revert: str,
    observed: Mapping[str, ObservedWorkload],
    now: datetime,
    unready_since: datetime | None = None,
    chances: Sequence[Chance] = (),
) -> StageStep:
    """The next step of a stage whose values have come through Git.

    Args:
        stage: as the spec has it now.
        phase: of the stage.
        phase_since: since when it is in it.
        target: what the stage shall be.
        revert: what must go from Git for the stage to be back, as `to_revert` says it; empty when nothing must.
        observed: what the stage is, by component.
        now: the time.
        unready_since: since when a workload is not ready while the stage bakes.
        chances: signs of failure that were waited for before.
    """
    match phase:
        case ProfilePhase.PROGRESSING | ProfilePhase.BAKING:
            step = _forward(stage, phase, phase_since, target, observed, now, unready_since, chances)
        case ProfilePhase.ROLLING_BACK | ProfilePhase.DEGRADED:
            step = _back(stage, phase, phase_since, target, revert, observed, now)
        case _:
            step = StageStep(phase)
    return replace(step, actions=())


def _forward(
    stage: Stage,
    phase: ProfilePhase,
    phase_since: datetime,
    target: Revision,
    observed: Mapping[str, ObservedWorkload],
    now: datetime,
    unready_since: datetime | None,
    chances: Sequence[Chance],
) -> StageStep:
    if why := unbindable(observed):
        return blocked(stage, phase, phase_since, Obstacle("NotBindable", why), now)
    if gone := [it.component for it in target.workloads if _lacks(it.component, target, observed)]:
        return StageStep(ProfilePhase.ROLLING_BACK, f"{', '.join(gone)}: the values are no longer what the profile has")
    if phase is ProfilePhase.BAKING:
        theirs = _as_they_run(target, observed)
        return decide(stage, phase, phase_since, theirs, theirs, observed, now, unready_since, chances)
    weighed = weigh(observed, chances, now, timedelta(seconds=stage.unschedulable_grace_seconds))
    for component, it in weighed.observed.items():
        if it.failure is not None:
            why = f"{component}: {it.failure.reason}: {it.failure.message}"
            return StageStep(ProfilePhase.ROLLING_BACK, why, chances=weighed.chances)
    waiting = _unready(target, weighed.observed)
    if not waiting:
        return StageStep(ProfilePhase.BAKING, chances=weighed.chances)
    if now - phase_since > timedelta(seconds=stage.readiness_deadline_seconds):
        why = f"not ready within {stage.readiness_deadline_seconds} s, waiting for {waiting}"
        return StageStep(ProfilePhase.ROLLING_BACK, why, chances=weighed.chances)
    return StageStep(phase, f"waiting for {waiting}", chances=weighed.chances)


def _back(
    stage: Stage,
    phase: ProfilePhase,
    phase_since: datetime,
    target: Revision,
    revert: str,
    observed: Mapping[str, ObservedWorkload],
    now: datetime,
) -> StageStep:
    """A person reverts the commit; that this takes too long calls for one who is not there yet."""
    unready = _unready(target, observed)
    if not revert and not unready:
        return StageStep(ProfilePhase.ROLLED_BACK)
    obstacle = Obstacle("AwaitingRevert", f"revert in Git: {revert}") if revert else None
    waiting = f"the commit to be reverted: {revert}" if revert else unready
    is_late = now - phase_since > timedelta(seconds=stage.readiness_deadline_seconds)
    if phase is ProfilePhase.ROLLING_BACK and is_late:
        message = f"not back within {stage.readiness_deadline_seconds} s, waiting for {waiting}"
        return StageStep(ProfilePhase.DEGRADED, message, obstacle=obstacle)
    return StageStep(phase, f"waiting for {waiting}", obstacle=obstacle)


def _lacks(component: str, target: Revision, observed: Mapping[str, ObservedWorkload]) -> bool:
    """Whether a workload that is there has other values than the profile's."""
    [wanted] = [it for it in target.workloads if it.component == component]
    return component in observed and lacks_values(wanted, observed)


def _as_they_run(target: Revision, observed: Mapping[str, ObservedWorkload]) -> Revision:
    """With the replicas that the workloads have: they are Git's, or an autoscaler's. Zero shows nothing."""
    replicas = {name: it.replicas for name, it in observed.items()}
    return Revision(
        tuple(replace(it, replicas=replicas.get(it.component, it.replicas) or 1) for it in target.workloads)
    )


def _unready(target: Revision, observed: Mapping[str, ObservedWorkload]) -> str:
    waiting: list[str] = []
    for name in (it.component for it in target.workloads):
        found = observed.get(name)
        if found is None:
            waiting.append(f"workload of {name}")
        elif found.replicas == 0:
            waiting.append(f"{name}, which has 0 replicas")
        elif not found.is_ready:
            waiting.append(f"{name} to be ready ({found.unready})" if found.unready else f"{name} to be ready")
    return ", ".join(waiting)


def _value(observed: Mapping[str, ObservedWorkload], change: Change) -> str | None:
    return observed[change.component].values.get(change.env) if change.component in observed else None


def _is(value: str | None) -> str:
    return "not set" if value is None else f"is {value}"


def _place(places: Mapping[str, Place], change: Change) -> str:
    it = places[change.component]
    return f"Deployment {it.workload}, container {it.container}"
