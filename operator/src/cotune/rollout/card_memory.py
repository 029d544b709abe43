"""No start beside memory that the stage's own pods still hold, as NVML shows it to the node agent.

Kubernetes may forget a pod before its processes have ended: one that is deleted by force, or with its node's object. A
stage therefore records its pods with a share of a card before it stops them. Those that are gone from the API server
and from NVML are forgotten; while one is gone from the API server alone, nothing of its stack is started.

The wait is bounded: a way forward that meets held memory for too long is taken back, and a way back starts all the
same, for whatever runs of it serves somebody.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cotune.api.card_memory import MOST_PODS, MemoryReason, StageMemory, StagePod
from cotune.api.profile import ProfilePhase, Stage
from cotune.rollout.convergence import Action, Scale
from cotune.rollout.progress import ON_THE_WAY_BACK
from cotune.rollout.stacks import stack_of
from cotune.rollout.stage import StageStep
from cotune.rollout.state import ObservedWorkload

LONGEST_WAIT = timedelta(seconds=60)
"""For memory that is held; or half of the stage's readiness deadline, if that is shorter."""

_TOLD = 4
"""Of how many pods a message speaks."""


@dataclass(frozen=True)
class Holdings:
    """What node agents say of pods, by uid; those that are in neither hold nothing."""

    held: Mapping[str, str] = field(default_factory=dict[str, str])
    """What a pod holds, for a person."""
    unknown: Mapping[str, str] = field(default_factory=dict[str, str])
    """Why it is not known of a pod."""


def with_seen(memory: StageMemory | None, seen: Sequence[StagePod]) -> StageMemory:
    """The record with the pods that are there now; of too many the ones that came first are kept."""
    known = memory or StageMemory()
    recorded = {it.uid for it in known.pods}
    new = tuple(it for it in seen if it.uid not in recorded)
    return known.model_copy(update={"pods": (*known.pods, *new)[:MOST_PODS]}) if new else known


def recorded_first(
    step: StageStep, memory: StageMemory | None, new: StageMemory, observed: Mapping[str, ObservedWorkload]
) -> StageStep:
    """The step with the record; nothing is stopped in the pass that finds pods which are not on record yet.

    Args:
        step: as it was decided.
        memory: as it is on record.
        new: as it shall be.
        observed: the stage's workloads.
    """
    before = {it.uid for it in memory.pods} if memory is not None else set[str]()
    if any(it.uid not in before for it in new.pods):
        step = replace(step, actions=tuple(it for it in step.actions if not _stops(it, observed)))
    return replace(step, memory=new)


def in_question(
    step: StageStep, memory: StageMemory, seen: Sequence[StagePod], observed: Mapping[str, ObservedWorkload]
) -> tuple[StagePod, ...]:
    """The pods whose memory a start of this step would meet: recorded, of the same stack, and gone."""
    stacks = {stack_of(it.component) for it in step.actions if _starts(it, observed)}
    there = {it.uid for it in seen}
    return tuple(it for it in memory.pods if it.uid not in there and stack_of(it.component) in stacks)


def weighed(
    stage: Stage,
    step: StageStep,
    asked: Sequence[StagePod],
    found: Holdings,
    observed: Mapping[str, ObservedWorkload],
    now: datetime,
) -> StageStep:
    """The step, when node agents have been asked about these pods.

    Args:
        stage: as the spec has it now.
        step: with the record so far.
        asked: at least one pod.
        found: what was answered.
        observed: the stage's workloads.
        now: the time.
    """
    memory = step.memory or StageMemory()
    over = {it.uid for it in asked if it.uid not in found.held}
    left = tuple(it for it in memory.pods if it.uid not in over)
    holders = [it for it in asked if it.uid in found.held]
    if not holders:
        unknown = [f"{it.component} on {it.node}: {found.unknown[it.uid]}" for it in asked if it.uid in found.unknown]
        reason = MemoryReason.UNKNOWN if unknown else None
        return replace(step, memory=StageMemory(pods=left, reason=reason, message=_told(unknown)))
    what = _told([f"{it.component} on {it.node}: {found.held[it.uid]}" for it in holders])
    since = memory.waiting_since or now
    if now - since <= min(LONGEST_WAIT, timedelta(seconds=stage.readiness_deadline_seconds) / 2):
        stacks = {stack_of(it.component) for it in holders}
        kept = tuple(it for it in step.actions if not _starts(it, observed) or stack_of(it.component) not in stacks)
        waiting = StageMemory(pods=left, waiting_since=since, reason=MemoryReason.HELD, message=what)
        message = f"waiting for memory on the card, still held by pods that are gone: {what}"
        return replace(step, actions=kept, message=message, memory=waiting)
    seconds = f"{(now - since).total_seconds():.0f} s"
    if step.phase in ON_THE_WAY_BACK:
        # There is nothing better to go to, and what is smaller may have room.
        gone = {it.uid for it in holders}
        kept_pods = tuple(it for it in left if it.uid not in gone)
        given_up = StageMemory(pods=kept_pods, reason=MemoryReason.STILL_HELD, message=f"after {seconds}: {what}")
        return replace(step, memory=given_up)
    held = StageMemory(pods=left, waiting_since=since, reason=MemoryReason.HELD, message=what)
    why = f"{MemoryReason.HELD}: after {seconds}, memory on the card is still held by pods that are gone: {what}"
    return StageStep(ProfilePhase.ROLLING_BACK, why, memory=held)


def _stops(action: Action, observed: Mapping[str, ObservedWorkload]) -> bool:
    return isinstance(action, Scale) and action.replicas < observed[action.component].replicas


def _starts(action: Action, observed: Mapping[str, ObservedWorkload]) -> bool:
    return isinstance(action, Scale) and action.replicas > observed[action.component].replicas


def _told(what: Sequence[str]) -> str:
    more = f"; and {len(what) - _TOLD} more" if len(what) > _TOLD else ""
    return ("; ".join(what[:_TOLD]) + more)[:2048]
