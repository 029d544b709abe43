"""How long answers took, in full: the distribution of every component's latencies on both sides."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cotune.measurement.contract import ProbeResult
from cotune.measurement.latency import Distribution, LatencyRecorder
from cotune.report.candidates import Role
from cotune.report.raw import RawResultError

_SHOWN = {"latency": "latency, from the due time to the last byte", "firstToken": "time to the first token"}


@dataclass(frozen=True)
class Curve:
    """One side's requests of all of its runs with raw data."""

    role: Role
    runs: int
    distribution: Distribution


@dataclass(frozen=True)
class LatencyFigure:
    """One quantity of one component."""

    component: str
    quantity: str
    curves: tuple[Curve, ...]


def latency_figures(results: Mapping[Role, Sequence[ProbeResult]]) -> tuple[LatencyFigure, ...]:
    """For each component and quantity, as far as there are histograms.

    Raises:
        RawResultError: one of them is none.
    """
    streams = [stream for it in results.values() for result in it for stream in result.streams]
    components = tuple(dict.fromkeys(it.component for it in streams))
    found: list[LatencyFigure] = []
    for component in components:
        for name, quantity in _SHOWN.items():
            curves = tuple(
                Curve(role, len(texts), merged)
                for role, of_role in results.items()
                if (texts := [it for result in of_role if (it := _encoded(result, component, name))])
                and (merged := _merged(component, (text for run in texts for text in run))) is not None
            )
            if curves:
                found.append(LatencyFigure(component, quantity, curves))
    return tuple(found)


def _merged(component: str, encoded: Iterable[str]) -> Distribution | None:
    try:
        return LatencyRecorder.merged(LatencyRecorder.decoded(it) for it in encoded).distribution()
    except ValueError as error:
        raise RawResultError(f"a raw result of {component}: {error}") from error


def _encoded(result: ProbeResult, component: str, name: str) -> tuple[str, ...]:
    return tuple(
        histogram.encoded
        for stream in result.streams
        if stream.component == component
        for histogram in stream.histograms
        if histogram.name == name
    )
