"""Prompts of a given length that no prefix cache has seen before, but for the prefix that was asked for."""

import random

_WORDS = (
    *("the", "of", "and", "to", "in", "is", "that", "for", "it", "as", "was", "with", "be", "by", "on", "not", "he"),
    *("his", "but", "at", "are", "this", "have", "from", "or", "had", "an", "they", "which", "one", "you", "were"),
    *("all", "her", "she", "there", "would", "their", "we", "him", "been", "has", "when", "who", "will", "no", "more"),
)


def prompt(tokens: int, seed: int, prefix: str = "") -> str:
    """About so many tokens: common English words are one token each in the usual vocabularies.

    The same seed gives the same prompt; different seeds differ within the first few words, which is less than the
    block of 16 tokens that a prefix cache reuses at least.

    Args:
        tokens: of the whole, at least one of them after the prefix.
        seed: of what follows the prefix.
        prefix: words that the prompts of a stream share.
    """
    shared = prefix.split()
    own = random.Random(seed).choices(_WORDS, k=max(tokens - len(shared), 1))
    return " ".join([*shared, *own])
