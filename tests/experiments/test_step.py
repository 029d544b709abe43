"""An experiment against simulated trials: each pass is given what the ones before it have started."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from cotune.api.experiment import Evaluation, ExperimentPhase, ExperimentSpec, Interference, Outcome, Range, Search
from cotune.api.trial import Prediction, Purpose, TrialPhase
from cotune.experiments.observed import ObservedTrial
from cotune.experiments.partial_winner import Ground
from cotune.experiments.predictions import SpacePlan, survey, unplanned
from cotune.experiments.step import LISTED_SKIPS, ExperimentStep, PlannedTrial, decide
from cotune.search.space import Candidate, Space
from hypothesis import given
from hypothesis import strategies as st
from support.resources import voice_experiment

FRESH = 3
"""Confirming runs of either side."""


def spec(repeats: int = 1, max_trials: int = 15) -> ExperimentSpec:
    evaluation = Evaluation(repeats=FRESH, confidence="0.9", baseline_every=0)
    search = Search(max_trials=max_trials, repeats=repeats)
    update = {"search": search, "evaluation": evaluation, "profile_template": None}
    return voice_experiment().model_copy(update=update)


SPACE = Space(spec().parameters)


def measured(stt_ms: float) -> dict[str, float]:
    """Measurements of which only the latency of speech to text differs."""
    rest = {"judge.latency.p95": 900.0, "judge.kvCache.concurrency": 3.4, "stability": 1.0, "gpu.utilization": 0.7}
    return {"stt.latency.p95": stt_ms, **rest}


def trial(
    candidate: Candidate, repeat: int = 0, phase: TrialPhase = TrialPhase.SUCCEEDED, fitness: float | None = 0.5
) -> ObservedTrial:
    """A tiny Whisper is truly faster; no two repeats are alike."""
    succeeded = phase is TrialPhase.SUCCEEDED
    milliseconds = (80.0 if candidate.values["whisperModel"] == "tiny" else 300.0) + 3 * (repeat % 3)
    return ObservedTrial(
        candidate.trial_name("voice", repeat),
        candidate,
        repeat,
        phase,
        True,
        fitness if succeeded else None,
        measurements=measured(milliseconds) if succeeded else {},
    )


def of_the_search(trials: list[ObservedTrial]) -> list[ObservedTrial]:
    return [it for it in trials if it.purpose is Purpose.SEARCH]


def run(
    experiment: ExperimentSpec,
    outcome: dict[Candidate, TrialPhase],
    cards: int = 1,
    plan: SpacePlan | None = None,
) -> tuple[ExperimentStep, list[ObservedTrial]]:
    """Until the experiment is over; tiny Whispers are fitter."""
    trials: list[ObservedTrial] = []
    for _ in range(1000):
        step = decide("voice", experiment, trials, cards, plan)
        if step.phase not in {ExperimentPhase.RUNNING, ExperimentPhase.VALIDATING}:
            return step, trials
        assert len(step.start) <= cards
        assert step.start or step.record, "a pass that does nothing is followed by more of them"
        for planned in (*step.start, *step.record):
            assert planned.name not in {it.name for it in trials}, "no repeat is run twice"
            phase = outcome.get(planned.candidate, TrialPhase.SUCCEEDED)
            fitness = 0.7 if planned.candidate.values["whisperModel"] == "tiny" else 0.5
            ended = trial(planned.candidate, planned.repeat, phase, fitness)
            trials.append(
                replace(
                    ended,
                    is_skipped=planned.is_skipped,
                    prediction=planned.prediction,
                    purpose=planned.purpose,
                    series=planned.series,
                    started=60.0 * len(trials),
                )
            )
    raise AssertionError("the experiment does not end")


def test_the_whole_space_is_tried_and_the_best_candidate_wins() -> None:
    step, trials = run(spec(), {})

    assert len(of_the_search(trials)) == len(SPACE)
    assert len(trials) == step.counts.total == len(SPACE) + 2 * FRESH
    assert (step.phase, step.reason) == (ExperimentPhase.SUCCEEDED, "Winner")
    assert step.winner is not None
    assert step.winner.fitness == "0.621244", "0.25 of it is 303 / (303 + 83), whatever the search saw"
    assert step.winner.baseline_fitness == "0.550000"
    assert "whisperModel=tiny" in step.message


def test_for_a_profile_the_winners_changes_are_run_one_by_one_and_what_gains_nothing_is_left_out() -> None:
    template = voice_experiment().profile_template

    step, trials = run(spec().model_copy(update={"profile_template": template}), {})

    alone = [it for it in trials if it.purpose is Purpose.VALIDATION]
    assert len(alone) == 3 * FRESH, "the baseline and each of two changes"
    assert (step.phase, step.reason) == (ExperimentPhase.SUCCEEDED, "PartialWinner")
    assert step.validation is not None
    assert {it.parameter: (it.kept, it.reason) for it in step.validation.changes} == {
        "judgeMemory": (False, "NoGainAlone"),
        "whisperModel": (True, "Validated"),
    }
    assert step.deployable is not None
    assert step.deployable.candidate.values == {"judgeMemory": "0.50", "whisperModel": "tiny"}
    assert step.deployable.trial == step.deployable.candidate.trial_name("voice", 0)


def test_a_confirmation_that_ends_with_the_baseline_opens_the_validation() -> None:
    """B W W B, and from there T M, M T B: what lies between two runs of the baseline has no drift of its own."""
    evaluation = Evaluation(repeats=2, confidence="0.66", baseline_every=0)
    update = {"profile_template": voice_experiment().profile_template, "evaluation": evaluation}

    step, trials = run(spec().model_copy(update=update), {})

    after_the_search = [it for it in trials if it.purpose is not Purpose.SEARCH]
    is_baseline = [it.candidate == SPACE.baseline for it in after_the_search]
    assert is_baseline == [True, False, False, True, *[False] * 4, True]
    assert [it.purpose for it in after_the_search] == [Purpose.CONFIRMATION] * 4 + [Purpose.VALIDATION] * 5
    assert (step.phase, step.reason) == (ExperimentPhase.SUCCEEDED, "PartialWinner")


def test_the_baseline_runs_first_and_alone_on_however_many_cards() -> None:
    first = decide("voice", spec(repeats=2), [], cards=4)
    assert [it.candidate for it in first.start] == [SPACE.baseline]

    running = trial(SPACE.baseline, 0, TrialPhase.MEASURING)
    second = decide("voice", spec(repeats=2), [running], cards=4)
    assert [(it.candidate, it.repeat) for it in second.start] == [(SPACE.baseline, 1)]


def test_a_card_takes_one_trial_at_a_time() -> None:
    trials = [trial(SPACE.baseline)]
    trials += [trial(it.candidate, 0, TrialPhase.STARTING) for it in decide("voice", spec(), trials, 2).start]

    assert len(trials) == 3
    assert decide("voice", spec(), trials, cards=2).start == ()
    assert len(decide("voice", spec(), trials, cards=3).start) == 1


def test_a_baseline_without_a_result_ends_the_experiment_at_once() -> None:
    step, trials = run(spec(repeats=3), {SPACE.baseline: TrialPhase.FAILED})

    assert (step.phase, step.reason, len(trials)) == (ExperimentPhase.FAILED, "BaselineFailed", 1)
    assert step.winner is None


def test_a_candidate_that_failed_is_not_repeated() -> None:
    bad = next(it for it in SPACE if it.values["judgeMemory"] == "0.40")

    step, trials = run(spec(repeats=3), {bad: TrialPhase.FAILED})

    assert sum(it.candidate == bad for it in trials) == 1
    assert step.counts.failed == 1
    assert len(of_the_search(trials)) == 3 * (len(SPACE) - 1) + 1


def test_max_trials_counts_candidates() -> None:
    _, trials = run(spec(repeats=2, max_trials=4), {})

    assert len({it.candidate for it in trials}) == 4
    assert len(of_the_search(trials)) == 8


def test_nothing_is_decided_before_every_measured_trial_is_judged() -> None:
    _, trials = run(spec(), {})
    trials = of_the_search(trials)
    last = trials[-1]
    trials[-1] = ObservedTrial(last.name, last.candidate, 0, TrialPhase.SUCCEEDED, False, None)

    assert decide("voice", spec(), trials, 1).phase is ExperimentPhase.RUNNING


def test_no_gain_is_no_winner() -> None:
    trials = [trial(it, fitness=0.5 if it == SPACE.baseline else 0.4) for it in SPACE]

    step = decide("voice", spec(), trials, 1)

    assert (step.phase, step.reason, step.winner) == (ExperimentPhase.SUCCEEDED, "BaselineIsBest", None)


SMALL = [it for it in SPACE if it.values["judgeMemory"] in {"0.40", "0.45"}]
TOO_SMALL = Prediction(fits=False, reason="NoCacheBlocks", message="judge: 0.87 GiB less than the weights")
PREDICTIONS = {it: TOO_SMALL if it in SMALL else Prediction(fits=True) for it in SPACE}


def plan(probe_skipped: float = 0, predictions: Mapping[Candidate, Prediction] = PREDICTIONS) -> SpacePlan:
    return survey(SPACE, probe_skipped, predictions.get)


def test_what_cannot_start_is_recorded_with_its_reason_and_takes_no_card() -> None:
    step, trials = run(spec(), dict.fromkeys(SMALL, TrialPhase.SKIPPED), plan=plan())

    assert {it.candidate for it in trials if it.is_skipped} == set(SMALL)
    assert all(it.prediction == TOO_SMALL for it in trials if it.is_skipped)
    assert (step.reason, step.counts.skipped, step.counts.total) == ("Winner", 6, 15 + 2 * FRESH)


def test_what_is_skipped_is_recorded_once_the_baseline_has_taught_what_it_can() -> None:
    running = trial(SPACE.baseline, 0, TrialPhase.MEASURING)
    assert decide("voice", spec(), [running], 1, plan()).record == ()

    step = decide("voice", spec(), [trial(SPACE.baseline)], 1, plan())
    assert {it.candidate for it in step.record} == set(SMALL)
    assert [it.is_skipped for it in step.start] == [False], "a card is not left idle for it"


def test_skipped_candidates_are_not_taken_for_tried_ones() -> None:
    _, trials = run(spec(max_trials=4), dict.fromkeys(SMALL, TrialPhase.SKIPPED), plan=plan())

    assert sum(not it.is_skipped for it in of_the_search(trials)) == 4


def test_a_share_of_them_can_be_run_all_the_same_and_the_same_share_after_a_restart() -> None:
    def skipped(share: float) -> set[str]:
        failing = dict.fromkeys(SMALL, TrialPhase.FAILED)
        _, trials = run(spec(), failing, plan=plan(share))
        return {it.name for it in trials if it.is_skipped}

    assert skipped(1) == set()
    assert 0 < len(skipped(0.5)) < 6
    assert skipped(0.5) == skipped(0.5)


def test_a_doubtful_candidate_runs_with_its_flag_though_it_should_not_fit() -> None:
    doubtful = TOO_SMALL.model_copy(update={"doubtful": True})
    _, trials = run(spec(), {SMALL[0]: TrialPhase.FAILED}, plan=plan(predictions={**PREDICTIONS, SMALL[0]: doubtful}))

    (found,) = [it for it in trials if it.candidate == SMALL[0]]
    assert (found.is_skipped, found.prediction) == (False, doubtful)
    assert sum(it.is_skipped for it in trials) == 5


def test_an_experiment_of_which_nothing_can_start_ends_before_its_first_trial() -> None:
    step = decide("voice", spec(), [], 1, plan(predictions=dict.fromkeys(SPACE, TOO_SMALL)))

    assert (step.phase, step.reason, step.start) == (ExperimentPhase.FAILED, "NothingFeasible", ())
    assert step.message == "none of 15 candidates can start; the baseline: judge: 0.87 GiB less than the weights"
    assert step.counts.skipped == 15


def test_the_baseline_runs_whatever_is_predicted_for_it_runs_today() -> None:
    hopeless = plan(predictions={**PREDICTIONS, SPACE.baseline: TOO_SMALL})

    (first,) = decide("voice", spec(), [], 1, hopeless).start
    after = decide("voice", spec(), [trial(SPACE.baseline)], 1, hopeless)

    assert (first.candidate, first.is_skipped) == (SPACE.baseline, False)
    assert SPACE.baseline not in {it.candidate for it in after.record}


def wide(count: int) -> tuple[ExperimentSpec, SpacePlan]:
    """So many candidates that cannot start, and two that can."""
    memory, whisper = spec().parameters
    steps = Range(min="1", max=str(count + 2), step="1")
    parameters = (
        memory.model_copy(update={"range": steps, "baseline": str(count + 1)}),
        whisper.model_copy(update={"values": ("tiny",), "baseline": "tiny"}),
    )
    experiment = spec().model_copy(update={"parameters": parameters})
    space = Space(parameters)
    fits = Prediction(fits=True)
    return experiment, survey(space, 0, lambda it: TOO_SMALL if int(it.values["judgeMemory"]) <= count else fits)


def test_so_many_skipped_candidates_are_listed_and_one_more_is_counted_by_reason() -> None:
    experiment, listed = wide(LISTED_SKIPS)
    step, trials = run(experiment, {}, plan=listed)
    assert (len(trials), step.counts.skipped) == (LISTED_SKIPS + 2, LISTED_SKIPS)

    experiment, counted = wide(LISTED_SKIPS + 1)
    step, trials = run(experiment, {}, plan=counted)
    assert (len(trials), step.counts.total, step.counts.skipped) == (2, 2, LISTED_SKIPS + 1)
    assert counted.summary is not None
    (refused,) = counted.summary.refused
    assert (refused.reason, refused.count, refused.skipped) == ("NoCacheBlocks", LISTED_SKIPS + 1, LISTED_SKIPS + 1)
    assert refused.example == "judgeMemory=1 whisperModel=tiny: judge: 0.87 GiB less than the weights"


def test_what_was_learned_meanwhile_changes_no_trial_that_was_made() -> None:
    tiny = next(it for it in SPACE if it not in SMALL and it != SPACE.baseline)
    skipped = replace(trial(SMALL[0], phase=TrialPhase.SKIPPED), is_skipped=True)
    made = [trial(SPACE.baseline), trial(SPACE.baseline, 1), trial(tiny), skipped]
    learned = {**PREDICTIONS, tiny: TOO_SMALL, SMALL[0]: Prediction(fits=True)}

    step = decide("voice", spec(repeats=2), made, 1, plan(predictions=learned))

    assert [(it.candidate, it.repeat, it.is_skipped) for it in step.start] == [(tiny, 1, False)]
    assert {it.candidate for it in step.record} == set(SMALL[1:])


def test_what_skipping_saves_is_told_from_failed_starts_that_were_run() -> None:
    failed = replace(trial(SMALL[0], phase=TrialPhase.FAILED), reason="NoCacheBlocks", seconds=14.0)
    measured = replace(trial(SPACE.baseline), seconds=100.0)
    skipped = [
        replace(trial(it, phase=TrialPhase.SKIPPED), is_skipped=True, reason="NoCacheBlocks") for it in SMALL[1:]
    ]

    assert decide("voice", spec(), [measured, failed, *skipped], 1, plan(0.3)).gpu_seconds_saved == 5 * 14
    # 20 s of warm-up and 60 s of load are not part of a start.
    assert decide("voice", spec(), [measured, *skipped], 1, plan()).gpu_seconds_saved == 5 * 20
    assert decide("voice", spec(), skipped, 1, plan()).gpu_seconds_saved is None


def test_the_rounds_of_the_interference_matrix_are_no_part_of_a_start_either() -> None:
    workload = spec().workload.model_copy(update={"interference": Interference(duration_seconds=5, warmup_seconds=1)})
    asked = spec().model_copy(update={"workload": workload})
    measured = replace(trial(SPACE.baseline), seconds=100.0)
    skipped = [replace(trial(SMALL[0], phase=TrialPhase.SKIPPED), is_skipped=True, reason="NoCacheBlocks")]

    # Two services, each alone for 6 s.
    assert decide("voice", asked, [measured, *skipped], 1, plan()).gpu_seconds_saved == 20 - 12


def test_the_planners_errors_are_counted() -> None:
    tiny = next(it for it in SPACE if it not in SMALL and it != SPACE.baseline)
    trials = [
        replace(trial(SPACE.baseline), prediction=PREDICTIONS[SPACE.baseline]),
        replace(trial(tiny, phase=TrialPhase.FAILED), prediction=PREDICTIONS[tiny], reason="CudaOutOfMemory"),
        replace(trial(SMALL[0]), prediction=TOO_SMALL),
        replace(trial(SMALL[1], phase=TrialPhase.FAILED), prediction=TOO_SMALL, reason="NoCacheBlocks"),
    ]

    counts = decide("voice", spec(), trials, 1, plan(1)).counts

    assert (counts.wrong_fits, counts.wrong_does_not_fit) == (1, 1)


@given(
    repeats=st.integers(1, 3),
    max_trials=st.integers(1, 20),
    cards=st.integers(1, 4),
    ends=st.lists(
        st.sampled_from([TrialPhase.SUCCEEDED, TrialPhase.FAILED, TrialPhase.INVALID]), min_size=15, max_size=15
    ),
)
def test_however_trials_end_an_experiment_ends_and_repeats_nothing(
    repeats: int, max_trials: int, cards: int, ends: list[TrialPhase]
) -> None:
    experiment = spec(repeats, max_trials)
    step, trials = run(experiment, dict(zip(SPACE, ends, strict=True)), cards)

    assert len(trials) == len({(it.candidate, it.repeat) for it in trials})
    assert len({it.candidate for it in trials}) <= max_trials
    assert (step.winner is None) == (step.reason != "Winner")
    if step.winner is not None:
        assert any(it.candidate == SPACE.baseline and it.fitness for it in trials)


def test_an_invalid_repeat_says_nothing_and_is_run_again() -> None:
    invalid = trial(SPACE.baseline, 0, TrialPhase.INVALID)

    (again,) = decide("voice", spec(), [invalid], 1).start
    assert (again.candidate, again.repeat) == (SPACE.baseline, 1)

    measured = [invalid, trial(SPACE.baseline, 1)]
    assert all(it.candidate != SPACE.baseline for it in decide("voice", spec(), measured, 1).start)


def test_a_candidate_that_is_never_measured_is_given_up_with_its_last_words() -> None:
    trials = [
        replace(trial(SPACE.baseline, it, TrialPhase.INVALID), reason="NotDrained", message="x") for it in range(3)
    ]

    step = decide("voice", spec(), trials, 1)

    assert (step.phase, step.reason) == (ExperimentPhase.FAILED, "BaselineFailed")
    assert step.message.endswith(f"{trials[2].name}: NotDrained: x")


def test_a_baseline_that_breaks_a_constraint_ends_the_experiment_at_once() -> None:
    step = decide("voice", spec(), [trial(SPACE.baseline, fitness=None)], 1)

    assert (step.phase, step.reason, step.start) == (ExperimentPhase.FAILED, "BaselineFailed", ())
    assert "Feasible" in step.message


SPACE_OF_TWO = (SPACE.baseline, next(it for it in SPACE if it.values["whisperModel"] == "tiny"))


def confirming(slower: float, baseline: float, fresh: int = FRESH) -> list[ObservedTrial]:
    """A search in which tiny looked fine, and its fresh runs."""
    small, tiny = SPACE_OF_TWO
    trials = [trial(it, fitness=0.7 if it == tiny else 0.5) for it in SPACE]
    for repeat in range(1, fresh + 1):
        for candidate, level in ((small, baseline), (tiny, slower)):
            found = replace(trial(candidate, repeat), purpose=Purpose.CONFIRMATION)
            trials.append(replace(found, measurements=measured(level + 10 * repeat)))
    return trials


def only_tiny_looks_better(trials: list[ObservedTrial]) -> list[ObservedTrial]:
    _, tiny = SPACE_OF_TWO
    return [
        replace(it, fitness=0.6 if it.candidate == tiny else 0.5) if it.purpose is Purpose.SEARCH else it
        for it in trials
    ]


def test_the_best_of_the_search_and_the_baseline_take_turns_and_one_waits_for_the_other() -> None:
    small, tiny = SPACE_OF_TWO
    trials = only_tiny_looks_better([trial(it) for it in SPACE])
    order: list[Candidate] = []
    while (step := decide("voice", spec(), trials, 4)).phase is ExperimentPhase.RUNNING:
        (planned,) = step.start
        assert (planned.purpose, step.reason) == (Purpose.CONFIRMATION, "Confirming")
        waiting = replace(trial(planned.candidate, planned.repeat, TrialPhase.STARTING), purpose=planned.purpose)
        assert decide("voice", spec(), [*trials, waiting], 4).start == (), "one at a time, on however many cards"
        order.append(planned.candidate)
        trials.append(
            replace(waiting, phase=TrialPhase.SUCCEEDED, fitness=0.5, measurements=measured(90.0 + len(order)))
        )

    assert order == [small, tiny, tiny, small, small, tiny]


def test_the_same_trials_give_the_same_next_run_so_that_a_killed_operator_repeats_nothing() -> None:
    trials = only_tiny_looks_better(confirming(80, 300, fresh=1))

    first, again = (decide("voice", spec(), seen, 1).start for seen in (trials, trials[::-1]))

    assert first == again
    assert first[0].name not in {it.name for it in trials}


def test_an_invalid_confirming_run_is_made_good_and_a_third_one_leaves_the_question_open() -> None:
    small, _ = SPACE_OF_TWO
    trials = only_tiny_looks_better(confirming(80, 300, fresh=1))
    for repeat in (2, 3):
        trials.append(replace(trial(small, repeat, TrialPhase.INVALID), purpose=Purpose.CONFIRMATION))
    _, planned = decide("voice", spec(), trials, 1).start, decide("voice", spec(), trials, 1)
    assert planned.reason == "Confirming"

    trials.append(replace(trial(small, 4, TrialPhase.INVALID), purpose=Purpose.CONFIRMATION, reason="NotDrained"))
    step = decide("voice", spec(), trials, 1)

    assert (step.reason, step.outcome, step.winner) == ("WithinNoise", Outcome.CANNOT_TELL, None)
    assert "NotDrained" in step.message


@pytest.mark.parametrize(
    ("tiny", "small", "reason", "outcome"),
    [
        (80.0, 300.0, "Winner", Outcome.BETTER),
        (300.0, 80.0, "NotConfirmed", Outcome.NOT_BETTER),
        (300.0, 301.0, "WithinNoise", Outcome.CANNOT_TELL),
    ],
)
def test_what_fresh_runs_say_is_the_verdict_whatever_the_search_saw(
    tiny: float, small: float, reason: str, outcome: Outcome
) -> None:
    step = decide("voice", spec(), only_tiny_looks_better(confirming(tiny, small)), 1)

    assert (step.phase, step.reason, step.outcome) == (ExperimentPhase.SUCCEEDED, reason, outcome)
    assert (step.winner is not None) == (outcome is Outcome.BETTER)
    assert step.verdict is not None
    assert step.verdict.gain is not None
    assert (step.verdict.repeats, step.verdict.baseline_repeats) == (FRESH, FRESH)
    speech = next(it for it in step.verdict.objectives if it.metric == "stt.latency.p95")
    assert speech.change is not None
    assert float(speech.change.lower) <= tiny - small <= float(speech.change.upper)


def test_a_candidate_that_breaks_a_constraint_when_it_is_run_again_is_not_confirmed() -> None:
    trials = only_tiny_looks_better(confirming(80, 300, fresh=1))
    trials[-1] = replace(trials[-1], fitness=None)

    step = decide("voice", spec(), trials, 1)

    assert (step.reason, step.outcome, step.start) == ("NotConfirmed", Outcome.NOT_BETTER, ())
    assert trials[-1].name in step.message


def test_the_baseline_is_run_again_after_so_many_measured_trials() -> None:
    experiment = spec().model_copy(update={"evaluation": Evaluation(repeats=2, confidence="0.6", baseline_every=4)})

    step, trials = run(experiment, {})

    drift = [index for index, it in enumerate(trials) if it.purpose is Purpose.DRIFT]
    assert [it.candidate for it in trials if it.purpose is Purpose.DRIFT] == [SPACE.baseline] * 3
    assert drift == [5, 10, 15]
    assert step.reason == "Winner"


def test_drift_and_noise_of_the_baseline_are_told() -> None:
    def observed(fitnesses: list[float]) -> ExperimentStep:
        trials = only_tiny_looks_better([trial(it) for it in SPACE])
        trials += [
            replace(trial(SPACE.baseline, it, fitness=value), purpose=Purpose.DRIFT, started=100.0 * it)
            for it, value in enumerate(fitnesses, 1)
        ]
        return decide("voice", spec(), trials, 1)

    drifting, steady = observed([0.50, 0.52, 0.54, 0.559]).noise, observed([0.50, 0.52, 0.49, 0.51]).noise

    assert drifting is not None
    assert drifting.drift is not None
    assert float(drifting.drift.lower) > 0
    assert steady is not None
    assert steady.drift is not None
    assert float(steady.drift.lower) < 0 < float(steady.drift.upper)
    assert 0 < float(steady.standard_deviation) < float(drifting.standard_deviation)


def is_tiny(candidate: Candidate) -> bool:
    return candidate.values["whisperModel"] == "tiny"


def on_target(plan: SpacePlan, stands: bool = True) -> tuple[ExperimentStep, list[ObservedTrial], list[PlannedTrial]]:
    """A confirmed winner with two changes, 0.40 and tiny, validated on a copy of what runs in the target."""
    experiment = spec().model_copy(update={"profile_template": voice_experiment().profile_template})
    ground = Ground("voice-staging", "voice-stack-1", plan, ("embeddings",))
    trials = only_tiny_looks_better(confirming(80, 300))
    made: list[PlannedTrial] = []
    for _ in range(50):
        step = decide("voice", experiment, trials, 1, ground=ground)
        if step.phase is not ExperimentPhase.VALIDATING:
            return step, trials, made
        for planned in (*step.start, *step.record):
            assert planned.name not in {it.name for it in trials}, "no repeat is run twice"
            made.append(planned)
            phase = TrialPhase.SUCCEEDED if stands or not is_tiny(planned.candidate) else TrialPhase.FAILED
            ended = TrialPhase.SKIPPED if planned.is_skipped else phase
            found = trial(planned.candidate, planned.repeat, ended, fitness=0.3)
            found = replace(found, purpose=planned.purpose, series=planned.series, is_skipped=planned.is_skipped)
            trials.append(replace(found, is_elsewhere=True, seconds=None if planned.is_skipped else 30.0))
    raise AssertionError("the validation does not end")


def test_on_the_target_every_run_names_its_copy_and_the_profile_names_a_run_there() -> None:
    step, trials, made = on_target(unplanned(SPACE))

    assert {it.stack_ref for it in made} == {"voice-stack-1"}
    there = [it for it in trials if it.is_elsewhere]
    assert step.deployable is not None
    assert is_tiny(step.deployable.candidate)
    assert step.deployable.trial in {it.name for it in there if it.candidate == step.deployable.candidate}
    assert step.gpu_seconds == 30.0 * len(there)


def test_runs_on_the_target_are_no_repeats_of_the_searchs_runs() -> None:
    step, trials, _ = on_target(unplanned(SPACE))
    before = decide("voice", spec(), [it for it in trials if not it.is_elsewhere], 1)

    assert step.noise == before.noise


def test_a_change_that_is_impossible_on_the_target_is_recorded_as_skipped_and_the_other_is_kept() -> None:
    refused = Prediction(fits=False, reason="NoCacheBlocks", message="judge: 0.83 GiB less than the weights")
    fits = Prediction(fits=True)
    plan = survey(SPACE, 0.0, lambda it: refused if it.values["judgeMemory"] == "0.40" else fits)

    step, trials, made = on_target(plan)

    assert [it.candidate.values for it in made if it.is_skipped] == [{"judgeMemory": "0.40", "whisperModel": "small"}]
    assert {it.candidate.values["judgeMemory"] for it in made if not it.is_skipped} == {"0.50"}
    assert (step.reason, step.counts.skipped) == ("PartialWinner", 1)
    assert step.deployable is not None
    assert step.deployable.candidate.values == {"judgeMemory": "0.50", "whisperModel": "tiny"}
    left_out = "judgeMemory=0.40 is left out: NoCacheBlocks: in voice-staging, beside embeddings: judge: 0.83 GiB less"
    assert left_out in step.message
    assert trials[-1].is_elsewhere


def test_a_change_that_fails_on_the_target_makes_no_profile_though_it_was_confirmed_elsewhere() -> None:
    step, _, _ = on_target(unplanned(SPACE), stands=False)

    assert (step.outcome, step.reason, step.deployable) == (Outcome.BETTER, "NoDeployableChange", None)
    assert "in voice-staging, beside embeddings" in step.message
