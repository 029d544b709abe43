"""What a Whisper server holds on the card: weights, what it works with, its context.

Dimensions are those of the published models (openai/whisper, `ModelDimensions`).
"""

from dataclasses import dataclass

from cotune.planning.cards import Card
from cotune.planning.sizes import MIB

_FRAMES, _TEXT, _MELS = 1500, 448, 80
_WORKING_PER_WIDTH = round(1.08 * MIB)
"""Caches, activations and libraries for every unit of width. An empirical law: on an H200 on 2026-11-23, in float16,
without context and weights tiny.en (384) held 366 to 478 MiB, base (512) 496 to 622, large-v3 (1,280) 1,355."""


class UnknownSizeError(KeyError):
    """There is no such model."""


@dataclass(frozen=True)
class Dimensions:
    """Of one size; encoder and decoder have the same width, heads and layers unless said otherwise."""

    width: int
    layers: int
    decoder_layers: int
    vocabulary: int = 51_865
    mels: int = _MELS


SIZES = {
    "tiny": Dimensions(384, 4, 4),
    "base": Dimensions(512, 6, 6),
    "small": Dimensions(768, 12, 12),
    "medium": Dimensions(1024, 24, 24),
    "large": Dimensions(1280, 32, 32),
    "large-v2": Dimensions(1280, 32, 32),
    "large-v3": Dimensions(1280, 32, 32, 51_866, 128),
    "turbo": Dimensions(1280, 32, 4, 51_866, 128),
}


@dataclass(frozen=True)
class WhisperPlan:
    """What the server is predicted to hold; bytes on the card."""

    weights: int
    working: int
    """Caches and activations of one transcription at a time."""
    context: int
    """What the process takes before it has done anything."""

    @property
    def held(self) -> int:
        """In all."""
        return self.weights + self.working + self.context


def dimensions(size: str) -> Dimensions:
    """Of a size; `.en` has a vocabulary of one token less.

    Raises:
        UnknownSizeError: no size has this name.
    """
    try:
        return SIZES[size.removesuffix(".en")]
    except KeyError as error:
        raise UnknownSizeError(f"no Whisper of size {size!r}; known: {', '.join(SIZES)}") from error


def parameters(size: str) -> int:
    """The parameters of a size: tiny has 37 million, large 1,543."""
    it = dimensions(size)
    width, wide = it.width, 4 * it.width
    attention = 4 * width * width + 3 * width
    feed_forward = 2 * width * wide + width + wide
    norm = 2 * width
    encoder = it.layers * (attention + feed_forward + 2 * norm) + 3 * it.mels * width + 3 * width * width + 4 * width
    decoder = it.decoder_layers * (2 * attention + feed_forward + 3 * norm) + norm
    return encoder + _FRAMES * width + decoder + (it.vocabulary + _TEXT) * width


def plan_whisper(size: str, card: Card, value_bytes: int = 2) -> WhisperPlan:
    """Predict one server.

    Args:
        size: such as `tiny`, `base.en` or `large-v3`.
        card: the card.
        value_bytes: of a weight: 2 in float16, 4 where openai-whisper keeps its default, 1 for CTranslate2's int8.

    Raises:
        UnknownSizeError: no size has this name.
    """
    return WhisperPlan(parameters(size) * value_bytes, dimensions(size).width * _WORKING_PER_WIDTH, card.context_bytes)
