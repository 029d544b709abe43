from cotune.api.experiment import Bind, Parameter, Range
from cotune.search.space import Candidate, Space, domain
from hypothesis import given
from hypothesis import strategies as st
from support.resources import voice_experiment

BIND = Bind(component="judge", env="JUDGE_MEMORY")


def parameter(low: str, high: str, step: str, baseline: str) -> Parameter:
    return Parameter(name="p", bind=BIND, range=Range(min=low, max=high, step=step), baseline=baseline)


def test_the_story_spans_fifteen_candidates() -> None:
    space = Space(voice_experiment().parameters)

    assert len(space) == 15
    assert len(set(space)) == 15
    assert space.baseline.values == {"judgeMemory": "0.50", "whisperModel": "small"}
    assert space.baseline in set(space)


def test_a_range_is_walked_in_exact_decimal_steps_to_its_end() -> None:
    assert domain(parameter("0.40", "0.60", "0.05", "0.50")) == ("0.40", "0.45", "0.50", "0.55", "0.60")


def test_a_range_ends_before_its_maximum_when_that_is_off_the_grid() -> None:
    assert domain(parameter("0", "1", "0.4", "0")) == ("0.0", "0.4", "0.8")


def test_a_baseline_between_two_steps_is_a_candidate_too() -> None:
    assert domain(parameter("0.4", "0.6", "0.1", "0.45")) == ("0.4", "0.45", "0.5", "0.6")


def test_a_baseline_spelt_otherwise_is_not_a_second_value() -> None:
    assert domain(parameter("0.40", "0.60", "0.10", "0.5")) == ("0.40", "0.50", "0.60")


def test_candidates_are_equal_by_value_not_by_spelling() -> None:
    assert Candidate((("a", "0.40"),)) == Candidate((("a", "0.4"),))
    assert Candidate((("a", "0.40"),)) != Candidate((("a", "0.41"),))


@given(experiment=st.from_regex(r"\A[a-z]([-a-z0-9]{0,80}[a-z0-9])?\Z"), repeat=st.integers(0, 19))
def test_a_trials_name_is_a_label_that_ends_in_digest_and_repeat(experiment: str, repeat: int) -> None:
    candidate = Candidate((("a", "0.40"),))

    name = candidate.trial_name(experiment, repeat)

    assert len(name) <= 63
    assert name.endswith(f"-{candidate.digest[:8]}-{repeat}")
    assert name == Candidate((("a", "0.4"),)).trial_name(experiment, repeat)
