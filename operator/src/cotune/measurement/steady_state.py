"""Whether a window was measured in a steady state: the marginal standard error rule (MSER-5).

K. Preston White Jr., "An effective truncation heuristic for bias reduction in simulation output", Simulation 69 (1997).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

_BATCH = 5
_FEWEST_BATCHES = 20


_MATERIAL = 1.5
"""By so much the medians differ at least: noise alone has some truncation that looks best."""
_LATE_SHARE = 0.2
"""The rule looks for a beginning that differs. Read backwards, it finds an end that differs: as much of it counts."""


@dataclass(frozen=True)
class SteadyState:
    """From where on a series of latencies is steady."""

    is_steady: bool
    """False: they rise, fall or jump so late that what comes before is no run-in. The queue grows, or the warm-up was
    too short."""
    skipped: int
    """How many observations at the beginning belong to the run-in."""


def steady_state(latencies: Sequence[float]) -> SteadyState | None:
    """Judge latencies in the order in which their requests were due; None with fewer than 100 of them."""
    batches = [fmean(latencies[it : it + _BATCH]) for it in range(0, len(latencies) - _BATCH + 1, _BATCH)]
    if len(batches) < _FEWEST_BATCHES:
        return None
    run_in, run_out = (_run_in(latencies, it) for it in (_truncation(batches), -_truncation(batches[::-1])))
    return SteadyState(run_in < len(batches) // 2 * _BATCH and run_out < _LATE_SHARE * len(latencies), run_in)


def _run_in(latencies: Sequence[float], batches: int) -> int:
    """How many observations the batches at the beginning (the end, if negative) are; 0 where they hardly differ."""
    cut = batches * _BATCH
    if cut == 0:
        return 0
    outside, inside = (latencies[:cut], latencies[cut:]) if cut > 0 else (latencies[cut:], latencies[:cut])
    smaller, larger = sorted((median(outside), median(inside)))
    return abs(cut) if larger > _MATERIAL * smaller else 0


def _truncation(batches: Sequence[float]) -> int:
    """How many batches at the beginning, up to half of them, to leave out so that the mean of the rest is surest."""
    total, squares, count = 0.0, 0.0, 0
    best, least = 0, math.inf
    for index in range(len(batches) - 1, -1, -1):
        total, squares, count = total + batches[index], squares + batches[index] ** 2, count + 1
        error = max(squares - total * total / count, 0.0) / count**2
        if index <= len(batches) // 2 and error <= least:
            best, least = index, error
    return best
