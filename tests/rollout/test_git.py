"""What becomes of a stage whose values come through Git: it is judged as any other, and nothing is done to it."""

from datetime import UTC, datetime, timedelta

import pytest
from cotune.api.profile import Change, ProfilePhase, Stage
from cotune.rollout.git import Place, decide_from_git, is_shown, shows_any, to_commit, to_revert
from cotune.rollout.stage import StageStep
from cotune.rollout.state import ObservedWorkload, Revision, WorkloadRevision
from cotune.trials.pod_failure import PodFailure
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STAGE = Stage(
    name="staging", namespace="voice-staging", readiness_deadline_seconds=60, bake_seconds=20, guard_seconds=0
)
CHANGES = (
    Change(component="judge", env="MEMORY", from_="0.50", to="0.55"),
    Change(component="stt", env="SIZE", from_="small", to="tiny"),
)
GOOD = Revision((WorkloadRevision("judge", {"MEMORY": None}, 1), WorkloadRevision("stt", {"SIZE": "base"}, 1)))
TARGET = GOOD.with_values({("judge", "MEMORY"): "0.55", ("stt", "SIZE"): "tiny"})
PLACES = {"judge": Place("judge-server", "vllm"), "stt": Place("whisper", "asr")}
CRASH = PodFailure("NoCacheBlocks", "pod stt-1: container asr exited with 1")

Observed = dict[str, ObservedWorkload]


def seen(revision: Revision, ready: bool = True, replicas: int = 1) -> Observed:
    return {
        it.component: ObservedWorkload(dict(it.values), replicas, replicas, ready, unready="" if ready else "starting")
        for it in revision.workloads
    }


def step(phase: ProfilePhase, observed: Observed, seconds: float = 0, good: Revision = GOOD) -> StageStep:
    revert = to_revert(CHANGES, good, observed, PLACES)
    return decide_from_git(STAGE, phase, NOW, TARGET, revert, observed, NOW + timedelta(seconds=seconds))


def test_what_is_to_be_committed_is_what_is_not_there_yet() -> None:
    half = seen(GOOD) | {"stt": seen(TARGET)["stt"]}

    assert to_commit(CHANGES, seen(GOOD), PLACES) == (
        "Deployment judge-server, container vllm: MEMORY=0.55 (not set); "
        "Deployment whisper, container asr: SIZE=tiny (is base)"
    )
    assert to_commit(CHANGES, half, PLACES) == "Deployment judge-server, container vllm: MEMORY=0.55 (not set)"
    assert [shows_any(CHANGES, it) for it in (seen(GOOD), half, seen(TARGET))] == [False, True, True]
    assert [is_shown(TARGET, it) for it in (seen(GOOD), half, seen(TARGET), {})] == [False, False, True, False]


def test_a_stage_bakes_when_all_of_it_is_ready_with_whatever_replicas() -> None:
    found = step(ProfilePhase.PROGRESSING, seen(TARGET, ready=False))
    assert found.phase is ProfilePhase.PROGRESSING
    assert found.message == "waiting for judge to be ready (starting), stt to be ready (starting)"

    assert step(ProfilePhase.PROGRESSING, seen(TARGET, replicas=3)).phase is ProfilePhase.BAKING
    asleep = step(ProfilePhase.PROGRESSING, seen(TARGET, replicas=0))
    assert (asleep.phase, asleep.message) == (
        ProfilePhase.PROGRESSING,
        "waiting for judge, which has 0 replicas, stt, which has 0 replicas",
    )
    assert step(ProfilePhase.BAKING, seen(TARGET, replicas=3), 20).phase is ProfilePhase.PROMOTED


@pytest.mark.parametrize("phase", [ProfilePhase.PROGRESSING, ProfilePhase.BAKING])
def test_the_first_decisive_sign_ends_it(phase: ProfilePhase) -> None:
    crashed = seen(TARGET) | {"stt": ObservedWorkload({"SIZE": "tiny"}, 1, 1, False, CRASH)}

    found = step(phase, crashed)

    assert found.phase is ProfilePhase.ROLLING_BACK
    assert "stt: NoCacheBlocks: pod stt-1: container asr exited with 1" in found.message


@pytest.mark.parametrize("phase", [ProfilePhase.PROGRESSING, ProfilePhase.BAKING])
def test_values_that_go_again_end_it(phase: ProfilePhase) -> None:
    found = step(phase, seen(GOOD))

    assert (found.phase, found.message) == (
        ProfilePhase.ROLLING_BACK,
        "judge, stt: the values are no longer what the profile has",
    )


def test_what_is_not_ready_at_the_deadline_ends_it() -> None:
    late = seen(TARGET, ready=False)

    assert step(ProfilePhase.PROGRESSING, late, 60).phase is ProfilePhase.PROGRESSING
    assert step(ProfilePhase.PROGRESSING, late, 61).message.startswith("not ready within 60 s, waiting for judge")
    gone = step(ProfilePhase.PROGRESSING, {"judge": seen(TARGET)["judge"]}, 61)
    assert (gone.phase, gone.message) == (
        ProfilePhase.ROLLING_BACK,
        "not ready within 60 s, waiting for workload of stt",
    )


def test_the_way_back_says_what_to_revert_until_it_is() -> None:
    found = step(ProfilePhase.ROLLING_BACK, seen(TARGET))

    assert found.phase is ProfilePhase.ROLLING_BACK
    assert found.obstacle is not None
    assert (found.obstacle.reason, found.obstacle.message) == (
        "AwaitingRevert",
        "revert in Git: Deployment judge-server, container vllm: MEMORY=0.55 away; "
        "Deployment whisper, container asr: SIZE=tiny to base",
    )
    assert step(ProfilePhase.ROLLING_BACK, seen(TARGET), 61).phase is ProfilePhase.DEGRADED
    assert step(ProfilePhase.DEGRADED, seen(GOOD, ready=False), 900).phase is ProfilePhase.DEGRADED
    assert step(ProfilePhase.DEGRADED, seen(GOOD), 900).phase is ProfilePhase.ROLLED_BACK


def test_whoever_commits_something_else_has_brought_it_back_too() -> None:
    other = GOOD.with_values({("judge", "MEMORY"): "0.45", ("stt", "SIZE"): "small"})

    assert step(ProfilePhase.ROLLING_BACK, seen(other)).phase is ProfilePhase.ROLLED_BACK


def test_values_that_were_there_before_the_stage_are_reverted_to_what_was_measured_against() -> None:
    one = GOOD.with_values({("stt", "SIZE"): "tiny"})
    assert to_revert(CHANGES, one, seen(TARGET), PLACES) == (
        "Deployment judge-server, container vllm: MEMORY=0.55 away"
    ), "what others had put there is theirs"
    assert to_revert(CHANGES, TARGET, seen(TARGET), PLACES) == (
        "Deployment judge-server, container vllm: MEMORY=0.55 to 0.50; "
        "Deployment whisper, container asr: SIZE=tiny to small"
    )
    assert step(ProfilePhase.ROLLING_BACK, seen(TARGET), good=TARGET).phase is ProfilePhase.ROLLING_BACK


@given(
    phase=st.sampled_from(list(ProfilePhase)),
    values=st.sampled_from([GOOD, TARGET]),
    ready=st.booleans(),
    replicas=st.integers(0, 3),
    missing=st.sets(st.sampled_from(["judge", "stt"])),
    failure=st.sampled_from([None, CRASH]),
    seconds=st.integers(0, 200),
)
def test_nothing_is_ever_done(
    phase: ProfilePhase,
    values: Revision,
    ready: bool,
    replicas: int,
    missing: set[str],
    failure: PodFailure | None,
    seconds: int,
) -> None:
    observed = {
        it.component: ObservedWorkload(dict(it.values), replicas, replicas, ready, failure)
        for it in values.workloads
        if it.component not in missing
    }

    assert step(phase, observed, seconds).actions == ()
