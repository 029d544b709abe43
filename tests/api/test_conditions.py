from datetime import UTC, datetime, timedelta

from cotune.api.conditions import Condition, ConditionStatus, with_condition

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def condition(kind: str, status: ConditionStatus, generation: int, minutes: int) -> Condition:
    return Condition(
        type=kind,
        status=status,
        observed_generation=generation,
        last_transition_time=NOW + timedelta(minutes=minutes),
        reason="Tested",
        message="",
    )


def test_the_transition_time_moves_only_with_the_status() -> None:
    first = (condition("Ready", ConditionStatus.FALSE, 1, 0),)

    same = with_condition(first, condition("Ready", ConditionStatus.FALSE, 2, 5))
    changed = with_condition(first, condition("Ready", ConditionStatus.TRUE, 2, 5))

    assert same[0].last_transition_time == NOW
    assert same[0].observed_generation == 2
    assert changed[0].last_transition_time == NOW + timedelta(minutes=5)


def test_a_stale_observation_does_not_erase_a_newer_one() -> None:
    newer = (condition("Ready", ConditionStatus.TRUE, 3, 0),)

    assert with_condition(newer, condition("Ready", ConditionStatus.FALSE, 2, 5)) == newer


def test_another_type_is_added() -> None:
    ready = condition("Ready", ConditionStatus.TRUE, 1, 0)
    stalled = condition("Stalled", ConditionStatus.FALSE, 1, 1)

    assert with_condition((ready,), stalled) == (ready, stalled)
