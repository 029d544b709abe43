import pytest
from cotune.fitness.ranking import Result, rank
from cotune.search.space import Candidate

BASELINE = Candidate((("size", "small"),))
TINY = Candidate((("size", "tiny"),))
BASE = Candidate((("size", "base"),))


def result(candidate: Candidate, *fitnesses: float, repeats: int | None = None) -> Result:
    return Result(candidate, fitnesses, len(fitnesses) if repeats is None else repeats)


@pytest.mark.parametrize(
    ("results", "challenger"),
    [
        ([result(BASELINE, 0.5), result(TINY, 0.6)], TINY),
        ([result(BASELINE, 0.5), result(TINY, 0.4)], None),
        ([result(BASELINE, 0.5), result(TINY, 0.5)], None),
        ([result(BASELINE, repeats=1), result(TINY, 0.6)], None),
        ([result(TINY, 0.6)], None),
        ([result(BASELINE, 0.5, 0.5), result(BASE, 0.6, 0.6), result(TINY, 0.9, repeats=2)], BASE),
    ],
)
def test_the_best_feasible_candidate_above_the_baseline_is_worth_confirming(
    results: list[Result], challenger: Candidate | None
) -> None:
    found = rank(results, BASELINE).challenger

    assert (found.candidate if found else None) == challenger


def test_the_order_does_not_depend_on_the_order_of_arrival() -> None:
    results = [result(BASELINE, 0.5), result(BASE, 0.6), result(TINY, 0.6)]

    assert rank(results, BASELINE).order == rank(results[::-1], BASELINE).order
