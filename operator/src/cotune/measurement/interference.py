"""What the services do to each other: the same load on one of them, on two, and on all, as a matrix of latencies."""

from collections.abc import Iterator, Sequence

from cotune.api.trial import Measurement
from cotune.measurement.contract import InterferenceCell
from cotune.measurement.latency import LatencyRecorder
from cotune.measurement.record import StreamRecord
from cotune.measurement.results import spread_of
from cotune.measurement.stated import measurement


def interference_cell(loaded: Sequence[str], component: str, records: Sequence[StreamRecord]) -> InterferenceCell:
    """One component's latencies, over all of its streams, while `loaded` were loaded."""
    latency = LatencyRecorder.merged(it.latency for it in records).percentiles()
    return InterferenceCell(loaded=tuple(loaded), component=component, latency=spread_of(latency))


def slowdowns(window: Sequence[InterferenceCell], rounds: Sequence[InterferenceCell]) -> Iterator[Measurement]:
    """`<c>.slowdown.p95`: in the window, where all are loaded, over alone; absent where either is not known.

    It rests on as many samples as the smaller of both.

    Args:
        window: the cells of the window.
        rounds: those of the rounds after it.
    """
    alone = {it.component: it.latency for it in rounds if it.loaded == (it.component,)}
    for cell in window:
        one = alone.get(cell.component)
        if cell.latency is not None and one is not None and one.p95 > 0:
            samples = min(cell.latency.samples, one.samples)
            yield measurement(f"{cell.component}.slowdown.p95", cell.latency.p95 / one.p95, samples)
