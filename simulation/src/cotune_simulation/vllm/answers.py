"""Answers to sums: all that this server knows, so that a setting which breaks a model's answers can be simulated.

A prompt that ends with a sum, a difference or a product of two whole numbers is answered with it, and with what stands
for the log-probabilities of its tokens. Every question has its own hardness: a setting that rounds more errs on the
same questions as one that rounds less, and on more.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cotune_simulation.figures import load

_SUM = re.compile(r"(\d{1,9})\s*([-+*])\s*(\d{1,9})(?!.*\d)", re.DOTALL)
_TOKEN = re.compile(r"\s*(?:\w+|[^\w\s])")
_NEARLY_SURE, _LESS_SURE = -0.02, -0.4
"""Natural logarithms of the probability of a token: that of a model that is well, and how far it may lie below."""
_SHIFT = 3.0
"""How far a model that always errs is off, in the same unit."""


@dataclass(frozen=True)
class Token:
    """One token of an answer."""

    text: str
    logprob: float
    instead: tuple[str, float]
    """The likeliest other one."""


def damage(kv_cache_dtype: str, quantization: str | None) -> float:
    """The share of wrong answers that settings of vLLM make; figures/answers.json has the sources."""
    figures = load("answers.json")
    named = ((figures.entry("kvCacheDtypes"), kv_cache_dtype), (figures.entry("quantizations"), quantization))
    return min(sum(shares.number(name) for shares, name in named if name is not None and name in shares), 1.0)


def answer(prompt: str, damage: float) -> Sequence[Token] | None:
    """The answer to the sum at the end of a prompt, the same every time; None: there is no sum.

    Args:
        prompt: the question, or all that a chat has said.
        damage: the share of questions that are answered wrongly.
    """
    if (found := _SUM.search(prompt)) is None:
        return None
    left, sign, right = int(found[1]), found[2], int(found[3])
    true = {"+": left + right, "-": left - right, "*": left * right}[sign]
    hardness = _drawn(found[0], "hardness")
    said = true if hardness >= damage else true + 1 + int(_drawn(found[0], "error") * 9)
    right_tokens, tokens = (_TOKEN.findall(f" The answer is {value}.") for value in (true, said))
    made: list[Token] = []
    for place, text in enumerate(tokens):
        logprob = _NEARLY_SURE + _LESS_SURE * _drawn(found[0], f"token {place}")
        drift = damage * _SHIFT * _drawn(found[0], f"drift {place}")
        other = right_tokens[place] if text != right_tokens[place] else " maybe"
        made.append(Token(text, round(logprob - drift, 6), (other, round(logprob - 2 - drift, 6))))
    return made


def _drawn(question: str, what: str) -> float:
    """A number in [0, 1) that belongs to a question."""
    digest = hashlib.sha256(f"{what}:{''.join(question.split())}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64
