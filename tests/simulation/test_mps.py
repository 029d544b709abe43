"""The card's processing time and memory under MPS, on a clock of the test's own (seconds)."""

import pytest
from cotune_simulation.card.ledger import MemoryLedger, OutOfMemoryError
from cotune_simulation.card.mps import ConcurrentProcessor
from cotune_simulation.card.timeslicing import Job


def unheard(client: int, start: float, end: float) -> None:
    """Nobody asks who was busy."""


def ends(processor: ConcurrentProcessor) -> dict[Job, float]:
    """When each job ends, asked whenever one may have."""
    found: dict[Job, float] = {}
    now = 0.0
    while (end := processor.next_end()) is not None:
        assert end > now, "no progress"
        now = end
        found |= dict.fromkeys(processor.advance(now), now)
    return found


def test_a_client_takes_as_long_beside_one_that_never_pauses_as_alone() -> None:
    processor = ConcurrentProcessor(0.0, unheard)
    processor.submit(0.0, 1, 10.0, 1, 0.0)
    short = processor.submit(0.0, 2, 0.001, 15, 0.0008)

    assert ends(processor)[short] == pytest.approx(15 * 0.001 + 14 * 0.0008)


def test_jobs_of_one_client_run_in_order() -> None:
    processor = ConcurrentProcessor(0.0, unheard)
    first, second = (processor.submit(0.0, 1, 0.01, 1, 0.0) for _ in range(2))

    found = ends(processor)

    assert (found[first], found[second]) == pytest.approx((0.01, 0.02))


def test_it_makes_no_difference_how_late_it_catches_up() -> None:
    late, early = (ConcurrentProcessor(0.0, unheard) for _ in range(2))
    for processor in (late, early):
        for client in (1, 2):
            processor.submit(0.0, client, 0.004, 10, 0.001 * client)
    early.advance(0.0423)

    assert [it.client for it in [*early.advance(0.06)]] == [it.client for it in late.advance(0.06)] == [1, 2]


def test_a_client_that_has_ended_is_forgotten() -> None:
    processor = ConcurrentProcessor(0.0, unheard)
    processor.submit(0.0, 1, 1.0, 1, 0.0)
    processor.remove(1)

    assert processor.next_end() is None


def test_a_client_may_hold_its_share_and_no_more_whatever_is_free() -> None:
    ledger = MemoryLedger(1000, 0, client_limit=250)
    ledger.open(1, pid=11)
    ledger.open(2, pid=12)
    ledger.allocate(1, 200)

    with pytest.raises(OutOfMemoryError) as refused:
        ledger.allocate(1, 51)

    assert (refused.value.free_bytes, refused.value.total_bytes) == (50, 1000)
    assert ledger.allocate(2, 250)
