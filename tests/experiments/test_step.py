"""An experiment against simulated trials: each pass is given what the ones before it have started."""

from cotune.api.experiment import ExperimentPhase, ExperimentSpec, Search
from cotune.api.trial import TrialPhase
from cotune.experiments.step import ExperimentStep, ObservedTrial, decide
from cotune.search.space import Candidate, Space
from hypothesis import given
from hypothesis import strategies as st
from support.resources import voice_experiment


def spec(repeats: int = 1, max_trials: int = 15) -> ExperimentSpec:
    return voice_experiment().model_copy(update={"search": Search(max_trials=max_trials, repeats=repeats)})


SPACE = Space(spec().parameters)


def trial(
    candidate: Candidate, repeat: int = 0, phase: TrialPhase = TrialPhase.SUCCEEDED, fitness: float | None = 0.5
) -> ObservedTrial:
    measured = fitness if phase is TrialPhase.SUCCEEDED else None
    return ObservedTrial(candidate.trial_name("voice", repeat), candidate, repeat, phase, True, measured)


def run(
    experiment: ExperimentSpec, outcome: dict[Candidate, TrialPhase], cards: int = 1
) -> tuple[ExperimentStep, list[ObservedTrial]]:
    """Until the experiment is over; tiny Whispers are fitter."""
    trials: list[ObservedTrial] = []
    for _ in range(1000):
        step = decide("voice", experiment, trials, cards)
        if step.phase is not ExperimentPhase.RUNNING:
            return step, trials
        assert 0 < len(step.start) <= cards
        for planned in step.start:
            assert planned.name not in {it.name for it in trials}, "no repeat is run twice"
            phase = outcome.get(planned.candidate, TrialPhase.SUCCEEDED)
            fitness = 0.7 if planned.candidate.values["whisperModel"] == "tiny" else 0.5
            trials.append(trial(planned.candidate, planned.repeat, phase, fitness))
    raise AssertionError("the experiment does not end")


def test_the_whole_space_is_tried_and_the_best_candidate_wins() -> None:
    step, trials = run(spec(), {})

    assert len(trials) == len(SPACE) == step.counts.total
    assert (step.phase, step.reason) == (ExperimentPhase.SUCCEEDED, "Winner")
    assert step.winner is not None
    assert step.winner.fitness == "0.700000"
    assert step.winner.baseline_fitness == "0.500000"
    assert "whisperModel=tiny" in step.message


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
    assert len(trials) == 3 * (len(SPACE) - 1) + 1


def test_max_trials_counts_candidates() -> None:
    _, trials = run(spec(repeats=2, max_trials=4), {})

    assert len({it.candidate for it in trials}) == 4
    assert len(trials) == 8


def test_nothing_is_decided_before_every_measured_trial_is_judged() -> None:
    _, trials = run(spec(), {})
    last = trials[-1]
    trials[-1] = ObservedTrial(last.name, last.candidate, 0, TrialPhase.SUCCEEDED, False, None)

    assert decide("voice", spec(), trials, 1).phase is ExperimentPhase.RUNNING


def test_no_gain_is_no_winner() -> None:
    trials = [trial(it, fitness=0.5 if it == SPACE.baseline else 0.4) for it in SPACE]

    step = decide("voice", spec(), trials, 1)

    assert (step.phase, step.reason, step.winner) == (ExperimentPhase.SUCCEEDED, "BaselineIsBest", None)


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
