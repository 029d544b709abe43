"""The binary format in which CTranslate2 keeps a model's variables (`model.bin`, versions 3 and later).

Source: `ModelSpec._serialize` of CTranslate2's Python converter. All numbers are little-endian.
"""

import struct
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

Variables: TypeAlias = dict[str, NDArray[Any]]
"""Name, such as `encoder/layer_0/ffn/linear_0/weight`, to value."""

_TYPES: "tuple[type[np.generic], ...]" = (np.float32, np.int8, np.int16, np.int32, np.float16)
_OLDEST_VERSION = 3


class FormatError(ValueError):
    """The bytes are no such file."""


@dataclass
class _Reader:
    data: bytes
    position: int = field(default=0)

    def number(self, kind: str) -> int:
        (value,) = struct.unpack_from(f"<{kind}", self.data, self.position)
        self.position += struct.calcsize(kind)
        return cast("int", value)

    def text(self) -> str:
        return self.take(self.number("H")).rstrip(b"\0").decode()

    def take(self, length: int) -> bytes:
        end = self.position + length
        if end > len(self.data):
            raise FormatError(f"{end} bytes are named, {len(self.data)} are there")
        taken, self.position = self.data[self.position : end], end
        return taken


def read_variables(data: bytes) -> Variables:
    """All variables of a model, aliases included.

    Raises:
        FormatError: the bytes are cut, or of a version or type that is not known here.
    """
    reader = _Reader(data)
    try:
        return _read(reader)
    except (struct.error, UnicodeDecodeError) as error:
        raise FormatError(f"no CTranslate2 model: {error} at byte {reader.position}") from error


def _read(reader: _Reader) -> Variables:
    if (version := reader.number("I")) < _OLDEST_VERSION:
        raise FormatError(f"version {version} is older than {_OLDEST_VERSION}")
    reader.text()  # The name of the specification, then its revision.
    reader.number("I")
    variables: Variables = {}
    for _ in range(reader.number("I")):
        name = reader.text()
        shape = [reader.number("I") for _ in range(reader.number("B"))]
        number = reader.number("B")
        if number >= len(_TYPES):
            raise FormatError(f"{name} has the unknown type {number}")
        variables[name] = np.frombuffer(reader.take(reader.number("I")), _TYPES[number]).reshape(shape)
    for _ in range(reader.number("I")):
        alias = reader.text()
        variables[alias] = variables[reader.text()]
    return variables
