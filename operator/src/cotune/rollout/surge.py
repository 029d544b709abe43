"""A stage with a bridge: nothing is stopped before it serves, and the stage does not end before it is gone.

Starting -> Serving -> Removing -> Done. One that cannot be had goes Starting -> Removing -> NoRoom, and the stage on
without it; one that does not come up Starting -> Removing -> Failed, and the stage back, with nothing touched. Like the
stage's own machine, the functions keep no memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cotune.api.downtime import StageDowntime
from cotune.api.profile import Chance, ProfilePhase, Stage, StageStatus
from cotune.api.surge import StageSurge, Surge, SurgePhase
from cotune.rollout.bridge import CreateBridge, RemoveBridge
from cotune.rollout.chances import weigh
from cotune.rollout.convergence import unbindable
from cotune.rollout.downtime import Estimate, Followed, Outage, ended, follow, told
from cotune.rollout.progress import IN_PROGRESS
from cotune.rollout.stage import Obstacle, StageStep, blocked
from cotune.rollout.state import ObservedWorkload, Revision
from cotune.rollout.targets import Targets
from cotune.trials.pod_failure import PodFailure
from cotune.trials.root_cause import Cause

IN_WORK = frozenset({SurgePhase.STARTING, SurgePhase.SERVING, SurgePhase.REMOVING})
"""Phases in which there may be something of a bridge."""

SEEN_EVERY = timedelta(seconds=10)
"""How often it is written down that a bridge still serves: a lost one counts as down from then on."""

_FAILED = "BridgeFailed"
NO_ROOM = "NoRoom"

_OF_THE_NODE = frozenset(
    {
        *("Unschedulable", "FailedCreate", "ImagePullFailed", "ErrImageNeverPull", "InvalidImageName"),
        *("CreateContainerConfigError", "CreateContainerError", "RunContainerError"),
        *(str(it) for it in (Cause.CARD_TAKEN, Cause.PROFILING_DISTURBED, Cause.NO_GPU, Cause.CARD_ERROR)),
    }
)
"""Failures that the profile's values have no part in: the originals run with the same image, elsewhere."""

IN_THE_MIDDLE = IN_PROGRESS - {ProfilePhase.BAKING}
"""Phases in which a stage stops or starts something."""

_UP_AGAIN = frozenset({ProfilePhase.BAKING, ProfilePhase.ROLLED_BACK})
"""What a stage comes to when all of the stack is ready: its bridge is gone by then."""


@dataclass(frozen=True)
class NoBridge:
    """Why a bridge cannot be had at all."""

    reason: str
    message: str


def wanted(stage: Stage, targets: Targets) -> Surge:
    """What a stage does about a bridge, if nothing hinders it: the grant allows it, or it says nothing of it."""
    if not targets.may_surge and stage.surge is not Surge.REQUIRE:
        return Surge.NEVER
    return stage.surge or Surge.IF_ROOM


def with_surge(stage: Stage, targets: Targets, expected: Estimate) -> Estimate:
    """The downtime that is expected of a stage that may have a bridge."""
    if expected.seconds == 0:
        return expected
    match wanted(stage, targets):
        case Surge.NEVER:
            return expected
        case Surge.IF_ROOM:
            return Estimate(expected.seconds, f"0 s if there is room on another card, else {expected.said}")
        case Surge.REQUIRE:
            return Estimate(0, "0 s: it waits for room on another card")


def hindered(surge: StageSurge, why: NoBridge, now: datetime) -> StageSurge:
    """A bridge that cannot be had: what there is of it goes."""
    return _to(surge, SurgePhase.REMOVING, now, why.reason, why.message)


def start(
    stage: Stage,
    state: StageStatus,
    surge: StageSurge,
    target: Revision,
    observed: Mapping[str, ObservedWorkload],
    bridge: Mapping[str, ObservedWorkload],
    now: datetime,
    why_not: NoBridge | None = None,
) -> StageStep:
    """The next step of a stage whose bridge starts: component by component, each ready before the next.

    Args:
        stage: as the spec has it now.
        state: of the stage, which is Progressing.
        surge: of the state.
        target: what the stage shall be.
        observed: the stack, by component: nothing of it is touched.
        bridge: what there is of the bridge, by component.
        now: the time.
        why_not: what has come to light against it.
    """
    phase = ProfilePhase.PROGRESSING
    if why := unbindable(observed):
        return blocked(stage, phase, surge.since, Obstacle("NotBindable", why), now)
    if why_not is not None:
        return _not_to_be_had(stage, surge, why_not, state.chances, now)
    weighed = weigh(bridge, state.chances, now, timedelta(seconds=stage.unschedulable_grace_seconds))
    # Who comes first fails first: without the first one, the others have nothing to be beside.
    failures = ((it.component, _failure(weighed.observed, it.component)) for it in target.workloads)
    name, failure = next(((name, it) for name, it in failures if it is not None), ("", None))
    if failure is not None:
        said = f"{name}: {failure.reason}: {failure.message}"
        if failure.reason in _OF_THE_NODE:
            return _not_to_be_had(stage, surge, NoBridge(NO_ROOM, said), weighed.chances, now)
        return _failed(surge, said, weighed.chances, now)
    if surge.reason:  # It had no room, and has some now.
        surge = _to(surge, SurgePhase.STARTING, now)
    waiting_for = next((it for it in target.workloads if not _is_up(bridge, it.component)), None)
    if waiting_for is None:
        serving = _to(surge, SurgePhase.SERVING, now).model_copy(update={"served_until": now})
        return StageStep(phase, "the bridge serves", surge=serving, chances=())
    name = waiting_for.component
    doing = weighed.observed[name].unready if name in bridge else ""
    said = f"{name} of the bridge to be ready{f' ({doing})' if doing else ''}"
    if now - surge.since > timedelta(seconds=stage.readiness_deadline_seconds):
        late = f"not ready within {stage.readiness_deadline_seconds} s, waiting for {said}"
        if (sign := _failure(bridge, name)) is not None and sign.reason in _OF_THE_NODE:
            return _not_to_be_had(stage, surge, NoBridge(NO_ROOM, late), weighed.chances, now)
        return _failed(surge, late, weighed.chances, now)
    if name not in bridge:
        made = (CreateBridge(name),)
        return StageStep(phase, f"waiting for {said}", bridging=made, surge=surge, chances=weighed.chances)
    return StageStep(phase, f"waiting for {said}", surge=surge, chances=weighed.chances)


def keep(
    phase: ProfilePhase,
    surge: StageSurge,
    step: StageStep,
    target: Revision,
    last_good: Revision,
    observed: Mapping[str, ObservedWorkload],
    bridge: Mapping[str, ObservedWorkload],
    now: datetime,
) -> StageStep:
    """A step of the stage's own machine, or of `start`, with what becomes of the bridge.

    A bridge that serves is kept until all of the stack is ready again, whichever way the stage goes; any other one goes
    when the stage turns back. It goes in the reverse order of start.

    Args:
        phase: of the stage before the step.
        surge: before the step.
        step: of this pass.
        target: what the stage shall be.
        last_good: what it was.
        observed: the stack, by component.
        bridge: what there is of the bridge, by component.
        now: the time.
    """
    current = step.surge or surge
    is_forward = phase is ProfilePhase.PROGRESSING and step.phase is phase
    match current.phase:
        case SurgePhase.STARTING if is_forward:
            return step
        case SurgePhase.STARTING:
            current = _to(current, SurgePhase.REMOVING, now, message=step.message)
        case SurgePhase.SERVING if surge.phase is SurgePhase.STARTING:
            return step
        case SurgePhase.SERVING if step.phase in _UP_AGAIN:
            current = _to(current, SurgePhase.REMOVING, now)
        case SurgePhase.SERVING:
            if serves(target, bridge):
                return replace(step, surge=_seen(current, now))
            if is_forward and _is_untouched(last_good, observed):
                again = _to(current, SurgePhase.STARTING, now)
                return replace(step, message="waiting for the bridge to be ready again", actions=(), surge=again)
            return step
        case SurgePhase.REMOVING:
            pass
        case _:
            return step
    return _remove(phase, current, step, target, bridge, now)


def serves(target: Revision, bridge: Mapping[str, ObservedWorkload]) -> bool:
    """Whether all of a bridge is ready."""
    return all(_is_up(bridge, it.component) for it in target.workloads)


def follow_bridged(
    profile: str,
    stage: str,
    before: StageDowntime,
    state: StageStatus,
    step: StageStep,
    last_good: Revision,
    observed: Mapping[str, ObservedWorkload],
    is_served: bool,
    now: datetime,
) -> Followed:
    """The downtime of a stage that has, or had, a bridge: the time in which neither it nor the stack is ready.

    Args:
        profile: namespace and name.
        stage: its name.
        before: what was known.
        state: of the stage before the step.
        step: of this pass.
        last_good: what the services were before the stage.
        observed: what they were at the beginning of this pass, by component.
        is_served: whether all of the bridge was ready then.
        now: the time.
    """
    surge, phase_since = state.surge, state.phase_started_at or now
    assert surge is not None
    is_first = surge.phase in {SurgePhase.STARTING, SurgePhase.REMOVING} and state.phase is ProfilePhase.PROGRESSING
    if surge.served_until is None:
        if is_first:
            return Followed(before)  # Nothing of the stack is touched yet.
        return follow(profile, stage, before, state.phase, phase_since, step, last_good, observed, now)
    if state.phase not in IN_THE_MIDDLE:
        return Followed(before)
    before = before.model_copy(update={"expected_seconds": 0})
    is_whole = _is_whole(last_good, observed) or step.phase in _UP_AGAIN
    if not is_served and (not is_whole or step.actions):
        # It was there until then: the stack is down from then on, not from the beginning of its change.
        since = before.since or (now if is_whole else max(phase_since, surge.served_until))
        return Followed(before.model_copy(update={"since": since}))
    if before.since is None and step.phase not in _UP_AGAIN:
        return Followed(before)
    known = ended(profile, stage, before.since or phase_since, phase_since, observed, now)
    until = now if is_served or before.since is None else known.until
    outage = Outage(profile, stage, before.since or now, until, start_seconds=known.start_seconds)
    record = told(before, outage, step.phase)
    if step.phase is ProfilePhase.BAKING:
        record = record.model_copy(update={"error_seconds": record.measured_seconds})
    return Followed(record, outage if before.since is not None else None)


def restarts_clock(before: StageSurge | None, after: StageSurge | None) -> bool:
    """Whether the stage's own change begins now: its deadline counts from here."""
    if before is None or after is None or before.phase is after.phase:
        return False
    return before.phase is SurgePhase.STARTING or after.phase is SurgePhase.NO_ROOM


def _remove(
    phase: ProfilePhase,
    surge: StageSurge,
    step: StageStep,
    target: Revision,
    bridge: Mapping[str, ObservedWorkload],
    now: datetime,
) -> StageStep:
    left = [it.component for it in reversed(target.workloads) if it.component in bridge]
    if not left:
        end = {"": SurgePhase.DONE, _FAILED: SurgePhase.FAILED}.get(surge.reason, SurgePhase.NO_ROOM)
        return replace(step, surge=_to(surge, end, now, surge.reason, surge.message))
    removal = (RemoveBridge(left[0]),)
    if step.phase in _UP_AGAIN:
        return replace(
            step,
            phase=phase,
            message="waiting for the bridge to be removed",
            bridging=removal,
            surge=surge,
            unready_since=None,
        )
    if surge.reason and step.phase is ProfilePhase.PROGRESSING:
        # What the bridge holds, of a quota for one, the stack may need when it starts.
        return replace(step, message="waiting for the bridge to be removed", actions=(), bridging=removal, surge=surge)
    return replace(step, bridging=removal, surge=surge)


def _not_to_be_had(
    stage: Stage, surge: StageSurge, why: NoBridge, chances: Sequence[Chance], now: datetime
) -> StageStep:
    """The stage goes on without; or waits, where it was told to: pods that have no room wait for some by themselves."""
    phase = ProfilePhase.PROGRESSING
    if stage.surge is Surge.REQUIRE:
        waiting = surge.model_copy(update={"reason": why.reason, "message": why.message[:2048]})
        obstacle = Obstacle(why.reason, f"stage {stage.name}: {why.message}")
        said = f"waiting for a bridge: {why.message}"
        return StageStep(phase, said, obstacle=obstacle, surge=waiting, chances=tuple(chances))
    if surge.is_required:
        # Whoever let it begin without asking a budget has changed their mind: it is asked when the stage starts anew.
        return _failed(surge, f"{why.message}; it began with surge: Require, retry it without", chances, now)
    return StageStep(phase, f"without a bridge: {why.message}", surge=hindered(surge, why, now), chances=())


def _failed(surge: StageSurge, said: str, chances: Sequence[Chance], now: datetime) -> StageStep:
    message = f"the bridge: {said}; nothing of the stack was touched"
    gone = _to(surge, SurgePhase.REMOVING, now, _FAILED, said)
    return StageStep(ProfilePhase.ROLLING_BACK, message, surge=gone, chances=tuple(chances))


def _failure(bridge: Mapping[str, ObservedWorkload], component: str) -> PodFailure | None:
    return bridge[component].failure if component in bridge else None


def _is_up(bridge: Mapping[str, ObservedWorkload], component: str) -> bool:
    return component in bridge and bridge[component].is_ready and bridge[component].replicas > 0


def _is_untouched(last_good: Revision, observed: Mapping[str, ObservedWorkload]) -> bool:
    return all(
        (now := observed.get(it.component)) is not None
        and now.replicas == it.replicas
        and all(now.values.get(name) == value for name, value in it.values.items())
        for it in last_good.workloads
    )


def _is_whole(last_good: Revision, observed: Mapping[str, ObservedWorkload]) -> bool:
    return all(
        (now := observed.get(it.component)) is not None and now.replicas == it.replicas and now.is_ready
        for it in last_good.workloads
    )


def _seen(surge: StageSurge, now: datetime) -> StageSurge:
    if surge.served_until is not None and now - surge.served_until < SEEN_EVERY:
        return surge
    return surge.model_copy(update={"served_until": now})


def _to(surge: StageSurge, phase: SurgePhase, now: datetime, reason: str = "", message: str = "") -> StageSurge:
    since = surge.since if surge.phase is phase and surge.reason == reason else now
    return surge.model_copy(update={"phase": phase, "since": since, "reason": reason, "message": message[:2048]})
