"""The space that an experiment spans: every parameter's values, and candidates in it."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property

from cotune.api.experiment import Parameter, Range
from cotune.api.quantities import canonical, digest

_NAME_HEX_DIGITS = 8


@dataclass(frozen=True)
class Candidate:
    """One assignment of all parameters, in the order of the experiment's parameters.

    Two candidates are equal when their values are, whatever their spelling: 0.4 and 0.40 are one candidate.
    """

    assignments: tuple[tuple[str, str], ...]

    @property
    def values(self) -> Mapping[str, str]:
        """Parameter name to value, as the user spelt it."""
        return dict(self.assignments)

    @property
    def digest(self) -> str:
        """The SHA-256 of the canonical assignment in hexadecimal."""
        return digest(self.values)

    def trial_name(self, experiment: str, repeat: int) -> str:
        """The name of the trial that runs this candidate: the same after every restart, so that none is run twice.

        An object's name may have 63 characters; a long experiment's name is cut, the digest tells candidates apart.
        """
        suffix = f"-{self.digest[:_NAME_HEX_DIGITS]}-{repeat}"
        return experiment[: 63 - len(suffix)].rstrip("-.") + suffix

    @cached_property
    def _canonical(self) -> tuple[tuple[str, str], ...]:
        return tuple(sorted((name, canonical(value)) for name, value in self.assignments))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self._canonical == other._canonical

    def __hash__(self) -> int:
        return hash(self._canonical)


@dataclass(frozen=True)
class Space:
    """All candidates of an experiment, or those of them that `mask` leaves."""

    parameters: tuple[Parameter, ...]
    mask: bytes | None = None
    """One byte for each candidate in the order of the whole space: 1 where it belongs here; None: all do."""

    @property
    def baseline(self) -> Candidate:
        """The candidate in use today."""
        return Candidate(tuple((it.name, it.baseline) for it in self.parameters))

    def only(self, mask: bytes) -> "Space":
        """The candidates of the whole space for which the mask has a 1; they keep their order."""
        return replace(self, mask=mask)

    def __len__(self) -> int:
        if self.mask is not None:
            return self.mask.count(1)
        size = 1
        for parameter in self.parameters:
            size *= len(domain(parameter))
        return size

    def __iter__(self) -> Iterator[Candidate]:
        """Every candidate once; the last parameter changes fastest."""
        names = [it.name for it in self.parameters]
        product = itertools.product(*(domain(it) for it in self.parameters))
        for values in product if self.mask is None else itertools.compress(product, self.mask):
            yield Candidate(tuple(zip(names, values, strict=True)))


def domain(parameter: Parameter) -> tuple[str, ...]:
    """The values that a parameter may take, its baseline among them.

    A baseline between two steps of a range belongs to the domain too: it is what runs today, and every gain is stated
    against it.
    """
    if parameter.values is not None:
        return parameter.values
    if parameter.range is None:
        raise ValueError(f"parameter {parameter.name} has neither range nor values")
    steps = _steps(parameter.range)
    if canonical(parameter.baseline) in {canonical(it) for it in steps}:
        return steps
    return tuple(sorted((*steps, parameter.baseline), key=Decimal))


def _steps(span: Range) -> tuple[str, ...]:
    """Exact decimal steps: no 0.45000000000000001, and a `max` on the grid is always part of it."""
    low, high, step = Decimal(span.min), Decimal(span.max), Decimal(span.step)
    if step <= 0:
        raise ValueError(f"step {span.step} is not greater than 0")
    count = int((high - low) / step)
    return tuple(str(low + step * index) for index in range(count + 1))
