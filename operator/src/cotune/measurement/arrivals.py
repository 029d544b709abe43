"""When requests are sent: schedules that do not wait for answers."""

import random
from collections.abc import Iterator, Sequence

from cotune.api.experiment import Arrivals, ArrivalType
from cotune.measurement.requests import Recorded


def schedule(
    arrivals: Arrivals, duration_seconds: float, seed: int, trace: Sequence[Recorded] = ()
) -> tuple[float, ...]:
    """The times of all requests, in seconds from the start, ascending, each smaller than the duration.

    The same seed gives the same schedule, so that every candidate meets the same load. A closed loop has none.

    Args:
        arrivals: how they are spaced.
        duration_seconds: of this part of the load.
        seed: of what is random in it.
        trace: for `Trace`: what was recorded, replayed to the microsecond.

    Raises:
        ValueError: the type says too little, or its rate is not greater than 0.
    """
    match arrivals.type:
        case ArrivalType.CONSTANT:
            rate = _rate(arrivals)
            times: list[float] = []
            while (due := len(times) / rate) < duration_seconds:
                times.append(due)
            return tuple(times)
        case ArrivalType.POISSON:
            return tuple(_poisson(_rate(arrivals), duration_seconds, seed))
        case ArrivalType.BURST:
            if arrivals.burst_size is None:
                raise ValueError("arrivals of type Burst need burstSize")
            size = arrivals.burst_size
            return tuple(due for due in _poisson(_rate(arrivals) / size, duration_seconds, seed) for _ in range(size))
        case ArrivalType.TRACE:
            return tuple(it.at for it in trace if it.at < duration_seconds)
        case ArrivalType.CLOSED_LOOP:
            return ()


def _poisson(rate: float, duration_seconds: float, seed: int) -> Iterator[float]:
    source = random.Random(seed)
    due = source.expovariate(rate)
    while due < duration_seconds:
        yield due
        due += source.expovariate(rate)


def _rate(arrivals: Arrivals) -> float:
    rate = float(arrivals.rate_per_second or 0)
    if not rate > 0:
        raise ValueError(f"ratePerSecond must be greater than 0, not {arrivals.rate_per_second}")
    return rate
