"""Where records lie: bytes by their digest, behind one small interface, so that a bucket could follow a volume."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


class StoreError(Exception):
    """The store does not do what was asked of it; the message is for a person."""


class NotStoredError(StoreError):
    """Nothing of this digest is there."""


class DamagedError(StoreError):
    """What lies there is not what its name says."""


@dataclass(frozen=True, order=True)
class Entry:
    """Something that is stored."""

    digest: str
    size: int
    """In bytes."""


class Store(Protocol):
    """Keeps bytes by their SHA-256, written as `sha256:` and 64 hexadecimal digits.

    What every store must keep:

    - what `put` has returned for outlives a crash of the process and of the machine;
    - nobody ever reads half of something: it is there as a whole, or not at all;
    - doing anything twice does no harm.

    All calls block, and raise `StoreError` when the store is full, read-only or away.
    """

    def put(self, content: bytes) -> str:
        """Store the bytes unless they are there already; their digest."""
        ...

    def get(self, digest: str) -> bytes:
        """What was stored under this digest.

        Raises:
            NotStoredError: nothing was.
            DamagedError: it has changed since.
        """
        ...

    def list(self) -> Iterable[Entry]:
        """All that is there, by digest."""
        ...

    def delete(self, digest: str) -> None:
        """Take it away; what is not there is no error."""
        ...
