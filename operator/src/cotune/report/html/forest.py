"""Changes as a forest plot: one row for each objective, all on one scale of ratios."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from cotune.fitness.bootstrap import Interval
from cotune.report.comparison import Direction, Effect
from cotune.report.html.markup import Markup, joined, tag
from cotune.report.html.plot import Frame, picture
from cotune.report.html.scale import Scale
from cotune.report.units import percent, share

_CLASSES = {Direction.BETTER: "better", Direction.WORSE: "worse", Direction.UNCLEAR: "unclear"}
_LEAST_RATIO = 1 / 64
"""A change of −100 % has no place on a scale of ratios: an interval that reaches so far is open to the left."""
_ROW = Frame(width=300.0, height=30.0, left=12.0, right=12.0, top=0.0, bottom=0.0)


@dataclass(frozen=True)
class ForestScale:
    """One scale of ratios for all rows: half and twice the baseline are equally far from it."""

    scale: Scale

    @classmethod
    def of(cls, effects: Iterable[Effect]) -> "ForestScale | None":
        """As wide as the widest interval; None: no effect has one."""
        found = [it.relative for it in effects if it.relative is not None]
        if not found:
            return None
        ratios = [1 + value for it in found for value in (it.lower, it.estimate, it.upper)]
        shown = [it for it in ratios if it >= _LEAST_RATIO] or [_LEAST_RATIO]
        widest = max(max(shown), 1 / min(shown), 1.02)
        widest **= 1.08
        return cls(Scale(1 / widest, widest, *_ROW.x, is_logarithmic=True))

    def axis(self) -> Markup:
        """The head of the column."""
        labels = [tag("text", text, x=self.scale(ratio), y=20, text_anchor="middle") for ratio, text in self._ticks()]
        return picture(_ROW, "Scale of changes", "Relative to the baseline; equal ratios are equally far.", *labels)

    def row(self, effect: Effect, confidence: float) -> Markup | None:
        """The interval and its estimate; None: not known. An end beyond the scale has no mark: it is open."""
        if (relative := effect.relative) is None:
            return None
        class_, middle = _CLASSES[effect.direction], _ROW.height / 2
        low, at, high = (self._place(it) for it in (relative.lower, relative.estimate, relative.upper))
        grid = [
            tag(
                "line", x1=self.scale(it), x2=self.scale(it), y1=0, y2=_ROW.height, class_="zero" if it == 1 else "grid"
            )
            for it, _ in self._ticks()
        ]
        return picture(
            _ROW,
            effect.metric,
            f"{_told(relative, confidence)}: {effect.direction}.",
            joined(grid),
            tag("line", x1=low, x2=max(high, low + 1), y1=middle, y2=middle, class_=class_, stroke_width=3),
            *(
                tag("line", x1=it, x2=it, y1=middle - 5, y2=middle + 5, class_=class_, stroke_width=2)
                for it in ([low] if 1 + relative.lower >= self.scale.low else []) + [high]
            ),
            _mark(effect.direction, at, middle, class_),
        )

    def _place(self, relative: float) -> float:
        return self.scale(max(1 + relative, self.scale.low))

    def _ticks(self) -> tuple[tuple[float, str], ...]:
        widest = self.scale.high
        if widest > 1.9:
            most = min(int(math.log2(widest)), 6)
            stride = 1 if most <= 2 else 2
            powers = [it for it in range(-most, most + 1) if it % stride == 0]
            return tuple((2.0**it, "same" if it == 0 else f"×{2**it}" if it > 0 else f"÷{2**-it}") for it in powers)
        step = next((it for it in (0.5, 0.2, 0.1, 0.05, 0.02) if 1 + it <= widest), 0.01)
        return ((1 - step, share(-step)), (1.0, "same"), (1 + step, share(step)))


def _mark(direction: Direction, x: float, y: float, class_: str) -> Markup:
    """A shape for each direction, so that nobody needs the colour."""
    match direction:
        case Direction.BETTER:
            return tag("circle", cx=x, cy=y, r=5.0, class_=class_)
        case Direction.WORSE:
            return tag("rect", x=x - 4.5, y=y - 4.5, width=9.0, height=9.0, class_=class_)
        case Direction.UNCLEAR:
            return tag("path", d=f"M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6-6z", class_=class_)


def _told(relative: Interval, confidence: float) -> str:
    bounds = f"{percent(confidence)} interval {share(relative.lower)} to {share(relative.upper)}"
    return f"{share(relative.estimate)}, {bounds}"
