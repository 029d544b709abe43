"""Bytes in the units that people read."""

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


def gib(size: float) -> float:
    """Bytes as GiB of 1,073,741,824 bytes."""
    return size / GIB
