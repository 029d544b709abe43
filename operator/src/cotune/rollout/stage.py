"""One stage's phases: Progressing -> Baking -> Promoted, or RollingBack -> RolledBack.

A way back that is overdue is Degraded, which calls for a person, and is gone on with all the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cotune.api.card_memory import StageMemory
from cotune.api.downtime import StageDowntime
from cotune.api.gate import GateStatus
from cotune.api.profile import Chance, ProfilePhase, Stage
from cotune.api.stage_probe import StageProbeStatus
from cotune.api.surge import StageSurge
from cotune.rollout.baking import Standing, standing
from cotune.rollout.bridge import BridgeAction
from cotune.rollout.chances import weigh
from cotune.rollout.convergence import Action, converge, lack_values, unbindable
from cotune.rollout.state import ObservedWorkload, Revision


@dataclass(frozen=True)
class Obstacle:
    """What no waiting mends: somebody must allow or change something. As the condition Stalled says it."""

    reason: str
    message: str


@dataclass(frozen=True)
class StageStep:
    """One pass: the phase that follows, and what to do. Doing it twice does no harm."""

    phase: ProfilePhase
    message: str = ""
    actions: tuple[Action, ...] = ()
    obstacle: Obstacle | None = None
    """What stands in the way of the phase, whichever way it leads."""
    unready_since: datetime | None = None
    """While the stage bakes or is guarded: since when a workload is not ready."""
    gates: tuple[GateStatus, ...] | None = None
    """What its gates say; None: they were not asked."""
    chances: tuple[Chance, ...] | None = None
    """Signs of failure that were waited for so far; None: as they are on record."""
    guarded: Mapping[str, int] | None = None
    """At the promotion of a stage with a guard: component to the generation of its workload."""
    downtime: StageDowntime | None = None
    """What the stage costs; None: as it is on record."""
    batch: int | None = None
    """Of a stage of several stacks: the batch that is under way from now on; None: the one that is on record."""
    probe: StageProbeStatus | None = None
    """What its probe has measured; None: as it is on record."""
    bridging: tuple[BridgeAction, ...] = ()
    """What to do about the stage's bridge."""
    surge: StageSurge | None = None
    """What has become of the bridge; None: as it is on record."""
    memory: StageMemory | None = None
    """Which of its pods may hold memory on a card; None: as it is on record."""


def blocked(stage: Stage, phase: ProfilePhase, phase_since: datetime, obstacle: Obstacle, now: datetime) -> StageStep:
    """The step of a stage that has begun and is not let on.

    A way forward turns back, though the way back may be just as blocked: it is gone on with as soon as it is let, and
    is overdue after the deadline like any other.
    """
    why = f"{obstacle.reason}: {obstacle.message}"
    match phase:
        case ProfilePhase.ROLLING_BACK if now - phase_since > timedelta(seconds=stage.readiness_deadline_seconds):
            return StageStep(ProfilePhase.DEGRADED, why, obstacle=obstacle)
        case ProfilePhase.ROLLING_BACK | ProfilePhase.DEGRADED:
            return StageStep(phase, why, obstacle=obstacle)
        case _:
            return StageStep(ProfilePhase.ROLLING_BACK, why, obstacle=obstacle)


def decide(
    stage: Stage,
    phase: ProfilePhase,
    phase_since: datetime,
    target: Revision,
    last_good: Revision,
    observed: Mapping[str, ObservedWorkload],
    now: datetime,
    unready_since: datetime | None = None,
    chances: Sequence[Chance] = (),
) -> StageStep:
    """The next step of a stage in `phase` since `phase_since`, not ready while it bakes since `unready_since`.

    A way forward ends with the first decisive sign of failure; `chances` are those that were waited for before. A
    rollback has the stage's own readiness deadline, and is itself never rolled back: a stage whose last good revision
    does not come up in time is Degraded. It still works towards that revision: the deadline may only have passed while
    no operator was there, and a stack that stands still would never come back.
    """
    if phase not in {ProfilePhase.PROGRESSING, ProfilePhase.BAKING} or lack_values(target, observed):
        # Pods of another template say nothing of this one, and what goes wrong on the way back is gone on with.
        return _decide(stage, phase, phase_since, target, last_good, observed, now, unready_since)
    weighed = weigh(observed, chances, now, timedelta(seconds=stage.unschedulable_grace_seconds))
    step = _decide(stage, phase, phase_since, target, last_good, weighed.observed, now, unready_since)
    if step.phase is ProfilePhase.PROMOTED and stage.guard_seconds:
        guarded = {name: it.generation for name, it in observed.items()}
        step = replace(step, guarded=guarded, message=f"guarded for {stage.guard_seconds} s from now")
    return replace(step, chances=weighed.chances)


def _decide(
    stage: Stage,
    phase: ProfilePhase,
    phase_since: datetime,
    target: Revision,
    last_good: Revision,
    observed: Mapping[str, ObservedWorkload],
    now: datetime,
    unready_since: datetime | None,
) -> StageStep:
    elapsed = now - phase_since
    deadline = timedelta(seconds=stage.readiness_deadline_seconds)
    obstacle = Obstacle("NotBindable", why) if (why := unbindable(observed)) else None
    if obstacle is not None and phase in {ProfilePhase.PROGRESSING, ProfilePhase.BAKING}:
        return blocked(stage, phase, phase_since, obstacle, now)
    match phase:
        case ProfilePhase.PENDING | ProfilePhase.AWAITING_APPROVAL:
            return StageStep(ProfilePhase.PROGRESSING)
        case ProfilePhase.PROGRESSING:
            state = converge(target, observed)
            if state.failure is not None:
                component, failure = state.failure
                return StageStep(ProfilePhase.ROLLING_BACK, f"{component}: {failure.reason}: {failure.message}")
            if state.is_complete:
                return StageStep(ProfilePhase.BAKING)
            if elapsed > deadline:
                return StageStep(
                    ProfilePhase.ROLLING_BACK,
                    f"not ready within {stage.readiness_deadline_seconds} s, waiting for {state.waiting_for}",
                )
            return StageStep(phase, f"waiting for {state.waiting_for}", state.actions)
        case ProfilePhase.BAKING:
            return _bake(stage, elapsed, standing(target, observed), unready_since, now)
        case ProfilePhase.ROLLING_BACK:
            state = converge(last_good, observed, is_way_back=True)
            if state.is_complete:
                return StageStep(ProfilePhase.ROLLED_BACK)
            if elapsed > deadline:
                return StageStep(
                    ProfilePhase.DEGRADED,
                    f"the last good revision is not ready within {stage.readiness_deadline_seconds} s either",
                    state.actions,
                    obstacle,
                )
            waiting_for = state.waiting_for or "the last good revision"
            return StageStep(phase, f"waiting for {waiting_for}", state.actions, obstacle)
        case ProfilePhase.DEGRADED:
            state = converge(last_good, observed, in_order=elapsed <= deadline, is_way_back=True)
            if state.is_complete:
                return StageStep(ProfilePhase.ROLLED_BACK)
            waiting_for = state.waiting_for or "the last good revision"
            return StageStep(phase, f"waiting for {waiting_for}", state.actions, obstacle)
        case ProfilePhase.PROMOTED | ProfilePhase.ROLLED_BACK:
            return StageStep(phase)


def _bake(
    stage: Stage, elapsed: timedelta, found: Standing, unready_since: datetime | None, now: datetime
) -> StageStep:
    """One bad reading is no failure; and what somebody else does to the replicas is not the profile's."""
    phase = ProfilePhase.BAKING
    if found.broken:
        return StageStep(ProfilePhase.ROLLING_BACK, f"while baking: {found.broken}")
    since = unready_since or now
    tolerance, deadline = stage.unready_tolerance_seconds, stage.readiness_deadline_seconds
    if found.unready and now - since > timedelta(seconds=tolerance):
        why = f"no longer ready while baking, for more than {tolerance} s: {', '.join(found.unready)}"
        return StageStep(ProfilePhase.ROLLING_BACK, why)
    if found.starting and now - since > timedelta(seconds=deadline):
        why = f"scaled by somebody else while baking, and not ready within {deadline} s: {found.others}"
        return StageStep(ProfilePhase.ROLLING_BACK, why)
    if found.asleep:
        obstacle = Obstacle("ScaledByOthers", found.others)
        return StageStep(phase, found.others, obstacle=obstacle, unready_since=since if found.unready else None)
    if found.unready or found.starting:
        names = ", ".join((*found.unready, *found.starting))
        return StageStep(phase, f"waiting for {names} to be ready again", unready_since=since)
    if elapsed >= timedelta(seconds=stage.bake_seconds):
        return StageStep(ProfilePhase.PROMOTED)
    others = f"; {found.others}" if found.others else ""
    return StageStep(phase, f"ready, {stage.bake_seconds} s of bake time are not over{others}")
