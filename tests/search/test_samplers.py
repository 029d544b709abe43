"""The contract of `cotune.search.sampler.Sampler`, which every sampler must keep."""

from collections.abc import Sequence

import pytest
from cotune.search.grid import GridSampler
from cotune.search.sampler import Observation, Sampler
from cotune.search.space import Candidate, Space
from hypothesis import given
from hypothesis import strategies as st
from support.resources import voice_experiment

SAMPLERS: tuple[Sampler, ...] = (GridSampler(),)
SPACE = Space(voice_experiment().parameters)


def observations(candidates: Sequence[Candidate]) -> tuple[Observation, ...]:
    return tuple(Observation(it, 0.5) for it in candidates)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_baseline_comes_first(sampler: Sampler) -> None:
    assert sampler.propose(SPACE, (), 1) == (SPACE.baseline,)


@pytest.mark.parametrize("sampler", SAMPLERS)
@given(seen=st.sets(st.sampled_from(list(SPACE))), limit=st.integers(0, 20))
def test_a_proposal_is_new_distinct_within_the_space_and_the_limit(
    sampler: Sampler, seen: set[Candidate], limit: int
) -> None:
    proposed = sampler.propose(SPACE, observations(list(seen)), limit)

    assert len(proposed) <= limit
    assert len(set(proposed)) == len(proposed)
    assert set(proposed) <= set(SPACE)
    assert not set(proposed) & seen


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_restart_between_any_two_trials_changes_nothing(sampler: Sampler) -> None:
    run: list[Candidate] = []
    while proposed := sampler.propose(SPACE, observations(run), 1):
        assert proposed == sampler.propose(SPACE, observations(run), 1)
        run.extend(proposed)

    assert len(run) == len(set(run))


def test_the_grid_runs_every_candidate_once() -> None:
    run: list[Candidate] = []
    while proposed := GridSampler().propose(SPACE, observations(run), 4):
        run.extend(proposed)

    assert len(run) == len(SPACE)
    assert set(run) == set(SPACE)
