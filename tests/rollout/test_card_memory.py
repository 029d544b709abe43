"""No start beside memory that pods of the stage still hold, decided step by step."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cotune.api.card_memory import MOST_PODS, MemoryReason, StageMemory, StagePod
from cotune.api.profile import ProfilePhase, Stage
from cotune.rollout.card_memory import LONGEST_WAIT, Holdings, in_question, recorded_first, weighed, with_seen
from cotune.rollout.convergence import Scale, SetValues
from cotune.rollout.stage import StageStep
from cotune.rollout.state import ObservedWorkload

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STAGE = Stage(name="production", namespace="prod", readiness_deadline_seconds=300)
FORWARD, BACK, DEGRADED = ProfilePhase.PROGRESSING, ProfilePhase.ROLLING_BACK, ProfilePhase.DEGRADED
JUDGE = StagePod(uid="u-judge", component="judge", node="gpu-1")
STT = StagePod(uid="u-stt", component="stt", node="gpu-1")
UP = {"judge": ObservedWorkload({}, 1, 1, True), "stt": ObservedWorkload({}, 1, 1, True)}
DOWN = {name: replace(it, replicas=0, pods=0) for name, it in UP.items()}
START = StageStep(FORWARD, "waiting for judge to start", (Scale("judge", 1),))
HELD = "4,200 MiB on GPU-1 by python 4711 of pod u-judge"


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def recorded(*pods: StagePod, since: datetime | None = None) -> StageMemory:
    return StageMemory(pods=pods, waiting_since=since)


def after(
    memory: StageMemory,
    held: Mapping[str, str],
    step: StageStep = START,
    now: datetime = NOW,
    stage: Stage = STAGE,
    unknown: Mapping[str, str] | None = None,
    observed: Mapping[str, ObservedWorkload] = DOWN,
) -> StageStep:
    step = replace(step, memory=memory)
    asked = in_question(step, memory, (), observed)
    return weighed(stage, step, asked, Holdings(held, unknown or {}), observed, now)


def test_a_pod_is_recorded_once_and_of_too_many_the_first_are_kept() -> None:
    one = with_seen(None, [JUDGE])

    assert with_seen(one, [STT, JUDGE]).pods == (JUDGE, STT)
    assert with_seen(one, [JUDGE]) is one
    many = [JUDGE.model_copy(update={"uid": f"u-{it}"}) for it in range(MOST_PODS)]
    assert len(with_seen(one, many).pods) == MOST_PODS
    assert with_seen(one, many).pods[0] == JUDGE


def test_nothing_is_stopped_in_the_pass_that_first_sees_its_pod() -> None:
    step = StageStep(FORWARD, "so", (Scale("stt", 0), SetValues("judge", {}), Scale("judge", 2)))
    new = recorded(JUDGE, STT)

    first = recorded_first(step, recorded(JUDGE), new, UP)
    then = recorded_first(step, new, new, UP)

    assert first.actions == (SetValues("judge", {}), Scale("judge", 2))
    assert first.memory == then.memory == new
    assert then.actions == step.actions


@pytest.mark.parametrize(
    ("actions", "seen", "expected"),
    [
        ((Scale("judge", 1),), (), (JUDGE, STT)),
        ((Scale("judge", 1),), (STT,), (JUDGE,)),
        ((Scale("judge", 0),), (), ()),
        ((SetValues("judge", {}),), (), ()),
        ((), (), ()),
    ],
)
def test_only_a_start_asks_and_only_about_pods_that_are_gone(
    actions: tuple[Scale | SetValues, ...], seen: Sequence[StagePod], expected: Sequence[StagePod]
) -> None:
    step = StageStep(FORWARD, actions=actions)

    assert in_question(step, recorded(JUDGE, STT), seen, DOWN) == tuple(expected)


def test_another_stacks_pods_are_not_asked_for() -> None:
    one, other = (StagePod(uid=it, component=f"{it}/judge", node="gpu-1") for it in ("red", "blue"))
    step = StageStep(FORWARD, actions=(Scale("red/judge", 1),))

    assert in_question(step, recorded(one, other), (), {"red/judge": DOWN["judge"]}) == (one,)


def test_what_holds_nothing_any_more_is_forgotten_and_the_start_is_made() -> None:
    step = after(recorded(JUDGE, STT, since=NOW), {})

    assert step.actions == START.actions
    assert step.memory == StageMemory()


def test_a_start_waits_for_what_is_held_and_says_who_holds_it() -> None:
    step = after(recorded(JUDGE, STT), {"u-judge": HELD})

    assert step.phase is FORWARD
    assert step.actions == ()
    assert step.message == f"waiting for memory on the card, still held by pods that are gone: judge on gpu-1: {HELD}"
    assert step.memory == StageMemory(
        pods=(JUDGE,), waiting_since=NOW, reason=MemoryReason.HELD, message=f"judge on gpu-1: {HELD}"
    )


def test_other_work_goes_on_meanwhile() -> None:
    red = StagePod(uid="u-red", component="red/judge", node="gpu-1")
    seen = {"red/judge": DOWN["judge"], "blue/judge": DOWN["judge"], "blue/stt": UP["stt"]}
    actions = (Scale("red/judge", 1), Scale("blue/judge", 1), Scale("blue/stt", 0), SetValues("red/judge", {}))

    step = after(recorded(red), {"u-red": "much"}, StageStep(FORWARD, actions=actions), observed=seen)

    assert step.actions == actions[1:]


def test_the_wait_goes_on_from_when_it_began_and_is_bounded() -> None:
    waiting = recorded(JUDGE, since=NOW)
    limit = LONGEST_WAIT.total_seconds()

    at_the_limit = after(waiting, {"u-judge": HELD}, now=later(limit))
    beyond = after(waiting, {"u-judge": HELD}, now=later(limit + 1))

    assert (at_the_limit.phase, at_the_limit.actions) == (FORWARD, ())
    assert at_the_limit.memory is not None
    assert at_the_limit.memory.waiting_since == NOW
    assert (beyond.phase, beyond.actions) == (BACK, ())
    assert beyond.message == (
        f"MemoryHeld: after 61 s, memory on the card is still held by pods that are gone: judge on gpu-1: {HELD}"
    )


def test_with_a_short_deadline_it_is_half_of_it() -> None:
    stage = STAGE.model_copy(update={"readiness_deadline_seconds": 20})

    assert after(recorded(JUDGE, since=NOW), {"u-judge": HELD}, now=later(10), stage=stage).phase is FORWARD
    assert after(recorded(JUDGE, since=NOW), {"u-judge": HELD}, now=later(11), stage=stage).phase is BACK


@pytest.mark.parametrize("phase", [BACK, DEGRADED])
def test_a_way_back_waits_no_longer_and_starts_all_the_same(phase: ProfilePhase) -> None:
    back = replace(START, phase=phase)

    before = after(recorded(JUDGE, STT), {"u-judge": HELD}, back)
    # The same wait that has ended the way forward is not begun anew.
    overdue = after(recorded(JUDGE, STT, since=NOW), {"u-judge": HELD}, back, now=later(61))

    assert before.actions == ()
    assert overdue.phase is phase
    assert overdue.actions == START.actions
    assert overdue.memory == StageMemory(reason=MemoryReason.STILL_HELD, message=f"after 61 s: judge on gpu-1: {HELD}")


def test_what_nobody_knows_holds_up_nothing_and_is_said() -> None:
    why = "no node agent of gpu-1 answers, of 2 there"

    step = after(recorded(JUDGE, STT), {}, unknown={"u-judge": why, "u-stt": why})

    assert step.actions == START.actions
    assert step.memory == StageMemory(
        reason=MemoryReason.UNKNOWN, message=f"judge on gpu-1: {why}; stt on gpu-1: {why}"
    )


def test_what_is_known_to_be_held_counts_beside_what_is_unknown() -> None:
    step = after(recorded(JUDGE, STT), {"u-judge": HELD}, unknown={"u-stt": "nobody knows"})

    assert step.actions == ()
    assert step.memory is not None
    assert (step.memory.pods, step.memory.reason) == ((JUDGE,), MemoryReason.HELD)
