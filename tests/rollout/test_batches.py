"""Which stacks go together, and what one batch decides of them."""

from collections.abc import Sequence, Set
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cotune.api.batches import StageBatch
from cotune.api.profile import ProfilePhase, Stage, StageStatus
from cotune.rollout.batches import Course, all_batches, decide_in_batches, first_batch, next_batch, plan, with_appeared
from cotune.rollout.convergence import Scale
from cotune.rollout.stage import StageStep
from cotune.rollout.state import ObservedWorkload, Revision, WorkloadRevision
from cotune.rollout.targets import Targets
from cotune.trials.pod_failure import PodFailure

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STAGE = Stage(name="production", namespace="voice-prod", readiness_deadline_seconds=60, bake_seconds=30)
STACKS = ["a", "b", "c"]
GOOD = Revision(tuple(WorkloadRevision(f"{it}/stt", {"SIZE": "small"}, 1) for it in STACKS))
TARGET = GOOD.with_values({(f"{it}/stt", "SIZE"): "tiny" for it in STACKS})
OLD = ObservedWorkload({"SIZE": "small"}, 1, 1, is_ready=True)
NEW = replace(OLD, values={"SIZE": "tiny"})
STARTING = replace(NEW, is_ready=False)
CRASHED = replace(STARTING, failure=PodFailure("ComponentEnded", "exit code 1"))


def course(number: int, batches: Sequence[str] = ("a", "b", "c"), begun: int | None = None) -> Course:
    made = tuple(
        StageBatch(stacks=tuple(it), started_at=NOW if n <= (begun or number) else None)
        for n, it in enumerate(batches, 1)
    )
    return Course(made, number)


def decided(
    where: Course,
    phase: ProfilePhase,
    after: float = 1,
    unready_since: datetime | None = None,
    **seen: ObservedWorkload,
) -> StageStep:
    observed = {f"{it}/stt": found for it, found in seen.items()}
    now = NOW + timedelta(seconds=after)
    return decide_in_batches(STAGE, where, phase, NOW, TARGET, GOOD, observed, now, unready_since)


@pytest.mark.parametrize(
    ("batches", "count", "expected"),
    [
        (["100%"], 3, ["abc"]),
        (["1", "50%", "100%"], 4, ["a", "b", "cd"]),
        (["1", "50%"], 5, ["a", "bc", "de"]),  # Half of five is three, rounded up; the rest comes by itself.
        (["1", "2", "3"], 1, ["a"]),
        (["25%", "50%", "75%"], 2, ["a", "b"]),
        (["1%"], 3, ["a", "bc"]),
        (["9"], 3, ["abc"]),
        (["3", "50%"], 4, ["abc", "d"]),
    ],
)
def test_batches_are_cumulative_rounded_up_never_empty_and_complete(
    batches: Sequence[str], count: int, expected: Sequence[str]
) -> None:
    assert ["".join(it) for it in plan(batches, "abcdefgh"[:count])] == expected


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ({"a": {"n2"}, "b": {"n1"}, "c": {"n2"}, "d": {"n1"}}, ["bd", "ac"]),
        ({"a": {"n1"}, "b": {"n1", "n2"}, "c": {"n2"}, "d": {"n3"}}, ["abc", "d"]),
        ({"a": {"n1"}, "b": set[str](), "c": {"n2"}}, ["a", "cbd"]),
        ({"a": {"n1"}, "b": {"n2"}, "c": {"n1", "n2"}, "d": {"n0"}}, ["d", "abc"]),
    ],
)
def test_what_shares_a_node_goes_together_and_nodes_are_counted(
    nodes: dict[str, Set[str]], expected: Sequence[str]
) -> None:
    assert ["".join(it) for it in plan(["1"], "abcd", nodes)] == expected


def test_only_the_batch_under_way_is_stopped() -> None:
    step = decided(course(2), ProfilePhase.PROGRESSING, a=NEW, b=OLD)

    assert step.phase is ProfilePhase.PROGRESSING
    assert step.actions == (Scale("b/stt", 0),)
    assert step.message == "batch 2 of 3: waiting for b/stt to stop"


def test_the_stacks_of_a_batch_go_at_the_same_time() -> None:
    step = decided(course(1, ("ab", "c")), ProfilePhase.PROGRESSING, a=OLD, b=OLD)

    assert step.actions == (Scale("a/stt", 0), Scale("b/stt", 0))


def test_a_stack_that_has_the_values_already_is_not_stopped() -> None:
    step = decided(course(1, ("ab", "c")), ProfilePhase.PROGRESSING, a=NEW, b=OLD)

    assert step.actions == (Scale("b/stt", 0),)
    assert decided(course(1), ProfilePhase.PROGRESSING, a=NEW).phase is ProfilePhase.BAKING


def test_a_failure_in_one_stack_turns_the_stage_back_and_names_it() -> None:
    step = decided(course(2, ("a", "bc")), ProfilePhase.PROGRESSING, a=NEW, b=CRASHED, c=OLD)

    assert step.phase is ProfilePhase.ROLLING_BACK
    assert step.message == "b/stt: ComponentEnded: exit code 1"


def test_an_earlier_batch_is_watched_while_the_next_one_changes() -> None:
    ended = decided(course(2), ProfilePhase.PROGRESSING, a=CRASHED, b=OLD)
    first = decided(course(2), ProfilePhase.PROGRESSING, a=STARTING, b=OLD)
    later = decided(course(2), ProfilePhase.PROGRESSING, 32, NOW, a=STARTING, b=STARTING)

    assert (ended.phase, ended.message) == (
        ProfilePhase.ROLLING_BACK,
        "while baking: a/stt: ComponentEnded: exit code 1",
    )
    assert (first.phase, first.unready_since) == (ProfilePhase.PROGRESSING, NOW + timedelta(seconds=1))
    assert later.phase is ProfilePhase.ROLLING_BACK
    assert "a/stt" in later.message


def test_a_batch_that_is_through_is_followed_by_the_next_one_which_begins_with_its_own_gates() -> None:
    through = decided(course(1), ProfilePhase.BAKING, 31, a=NEW)
    step = next_batch(course(1), through, is_paused=False)

    assert through.phase is ProfilePhase.PROMOTED
    assert (step.phase, step.batch, step.gates, step.guarded, step.actions) == (
        ProfilePhase.PROGRESSING,
        2,
        (),
        None,
        (),
    )
    assert step.message == "batch 1 of 3 is through; batch 2 begins: b"


def test_a_pause_lets_the_batch_end_and_no_further_one_begin() -> None:
    through = decided(course(1), ProfilePhase.BAKING, 31, a=NEW)
    step = next_batch(course(1), through, is_paused=True)

    assert (step.phase, step.batch, step.guarded) == (ProfilePhase.BAKING, None, None)
    assert "paused" in step.message


def test_the_last_batch_promotes_and_guards_every_stack() -> None:
    through = decided(course(3), ProfilePhase.BAKING, 31, a=replace(NEW, generation=4), b=NEW, c=NEW)

    assert next_batch(course(3), through, is_paused=True) == through
    assert through.phase is ProfilePhase.PROMOTED
    assert through.guarded == {"a/stt": 4, "b/stt": 0, "c/stt": 0}


def test_the_way_back_takes_the_last_batch_first_and_leaves_the_others_serving() -> None:
    step = decided(course(3), ProfilePhase.ROLLING_BACK, a=NEW, b=NEW, c=STARTING)
    after = decided(course(3), ProfilePhase.ROLLING_BACK, 100, a=NEW, b=NEW, c=OLD)
    again = decided(course(2, begun=3), ProfilePhase.ROLLING_BACK, a=NEW, b=NEW, c=OLD)

    assert (step.batch, step.actions) == (3, (Scale("c/stt", 0),))
    # The next one has the whole deadline for itself.
    assert (after.phase, after.batch, after.actions) == (ProfilePhase.ROLLING_BACK, 2, (Scale("b/stt", 0),))
    assert (again.batch, again.actions) == (2, (Scale("b/stt", 0),))


def test_a_stack_that_serves_nobody_does_not_wait_for_its_turn_on_the_way_back() -> None:
    step = decided(course(2), ProfilePhase.ROLLING_BACK, a=CRASHED, b=STARTING)

    assert set(step.actions) == {Scale("a/stt", 0), Scale("b/stt", 0)}


def test_a_stack_that_was_not_changed_is_not_stopped_on_the_way_back() -> None:
    assert decided(course(1, ("ab", "c")), ProfilePhase.ROLLING_BACK, a=OLD, b=NEW).actions == (Scale("b/stt", 0),)
    assert decided(course(1), ProfilePhase.ROLLING_BACK, a=OLD).phase is ProfilePhase.ROLLED_BACK


def test_a_way_back_that_is_overdue_calls_a_person_and_stops_no_stack_that_serves() -> None:
    lost = replace(OLD, is_ready=False)
    late = decided(course(2), ProfilePhase.ROLLING_BACK, 61, a=NEW, b=lost)
    degraded = decided(course(2), ProfilePhase.DEGRADED, 200, a=NEW, b=lost)
    mended = decided(course(2), ProfilePhase.DEGRADED, 300, a=NEW, b=OLD)

    assert (late.phase, late.actions) == (ProfilePhase.DEGRADED, ())
    assert (degraded.phase, degraded.actions) == (ProfilePhase.DEGRADED, ())
    assert (mended.phase, mended.batch, mended.actions) == (ProfilePhase.DEGRADED, 1, (Scale("a/stt", 0),))


def test_a_workload_that_is_gone_keeps_no_other_stack_from_its_way_back() -> None:
    step = decided(course(2), ProfilePhase.ROLLING_BACK, a=NEW)
    later = decided(course(1, begun=2), ProfilePhase.ROLLING_BACK, a=OLD)
    again = decided(course(1, begun=2), ProfilePhase.DEGRADED, a=OLD, b=OLD)

    assert (step.phase, step.batch, step.actions) == (ProfilePhase.ROLLING_BACK, 1, (Scale("a/stt", 0),))
    assert (later.phase, later.actions) == (ProfilePhase.ROLLING_BACK, ())
    assert "workload of b/stt" in later.message
    assert again.phase is ProfilePhase.ROLLED_BACK


def test_a_revision_that_is_asked_for_is_for_all_stacks() -> None:
    state = StageStatus(
        name="production", phase=ProfilePhase.ROLLED_BACK, batch=1, batches=first_batch([["a"], ["b", "c"]], NOW)
    )

    taken = all_batches(state, NOW)

    assert taken.batch == 2
    assert Course(taken.batches, 2).begun == ("a", "b", "c")
    assert all_batches(state.model_copy(update={"batch": None, "batches": ()}), NOW).batch is None


def test_stacks_that_have_appeared_are_said_as_long_as_the_stage_goes_forward() -> None:
    targets = Targets({}, appeared=("e", "f"))

    said = with_appeared(StageStep(ProfilePhase.BAKING, "ready"), targets).message
    assert said == "ready; stack e, f has appeared since the stage began, and is left alone"
    assert with_appeared(StageStep(ProfilePhase.ROLLING_BACK, "why"), targets).message == "why"
