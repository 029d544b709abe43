"""What becomes of a promoted stage that is still watched."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cotune.api.profile import Mend, ProfilePhase, Stage
from cotune.rollout.guard import GuardOver, is_over, watch
from cotune.rollout.stage import StageStep, decide
from cotune.rollout.state import ObservedWorkload, Revision, WorkloadRevision
from cotune.trials.pod_failure import PodFailure

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STAGE = Stage(name="production", namespace="voice-prod", guard_seconds=60, unready_tolerance_seconds=10)
TARGET = Revision((WorkloadRevision("judge", {"JUDGE_MEMORY": "0.55"}, 1), WorkloadRevision("stt", {}, 1)))
WELL = {
    "judge": ObservedWorkload({"JUDGE_MEMORY": "0.55"}, 1, 1, True, generation=7),
    "stt": ObservedWorkload({}, 1, 1, True, generation=3),
}
GENERATIONS = {"judge": 7, "stt": 3}
KILLED = PodFailure("OOMKilled", "pod judge-1: container vllm exited with 137")
CRASHED = PodFailure("Error", "pod judge-1: container vllm exited with 1: unknown", Mend.RESTART)


def with_judge(**fields: object) -> dict[str, ObservedWorkload]:
    return WELL | {"judge": replace(WELL["judge"], **fields)}  # pyright: ignore[reportArgumentType]


def watched(observed: dict[str, ObservedWorkload], seconds: float = 0, before: StageStep | None = None) -> StageStep:
    unready, chances = (before.unready_since, before.chances or ()) if before is not None else (None, ())
    found = watch(STAGE, GENERATIONS, TARGET, observed, NOW + timedelta(seconds=seconds), unready, chances)
    assert isinstance(found, StageStep)
    return found


@pytest.mark.parametrize(("guard_seconds", "guarded"), [(60, GENERATIONS), (0, None)])
def test_a_promotion_says_what_is_guarded(guard_seconds: int, guarded: dict[str, int] | None) -> None:
    stage = STAGE.model_copy(update={"guard_seconds": guard_seconds})

    step = decide(stage, ProfilePhase.BAKING, NOW, TARGET, TARGET, WELL, NOW)

    assert (step.phase, step.guarded) == (ProfilePhase.PROMOTED, guarded)


def test_a_guard_ends_with_its_time_as_the_spec_has_it_now() -> None:
    assert not is_over(STAGE, NOW, NOW + timedelta(seconds=59))
    assert is_over(STAGE, NOW, NOW + timedelta(seconds=60))
    assert is_over(STAGE.model_copy(update={"guard_seconds": 0}), NOW, NOW)


def test_a_stage_that_is_well_stays_as_it_is() -> None:
    assert watched(WELL) == StageStep(ProfilePhase.PROMOTED, chances=())


def test_a_decisive_failure_takes_a_promoted_stage_back_at_once() -> None:
    step = watched(with_judge(is_ready=False, failure=KILLED))

    assert (step.phase, step.message) == (
        ProfilePhase.ROLLING_BACK,
        "while guarded: judge: OOMKilled: pod judge-1: container vllm exited with 137",
    )


def test_a_promoted_stage_is_not_ready_for_as_long_as_is_tolerated() -> None:
    unready = with_judge(is_ready=False, unready="pod judge-1: container vllm: runs and is not ready")

    step = watched(unready)
    assert (step.phase, step.unready_since) == (ProfilePhase.PROMOTED, NOW)
    assert watched(WELL, 5, step).unready_since is None
    assert watched(unready, 10, step).phase is ProfilePhase.PROMOTED
    late = watched(unready, 10.1, step)

    assert (late.phase, late.message) == (
        ProfilePhase.ROLLING_BACK,
        "no longer ready while guarded, for more than 10 s: judge (pod judge-1: container vllm: runs and is not ready)",
    )


def test_a_first_unknown_end_is_waited_for_and_recorded() -> None:
    step = watched(with_judge(is_ready=False, failure=CRASHED))

    assert step.phase is ProfilePhase.PROMOTED
    assert [it.reason for it in step.chances or ()] == ["Error"]


@pytest.mark.parametrize(
    "observed",
    [
        with_judge(generation=8, is_ready=False, failure=KILLED),
        with_judge(generation=8, replicas=0, pods=0),
        {"stt": WELL["stt"]},
    ],
)
def test_who_changes_a_workload_takes_over_whatever_becomes_of_it(observed: dict[str, ObservedWorkload]) -> None:
    found = watch(STAGE, GENERATIONS, TARGET, observed, NOW)

    assert found == GuardOver("somebody else has changed judge")
