"""The simulation's data files: cards, language models and speech models, each figure with its source."""

import json
from importlib import resources
from typing import cast

MIB = 1024**2
GIB = 1024**3


def load(name: str) -> "Entry":
    """The content of the data file `name`, for example `cards.json`."""
    text = resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
    return Entry(json.loads(text))


class Entry:
    """One JSON object of a data file, read by typed accessors.

    :raises KeyError, TypeError: from the accessors, where the data file lacks a figure or has one of another type.
    """

    def __init__(self, values: object) -> None:
        if not isinstance(values, dict):
            raise TypeError(f"expected an object, found {values!r}")
        self._values = cast("dict[str, object]", values)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def names(self) -> list[str]:
        """The keys, without those that document the others."""
        return [key for key in self._values if key not in {"note", "sources"}]

    def entry(self, key: str) -> "Entry":
        """The object under `key`."""
        return Entry(self._values[key])

    def entries(self, key: str) -> "list[Entry]":
        """The list of objects under `key`."""
        values = self._values[key]
        if not isinstance(values, list):
            raise TypeError(f"{key}: expected a list, found {values!r}")
        return [Entry(value) for value in cast("list[object]", values)]

    def text(self, key: str) -> str:
        """The string under `key`."""
        value = self._values[key]
        if not isinstance(value, str):
            raise TypeError(f"{key}: expected a string, found {value!r}")
        return value

    def number(self, key: str) -> float:
        """The number under `key`."""
        value = self._values[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{key}: expected a number, found {value!r}")
        return float(value)

    def integer(self, key: str) -> int:
        """The whole number under `key`."""
        value = self._values[key]
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{key}: expected a whole number, found {value!r}")
        return value
