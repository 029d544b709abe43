"""What starts teach: how far the prediction was off, kept per model, card and server version.

A start says how much KV cache was left. The difference to the prediction is what the formulas miss, and it is the same
for every other start of that model on that card: utilisation and length do not change it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from cotune.planning.cards import Card
from cotune.planning.model_config import ModelConfig
from cotune.planning.vllm import VllmPlan, VllmSettings, plan_vllm


@dataclass(frozen=True)
class Subject:
    """What a calibration holds for."""

    model: str
    card: str
    version: str


@dataclass(frozen=True)
class ObservedStart:
    """One start, as its log tells it."""

    subject: Subject
    settings: VllmSettings
    kv_cache: int
    """Bytes that the log calls available for the KV cache."""


@dataclass(frozen=True)
class Error:
    """A prediction beside what was measured."""

    predicted: int
    measured: int

    @property
    def share(self) -> float:
        """Of what was measured: -0.009 is 0.9 % too little."""
        return (self.predicted - self.measured) / self.measured

    def __str__(self) -> str:
        return f"predicted {self.predicted:,} tokens, measured {self.measured:,}, {self.share:+.1%}"


Offsets = Mapping[Subject, int]
"""Bytes that a start takes beyond the uncalibrated prediction."""


def calibrate(starts: Sequence[ObservedStart], configs: Mapping[str, ModelConfig], card: Card) -> Offsets:
    """The offset of every subject: the median over its starts, so that one odd start does not decide."""
    differences: dict[Subject, list[int]] = {}
    for start in starts:
        predicted = plan_vllm(configs[start.subject.model], start.settings, card).kv_cache
        differences.setdefault(start.subject, []).append(predicted - start.kv_cache)
    return {subject: round(median(found)) for subject, found in differences.items()}


def error(plan: VllmPlan, measured_tokens: int) -> Error:
    """How far a plan's tokens were off."""
    return Error(plan.tokens, measured_tokens)
