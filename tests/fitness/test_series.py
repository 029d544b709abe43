"""Means of series against what drawing many of them shows."""

import math
import random
from collections.abc import Sequence

import pytest
from cotune.fitness.series import less_mean, less_number, mean


def series(draw: random.Random, count: int, correlation: float, level: float = 0.0) -> Sequence[float]:
    """A process of first order around a level, with a standard deviation of 1."""
    found = [draw.gauss(0, 1)]
    while len(found) < count:
        found.append(correlation * found[-1] + draw.gauss(0, math.sqrt(1 - correlation**2)))
    return [it + level for it in found]


@pytest.mark.parametrize(("correlation", "alarms"), [(0.0, 0.06), (0.5, 0.08), (0.8, 0.11)])
def test_a_series_without_a_difference_is_seldom_called_worse_however_its_samples_hang_together(
    correlation: float, alarms: float
) -> None:
    """One-sided at 0.95, of 40 samples each; counted as independent ones, the last would give 0.3 of false alarms."""
    draw = random.Random(20_261_127)
    worse = 0
    for _ in range(1000):
        after, before = (mean(series(draw, 40, correlation)) for _ in range(2))
        worse += less_mean(after, before).lower(0.95) > 0

    assert worse / 1000 < alarms


def test_a_large_difference_is_found() -> None:
    draw = random.Random(7)

    found = [
        less_mean(mean(series(draw, 40, 0.5, level=2)), mean(series(draw, 40, 0.5))).lower(0.95) > 0 for _ in range(200)
    ]

    assert sum(found) > 190


def test_a_series_that_never_changes_is_known_exactly() -> None:
    held = less_number(mean([0.4] * 5), 0.4)

    assert (held.estimate, held.lower(0.999), held.upper(0.999)) == (0, 0, 0)
    assert less_mean(mean([2.0] * 3), mean([1.0] * 3)).lower(0.999) == 1


def test_a_trend_counts_as_few_samples() -> None:
    rising = mean([float(it) for it in range(50)])

    assert rising.value == 24.5
    assert rising.independent == 2


def test_alternating_samples_count_as_no_more_than_they_are() -> None:
    assert mean([0.0, 1.0] * 10).independent == 20


def test_scaling_turns_a_mean_around() -> None:
    turned = mean([1.0, 2.0, 4.0]).scaled(-2)

    assert turned.value == pytest.approx(-14 / 3)
    assert turned.variance == pytest.approx(4 * mean([1.0, 2.0, 4.0]).variance)


def test_two_series_of_unlike_noise_are_compared_as_welch_does_it() -> None:
    """Variances 0.0132 and 0.1111 of the means make 11.18 degrees of freedom; Student's t there is 1.796 at 0.95."""
    apart = less_mean(mean([0.0, 1.0] * 10), mean([0.0, 2.0] * 5))

    assert (apart.estimate, apart.degrees) == (-0.5, 11)
    assert apart.lower(0.95) == pytest.approx(-1.1331, abs=1e-4)
    assert apart.upper(0.95) == pytest.approx(0.1331, abs=1e-4)


def test_a_single_sample_is_no_series() -> None:
    with pytest.raises(ValueError, match="says nothing of the noise"):
        mean([1.0])
