"""From figures to pixels, with ticks that people read well."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] onto [start, end]; logarithmic where it says so, and then both bounds are greater than 0."""

    low: float
    high: float
    start: float
    end: float
    is_logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value; one out of bounds stands at the bound."""
        low, high, at = (self._straight(it) for it in (self.low, self.high, min(max(value, self.low), self.high)))
        return self.start + (self.end - self.start) * ((at - low) / (high - low) if high > low else 0.5)

    def ticks(self, most: int = 6) -> tuple[float, ...]:
        """Round values within the bounds, ascending."""
        return _decades(self.low, self.high, most) if self.is_logarithmic else _steps(self.low, self.high, most)

    def text(self, tick: float) -> str:
        """A tick as it is written: all of one axis with as many decimals."""
        ticks = self.ticks()
        gap = min((after - before for before, after in itertools.pairwise(ticks)), default=abs(tick) or 1.0)
        digits = max(0, -math.floor(math.log10(gap * 1.0001)))
        if self.is_logarithmic:
            digits = max(0, -math.floor(math.log10(tick * 1.0001)))
        elif abs(gap * 10**digits - round(gap * 10**digits)) > 1e-6:
            digits += 1
        return f"{tick:,.{digits}f}"

    def _straight(self, value: float) -> float:
        return math.log(value) if self.is_logarithmic else value


def around(values: Iterable[float], start: float, end: float, margin: float = 0.08) -> Scale:
    """A linear scale that has all values in it, and some room; one value alone stands in the middle."""
    found = tuple(values)
    low, high = min(found), max(found)
    room = (high - low) * margin or abs(high) * 0.1 or 1.0
    return Scale(0.0 if 0 <= low < room * 4 else low - room, high + room, start, end)


def _steps(low: float, high: float, most: int) -> tuple[float, ...]:
    if high <= low:
        return (low,)
    rough = (high - low) / most
    size = 10 ** math.floor(math.log10(rough))
    step = next(it * size for it in (1, 2, 2.5, 5, 10) if it * size >= rough)
    first = math.ceil(low / step - 1e-9)
    return tuple(it * step for it in range(first, math.floor(high / step + 1e-9) + 1))


def _decades(low: float, high: float, most: int) -> tuple[float, ...]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in ((1, 2, 5), (1, 3), (1,)):
        found = tuple(it * 10.0**power for power in powers for it in mantissas if low <= it * 10.0**power <= high)
        if 3 <= len(found) <= most:
            return found
    return _steps(low, high, most)
