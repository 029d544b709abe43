"""Device code inside compiled extensions: what is for which card, and how to leave the rest out.

nvcc puts the code for every architecture into *fat binaries*: a header of 16 bytes (magic, version, size of the header,
size of what follows), then one entry after the other. An entry's header says its kind (1: PTX, 2: machine code), its
own size (offset 4), the size of its payload (offset 8) and its architecture (offset 28). The driver picks an entry by
these headers alone, so that the payload of an entry that this card never runs may be zeros: nothing moves, and zeros
cost nothing once compressed.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_MAGIC = struct.pack("<I", 0xBA55ED50)
_CONTAINER = struct.Struct("<IHHQ")
_ENTRY = struct.Struct("<HHIQ")
_ARCHITECTURE = struct.Struct("<I")
_ARCHITECTURE_AT = 28
_MACHINE_CODE = 2


@dataclass(frozen=True)
class Entry:
    """The code of one architecture; its payload is `start` to `end` in the file."""

    kind: int
    architecture: int
    """90 for sm_90 and sm_90a."""
    start: int
    end: int

    def is_for(self, architecture: int) -> bool:
        """Whether it is machine code of this architecture."""
        return self.kind == _MACHINE_CODE and self.architecture == architecture


def entries(image: bytes | bytearray) -> Iterator[Entry]:
    """Every entry of every fat binary in a shared library, in the order of the file."""
    at = image.find(_MAGIC)
    while at >= 0:
        end = at + 4
        if at + _CONTAINER.size <= len(image):
            _, version, header, size = _CONTAINER.unpack_from(image, at)
            if version == 1 and header == _CONTAINER.size and at + header + size <= len(image):
                end = at + header + size
                yield from _entries(image, at + header, end)
        at = image.find(_MAGIC, end)


def _entries(image: bytes | bytearray, at: int, end: int) -> Iterator[Entry]:
    while at + _ARCHITECTURE_AT + _ARCHITECTURE.size <= end:
        kind, _, header, size = _ENTRY.unpack_from(image, at)
        if header <= _ARCHITECTURE_AT or at + header + size > end:
            raise ValueError(f"no fat binary's entry at byte {at}")
        (architecture,) = _ARCHITECTURE.unpack_from(image, at + _ARCHITECTURE_AT)
        yield Entry(kind, architecture, at + header, at + header + size)
        at += header + size


def only_for(image: bytes, architecture: int) -> bytes | None:
    """The library with zeros for the device code of every other card, and for PTX.

    None when it has device code, and none of it is for this card: such a library is of no use there.
    """
    found = list(entries(image))
    if not found:
        return image
    if not any(it.is_for(architecture) for it in found):
        return None
    pruned = bytearray(image)
    for it in found:
        if not it.is_for(architecture):
            pruned[it.start : it.end] = bytes(it.end - it.start)
    return bytes(pruned)
