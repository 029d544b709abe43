"""The card's processing time, on a clock of the test's own (seconds)."""

from itertools import pairwise

import pytest
from cotune_simulation.card.timeslicing import Job, TimeSlicedProcessor
from cotune_simulation.card.utilisation import SAMPLE_SECONDS, UtilisationSampler

SLICE = 0.003


class Clocked:
    """A processor that is asked to catch up whenever a job may have ended."""

    def __init__(self) -> None:
        self.busy: list[tuple[int, float, float]] = []
        self.processor = TimeSlicedProcessor(SLICE, 0.0, self._record)
        self.ends: dict[Job, float] = {}

    def _record(self, client: int, start: float, end: float) -> None:
        self.busy.append((client, start, end))

    def run_until_done(self) -> None:
        now = 0.0
        while (end := self.processor.next_end()) is not None:
            assert end > now, "no progress"
            now = end
            for job in self.processor.advance(now):
                self.ends[job] = now


def test_a_client_alone_takes_as_long_as_its_kernels_and_pauses() -> None:
    card = Clocked()
    job = card.processor.submit(0.0, client=1, kernel_seconds=0.001, launches=15, gap_seconds=0.0008)
    card.run_until_done()
    assert card.ends[job] == pytest.approx(15 * 0.001 + 14 * 0.0008)


def test_two_clients_with_long_kernels_share_evenly() -> None:
    card = Clocked()
    jobs = [card.processor.submit(0.0, client, 0.3, 1, 0.0) for client in (1, 2)]
    card.run_until_done()
    assert [card.ends[job] for job in jobs] == pytest.approx([0.6, 0.6], abs=2 * SLICE)


def test_short_kernels_wait_a_slice_each_beside_a_client_that_never_pauses() -> None:
    card = Clocked()
    card.processor.submit(0.0, 1, 10.0, 1, 0.0)
    short = card.processor.submit(0.0, 2, 0.001, 15, 0.0008)
    card.run_until_done()
    assert card.ends[short] == pytest.approx(15 * (0.001 + SLICE), abs=SLICE)


def test_only_one_client_computes_at_any_moment() -> None:
    card = Clocked()
    for client in (1, 2, 3):
        card.processor.submit(0.0, client, 0.002 * client, 20, 0.001)
    card.run_until_done()
    assert all(end <= start for (_, _, end), (_, start, _) in pairwise(card.busy))


def test_jobs_of_one_client_run_in_order() -> None:
    card = Clocked()
    first = card.processor.submit(0.0, 1, 0.01, 1, 0.0)
    second = card.processor.submit(0.0, 1, 0.01, 1, 0.0)
    card.run_until_done()
    assert (card.ends[first], card.ends[second]) == pytest.approx((0.01, 0.02))


def test_it_makes_no_difference_how_late_it_catches_up() -> None:
    late, early = Clocked().processor, Clocked().processor
    for processor in (late, early):
        for client in (1, 2):
            processor.submit(0.0, client, 0.004, 10, 0.001)
    assert len(early.advance(0.05)) == 0
    early.advance(0.06)
    early_rest = early.next_end()
    late.advance(0.06)
    assert late.next_end() == early_rest


def test_a_client_that_ends_leaves_the_card_to_the_others() -> None:
    card = Clocked()
    card.processor.submit(0.0, 1, 10.0, 1, 0.0)
    other = card.processor.submit(0.0, 2, 0.01, 1, 0.0)
    card.processor.advance(0.001)
    card.processor.remove(1)
    card.run_until_done()
    assert card.ends[other] == pytest.approx(0.011)


def test_utilisation_is_the_busy_share_of_the_last_whole_sample() -> None:
    sampler = UtilisationSampler()
    sampler.add(7, 0.0, SAMPLE_SECONDS / 4)
    sampler.add(8, SAMPLE_SECONDS / 2, SAMPLE_SECONDS * 3 / 4)
    assert sampler.percent(SAMPLE_SECONDS / 2) == 0
    assert sampler.percent(SAMPLE_SECONDS * 1.5) == 50
    assert sampler.percent(SAMPLE_SECONDS * 2.5) == 0
    assert {(sample.pid, sample.percent) for sample in sampler.process_samples(1.0)} == {(7, 25), (8, 25)}


def test_a_stretch_over_several_samples_counts_in_each() -> None:
    sampler = UtilisationSampler()
    sampler.add(7, SAMPLE_SECONDS / 2, SAMPLE_SECONDS * 2.5)
    assert sampler.percent(SAMPLE_SECONDS * 2.6) == 100
    assert [sample.percent for sample in sampler.process_samples(SAMPLE_SECONDS * 3.1)] == [50, 100, 50]
