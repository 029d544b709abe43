"""Prompts of a given length that no prefix cache has seen before."""

import random

_WORDS = (
    *("the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not", "he"),
    *("his", "but", "at", "are", "this", "have", "from", "or", "had", "an", "they", "which", "one", "you", "were"),
    *("all", "her", "she", "there", "would", "their", "we", "him", "been", "has", "when", "who", "will", "no", "more"),
)


def prompt(tokens: int, seed: int) -> str:
    """About so many tokens: common English words are one token each in the usual vocabularies.

    The same seed gives the same prompt; different seeds differ within the first few words, which is less than the
    block of 16 tokens that a prefix cache reuses at least.
    """
    source = random.Random(seed)
    return " ".join(source.choice(_WORDS) for _ in range(tokens))
