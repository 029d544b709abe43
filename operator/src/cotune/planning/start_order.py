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
    components: Sequence[str],
    depends_on: Mapping[str, Sequence[str]],
    fitting: Callable[[tuple[str, ...]], int],
    fitting_now: int,
) -> tuple[str, ...] | None:
    """The order, one after the other, in which more fits than now, the first of the best; None: there is none.

    Args:
        components: in their declared order.
        depends_on: component to those that must be ready before it starts.
        fitting: how many candidates fit where each service waits for the one before it.
        fitting_now: how many fit as `depends_on` starts them, some of them perhaps at the same time.
    """
    counts = {it: fitting(it) for it in islice(orders(components, depends_on), _ORDERS)}
    best = max(counts, key=lambda it: counts[it])
    return best if counts[best] > fitting_now else None


def beside(depends_on: Mapping[str, Sequence[str]]) -> Mapping[str, frozenset[str]]:
    """Component to those that may start at the same time: neither waits for the other, by whatever detour."""
    before = {it: _before(it, depends_on) for it in depends_on}
    return {
        one: frozenset(it for it in depends_on if it != one and it not in before[one] and one not in before[it])
        for one in depends_on
    }


def _before(component: str, depends_on: Mapping[str, Sequence[str]]) -> frozenset[str]:
    direct = depends_on.get(component, ())
    return frozenset(direct).union(*(_before(it, depends_on) for it in direct))
