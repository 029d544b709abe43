"""When requests are sent: schedules that do not wait for answers."""

import random
from collections.abc import Iterator, Sequence
from itertools import count, islice, repeat, takewhile

from cotune.api.workload import Arrivals, ArrivalType
from cotune.measurement.requests import Phase, Recorded

_SEED_STEP = 10_007


def stream_seed(seed: int, number: int) -> int:
    """The seed of one stream of a workload, by its place there."""
    return seed + _SEED_STEP * number


def due_in_window(arrivals: Arrivals, duration_seconds: float, seed: int, enough: int) -> int | None:
    """How many requests a stream sends in the window, known before anything runs.

    Args:
        arrivals: how they are spaced.
        duration_seconds: of the window.
        seed: the stream's.
        enough: counted no further.

    Returns:
        None: it depends on what the services answer (`ClosedLoop`) or on a file (`Trace`).
    """
    if arrivals.type in {ArrivalType.CLOSED_LOOP, ArrivalType.TRACE}:
        return None
    return sum(1 for _ in islice(_times(arrivals, duration_seconds, seed + Phase.WINDOW, ()), enough))


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
    return tuple(_times(arrivals, duration_seconds, seed, trace))


def _times(arrivals: Arrivals, duration_seconds: float, seed: int, trace: Sequence[Recorded]) -> Iterator[float]:
    match arrivals.type:
        case ArrivalType.CONSTANT:
            rate = _rate(arrivals)
            yield from takewhile(lambda due: due < duration_seconds, (number / rate for number in count()))
        case ArrivalType.POISSON:
            yield from _poisson(_rate(arrivals), duration_seconds, seed)
        case ArrivalType.BURST:
            if arrivals.burst_size is None:
                raise ValueError("arrivals of type Burst need burstSize")
            size = arrivals.burst_size
            for due in _poisson(_rate(arrivals) / size, duration_seconds, seed):
                yield from repeat(due, size)
        case ArrivalType.TRACE:
            yield from (it.at for it in trace if it.at < duration_seconds)
        case ArrivalType.CLOSED_LOOP:
            return


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
