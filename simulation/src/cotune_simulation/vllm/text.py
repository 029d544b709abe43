"""Tokens of a server that has no tokenizer and no thoughts."""

import re

_TOKEN = re.compile(r"\w+|[^\w\s]")
_WORDS = ["This", "answer", "is", "simulated", ":", "no", "model", "has", "read", "the", "question", "."]


def count_tokens(text: str) -> int:
    """Words and punctuation marks count as one token each; at least one, as for a sequence's begin."""
    return max(1, len(_TOKEN.findall(text)))


def generated_text(first: int, last: int) -> str:
    """The text of the generated tokens number `first` to `last` (from 1, both included)."""
    return "".join(f" {_WORDS[(number - 1) % len(_WORDS)]}" for number in range(first, last + 1))
