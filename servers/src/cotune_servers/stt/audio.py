"""Recordings as Whisper wants them: 16 kHz, one channel, 32-bit floats."""

import io
from typing import TypeAlias, cast

import numpy as np
import soundfile  # pyright: ignore[reportMissingTypeStubs]
import soxr  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
"""Hz; `whisper.audio.SAMPLE_RATE`."""

Samples: TypeAlias = NDArray[np.float32]
"""Shape (samples,), between -1 and 1."""


class AudioError(ValueError):
    """The file is no recording that can be read."""


def decode(file: bytes) -> Samples:
    """The samples of a WAV, FLAC, OGG or MP3 file, channels averaged, at `SAMPLE_RATE`.

    Raises:
        AudioError: libsndfile cannot read it, or it is empty.
    """
    try:
        recording, rate = cast("tuple[Samples, int]", soundfile.read(io.BytesIO(file), dtype="float32", always_2d=True))
    except soundfile.LibsndfileError as error:
        raise AudioError(f"the recording cannot be read: {error}") from error
    if not len(recording):
        raise AudioError("the recording is empty")
    mono: Samples = recording.mean(axis=1, dtype=np.float32)
    return mono if rate == SAMPLE_RATE else cast("Samples", soxr.resample(mono, rate, SAMPLE_RATE))
