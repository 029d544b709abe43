"""Parallel coordinates: every candidate through its parameters to its fitness."""

from itertools import pairwise

from cotune.report.candidates import Role, Standing
from cotune.report.html.markup import Markup, joined, tag
from cotune.report.html.plot import Frame, key, line_sign, picture, stroke
from cotune.report.html.scale import Scale
from cotune.report.parallel import Axis, Line, ParallelCoordinates

_FRAME = Frame(width=1060.0, height=400.0, left=90.0, right=120.0, top=40.0, bottom=56.0)
_MOST_TICKS = 12


def parallel_plot(coordinates: ParallelCoordinates, side: str) -> Markup:
    """Candidates without a fitness end below its axis, at `none`: not at zero. The challenger is called `side`."""
    left, right = _FRAME.x
    bottom, top = _FRAME.y
    columns = len(coordinates.axes)
    xs = [left + (right - left) * it / columns for it in range(columns + 1)]
    spread = coordinates.fitness_range or (0.0, 1.0)
    low, high = spread if spread[1] > spread[0] else (spread[0] - 0.01, spread[1] + 0.01)
    fitness = Scale(low, high, bottom, top)

    def pixels(it: Line) -> "list[tuple[float, float]]":
        ys = [bottom + (top - bottom) * place for place in it.places]
        last = fitness(it.fitness) if it.fitness is not None else bottom + 34
        return list(zip(xs, [*ys, last], strict=True))

    def drawn(it: Line) -> Markup:
        words = f"fitness {it.fitness:.3f}" if it.fitness is not None else str(it.standing)
        return _curve(pixels(it), _class(it), f"{it.name}: {words}", _opacity(it, low, high))

    ordered = sorted(
        coordinates.lines, key=lambda it: (it.role is not Role.OTHER, it.fitness is not None, it.fitness or 0)
    )
    content = [
        *(drawn(it) for it in ordered),
        *(_axis(axis, x, bottom, top) for axis, x in zip(coordinates.axes, xs, strict=False)),
        _fitness_axis(fitness, xs[-1], bottom, top),
    ]
    without = sum(it.fitness is None for it in coordinates.lines)
    description = (
        f"{len(coordinates.lines)} candidates over {columns} parameters; {without} of them have no fitness. "
        "The table of trials has the figures."
    )
    signs = [
        (line_sign("s-challenger"), side),
        (line_sign("s-baseline"), "baseline"),
        (line_sign("s-other"), "others, the fitter the darker"),
        (tag("line", x1=1, x2=25, y1=6, y2=6, class_="line thin s-other", stroke_dasharray="2 4"), "no fitness"),
    ]
    plot = tag("div", picture(_FRAME, "Parallel coordinates", description, *content), class_="scroll wide", tabindex=0)
    return joined(key(signs), plot)


def _curve(points: "list[tuple[float, float]]", class_: str, title: str, opacity: float) -> Markup:
    """Bent at the axes, so that the eye follows a line through a value that several share."""
    where = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x1, y1), (x2, y2) in pairwise(points):
        third = (x2 - x1) * 0.4
        where += f"C{x1 + third:.1f} {y1:.1f} {x2 - third:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
    dashed = "2 4" if "none" in class_ else None
    return tag("g", tag("title", title), tag("path", d=where, class_=class_, opacity=opacity, stroke_dasharray=dashed))


def _class(it: Line) -> str:
    if it.role is not Role.OTHER:
        return f"line {stroke(it.role)}"
    return f"line {stroke(it.role)}" + (" thin none" if it.fitness is None else "")


def _opacity(it: Line, low: float, high: float) -> float:
    if it.role is not Role.OTHER:
        return 1.0
    if it.fitness is None:
        return 0.8 if it.standing is not Standing.SKIPPED else 0.6
    return 0.3 + 0.6 * (it.fitness - low) / (high - low)


def _axis(axis: Axis, x: float, bottom: float, top: float) -> Markup:
    stride = -(-len(axis.ticks) // _MOST_TICKS)
    shown = [it for number, it in enumerate(axis.ticks) if number % stride == 0]
    labels = [
        tag("text", _cut(value), x=x - 8, y=bottom + (top - bottom) * place + 4, text_anchor="end", class_="halo")
        for value, place in shown
    ]
    name = tag("text", axis.name, x=x, y=top - 20, text_anchor="middle", class_="strong")
    return joined(tag("line", x1=x, x2=x, y1=bottom, y2=top, class_="zero"), labels, name)


def _fitness_axis(fitness: Scale, x: float, bottom: float, top: float) -> Markup:
    labels = [tag("text", fitness.text(it), x=x + 8, y=fitness(it) + 4, class_="halo") for it in fitness.ticks()]
    return joined(
        tag("line", x1=x, x2=x, y1=bottom, y2=top, class_="zero"),
        labels,
        tag("text", "none", x=x + 8, y=bottom + 38),
        tag("text", "fitness", x=x, y=top - 20, text_anchor="middle", class_="strong"),
    )


def _cut(text: str) -> str:
    return text if len(text) <= 12 else text[:11] + "…"
