"""What a stage costs: expected from what was measured, held against a budget, measured as it happens."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cotune.api.downtime import DowntimeBudget, MeasuredStart, StageDowntime
from cotune.api.profile import Expect, ExpectedStartup, ProfilePhase, Stage, StageStatus
from cotune.rollout.downtime import (
    Estimate,
    Outage,
    Stop,
    balance,
    began,
    ended,
    estimate,
    estimate_batches,
    held,
    told,
)
from cotune.rollout.state import ObservedWorkload, Revision, WorkloadRevision
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 7, 3, 12, 0, tzinfo=UTC)
ORDER = ("judge", "stt")
STOPS = {"judge": Stop(60, False), "stt": Stop(30, True)}
TRIAL = Expect(startup_seconds=(ExpectedStartup(component="judge", seconds=74),))
KNOWN = Estimate(90, "90 s")


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def outage(until: datetime, seconds: int = 60, stop: int | None = 5, **starts: int) -> Outage:
    return Outage("voice-lab/p", "production", until - timedelta(seconds=seconds), until, stop, starts)


def seen(**changes: Any) -> ObservedWorkload:
    return replace(ObservedWorkload(values={}, replicas=1, pods=1, is_ready=True), **changes)


def test_a_start_is_as_long_as_last_here_or_in_the_trial_whichever_is_longer() -> None:
    here = [outage(ago(days=9), judge=500, stt=500), outage(ago(hours=1), judge=40, stt=12)]

    found = estimate(ORDER, STOPS, TRIAL, here)

    assert found == Estimate(
        91, "91 s: 5 s to stop (last time here), judge 74 s to start (in its trial), stt 12 s to start (last time here)"
    )


def test_what_an_earlier_stage_has_shown_is_known_of_the_next() -> None:
    starts = (MeasuredStart(component="judge", seconds=80), MeasuredStart(component="stt", seconds=9))
    staging = StageStatus(name="staging", phase=ProfilePhase.PROMOTED, downtime=StageDowntime(starts=starts))

    found = estimate(ORDER, STOPS, TRIAL, [outage(ago(days=1), stt=12)], (staging,))

    assert found.seconds == 90 + 80 + 12
    assert "judge 80 s to start (in stage staging), stt 12 s to start (last time here)" in found.said


def test_a_stop_that_was_not_measured_is_as_long_as_the_grace_periods() -> None:
    there_and_back = [outage(ago(hours=1), stop=None, judge=80, stt=12), outage(ago(hours=2), other=1)]

    found = estimate(ORDER, STOPS, None, there_and_back)

    assert found.seconds == 90 + 80 + 12
    assert "90 s to stop (their grace periods at most)" in found.said


@pytest.mark.parametrize(
    ("stops", "expect", "said"),
    [
        (STOPS, TRIAL, "unknown: no start of stt was measured, neither here nor in a trial or earlier stage"),
        (STOPS, None, "unknown: no start of judge, stt was measured, neither here nor in a trial or earlier stage"),
        ({"stt": Stop(30, True)}, TRIAL, "unknown: there is no workload of judge"),
    ],
)
def test_what_was_not_measured_is_unknown(stops: dict[str, Stop], expect: Expect | None, said: str) -> None:
    assert estimate(ORDER, stops, expect, []) == Estimate(None, said)


def test_values_that_are_there_already_stop_nothing() -> None:
    same = {it: Stop(30, False) for it in ORDER}

    assert estimate(ORDER, same, None, []).seconds == 0


def production(per_day: int, **budget: Any) -> Stage:
    made = DowntimeBudget(seconds_per_day=per_day, **budget)
    return Stage(name="production", namespace="voice-prod", downtime_budget=made)


def test_a_stage_waits_until_enough_of_what_was_spent_is_a_day_old() -> None:
    spent = [outage(ago(hours=2), 50), outage(ago(hours=20), 30), outage(ago(hours=25), 1000)]

    waiting = held(production(120), (), KNOWN, spent, NOW)

    assert waiting is not None
    assert (waiting.reason, waiting.is_stalled) == ("DowntimeBudget", False)
    assert waiting.message == (
        "stage production: 90 s of downtime are expected, 40 s of 120 s a day are left (its downtimeBudget): "
        "it begins at 2026-07-04T10:00:00+00:00"
    )
    # The oldest alone is not enough: 120 - 50 < 90.
    assert held(production(140), (), KNOWN, spent, NOW) is not None
    assert held(production(170), (), KNOWN, spent, NOW) is None
    assert held(production(120), (), KNOWN, spent, NOW + timedelta(hours=22)) is None


def test_a_cooldown_keeps_two_changes_apart_also_with_budget_left() -> None:
    last = [outage(ago(minutes=10), 5), outage(ago(days=3), 5)]

    waiting = held(production(600, cooldown_seconds=3600), (), KNOWN, last, NOW)

    assert waiting is not None
    assert waiting.message.endswith(
        "595 s of 600 s a day are left (its downtimeBudget), and the last downtime is less than 3600 s ago: "
        "it begins at 2026-07-03T12:50:00+00:00"
    )
    assert held(production(600, cooldown_seconds=600), (), KNOWN, last, NOW) is None
    assert held(production(600, cooldown_seconds=3600), (), KNOWN, [], NOW) is None


def test_what_never_fits_and_what_nobody_knows_wait_for_a_person() -> None:
    unknown = Estimate(None, "unknown: no start of judge was measured")

    never = held(production(89), (), KNOWN, [], NOW)
    nobody_knows = held(production(600), (), unknown, [], NOW)

    assert never is not None
    assert (never.reason, never.is_stalled) == ("DowntimeBudget", True)
    assert never.message.endswith("its downtimeBudget is 89 s a day: it never fits")
    assert nobody_knows is not None
    assert (nobody_knows.reason, nobody_knows.is_stalled) == ("DowntimeUnknown", True)


def test_an_unknown_downtime_that_may_begin_does_so_while_anything_is_left() -> None:
    unknown = Estimate(None, "unknown")
    stage = production(60, on_unknown="Begin")

    assert held(stage, (), unknown, [outage(ago(hours=1), 59)], NOW) is None
    waiting = held(stage, (), unknown, [outage(ago(hours=1), 60)], NOW)
    assert waiting is not None
    assert "its downtime is unknown, 0 s of 60 s a day are left (its downtimeBudget)" in waiting.message


def test_the_budget_of_the_namespaces_owner_holds_beside_the_stages_own() -> None:
    spent, owner = [outage(ago(hours=1), 50)], DowntimeBudget(seconds_per_day=100)
    free = Stage(name="production", namespace="voice-prod")

    waiting = held(free, (owner,), KNOWN, spent, NOW)
    never = held(production(1000), (owner, DowntimeBudget(seconds_per_day=10)), KNOWN, spent, NOW)

    assert waiting is not None
    assert "50 s of 100 s a day are left (the downtimeBudget of its grant)" in waiting.message
    assert balance(production(40), (owner,), spent, NOW) == (
        "0 s of 40 s a day are left (its downtimeBudget); "
        "50 s of 100 s a day are left (the downtimeBudget of its grant)"
    )
    assert balance(free, (), spent, NOW) == ""
    assert never is not None
    assert "the downtimeBudget of its grant is 10 s a day: it never fits" in never.message
    assert held(production(140), (owner,), Estimate(50, ""), spent, NOW) is None


def test_without_a_budget_and_for_nothing_no_stage_is_held() -> None:
    spent = [outage(ago(minutes=1), 86_400)]

    assert held(Stage(name="production", namespace="voice-prod"), (), KNOWN, spent, NOW) is None
    assert held(production(1, cooldown_seconds=3600), (), Estimate(0, ""), spent, NOW) is None


@given(
    st.lists(st.tuples(st.integers(0, 48 * 3600), st.integers(0, 300)), max_size=8),
    st.integers(1, 300),
    st.integers(1, 600),
    st.integers(0, 7200),
)
def test_a_stage_that_waits_begins_when_it_was_said_and_not_a_second_before(
    spent: list[tuple[int, int]], needed: int, per_day: int, cooldown: int
) -> None:
    outages = [outage(ago(seconds=ended_ago), seconds) for ended_ago, seconds in spent]
    stage, expected = production(per_day, cooldown_seconds=cooldown), Estimate(needed, "")

    waiting = held(stage, (), expected, outages, NOW)

    if needed > per_day:
        assert waiting is not None
        assert waiting.is_stalled
    elif waiting is not None:
        begins_at = datetime.fromisoformat(waiting.message.rpartition(" ")[2])
        assert begins_at > NOW
        assert held(stage, (), expected, outages, begins_at) is None
        assert held(stage, (), expected, outages, begins_at - timedelta(seconds=1)) is not None
    else:
        recent = [it.seconds for it in outages if it.until > NOW - timedelta(hours=24)]
        assert sum(recent) + needed <= per_day


GOOD = Revision((WorkloadRevision("judge", {}, 1), WorkloadRevision("stt", {}, 1)))


def test_services_are_down_from_the_first_stop() -> None:
    whole = {"judge": seen(), "stt": seen()}

    assert began(ago(seconds=9), GOOD, whole, False, NOW) is None
    assert began(ago(seconds=9), GOOD, whole, True, NOW) == NOW


@pytest.mark.parametrize("stt", [None, seen(replicas=0, pods=0), seen(is_ready=False)])
def test_what_was_stopped_before_anybody_wrote_it_down_counts_from_the_beginning(stt: ObservedWorkload | None) -> None:
    observed = {"judge": seen()} | ({"stt": stt} if stt is not None else {})

    assert began(ago(seconds=9), GOOD, observed, True, NOW) == ago(seconds=9)


def test_an_outage_ends_when_the_last_pod_was_ready_not_when_the_operator_looks() -> None:
    observed = {
        "judge": seen(made_at=ago(seconds=90), ready_at=ago(seconds=50)),
        "stt": seen(made_at=ago(seconds=50), ready_at=ago(seconds=40)),
    }

    found = ended("voice-lab/p", "production", ago(seconds=100), ago(seconds=101), observed, NOW)

    # In the second of 40 s ago, which is over 39 s ago.
    assert (found.until, found.seconds, found.stop_seconds) == (ago(seconds=39), 61, 10)
    assert found.start_seconds == {"judge": 40, "stt": 10}


def test_an_outage_with_a_failed_attempt_in_it_says_nothing_of_a_stop() -> None:
    observed = {it: seen(made_at=ago(seconds=20), ready_at=ago(seconds=10)) for it in ORDER}

    found = ended("voice-lab/p", "production", ago(seconds=300), ago(seconds=30), observed, NOW)

    assert (found.seconds, found.stop_seconds) == (291, None)


def test_pods_that_were_ready_in_the_second_of_the_stop_count() -> None:
    since = NOW + timedelta(milliseconds=200)
    observed = {"judge": seen(made_at=NOW, ready_at=NOW)}

    found = ended("voice-lab/p", "production", since, since, observed, NOW + timedelta(seconds=5))

    assert (found.seconds, found.stop_seconds, found.start_seconds) == (1, 0, {"judge": 1})


def test_a_pod_that_was_ready_before_the_outage_tells_nothing_of_its_end() -> None:
    observed = {"judge": seen(made_at=ago(days=1), ready_at=ago(days=1)), "stt": seen()}

    found = ended("voice-lab/p", "production", ago(seconds=7), ago(seconds=7), observed, NOW)

    assert (found.until, found.seconds, found.start_seconds) == (NOW, 7, {})


def test_how_far_the_estimate_was_off_is_told_of_the_way_forward_and_the_way_back_is_added() -> None:
    record = StageDowntime(expected_seconds=50, since=ago(seconds=60))
    forward = told(record, outage(NOW, 60, judge=40), ProfilePhase.BAKING)
    back = told(forward, outage(NOW, 25, judge=20), ProfilePhase.ROLLED_BACK)

    assert (forward.measured_seconds, forward.error_seconds, forward.since) == (60, 10, None)
    # The starts of a way back are none with the profile's values.
    assert forward.starts == back.starts == (MeasuredStart(component="judge", seconds=40),)
    assert (back.measured_seconds, back.error_seconds) == (85, 10)
    never_there = told(StageDowntime(expected_seconds=50), outage(NOW, 60), ProfilePhase.ROLLED_BACK)
    assert (never_there.measured_seconds, never_there.error_seconds) == (60, None)


def test_batches_are_down_one_after_the_other_and_the_stacks_of_one_together() -> None:
    starts = [outage(ago(hours=1), stop=5, judge=60, stt=10)]
    stops = {f"{stack}/{name}": stop for stack in "abc" for name, stop in STOPS.items()}
    done = stops | {"a/judge": Stop(60, False), "a/stt": Stop(30, False)}

    of_all = estimate_batches(ORDER, [["a"], ["b", "c"]], stops, None, starts)
    of_the_rest = estimate_batches(ORDER, [["a"], ["b", "c"]], done, None, starts)

    assert of_all.seconds == 2 * 75
    assert of_all.said.startswith("150 s in 2 batches, each at most 75 s: 5 s to stop (last time here), judge 60 s")
    assert of_the_rest.seconds == 75
    assert estimate_batches(ORDER, [["a"]], done, None, starts).seconds == 0
    unknown = estimate_batches(ORDER, [["a"], ["b"]], stops, None, [])
    assert unknown.seconds is None
    assert unknown.said.endswith("(stack a)")


def test_stacks_that_were_down_together_count_as_the_slowest() -> None:
    observed = {
        "a/stt": seen(made_at=ago(seconds=50), ready_at=ago(seconds=40)),
        "b/stt": seen(made_at=ago(seconds=45), ready_at=ago(seconds=20)),
    }

    found = ended("voice-lab/p", "production", ago(seconds=60), ago(seconds=60), observed, NOW)

    assert (found.stop_seconds, dict(found.start_seconds), found.seconds) == (15, {"stt": 25}, 41)


def test_how_far_the_estimate_was_off_is_told_when_the_last_batch_is_ready() -> None:
    begun = StageDowntime(expected_seconds=100)

    first = told(begun, outage(ago(hours=1), 60, stt=9), ProfilePhase.BAKING, is_last=False)
    last = told(first, outage(NOW, 55, stt=7), ProfilePhase.BAKING)

    assert (first.measured_seconds, first.error_seconds) == (60, None)
    assert (last.measured_seconds, last.error_seconds) == (115, 15)
    assert last.starts == (MeasuredStart(component="stt", seconds=9),)
