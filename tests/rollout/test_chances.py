"""Which signs of failure are waited for, and for how long."""

from datetime import UTC, datetime, timedelta

import pytest
from cotune.api.profile import Chance, Mend
from cotune.rollout.chances import PULL_AGAIN, ROOM_MADE, Weighed, weigh
from cotune.rollout.state import ObservedWorkload
from cotune.trials.pod_failure import PodFailure
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MADE = NOW - timedelta(seconds=60)
TAKEN = PodFailure("CardTaken", "pod judge-1: container vllm exited with 1", Mend.RESTART, MADE)
NO_IMAGE = PodFailure("ImagePullFailed", "pod judge-1: container vllm: not found", Mend.PULL, MADE)
NO_ROOM = PodFailure("Unschedulable", "pod judge-1: 0/1 nodes are available", Mend.ROOM, MADE)
NO_BLOCKS = PodFailure("NoCacheBlocks", "pod judge-1: container vllm exited with 1")


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def judge(failure: PodFailure | None = None, leaving: int = 0) -> dict[str, ObservedWorkload]:
    return {"judge": ObservedWorkload({}, 1, 1 + leaving, False, failure, leaving)}


def reading(
    failure: PodFailure | None, seconds: float, before: Weighed | None = None, leaving: int = 0, node_within: int = 15
) -> Weighed:
    """A reading some seconds after the first, by an operator that knows nothing but the status."""
    chances = before.chances if before is not None else ()
    recorded = tuple(Chance.model_validate_json(it.model_dump_json(by_alias=True)) for it in chances)
    return weigh(judge(failure, leaving), recorded, after(seconds), timedelta(seconds=node_within))


def decisive(weighed: Weighed) -> PodFailure | None:
    return weighed.observed["judge"].failure


def test_a_decisive_sign_needs_no_chance() -> None:
    weighed = reading(NO_BLOCKS, 0)

    assert (decisive(weighed), weighed.chances) == (NO_BLOCKS, ())


@pytest.mark.parametrize("sign", [TAKEN, NO_IMAGE, NO_ROOM])
def test_what_may_mend_is_waited_for_at_first_and_said(sign: PodFailure) -> None:
    first = reading(sign, 0)
    second = reading(sign, 1, first)

    assert decisive(first) is None
    assert decisive(second) is None
    assert [(it.component, it.mend, it.reason, it.since) for it in second.chances] == [
        ("judge", sign.mend, sign.reason, NOW)
    ]
    assert f"{sign.reason}: {sign.message}" in second.observed["judge"].unready


def test_the_end_of_a_pod_that_was_made_after_the_chance_is_the_second() -> None:
    first = reading(TAKEN, 0)
    replaced = PodFailure("Error", "pod judge-2: container vllm exited with 137", Mend.RESTART, after(5))

    found = decisive(reading(replaced, 9, first))

    assert found is not None
    assert found.is_decisive
    assert found.reason == "Error"
    assert found.message == f"{replaced.message} (after CardTaken was given its one chance at 00:00:00)"


def test_a_second_pod_of_the_same_start_has_the_same_chance() -> None:
    first = reading(TAKEN, 0)
    beside = PodFailure("CardTaken", "pod judge-2: container vllm exited with 1", Mend.RESTART, MADE)

    assert decisive(reading(beside, 600, first)) is None


@pytest.mark.parametrize(("sign", "patience"), [(NO_IMAGE, PULL_AGAIN), (NO_ROOM, ROOM_MADE)])
def test_a_wait_for_an_image_or_for_room_ends(sign: PodFailure, patience: timedelta) -> None:
    first = reading(sign, 0)

    assert decisive(reading(sign, patience.total_seconds(), first)) is None
    found = decisive(reading(sign, patience.total_seconds() + 1, first))
    assert found is not None
    assert found.message.startswith(sign.message)


def test_room_is_waited_for_as_long_as_pods_of_the_stage_are_leaving() -> None:
    weighed = reading(NO_ROOM, 0)
    for second in range(1, 120):
        weighed = reading(NO_ROOM, second, weighed, leaving=1)
        assert decisive(weighed) is None

    assert decisive(reading(NO_ROOM, 119 + 15, weighed)) is None
    assert decisive(reading(NO_ROOM, 119 + 16, weighed)) is not None


def test_a_node_may_take_as_long_to_come_as_was_said_and_a_quota_does_not_grow_with_it() -> None:
    full = PodFailure("FailedCreate", "exceeded quota", Mend.ROOM)
    for sign, patience in ((NO_ROOM, 600), (full, 15)):
        first = reading(sign, 0, node_within=600)

        assert decisive(reading(sign, patience, first, node_within=600)) is None
        found = decisive(reading(sign, patience + 1, first, node_within=600))
        assert found is not None
        assert found.message == f"{sign.message} (for {patience + 1} s with no pod of the stage leaving)"


def test_a_pod_that_has_its_node_has_still_the_chances_of_its_containers() -> None:
    scheduled = reading(TAKEN, 20, reading(NO_ROOM, 0))

    assert decisive(scheduled) is None
    assert [it.mend for it in scheduled.chances] == [Mend.RESTART]


@pytest.mark.parametrize(("sign", "is_kept"), [(TAKEN, True), (NO_IMAGE, True), (NO_ROOM, False)])
def test_a_chance_that_was_used_stays_on_record(sign: PodFailure, is_kept: bool) -> None:
    assert bool(reading(None, 2, reading(sign, 0)).chances) == is_kept


LATER = [PodFailure("Error", "pod judge-2", Mend.RESTART, after(seconds)) for seconds in (10, 60, 120)]


@given(
    readings=st.lists(st.tuples(st.sampled_from([TAKEN, NO_IMAGE, NO_BLOCKS, None, *LATER]), st.integers(0, 40))),
    lost=st.sets(st.integers(0, 10)),
)
def test_an_operator_that_loses_a_write_gives_no_chance_fewer(
    readings: list[tuple[PodFailure | None, int]], lost: set[int]
) -> None:
    kept: Weighed | None = None
    holed: Weighed | None = None
    second = 0
    for number, (sign, seconds) in enumerate(readings):
        second += seconds
        kept = reading(sign, second, kept)
        seen = reading(sign, second, holed)
        assert decisive(seen) is None or decisive(kept) is not None
        holed = holed if number in lost else seen
