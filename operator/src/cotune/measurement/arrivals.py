"""When requests are sent: schedules that do not wait for answers."""

import random

from cotune.api.experiment import Arrivals, ArrivalType


def schedule(arrivals: Arrivals, duration_seconds: float, seed: int) -> tuple[float, ...]:
    """The times of all requests, in seconds from the start, ascending, each smaller than the duration.

    The same seed gives the same schedule, so that every candidate meets the same load.

    Raises:
        ValueError: the rate is not greater than 0.
    """
    rate = float(arrivals.rate_per_second)
    if not rate > 0:
        raise ValueError(f"ratePerSecond must be greater than 0, not {arrivals.rate_per_second}")
    match arrivals.type:
        case ArrivalType.CONSTANT:
            times: list[float] = []
            while (due := len(times) / rate) < duration_seconds:
                times.append(due)
            return tuple(times)
        case ArrivalType.POISSON:
            source = random.Random(seed)
            times = []
            due = source.expovariate(rate)
            while due < duration_seconds:
                times.append(due)
                due += source.expovariate(rate)
            return tuple(times)
