"""Another order of start: which services come first decides who finds how much of the card free.

What a service holds once it serves is the same in every order. What it needs for a moment while it starts, and what it
compares with the free memory, is not: an order may fail where another fits.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

_ORDERS = 720
"""Orders that are looked at: all of six services that depend on nothing."""


def orders(components: Sequence[str], depends_on: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Every order in which each component comes after those that it depends on.

    The declared order comes first, and those that begin like it before those that do not.

    Args:
        components: in their declared order.
        depends_on: component to those that must be ready before it starts.
    """
    if not components:
        yield ()
    for index, first in enumerate(components):
        if any(it in components for it in depends_on.get(first, ())):
            continue
        rest = [*components[:index], *components[index + 1 :]]
        for order in orders(rest, depends_on):
            yield (first, *order)


def better_order(
    components: Sequence[str], depends_on: Mapping[str, Sequence[str]], fitting: Callable[[tuple[str, ...]], int]
) -> tuple[str, ...] | None:
    """The order in which more fits than in the declared one, the first of the best; None: there is none.

    Args:
        components: in their declared order.
        depends_on: component to those that must be ready before it starts.
        fitting: how many candidates fit in an order.
    """
    declared, *others = islice(orders(components, depends_on), _ORDERS)
    counts = {it: fitting(it) for it in (declared, *others)}
    best = max(counts, key=lambda it: counts[it])
    return best if counts[best] > counts[declared] else None
