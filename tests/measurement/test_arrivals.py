import itertools

import pytest
from cotune.api.workload import Arrivals, ArrivalType
from cotune.measurement.arrivals import schedule
from hypothesis import given
from hypothesis import strategies as st


def test_constant_arrivals_are_evenly_spaced_and_end_before_the_end() -> None:
    times = schedule(Arrivals(type=ArrivalType.CONSTANT, rate_per_second="4"), 1.0, seed=1)

    assert times == (0.0, 0.25, 0.5, 0.75)


def test_poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    times = schedule(Arrivals(rate_per_second="50"), 200.0, seed=7)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    variance = sum((gap - mean) ** 2 for gap in gaps) / len(gaps)

    assert len(times) == pytest.approx(10_000, rel=0.05)
    assert variance**0.5 == pytest.approx(mean, rel=0.05)


@given(seed=st.integers(0, 2**32), rate=st.sampled_from(["0.5", "3", "20"]), duration=st.floats(0.0, 20.0))
def test_a_schedule_ascends_stays_within_its_duration_and_repeats(seed: int, rate: str, duration: float) -> None:
    times = schedule(Arrivals(rate_per_second=rate), duration, seed)

    assert list(times) == sorted(times)
    assert all(0 <= time < duration for time in times)
    assert times == schedule(Arrivals(rate_per_second=rate), duration, seed)


def test_another_seed_is_another_schedule() -> None:
    arrivals = Arrivals(rate_per_second="10")

    assert schedule(arrivals, 10.0, seed=1) != schedule(arrivals, 10.0, seed=2)


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        schedule(Arrivals(rate_per_second="0"), 1.0, seed=1)


def test_bursts_come_at_once_at_the_mean_rate_and_their_seed_repeats_them() -> None:
    arrivals = Arrivals(type=ArrivalType.BURST, rate_per_second="50", burst_size=5)
    times = schedule(arrivals, 200.0, seed=7)

    assert len(times) == pytest.approx(10_000, rel=0.07)
    assert all(len(set(times[it : it + 5])) == 1 for it in range(0, len(times), 5))
    assert len(set(times)) == len(times) // 5
    assert times == schedule(arrivals, 200.0, seed=7)
