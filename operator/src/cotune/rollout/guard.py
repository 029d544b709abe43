"""The watch over a promoted stage: what goes wrong late is taken back, what somebody else does is theirs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cotune.api.profile import Chance, ProfilePhase, Stage
from cotune.rollout.baking import standing
from cotune.rollout.chances import weigh
from cotune.rollout.stage import StageStep
from cotune.rollout.state import ObservedWorkload, Revision


@dataclass(frozen=True)
class GuardOver:
    """Why a promoted stage is watched no longer."""

    reason: str


def is_over(stage: Stage, promoted_at: datetime, now: datetime) -> bool:
    """Whether the time of a stage's guard has passed, as its spec has it now."""
    return now - promoted_at >= timedelta(seconds=stage.guard_seconds)


def watch(
    stage: Stage,
    generations: Mapping[str, int],
    target: Revision,
    observed: Mapping[str, ObservedWorkload],
    now: datetime,
    unready_since: datetime | None = None,
    chances: Sequence[Chance] = (),
) -> StageStep | GuardOver:
    """The next step of a promoted stage whose guard is not over by time: as it is, back, or no longer watched.

    Whoever changes a workload takes over: a stage that was promoted is theirs, and a way back would undo what they did.

    Args:
        stage: as the spec has it now.
        generations: component to its workload's generation at the promotion.
        target: what the stage was promoted with.
        observed: what it is, by component.
        now: the time.
        unready_since: since when a workload is not ready.
        chances: signs of failure that were waited for before.
    """
    if changed := [it for it, generation in generations.items() if _generation(observed, it) != generation]:
        return GuardOver(f"somebody else has changed {', '.join(changed)}")
    weighed = weigh(observed, chances, now, timedelta(seconds=stage.unschedulable_grace_seconds))
    found = standing(target, weighed.observed)
    if found.broken:
        return StageStep(ProfilePhase.ROLLING_BACK, f"while guarded: {found.broken}", chances=weighed.chances)
    unready = (*found.unready, *found.starting)
    since = (unready_since or now) if unready else None
    tolerance = stage.unready_tolerance_seconds
    if since is not None and now - since > timedelta(seconds=tolerance):
        why = f"no longer ready while guarded, for more than {tolerance} s: {', '.join(unready)}"
        return StageStep(ProfilePhase.ROLLING_BACK, why, chances=weighed.chances)
    return StageStep(ProfilePhase.PROMOTED, unready_since=since, chances=weighed.chances)


def _generation(observed: Mapping[str, ObservedWorkload], component: str) -> int | None:
    return observed[component].generation if component in observed else None
