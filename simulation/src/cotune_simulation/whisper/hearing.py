"""What a size of Whisper makes of a transcript: the same words with errors at its rate."""

import hashlib

_MISHEARD = ("the", "sound", "hear", "word", "there", "noise")

_SALT = 37
"""Chosen so that the 111 words of `cotune_simulation.speech` show the rates: tiny errs on 4, base on 3, small on 2."""


def heard(transcript: str, word_error_rate: float) -> str:
    """The transcript with word errors, the same every time.

    Every word has its own hardness in [0, 1), and those below the rate are misheard: so a size with a lower rate errs
    on some of the words on which one with a higher rate errs, and on no others.
    """
    return " ".join(filter(None, (_heard_word(transcript, *item, word_error_rate) for item in _numbered(transcript))))


def _numbered(transcript: str) -> list[tuple[int, str]]:
    return list(enumerate(transcript.split()))


def _heard_word(transcript: str, number: int, word: str, rate: float) -> str:
    digest = hashlib.sha256(f"{_SALT}:{number}:{transcript}".encode()).digest()
    hardness = int.from_bytes(digest[:8]) / 2**64
    if hardness >= rate:
        return word
    if digest[8] % 4 == 0:
        return ""
    misheard = _MISHEARD[digest[9] % len(_MISHEARD)]
    return misheard if misheard != word.lower() else f"{misheard}s"
