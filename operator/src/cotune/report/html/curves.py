"""Lines over one axis: distributions of latencies, and the card's memory over time."""

from collections.abc import Iterable, Sequence

from cotune.measurement.latency import Distribution
from cotune.report.candidates import Role
from cotune.report.card_memory import CardMemory, CardTrace
from cotune.report.html.markup import Markup, joined, tag
from cotune.report.html.plot import Frame, axes, line, picture, stroke
from cotune.report.html.scale import Scale, around
from cotune.report.latencies import LatencyFigure
from cotune.report.units import number, percent, quantity

_FRAME = Frame(top=34.0)
_WIDE = Frame(width=1060.0, height=300.0, left=72.0, right=24.0, top=34.0)
_FINEST = 0.004
"""Of all requests: a step of a distribution that is smaller is not drawn by itself."""


def latency_plot(figure: LatencyFigure) -> Markup:
    """Share of the requests that were answered within a time, on a logarithmic axis: tails are what matters."""
    lows = [it.distribution.steps[0][0] for it in figure.curves]
    highs = [it.distribution.steps[-1][0] for it in figure.curves]
    x = Scale(max(min(lows) * 0.9, 0.001), max(highs) * 1.1, *_FRAME.x, is_logarithmic=True)
    y = Scale(0.0, 1.0, *_FRAME.y)
    p95 = tag("line", x1=_FRAME.x[0], x2=_FRAME.x[1], y1=y(0.95), y2=y(0.95), class_="zero")
    label = tag("text", "p95", x=_FRAME.x[0] + 6, y=y(0.95) + 15, class_="halo")
    drawn = [
        line(_stairs(it.distribution, x, y), f"line {stroke(it.role)}", f"{it.role}, {it.runs} runs")
        for it in figure.curves
    ]
    told = "; ".join(f"{it.role} p95 {quantity(it.distribution.percentiles.p95, 'ms')}" for it in figure.curves)
    return picture(
        _FRAME,
        f"{figure.component}: {figure.quantity}",
        f"Cumulative distribution. {told}.",
        axes(_FRAME, x, y, "milliseconds", "answered within", percent),
        p95,
        label,
        *drawn,
    )


def memory_plot(memory: CardMemory) -> Markup:
    """A line for each run; where the driver said nothing there is a gap."""
    seconds = [at for trace in memory.traces for at, _ in trace.points]
    used = [it for trace in memory.traces for _, it in trace.points if it is not None]
    x = Scale(min(seconds), max(max(seconds), min(seconds) + 1), *_WIDE.x)
    y = around([*used, *([memory.total_mib] if memory.total_mib is not None else [])], *_WIDE.y)
    limit = _limit(memory.total_mib, y) if memory.total_mib is not None else joined()
    lines = [it for trace in _baseline_first(memory.traces) for it in _trace(trace, x, y)]
    told = f"{len(memory.traces)} runs; between {number(min(used))} and {quantity(max(used), 'MiB')} were used."
    return picture(
        _WIDE,
        "Card memory over time",
        told,
        axes(_WIDE, x, y, "seconds of the window", "MiB used"),
        limit,
        *lines,
    )


def _baseline_first(traces: Sequence[CardTrace]) -> Iterable[CardTrace]:
    return sorted(traces, key=lambda it: it.role is not Role.BASELINE)


def _limit(total: float, y: Scale) -> Markup:
    left, right = _WIDE.x
    return joined(
        tag("line", x1=left, x2=right, y1=y(total), y2=y(total), class_="zero"),
        tag(
            "text", f"the card: {quantity(total, 'MiB')}", x=right - 6, y=y(total) - 6, text_anchor="end", class_="halo"
        ),
    )


def _trace(trace: CardTrace, x: Scale, y: Scale) -> Iterable[Markup]:
    stretch: list[tuple[float, float]] = []
    for at, used in (*trace.points, (0.0, None)):
        if used is not None:
            stretch.append((x(at), y(used)))
        elif stretch:
            yield line(stretch, f"line thin {stroke(trace.role)}", f"{trace.role}, {trace.trial}")
            stretch = []


def _stairs(distribution: Distribution, x: Scale, y: Scale) -> "list[tuple[float, float]]":
    """Every step that one could see; the first and the last always."""
    points = [(x(distribution.steps[0][0]), y(0.0))]
    before = 0.0
    for at, share in distribution.steps:
        if share - before >= _FINEST or share == 1.0:
            points += [(x(at), y(before)), (x(at), y(share))]
            before = share
    return points
