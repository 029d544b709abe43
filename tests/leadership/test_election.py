"""The election's rules with played clocks: those of the candidates differ, and none of them is the Lease's."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cotune.cluster.election import Seen, Term, Timing, claim, look, released

TIMING = Timing(duration=12, renew_deadline=8, retry=2)
WALL = datetime(2026, 1, 1, tzinfo=UTC)


def held(holder: str, duration: float = 12, transitions: int = 0, renewed: datetime = WALL) -> Term:
    return Term(holder, duration, WALL, renewed, transitions)


@pytest.mark.parametrize(
    ("term", "age", "transitions"),
    [
        pytest.param(None, 0, 0, id="there is no Lease"),
        pytest.param(held(""), 0, 1, id="it was given back"),
        pytest.param(held("other", transitions=4), 12, 5, id="its holder has been silent for its duration"),
        pytest.param(held("mine", transitions=4), 0, 4, id="it is mine already"),
    ],
)
def test_the_lease_is_claimed_when(term: Term | None, age: float, transitions: int) -> None:
    later = WALL + timedelta(hours=1)

    claimed = claim("mine", TIMING, Seen(term, since=100), 100 + age, later)

    assert claimed is not None
    assert (claimed.holder, claimed.duration, claimed.renewed, claimed.transitions) == ("mine", 12, later, transitions)


@pytest.mark.parametrize("wall", [WALL - timedelta(days=1), WALL, WALL + timedelta(days=1)])
def test_another_ones_lease_is_left_alone_whatever_the_time_of_day_is(wall: datetime) -> None:
    assert claim("mine", TIMING, Seen(held("other"), since=100), 111.9, wall) is None


def test_the_holders_duration_counts_and_not_ones_own() -> None:
    seen = Seen(held("other", duration=60), since=0)

    assert claim("mine", TIMING, seen, 59, WALL) is None
    assert claim("mine", TIMING, seen, 60, WALL) is not None


def test_a_lease_is_as_old_as_the_last_change_that_was_seen_of_it() -> None:
    first = look(None, held("other"), 100)
    same = look(first, held("other"), 110)
    renewed = look(same, held("other", renewed=WALL + timedelta(seconds=1)), 111)

    assert (first.since, same.since, renewed.since) == (100, 100, 111)


def test_going_on_leading_keeps_the_beginning_of_the_term() -> None:
    claimed = claim("mine", TIMING, Seen(held("mine"), since=0), 5, WALL + timedelta(seconds=5))

    assert claimed is not None
    assert (claimed.acquired, claimed.renewed) == (WALL, WALL + timedelta(seconds=5))


def test_a_lease_that_was_given_back_is_anybodys_at_once() -> None:
    given_back = released(held("mine", transitions=3), WALL)

    claimed = claim("other", TIMING, Seen(given_back, since=0), 0, WALL)

    assert claimed is not None
    assert claimed.transitions == 4


def test_a_term_says_the_same_after_the_api_server_has_stored_it() -> None:
    term = Term("cotune-abc_1234", 12, WALL, WALL + timedelta(microseconds=1500), 7)

    assert Term.parse(term.spec()) == term
    assert term.spec()["renewTime"] == "2026-01-01T00:00:00.001500Z"


def test_others_never_wait_shorter_than_the_holder_wants() -> None:
    assert held("mine", duration=2.1).spec()["leaseDurationSeconds"] == 3


@pytest.mark.parametrize(
    "spec", [{}, {"holderIdentity": None}, {"holderIdentity": "x", "renewTime": "soon"}, {"leaseDurationSeconds": "x"}]
)
def test_a_lease_that_makes_no_sense_is_nobodys(spec: dict[str, Any]) -> None:
    assert Term.parse(spec).holder == ""


@pytest.mark.parametrize("times", [(8, 8, 2), (12, 3, 2), (12, 8, 0), (2, 8, 1)])
def test_times_that_would_let_two_lead_or_give_no_second_try_are_refused(times: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="the deadline must be shorter than the Lease"):
        Timing(*times)
