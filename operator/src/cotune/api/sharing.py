"""How the containers of a node share its card."""

from enum import StrEnum


class Sharing(StrEnum):
    """How the card's device plugin lets containers share it."""

    EXCLUSIVE = "Exclusive"
    TIME_SLICING = "TimeSlicing"
    MPS = "MPS"
