from datetime import UTC, datetime, timedelta

import pytest
from cotune.api.profile import Approval, ProfilePhase, ProfileSpec, ProfileStatus, Stage, StageStatus
from cotune.rollout.progress import Rival, current_stage, goes_before, hindrance, overall, with_stage
from support.resources import manifest

SPEC = ProfileSpec.model_validate(manifest("GpuProfile")["spec"])
STAGING, PRODUCTION = SPEC.rollout.stages
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def stages(*phases: ProfilePhase) -> tuple[StageStatus, ...]:
    names = (it.name for it in SPEC.rollout.stages)
    return tuple(StageStatus(name=name, phase=phase) for name, phase in zip(names, phases, strict=False))


@pytest.mark.parametrize(
    ("phases", "current", "whole"),
    [
        ([], STAGING, ProfilePhase.PENDING),
        ([ProfilePhase.BAKING], STAGING, ProfilePhase.BAKING),
        ([ProfilePhase.PROMOTED], PRODUCTION, ProfilePhase.PROGRESSING),
        ([ProfilePhase.PENDING], STAGING, ProfilePhase.PENDING),
        ([ProfilePhase.PROMOTED, ProfilePhase.PENDING], PRODUCTION, ProfilePhase.PROGRESSING),
        ([ProfilePhase.ROLLED_BACK, ProfilePhase.PENDING], None, ProfilePhase.ROLLED_BACK),
        ([ProfilePhase.PROMOTED, ProfilePhase.ROLLING_BACK], PRODUCTION, ProfilePhase.ROLLING_BACK),
        ([ProfilePhase.PROMOTED, ProfilePhase.PROMOTED], None, ProfilePhase.PROMOTED),
        ([ProfilePhase.ROLLED_BACK], None, ProfilePhase.ROLLED_BACK),
        ([ProfilePhase.PROMOTED, ProfilePhase.DEGRADED], PRODUCTION, ProfilePhase.DEGRADED),
        ([ProfilePhase.ROLLING_BACK, ProfilePhase.BAKING], STAGING, ProfilePhase.ROLLING_BACK),
        ([ProfilePhase.DEGRADED, ProfilePhase.ROLLING_BACK], STAGING, ProfilePhase.DEGRADED),
        ([ProfilePhase.ROLLED_BACK, ProfilePhase.BAKING], None, ProfilePhase.BAKING),
        ([ProfilePhase.ROLLED_BACK, ProfilePhase.PROMOTED], None, ProfilePhase.ROLLED_BACK),
    ],
)
def test_a_profile_goes_stage_by_stage_and_stops_at_the_first_that_fails(
    phases: list[ProfilePhase], current: Stage | None, whole: ProfilePhase
) -> None:
    assert current_stage(SPEC, ProfileStatus(stages=stages(*phases))) == current
    assert overall(SPEC, stages(*phases)) is whole


def test_a_stages_state_replaces_its_old_one_and_stays_in_its_place() -> None:
    (staging, production) = stages(ProfilePhase.PROMOTED, ProfilePhase.PROGRESSING)
    baking = production.model_copy(update={"phase": ProfilePhase.BAKING})

    assert with_stage((staging, production), baking) == (staging, baking)
    assert with_stage((staging,), production) == (staging, production)


def test_a_person_can_hold_a_stage_back() -> None:
    paused = SPEC.model_copy(update={"rollout": SPEC.rollout.model_copy(update={"paused": True})})
    by_hand = STAGING.model_copy(update={"approval": Approval.MANUAL})

    assert hindrance(SPEC, STAGING, NOW) is None
    held, awaiting = hindrance(paused, STAGING, NOW), hindrance(SPEC, by_hand, NOW)
    assert held is not None
    assert held.reason == "Paused"
    assert awaiting is not None
    assert awaiting.phase is ProfilePhase.AWAITING_APPROVAL


def rival(name: str, age: int, *phases: ProfilePhase, stalled: bool = False) -> Rival:
    created = NOW - timedelta(seconds=age)
    return Rival("voice-lab", name, created, SPEC, ProfileStatus(stages=stages(*phases)), stalled)


def first(mine: Rival, *others: Rival, namespace: str = STAGING.namespace) -> str | None:
    found = goes_before(mine, (mine, *others), namespace, NOW)
    return found.name if found is not None else None


def test_in_a_namespace_one_profile_is_rolled_out_at_a_time_the_oldest_first() -> None:
    old, new = rival("old", 20), rival("new", 10)

    assert first(old, new) is None
    assert first(new, old) == "old"


def test_who_has_begun_ends_first_however_young() -> None:
    assert first(rival("old", 20), rival("new", 10, ProfilePhase.BAKING)) == "new"


@pytest.mark.parametrize("phase", [ProfilePhase.ROLLING_BACK, ProfilePhase.ROLLED_BACK])
def test_a_stage_that_goes_on_after_an_earlier_one_was_taken_back_keeps_its_namespace(phase: ProfilePhase) -> None:
    other = rival("old", 20, phase, ProfilePhase.BAKING)

    assert first(rival("new", 10), other, namespace=PRODUCTION.namespace) == "old"


@pytest.mark.parametrize(
    "other",
    [
        rival("old", 20, ProfilePhase.PROMOTED),
        rival("old", 20, ProfilePhase.PROMOTED, ProfilePhase.PROMOTED),
        rival("old", 20, ProfilePhase.ROLLED_BACK),
        rival("old", 20, stalled=True),
    ],
)
def test_nobody_waits_for_a_profile_that_is_done_here_or_waits_for_a_person(other: Rival) -> None:
    assert first(rival("new", 10), other) is None
