"""Gates of a stage's probe: what its runs amount to, and when they decide."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from cotune.api.gate import GateOutcome, GateStatus
from cotune.api.profile import ProfilePhase, Stage
from cotune.api.stage_probe import ProbeRun, StageProbeStatus
from cotune.rollout.gates import gated
from cotune.rollout.probe_gates import judged
from cotune.rollout.stage import StageStep
from rollout.probed_stage import BAKING, END, SINCE, probe_of, probed_stage, run
from support.probed_stages import AGAINST, gate

P, F, I = GateOutcome.PASSED, GateOutcome.FAILED, GateOutcome.INCONCLUSIVE  # noqa: E741
GOOD, BAD = (300, 310, 290), (700, 710, 690)


def runs(*p95: float) -> tuple[ProbeRun, ...]:
    return tuple(run(number, it) for number, it in enumerate(p95, 1))


def shown(stage: Stage, of: Sequence[ProbeRun], before: Sequence[ProbeRun] = (), now: datetime = END) -> GateStatus:
    """What the first gate says, whose bound is 500 ms."""
    record = StageProbeStatus(load="x", runs=tuple(of), baseline=tuple(before))
    return judged(stage, probe_of(stage), stage.gates[0], record, BAKING, now)


@pytest.mark.parametrize(
    ("figures", "outcome", "words"),
    [
        (GOOD, P, "300 (mean of 3 samples), max 500"),
        (BAD, F, "700 (mean of 3 samples), max 500, with a confidence of 0.95"),
        ((300, 700, 500), I, "of noise nobody can tell"),
    ],
)
def test_all_runs_together_decide_at_the_end_of_the_bake_time(
    figures: Sequence[float], outcome: GateOutcome, words: str
) -> None:
    found = shown(probed_stage(), runs(*figures))

    assert found.outcome is outcome
    assert words in found.message
    assert (found.samples, found.at, found.observed_generation) == (3, END, 3)


@pytest.mark.parametrize(
    ("goal", "before", "after", "outcome"),
    [
        ("Minimize", GOOD, GOOD, I),
        ("Minimize", GOOD, (200, 210, 190), P),
        ("Minimize", GOOD, BAD, F),
        ("Maximize", GOOD, BAD, P),
    ],
)
def test_runs_are_held_against_those_before_the_stage_began(
    goal: str, before: Sequence[float], after: Sequence[float], outcome: GateOutcome
) -> None:
    stage = probed_stage(gate(againstBaseline=AGAINST | {"goal": goal, "tolerance": "0"}))

    found = shown(stage, runs(*after), runs(*before))

    assert found.outcome is outcome, found.message
    assert found.baseline == "300"


def test_more_runs_asked_for_while_the_stage_bakes_need_no_more_from_before_it_began() -> None:
    stage = probed_stage(gate(againstBaseline=AGAINST))
    assert stage.probe is not None
    longer = stage.model_copy(update={"probe": stage.probe.model_copy(update={"runs": 5})})

    found = shown(longer, runs(200, 210, 190, 205, 195), runs(*GOOD))

    assert (found.outcome, found.samples) == (P, 5), found.message
    assert shown(longer, runs(200, 210, 190), runs(*GOOD)).outcome is I


def test_without_the_runs_before_the_stage_there_is_nothing_to_hold_a_figure_against() -> None:
    stage = probed_stage(gate(againstBaseline=AGAINST))

    found = shown(stage, runs(*GOOD), runs(300, 310))

    assert found.outcome is GateOutcome.NO_DATA
    assert "nothing to compare with" in found.message


def test_before_the_end_runs_that_are_bad_beyond_doubt_fail_and_others_do_not() -> None:
    stage, slightly = probed_stage(runs=4), (520, 530, 510)
    early = SINCE + timedelta(minutes=4)

    assert shown(stage, runs(*BAD), now=early).outcome is F
    assert shown(stage, runs(*slightly), now=early).outcome is I
    assert shown(stage, runs(*GOOD), now=early).outcome is I
    assert shown(stage, runs(*slightly, 520)).outcome is F


@pytest.mark.parametrize(
    ("last", "outcome", "words"),
    [
        (run(2), I, "2 of 3 runs are over"),
        (run(2, error="no such host"), GateOutcome.ERROR, "1 of 3 runs are over; run 2: no such host"),
        (run(2, samples=7), I, "1 of 3 runs are over; run 2: stt.latency.p95 rests on 7 requests, 30 are needed"),
        (
            run(2).model_copy(update={"measurements": ()}),
            GateOutcome.NO_DATA,
            "1 of 3 runs are over; run 2 has no stt.latency.p95",
        ),
    ],
)
def test_with_too_few_runs_it_is_said_what_came_of_the_last(last: ProbeRun, outcome: GateOutcome, words: str) -> None:
    found = shown(probed_stage(), [run(1), last])

    assert (found.outcome, found.message) == (outcome, words)


def test_without_any_run_nothing_is_known() -> None:
    found = shown(probed_stage(), (), now=SINCE)

    assert (found.outcome, found.message, found.samples) == (I, "0 of 3 runs are over", 0)


def test_the_same_runs_say_the_same_at_every_look() -> None:
    stage = probed_stage()
    early = [shown(stage, runs(300, 310), now=SINCE + timedelta(seconds=it)) for it in (200, 210, 900)]
    late = [shown(stage, runs(*GOOD), now=END + timedelta(seconds=it)) for it in (0, 10, 900)]

    assert early[0] == early[1] == early[2]
    assert late[0] == late[1] == late[2]


def step_with(stage: Stage, of: Sequence[ProbeRun], now: datetime) -> StageStep:
    record = StageProbeStatus(load="x", runs=tuple(of))
    states = [judged(stage, probe_of(stage), it, record, BAKING, now) for it in stage.gates]
    return gated(stage, StageStep(ProfilePhase.PROMOTED), states, BAKING, now)


def test_a_stage_is_promoted_when_all_runs_are_good_and_waits_for_those_that_are_missing() -> None:
    stage = probed_stage()
    whole = runs(*GOOD)

    assert step_with(stage, whole, END).phase is ProfilePhase.PROMOTED
    waiting = step_with(stage, whole[:2], END)
    assert waiting.phase is ProfilePhase.BAKING
    assert "gate speech (Inconclusive: 2 of 3 runs are over)" in waiting.message
    late = step_with(stage, whole[:2], END + timedelta(seconds=600))
    assert late.phase is ProfilePhase.ROLLING_BACK
    assert late.message.startswith("gate speech is not decided 600 s after the bake time: Inconclusive: 2 of 3 runs")


def test_a_gate_on_errors_takes_a_stage_back_whose_service_answers_nothing() -> None:
    """Its latencies are not known then, which is no reason to know nothing of its errors."""
    dead = [run(it, errors="1").model_copy(update={"number": it}) for it in (1, 2, 3)]
    dead = [it.model_copy(update={"measurements": it.measurements[1:]}) for it in dead]
    stage = probed_stage(gate(), gate("stt.errorRate", name="errors", max="0.01"))

    step = step_with(stage, dead, END)

    assert step.phase is ProfilePhase.ROLLING_BACK
    assert step.message.startswith("gate errors: 1 (mean of 3 samples), max 0.01")


def test_a_run_that_ends_after_the_bake_time_does_not_decide_without_the_others() -> None:
    """Not even a dry run: it waits for its last look."""
    stage = probed_stage(gate(dryRun=True))
    late = [run(1), run(9)]

    assert step_with(stage, late, END + timedelta(minutes=5)).phase is ProfilePhase.BAKING
    assert step_with(stage, [*late, run(10)], END + timedelta(minutes=6)).phase is ProfilePhase.PROMOTED
