"""Word error rate over a corpus, after Whisper's normaliser for English: case, marks and spellings do not count."""

from collections.abc import Sequence
from typing import NamedTuple

import jiwer
from whisper_normalizer.english import EnglishTextNormalizer  # pyright: ignore[reportMissingTypeStubs]

_normalise = EnglishTextNormalizer()


class Heard(NamedTuple):
    """One transcription."""

    reference: str
    text: str
    condition: str | None = None
    """Under which the clip was sent, as the last part of the metric's name; None: the corpus has only one."""


def word_error_rate(several: Sequence[Heard]) -> float | None:
    """Wrong, missing and added words over the words of all references; None without a word to compare."""
    normal = [(_normalise(it.reference), _normalise(it.text)) for it in several]
    spoken = [(reference, heard) for reference, heard in normal if reference]
    if not spoken:
        return None
    return float(jiwer.wer([reference for reference, _ in spoken], [heard for _, heard in spoken]))
