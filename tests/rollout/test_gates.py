"""Gates of a stage that bakes: what samples amount to, and what follows."""

import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from statistics import fmean
from typing import Any

import pytest
from cotune.api.gate import Gate, GateOutcome, GateStatus
from cotune.api.profile import ProfilePhase, Stage
from cotune.rollout.gates import Baking, Look, Reading, evaluate, gated, is_due, spans
from cotune.rollout.stage import Obstacle, StageStep
from hypothesis import given
from hypothesis import strategies as st

BEGAN = datetime(2026, 1, 1, 12, tzinfo=UTC)
SINCE = BEGAN + timedelta(minutes=2)
BAKING = Baking(BEGAN, SINCE, generation=3)
BAKE_SECONDS = 600
END = SINCE + timedelta(seconds=BAKE_SECONDS)
EARLY = SINCE + timedelta(seconds=300)
P, F, I = GateOutcome.PASSED, GateOutcome.FAILED, GateOutcome.INCONCLUSIVE  # noqa: E741


def gate(**fields: Any) -> Gate:
    fields = {"name": "latency", "promQL": {"query": "x", "stepSeconds": 10}} | fields
    return Gate.model_validate(fields if {"min", "againstBaseline"} & fields.keys() else {"max": "0.4"} | fields)


def stage(*gates: Gate) -> Stage:
    return Stage(name="production", namespace="voice-prod", bake_seconds=BAKE_SECONDS, gates=gates)


def noisy(level: float, count: int = 60, noise: float = 0.02) -> Sequence[float]:
    """Independent samples whose mean is the level."""
    draw = random.Random(count)
    found = [draw.gauss(level, noise) for _ in range(count)]
    middle = fmean(found)
    return [it - middle + level for it in found]


def shown(of: Gate, samples: Sequence[float], before: Sequence[float] | None = None, at: datetime = END) -> GateStatus:
    baseline = Reading(before) if before is not None else None
    return evaluate(stage(of), of, Look(at, Reading(samples), baseline), BAKING)


def state(outcome: GateOutcome, name: str = "latency", at: datetime = END, generation: int = 3) -> GateStatus:
    return GateStatus(name=name, outcome=outcome, message="0.5, max 0.4", at=at, observed_generation=generation)


@pytest.mark.parametrize(
    ("threshold", "samples", "outcome"),
    [
        ({"max": "0.4"}, noisy(0.38), P),
        ({"max": "0.4"}, noisy(0.42), F),
        ({"max": "0.4"}, noisy(0.4), I),
        ({"max": "0"}, [0.0] * 10, P),
        ({"max": "0"}, [0.0] * 9, I),
        ({"min": "0.4"}, noisy(0.42), P),
        ({"min": "0.4"}, noisy(0.38), F),
        ({"min": "-0.4"}, noisy(-0.38), P),
        ({"max": "0.4"}, [], GateOutcome.NO_DATA),
        ({"max": "0.4"}, [math.nan] * 60, GateOutcome.NAN),
        ({"max": "0.4"}, [*noisy(0.38), math.nan], P),
        ({"max": "0.4"}, [*noisy(0.38, 9), math.nan], GateOutcome.NAN),
        ({"max": "0.4"}, [*noisy(0.38), math.inf], GateOutcome.NAN),
    ],
)
def test_a_figure_against_a_number(threshold: dict[str, str], samples: Sequence[float], outcome: GateOutcome) -> None:
    assert shown(gate(**threshold), samples).outcome is outcome


@pytest.mark.parametrize(
    ("goal", "tolerance", "before", "after", "outcome"),
    [
        ("Minimize", "0", 1.0, 0.9, P),
        ("Minimize", "0", 1.0, 1.1, F),
        ("Minimize", "0", 1.0, 1.0, I),
        ("Minimize", "0.2", 1.0, 1.1, P),
        ("Minimize", "0.05", 1.0, 1.1, F),
        ("Maximize", "0", 1.0, 1.1, P),
        ("Maximize", "0.05", 1.0, 0.9, F),
        ("Maximize", "0.2", 1.0, 0.9, P),
        # Below zero, too, a tolerance lets the figure be worse.
        ("Minimize", "0.2", -1.0, -0.9, P),
        ("Minimize", "0.05", -1.0, -0.9, F),
        ("Maximize", "0.2", -1.0, -1.1, P),
    ],
)
def test_a_figure_against_the_stage_as_it_was(
    goal: str, tolerance: str, before: float, after: float, outcome: GateOutcome
) -> None:
    found = shown(gate(againstBaseline={"goal": goal, "tolerance": tolerance}), noisy(after), noisy(before, 120))

    assert found.outcome is outcome, found.message
    assert (found.value, found.baseline) != (None, None)


@pytest.mark.parametrize(
    ("before", "outcome", "words"),
    [
        ([], GateOutcome.NO_DATA, "baseline: the query gives no samples"),
        ([1.0] * 9, I, "baseline: 9 samples, 10 are needed"),
        ([math.nan] * 12, GateOutcome.NAN, "baseline: 12 of 12 samples are no numbers"),
    ],
)
def test_without_a_baseline_there_is_nothing_to_hold_a_figure_against(
    before: Sequence[float], outcome: GateOutcome, words: str
) -> None:
    found = shown(gate(againstBaseline={"goal": "Minimize"}), noisy(1.0), before)

    assert (found.outcome, found.message) == (outcome, words)


def test_a_prometheus_that_does_not_answer_is_an_error() -> None:
    found = evaluate(stage(gate()), gate(), Look(END, Reading(error="no answer within 10 s")), BAKING)

    assert (found.outcome, found.message) == (GateOutcome.ERROR, "no answer within 10 s")


def test_what_is_told_has_the_figure_and_what_it_was_held_against() -> None:
    alone = shown(gate(), [0.5] * 12)
    against = shown(gate(againstBaseline={"goal": "Maximize", "tolerance": "0.1"}), [8.0] * 12, [10.0] * 20)

    assert alone.message == "0.5 (mean of 12 samples), max 0.4, with a confidence of 0.95"
    assert (alone.value, alone.baseline, alone.samples) == ("0.5", None, 12)
    assert against.message == (
        "8 (mean of 12 samples), min 9: baseline 10 with a tolerance of 0.1, with a confidence of 0.95"
    )
    assert (against.value, against.baseline) == ("8", "10")


def test_before_the_end_of_the_bake_time_only_what_is_beyond_doubt_fails() -> None:
    slightly, clearly = noisy(0.405), noisy(0.43)

    assert shown(gate(), slightly).outcome is F
    assert shown(gate(), slightly, at=EARLY).outcome is I
    assert shown(gate(), clearly, at=EARLY).outcome is F


def test_looking_every_few_seconds_does_not_take_good_stages_back() -> None:
    """A figure exactly at what it may be, 60 looks of independent samples: at 0.95 each, a third would fail."""
    failed = 0
    for seed in range(300):
        draw = random.Random(seed)
        samples = [draw.gauss(0.4, 0.05) for _ in range(60)]
        looks = (shown(gate(), samples[:count], at=EARLY).outcome for count in range(10, 60))
        failed += F in looks

    assert failed < 12


def test_the_spans_lie_before_the_stage_began_and_in_its_bake_time() -> None:
    against = gate(againstBaseline={"goal": "Minimize", "windowSeconds": 900}, initialDelaySeconds=60)

    of_stage, before = spans(against, BAKING, END)

    assert (of_stage.start, of_stage.end) == (SINCE + timedelta(seconds=60), END)
    assert before is not None
    assert (before.start, before.end) == (BEGAN - timedelta(seconds=900), BEGAN)
    assert {of_stage.step, before.step} == {timedelta(seconds=10)}
    assert spans(gate(), BAKING, END)[1] is None


def test_over_a_long_time_samples_lie_further_apart() -> None:
    of_stage, _ = spans(gate(), BAKING, SINCE + timedelta(days=7))

    assert of_stage.step == timedelta(seconds=303)


@given(seconds=st.integers(1, 604_800), step=st.integers(1, 60))
def test_no_more_samples_are_asked_for_than_fit_and_never_fewer_than_a_gate_may_want(seconds: int, step: int) -> None:
    it = gate(promQL={"query": "x", "stepSeconds": step})

    of_stage, _ = spans(it, BAKING, SINCE + timedelta(seconds=seconds))

    samples = (of_stage.end - of_stage.start) // of_stage.step + 1
    assert min(1000, seconds // step) <= samples <= 2001


@pytest.mark.parametrize(
    ("last", "now", "due"),
    [
        (None, SINCE, True),
        (state(I, at=SINCE), SINCE + timedelta(seconds=9), False),
        (state(I, at=SINCE), SINCE + timedelta(seconds=10), True),
        (state(I, at=SINCE, generation=2), SINCE + timedelta(seconds=1), True),
        (state(I, at=END - timedelta(seconds=1)), END, True),
        (state(I, at=END), END + timedelta(seconds=9), False),
    ],
)
def test_a_gate_is_looked_at_for_each_sample_and_at_the_end(last: GateStatus | None, now: datetime, due: bool) -> None:
    assert is_due(stage(gate()), gate(), last, BAKING, now) is due


def step(phase: ProfilePhase, states: Sequence[GateStatus], *gates: Gate, now: datetime = END) -> StageStep:
    return gated(stage(*(gates or (gate(),))), StageStep(phase, "as it was"), states, BAKING, now)


LATE = END + timedelta(seconds=600)


@pytest.mark.parametrize(
    ("phase", "states", "now", "follows"),
    [
        (ProfilePhase.PROMOTED, [state(P)], END, ProfilePhase.PROMOTED),
        (ProfilePhase.PROMOTED, [state(F)], END, ProfilePhase.ROLLING_BACK),
        (ProfilePhase.BAKING, [state(F)], EARLY, ProfilePhase.ROLLING_BACK),
        (ProfilePhase.BAKING, [state(P)], EARLY, ProfilePhase.BAKING),
        (ProfilePhase.PROMOTED, [], END, ProfilePhase.BAKING),
        (ProfilePhase.PROMOTED, [], LATE, ProfilePhase.ROLLING_BACK),
        # A pass before the end of the bake time does not count, nor does one of a gate that was edited since.
        (ProfilePhase.PROMOTED, [state(P, at=EARLY)], END, ProfilePhase.BAKING),
        (ProfilePhase.PROMOTED, [state(P, generation=2)], END, ProfilePhase.BAKING),
        (ProfilePhase.BAKING, [state(F, generation=2)], EARLY, ProfilePhase.BAKING),
        *(
            (ProfilePhase.PROMOTED, [state(outcome)], now, follows)
            for outcome in set(GateOutcome) - {P, F}
            for now, follows in ((END, ProfilePhase.BAKING), (LATE, ProfilePhase.ROLLING_BACK))
        ),
        # What is on its way back stays there.
        (ProfilePhase.ROLLING_BACK, [state(P)], END, ProfilePhase.ROLLING_BACK),
    ],
)
def test_what_follows_for_the_stage(
    phase: ProfilePhase, states: Sequence[GateStatus], now: datetime, follows: ProfilePhase
) -> None:
    found = step(phase, states, now=now)

    assert found.phase is follows
    assert found.gates == tuple(states)
    if follows is ProfilePhase.ROLLING_BACK and phase is not follows:
        assert found.message.startswith("gate latency")


def test_the_message_of_the_way_back_names_gate_figure_and_threshold() -> None:
    assert step(ProfilePhase.BAKING, [state(F)]).message == "gate latency: 0.5, max 0.4"
    assert step(ProfilePhase.PROMOTED, [state(I)], now=LATE).message == (
        "gate latency is not decided 600 s after the bake time: Inconclusive: 0.5, max 0.4"
    )


def test_the_last_look_of_a_dry_run_is_waited_for_but_not_for_ever() -> None:
    early = [state(F, at=EARLY)]

    assert step(ProfilePhase.PROMOTED, early, gate(dryRun=True)).phase is ProfilePhase.BAKING
    assert step(ProfilePhase.PROMOTED, early, gate(dryRun=True), now=LATE).phase is ProfilePhase.PROMOTED


@pytest.mark.parametrize("outcome", sorted(set(GateOutcome)))
def test_a_dry_run_never_decides(outcome: GateOutcome) -> None:
    for now in (END, LATE):
        found = step(ProfilePhase.PROMOTED, [state(outcome)], gate(dryRun=True), now=now)

        assert found.phase is ProfilePhase.PROMOTED
        assert [it.outcome for it in found.gates or ()] == [outcome]


def test_a_gate_may_pass_when_nobody_can_tell() -> None:
    lenient = gate(onUndecided="Pass", deadlineSeconds=60)

    assert step(ProfilePhase.PROMOTED, [state(I)], lenient).phase is ProfilePhase.BAKING
    assert step(ProfilePhase.PROMOTED, [state(I)], lenient, now=END + timedelta(seconds=60)).phase is (
        ProfilePhase.PROMOTED
    )
    assert step(ProfilePhase.PROMOTED, [state(F)], lenient, now=LATE).phase is ProfilePhase.ROLLING_BACK


def test_what_else_a_step_says_stays() -> None:
    obstacle = Obstacle("ScaledByOthers", "stt has 0 replicas, not 1")
    asleep = StageStep(ProfilePhase.BAKING, "asleep", obstacle=obstacle, unready_since=EARLY)

    found = gated(stage(gate()), asleep, [state(I, at=EARLY)], BAKING, EARLY)

    assert (found.message, found.obstacle, found.unready_since) == ("asleep", obstacle, EARLY)


@given(
    outcomes=st.lists(st.tuples(st.sampled_from(GateOutcome), st.booleans()), min_size=1, max_size=5),
    seconds=st.integers(0, 1500),
    is_well=st.booleans(),
)
def test_a_stage_is_promoted_only_if_every_deciding_gate_has_passed(
    outcomes: list[tuple[GateOutcome, bool]], seconds: int, is_well: bool
) -> None:
    gates = [gate(name=f"g{n}", dryRun=dry) for n, (_, dry) in enumerate(outcomes)]
    states = [state(outcome, f"g{n}") for n, (outcome, _) in enumerate(outcomes)]
    phase = ProfilePhase.PROMOTED if is_well else ProfilePhase.BAKING

    found = step(phase, states, *gates, now=SINCE + timedelta(seconds=seconds))

    deciding = {outcome for outcome, dry in outcomes if not dry}
    assert (found.phase is ProfilePhase.PROMOTED) <= (is_well and deciding <= {P})
    assert (F in deciding) <= (found.phase is ProfilePhase.ROLLING_BACK)
