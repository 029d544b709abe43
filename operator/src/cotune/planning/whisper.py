"""What a Whisper server holds on the card: weights, the decoder's cache, what it works with, its context.

Dimensions are those of the published models (openai/whisper, `ModelDimensions`; distil-whisper for `distil-`). Two
backends: openai-whisper (torch) and faster-whisper (CTranslate2).
"""

from dataclasses import dataclass
from enum import StrEnum

from cotune.planning.cards import Card
from cotune.planning.sizes import MIB

_FRAMES, _TEXT, _MELS = 1500, 448, 80


class UnknownSizeError(KeyError):
    """There is no such model."""


class UnsupportedPrecisionError(ValueError):
    """The backend does not compute in it."""


class Backend(StrEnum):
    """Which library runs the model."""

    OPENAI = "openai-whisper"
    CTRANSLATE2 = "faster-whisper"


class Precision(StrEnum):
    """How weights are stored and what is computed in; CTranslate2's names (`compute_type`)."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"
    INT8_FLOAT16 = "int8_float16"
    INT8_BFLOAT16 = "int8_bfloat16"
    INT8_FLOAT32 = "int8_float32"

    @property
    def weight_bytes(self) -> int:
        """Of one weight; the scale of each quantised row is too little to count."""
        if self.startswith("int8"):
            return 1
        return 4 if self is Precision.FLOAT32 else 2

    @property
    def cache_bytes(self) -> int:
        """Of one cached value; plain `int8` computes in the type that the model was published in, float16."""
        return 4 if self.endswith("float32") else 2


_OF_TORCH = (Precision.FLOAT16, Precision.FLOAT32)
"""What openai-whisper knows (`fp16`)."""


@dataclass(frozen=True)
class _Working:
    """What a backend takes beside weights, cache and context."""

    fixed: int
    per_width: int
    beams: int
    """Hypotheses of a transcription by default."""
    repeats_sound: bool
    """Whether every hypothesis has its own copy of the keys and values of the sound."""
    loaded_bytes: int = 0
    """Of one weight, all that loading leaves with the process; 0: what the precision says, and no more."""


_WORKING = {
    # `whisper.load_model` (20250625) reads the file, of float16, onto the card, makes the model in float32 beside it,
    # and keeps it so: `fp16` casts each matrix when it is used. The file's share stays with torch's allocator; casts,
    # cache and activations are put there. What the rest is was measured: 224, 219, 347 and 277 MiB on an H100 for
    # tiny.en, base and the dimensions of small and medium (2026-11-28), 222 to 345 on an H200 for tiny.en and base
    # (2026-11-23).
    Backend.OPENAI: _Working(280 * MIB, 0, beams=1, repeats_sound=True, loaded_bytes=4 + 2),
    # Modelled on figures that users published (SYSTRAN/faster-whisper issue 1030, RTX 2080 Ti, beam 5): large-v3 4,521
    # MB in float16 and 2,953 in int8, turbo 2,537 and 1,545.
    Backend.CTRANSLATE2: _Working(0, round(0.5 * MIB), beams=5, repeats_sound=False),
}


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
    "large-v1": Dimensions(1280, 32, 32),
    "large-v2": Dimensions(1280, 32, 32),
    "large-v3": Dimensions(1280, 32, 32, 51_866, 128),
    "large": Dimensions(1280, 32, 32, 51_866, 128),
    "turbo": Dimensions(1280, 32, 4, 51_866, 128),
    "large-v3-turbo": Dimensions(1280, 32, 4, 51_866, 128),
    "distil-small": Dimensions(768, 12, 4),
    "distil-medium": Dimensions(1024, 24, 2),
    "distil-large-v2": Dimensions(1280, 32, 2),
    "distil-large-v3": Dimensions(1280, 32, 2, 51_866, 128),
}


@dataclass(frozen=True)
class WhisperPlan:
    """What the server is predicted to hold; bytes on the card."""

    weights: int
    """In the precision that is computed in: a server of this size holds no less."""
    cache: int
    """Keys and values of the decoder, of one transcription at a time."""
    working: int
    """Activations, libraries' workspaces, and what loading leaves beyond the weights as they are computed in."""
    context: int
    """What the process takes before it has done anything."""

    @property
    def held(self) -> int:
        """In all."""
        return self.weights + self.cache + self.working + self.context


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


def decoder_cache(size: str, precision: Precision, beams: int, repeats_sound: bool) -> int:
    """Bytes of keys and values: of the text for every hypothesis, of the sound once or for every hypothesis.

    Raises:
        UnknownSizeError: no size has this name.
    """
    it = dimensions(size)
    positions = beams * _TEXT + (beams if repeats_sound else 1) * _FRAMES
    return it.decoder_layers * 2 * positions * it.width * precision.cache_bytes


def plan_whisper(
    size: str,
    card: Card,
    precision: Precision = Precision.FLOAT16,
    backend: Backend = Backend.OPENAI,
    beams: int | None = None,
) -> WhisperPlan:
    """Predict one server that transcribes one request at a time.

    Args:
        size: such as `tiny`, `base.en` or `large-v3`.
        card: the card.
        precision: of weights and computation; openai-whisper knows float16 and float32.
        backend: the library.
        beams: hypotheses of a transcription; None: the backend's default.

    Raises:
        UnknownSizeError: no size has this name.
        UnsupportedPrecisionError: the backend does not have this precision.
    """
    if backend is Backend.OPENAI and precision not in _OF_TORCH:
        raise UnsupportedPrecisionError(f"{backend} has {' and '.join(_OF_TORCH)}, not {precision}")
    working = _WORKING[backend]
    hypotheses = working.beams if beams is None else beams
    cache = decoder_cache(size, precision, hypotheses, working.repeats_sound)
    weights = parameters(size) * precision.weight_bytes
    left_by_loading = max(parameters(size) * working.loaded_bytes - weights - cache, 0)
    by_width = dimensions(size).width * working.per_width * precision.cache_bytes // 2
    return WhisperPlan(
        weights=weights,
        cache=cache,
        working=working.fixed + by_width + left_by_loading,
        context=card.context_bytes,
    )
