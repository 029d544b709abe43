"""How alike two transcriptions are."""

import difflib
import re
import unicodedata

_MARKS = re.compile(r"[^\w\s]|_")


def similarity(one: str, other: str) -> float:
    """Twice the letters that both have in the same order, over all letters: 1 for the same, 0 for nothing in common.

    Capitals, marks and spaces do not count: VOSK writes none of the first two, and models part words differently.
    Nothing beside nothing is the same.
    """
    first, second = _letters(one), _letters(other)
    return difflib.SequenceMatcher(None, first, second, autojunk=False).ratio()


def _letters(text: str) -> str:
    return "".join(_MARKS.sub("", unicodedata.normalize("NFKC", text)).casefold().split())
