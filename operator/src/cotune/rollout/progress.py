"""A profile's way through its stages: which stage is next, and what the whole amounts to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cotune.api.profile import Approval, ProfilePhase, ProfileSpec, ProfileStatus, Stage, StageStatus
from cotune.rollout.windows import opening

IN_PROGRESS = frozenset(
    {ProfilePhase.PROGRESSING, ProfilePhase.BAKING, ProfilePhase.ROLLING_BACK, ProfilePhase.DEGRADED}
)
"""Phases of a stage in which its workloads may differ from any revision."""

ON_THE_WAY_BACK = frozenset({ProfilePhase.ROLLING_BACK, ProfilePhase.DEGRADED})
"""Of these, the ones that work towards the last good revision."""


@dataclass(frozen=True)
class Waiting:
    """Why a profile has not begun its next stage."""

    reason: str
    message: str
    is_stalled: bool = False
    """Somebody must change something first; nobody waits for the profile meanwhile."""
    phase: ProfilePhase | None = None
    """The profile's phase meanwhile; None: as its stages make it."""


def current_stage(spec: ProfileSpec, status: ProfileStatus) -> Stage | None:
    """The first stage that is not promoted; None when the profile's way is over, for good or for ill."""
    states = by_name(status)
    for stage in spec.rollout.stages:
        state = states.get(stage.name)
        if state is not None and state.phase is ProfilePhase.ROLLED_BACK:
            return None
        if state is None or state.phase is not ProfilePhase.PROMOTED:
            return stage
    return None


def by_name(status: ProfileStatus) -> Mapping[str, StageStatus]:
    """The states of the stages that have begun."""
    return {it.name: it for it in status.stages}


def begun(spec: ProfileSpec, status: ProfileStatus) -> list[tuple[Stage, StageStatus]]:
    """The stages that have begun, with their states, in their order."""
    states = by_name(status)
    return [(it, states[it.name]) for it in spec.rollout.stages if it.name in states]


def with_stage(stages: Sequence[StageStatus], new: StageStatus) -> tuple[StageStatus, ...]:
    """The list with `new` in it."""
    if any(it.name == new.name for it in stages):
        return tuple(new if it.name == new.name else it for it in stages)
    return (*stages, new)


def overall(spec: ProfileSpec, stages: Sequence[StageStatus]) -> ProfilePhase:
    """The profile's phase as its stages make it."""
    if not stages:
        return ProfilePhase.PENDING
    phases = [it.phase for it in stages]
    if len(phases) == len(spec.rollout.stages) and set(phases) == {ProfilePhase.PROMOTED}:
        return ProfilePhase.PROMOTED
    # A guard takes back a stage that others have followed meanwhile: what goes wrong is said first.
    for bad in (ProfilePhase.DEGRADED, ProfilePhase.ROLLING_BACK):
        if bad in phases:
            return bad
    last = phases[-1]
    if ProfilePhase.ROLLED_BACK in phases and last not in IN_PROGRESS:
        return ProfilePhase.ROLLED_BACK
    is_between = last is ProfilePhase.PROMOTED or (last is ProfilePhase.PENDING and len(phases) > 1)
    return ProfilePhase.PROGRESSING if is_between else last


def hindrance(spec: ProfileSpec, stage: Stage, now: datetime) -> Waiting | None:
    """What a person has said that keeps a stage from beginning now."""
    if spec.rollout.abort:
        return Waiting("Aborted", "spec.rollout.abort is true")
    if spec.rollout.paused:
        return Waiting("Paused", "spec.rollout.paused is true")
    if stage.approval is Approval.MANUAL:
        message = f"stage {stage.name} waits for its approval: set it to Auto to let it begin"
        return Waiting("AwaitingApproval", message, phase=ProfilePhase.AWAITING_APPROVAL)
    return _outside_window(stage, now)


def _outside_window(stage: Stage, now: datetime) -> Waiting | None:
    window = stage.window
    if window is None:
        return None
    try:
        opens = opening(window, now)
    except ZoneInfoNotFoundError:
        message = f"stage {stage.name}: the operator knows no time zone {window.time_zone}"
        return Waiting("UnknownTimeZone", message, is_stalled=True)
    if opens <= now:
        return None
    local = opens.astimezone(ZoneInfo(window.time_zone))
    message = f"stage {stage.name}: its window opens at {local.isoformat(timespec='minutes')} ({window.time_zone})"
    return Waiting("OutsideWindow", message)


def retried(spec: ProfileSpec, status: ProfileStatus) -> ProfileStatus | None:
    """The status with which the stage that was taken back starts anew; None when none does.

    What is known of that attempt goes: the stage has not begun, and everything is asked of it again. Another stage that
    is in the middle of its change, or on its way back, comes to its end first.
    """
    failed = next((it for it in status.stages if it.phase is ProfilePhase.ROLLED_BACK), None)
    if failed is None or spec.rollout.abort or status.retries >= spec.rollout.retries:
        return None
    if any(it.phase in IN_PROGRESS for it in status.stages):
        return None
    if any(it.to_revision is not None for it in spec.rollout.stages if it.name == failed.name):
        return None
    stages = tuple(it for it in status.stages if it is not failed)
    update = {"stages": stages, "phase": overall(spec, stages), "retries": status.retries + 1}
    return status.model_copy(update=update)


@dataclass(frozen=True)
class Rival:
    """Another profile, as far as the order of rollouts in a namespace is concerned."""

    namespace: str
    name: str
    created_at: datetime
    spec: ProfileSpec
    status: ProfileStatus
    is_stalled: bool
    """It waits for a person, or is being deleted: nobody waits for it."""


def goes_before(mine: Rival, rivals: Sequence[Rival], namespace: str, now: datetime) -> Rival | None:
    """The profile that must be done with a stage's namespace first.

    One that is in the middle of its change there, else the oldest that still has its stage there before it.
    """
    if (busy := in_the_middle(mine, rivals, namespace)) is not None:
        return busy
    others = [it for it in rivals if (it.namespace, it.name) != (mine.namespace, mine.name)]
    contenders = [(it, current) for it in others if (current := current_stage(it.spec, it.status)) is not None]
    here = [it for it, stage in contenders if stage.namespace == namespace]
    return next((it for it in sorted(here, key=_age) if _age(it) < _age(mine) and _willing(it, now)), None)


def in_the_middle(mine: Rival, rivals: Sequence[Rival], namespace: str) -> Rival | None:
    """Another profile whose stage in a namespace is in progress."""
    others = [it for it in rivals if (it.namespace, it.name) != (mine.namespace, mine.name)]
    return next((it for it in others if _is_in_the_middle(it, namespace)), None)


def _is_in_the_middle(rival: Rival, namespace: str) -> bool:
    here = (state for stage, state in begun(rival.spec, rival.status) if stage.namespace == namespace)
    return any(it.phase in IN_PROGRESS for it in here)


def _willing(rival: Rival, now: datetime) -> bool:
    stage = current_stage(rival.spec, rival.status)
    return stage is not None and hindrance(rival.spec, stage, now) is None and not rival.is_stalled


def _age(rival: Rival) -> tuple[datetime, str, str]:
    return rival.created_at, rival.namespace, rival.name
