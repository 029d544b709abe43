from cotune.fitness.judgement import judge
from support.resources import voice_experiment

SPEC = voice_experiment()
BASELINE = {
    "stt.latency.p95": 300.0,
    "judge.latency.p95": 900.0,
    "judge.kvCache.concurrency": 3.41,
    "judge.kvCache.tokens": 6976.0,
    "stability": 1.0,
    "gpu.utilization": 0.7,
    "gpu.oomEvents": 0.0,
    "stt.wer": 0.1,
}


def test_a_trial_within_its_constraints_is_feasible_and_says_what_its_fitness_is_made_of() -> None:
    judgement = judge(SPEC, BASELINE, [BASELINE])

    assert (judgement.feasible, judgement.reason) == (True, "WithinConstraints")
    assert judgement.fitness == "0.550000"  # One half of everything, and the target met in full.
    assert "stt.latency.p95 0.500" in judgement.message


def test_a_broken_constraint_leaves_no_fitness_and_names_the_figure() -> None:
    judgement = judge(SPEC, BASELINE | {"stt.wer": 0.2}, [BASELINE])

    assert (judgement.feasible, judgement.reason, judgement.fitness) == (False, "ConstraintViolated", None)
    assert judgement.message == "stt.wer is 0.2 (max 0.15)"


def test_the_baseline_is_the_mean_of_its_repeats() -> None:
    slower = BASELINE | {"stt.latency.p95": 500.0}

    one, both = judge(SPEC, BASELINE, [BASELINE]), judge(SPEC, BASELINE, [BASELINE, slower])

    assert one.fitness is not None
    assert both.fitness is not None
    assert both.fitness > one.fitness


def test_without_a_baseline_or_a_metric_there_is_no_fitness() -> None:
    incomplete = {key: value for key, value in BASELINE.items() if key != "gpu.utilization"}

    assert judge(SPEC, BASELINE, []).reason == "BaselineFailed"
    assert judge(SPEC, incomplete, [BASELINE]).reason == "MetricMissing"
    assert judge(SPEC, BASELINE, [BASELINE, incomplete]).reason == "MetricMissing"
