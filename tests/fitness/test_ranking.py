import pytest
from cotune.fitness.ranking import Result, Verdict, rank
from cotune.search.space import Candidate

BASELINE = Candidate((("size", "small"),))
TINY = Candidate((("size", "tiny"),))
BASE = Candidate((("size", "base"),))


def result(candidate: Candidate, *fitnesses: float, repeats: int | None = None) -> Result:
    return Result(candidate, fitnesses, len(fitnesses) if repeats is None else repeats)


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        ([result(BASELINE, 0.5), result(TINY, 0.6)], Verdict.WINNER),
        ([result(BASELINE, 0.5), result(TINY, 0.4)], Verdict.BASELINE_IS_BEST),
        ([result(BASELINE, 0.5), result(TINY, 0.5)], Verdict.BASELINE_IS_BEST),
        ([result(BASELINE, repeats=1), result(TINY, 0.6)], Verdict.BASELINE_FAILED),
        ([result(TINY, 0.6)], Verdict.BASELINE_FAILED),
        ([result(BASELINE, 0.50, 0.58), result(TINY, 0.57, 0.60)], Verdict.WITHIN_NOISE),
        ([result(BASELINE, 0.50, 0.55), result(TINY, 0.57, 0.60)], Verdict.WINNER),
    ],
)
def test_the_verdict(results: list[Result], verdict: Verdict) -> None:
    ranking = rank(results, BASELINE)

    assert ranking.verdict is verdict
    assert (ranking.winner is not None) == (verdict is Verdict.WINNER)


def test_a_candidate_that_fails_now_and_then_does_not_win() -> None:
    ranking = rank([result(BASELINE, 0.5, 0.5), result(BASE, 0.6, 0.6), result(TINY, 0.9, repeats=2)], BASELINE)

    assert ranking.winner is not None
    assert ranking.winner.candidate == BASE


def test_the_order_does_not_depend_on_the_order_of_arrival() -> None:
    results = [result(BASELINE, 0.5), result(BASE, 0.6), result(TINY, 0.6)]

    assert rank(results, BASELINE).order == rank(results[::-1], BASELINE).order
