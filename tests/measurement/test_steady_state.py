import random

import pytest
from cotune.measurement.steady_state import SteadyState, steady_state


def noisy(mean: float, count: int, seed: int = 1) -> list[float]:
    source = random.Random(seed)
    return [mean * source.lognormvariate(0.0, 0.3) for _ in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_noise_around_one_level_is_steady(seed: int) -> None:
    found = steady_state(noisy(0.1, 400, seed))

    assert found is not None
    assert found.is_steady


def test_a_slow_beginning_is_told_apart() -> None:
    found = steady_state([*noisy(1.0, 60), *noisy(0.1, 400)])

    assert found == SteadyState(is_steady=True, skipped=60)
    assert steady_state([*noisy(0.1, 400), *noisy(1.0, 120)]) != found


@pytest.mark.parametrize(
    "latencies",
    [
        [0.1 + 0.01 * it + noise for it, noise in enumerate(noisy(0.05, 400))],
        [*noisy(0.1, 300), *noisy(2.0, 100)],
    ],
    ids=["a queue that grows", "a jump late in the window"],
)
def test_what_goes_on_changing_is_not_steady(latencies: list[float]) -> None:
    found = steady_state(latencies)

    assert found is not None
    assert not found.is_steady


def test_of_too_few_nothing_is_said() -> None:
    assert steady_state(noisy(0.1, 99)) is None
    assert steady_state([]) is None
