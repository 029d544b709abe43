"""Two objectives against each other, the front marked."""

from collections.abc import Callable, Iterator, Sequence

from cotune.api.experiment import Goal, Objective
from cotune.report.candidates import Role
from cotune.report.html.markup import Markup, joined, tag
from cotune.report.html.plot import Frame, axes, key, line, line_sign, picture
from cotune.report.html.scale import around
from cotune.report.pareto import ParetoFront, Point
from cotune.report.units import figure, percent

_FRAME = Frame(width=560.0, height=400.0, top=34.0)
_MOST_LABELS = 8

_Box = tuple[float, float, float, float]
"""Left, top, right and bottom."""


def pareto_plot(front: ParetoFront, side: str) -> Markup:
    """Baseline and challenger, which is called `side`, have shapes of their own; infeasible candidates are hollow."""
    x = around((it.x for it in front.points), *_FRAME.x)
    y = around((it.y for it in front.points), *_FRAME.y)
    places = [(it, (x(it.x), y(it.y))) for it in front.points]
    on_front = [(x(it.x), y(it.y)) for it in front.front]
    is_straight = Goal.TARGET not in {front.x.goal, front.y.goal}
    drawn = [
        axes(_FRAME, x, y, _title(front.x), _title(front.y), _text(front.y), _text(front.x)),
        *([line(on_front, "s-front")] if is_straight and len(on_front) > 1 else []),
        *(_dot(point, place, front) for point, place in places if point.role is Role.OTHER),
        *(_dot(point, place, front) for point, place in places if point.role is not Role.OTHER),
        *_labels(places),
    ]
    description = (
        f"{len(front.points)} measured candidates by {front.x.metric} and {front.y.metric}; "
        f"{len(front.front)} on the front. The table beside it has the figures."
    )
    signs = [
        (tag("circle", cx=13, cy=6, r=5, class_="f-challenger"), side),
        (tag("rect", x=8, y=1, width=10, height=10, class_="f-baseline"), "baseline"),
        (tag("circle", cx=13, cy=6, r=4, class_="f-front"), "on the front"),
        (tag("circle", cx=13, cy=6, r=3.5, class_="f-other"), "other"),
        (tag("circle", cx=13, cy=6, r=3.5, class_="hollow"), "breaks a constraint"),
        (line_sign("s-front"), "front"),
    ]
    return joined(key(signs), picture(_FRAME, "Pareto front", description, *drawn))


def _dot(point: Point, place: tuple[float, float], front: ParetoFront) -> Markup:
    x, y = place
    words = f"{point.name}: {figure(front.x.metric, point.x)}, {figure(front.y.metric, point.y)}, {point.runs} runs"
    match point.role:
        case Role.CHALLENGER:
            shape = tag("circle", cx=x, cy=y, r=7.5, class_="f-challenger")
        case Role.BASELINE:
            shape = tag("rect", x=x - 6.5, y=y - 6.5, width=13.0, height=13.0, class_="f-baseline")
        case Role.OTHER:
            class_ = "hollow" if not point.is_feasible else "f-front" if point.is_on_front else "f-other"
            shape = tag("circle", cx=x, cy=y, r=5.5 if point.is_on_front else 4.5, class_=class_)
    return tag("g", tag("title", words), shape)


def _labels(places: Sequence[tuple[Point, tuple[float, float]]]) -> Iterator[Markup]:
    """Of those that matter, as far as they do not stand on one another; of the two that are compared in any case."""
    order = sorted(places, key=lambda it: (it[0].role is Role.OTHER, not it[0].is_on_front))
    wanted = [it for it in order if it[0].role is not Role.OTHER or it[0].is_on_front][:_MOST_LABELS]
    taken: list[_Box] = [(x - 6, y - 5, x + 6, y + 5) for _, (x, y) in places]
    for point, (x, y) in wanted:
        text = point.label if len(point.label) <= 40 else point.label[:39] + "…"
        spots = [(it, _box(it, text)) for it in _around(x, y)]
        inside = [it for it in spots if _is_inside(it[1])]
        free = [it for it in inside if not any(_overlap(it[1], other) for other in taken)]
        if not free and (point.role is Role.OTHER or not inside):
            continue
        (at_x, at_y, anchor), box = (free or inside)[0]
        taken.append(box)
        class_ = f"halo t-{point.role}" if point.role is not Role.OTHER else "halo"
        yield tag("text", text, x=at_x, y=at_y, text_anchor=anchor, class_=class_)


def _box(spot: tuple[float, float, str], text: str) -> _Box:
    """What a label takes, at so many pixels a letter as wide fonts have."""
    x, y, anchor = spot
    width = 7.2 * len(text)
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    return left, y - 11, left + width, y + 4


def _is_inside(box: _Box) -> bool:
    bottom, top = _FRAME.y
    return box[0] >= _FRAME.left and box[2] <= _FRAME.width and box[1] >= top - 8 and box[3] <= bottom


def _around(x: float, y: float) -> tuple[tuple[float, float, str], ...]:
    """Where a label may stand, the best place first."""
    beside = ((x + 12, y + 4, "start"), (x - 12, y + 4, "end"))
    return (*beside, (x, y - 12, "middle"), (x, y + 22, "middle"), (x + 9, y - 9, "start"), (x + 9, y + 18, "start"))


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _text(objective: Objective) -> Callable[[float], str] | None:
    """How the ticks of shares are written; None: as those of any figure."""
    return percent if _unit(objective) == "%" else None


def _unit(objective: Objective) -> str:
    return figure(objective.metric, 0).removeprefix("0").strip()


def _title(objective: Objective) -> str:
    unit = _unit(objective)
    match objective.goal:
        case Goal.MINIMIZE:
            goal = "lower is better"
        case Goal.MAXIMIZE:
            goal = "higher is better"
        case Goal.TARGET:
            goal = f"target {figure(objective.metric, float(objective.target or 0))}"
    return f"{objective.metric}{f' ({unit})' if unit and unit != '%' else ''}, {goal}"
