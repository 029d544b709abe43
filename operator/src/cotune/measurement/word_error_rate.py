"""Word error rate over a corpus, after Whisper's normaliser for English: case, marks and spellings do not count."""

from collections.abc import Sequence

import jiwer
from whisper_normalizer.english import EnglishTextNormalizer  # pyright: ignore[reportMissingTypeStubs]

_normalise = EnglishTextNormalizer()


def word_error_rate(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Wrong, missing and added words over the words of all references; None without a word to compare.

    Args:
        pairs: reference and what was heard.
    """
    normal = [(_normalise(reference), _normalise(heard)) for reference, heard in pairs]
    spoken = [(reference, heard) for reference, heard in normal if reference]
    if not spoken:
        return None
    return float(jiwer.wer([reference for reference, _ in spoken], [heard for _, heard in spoken]))
