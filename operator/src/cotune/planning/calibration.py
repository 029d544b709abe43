"""What starts teach: how far the prediction was off, kept per model, card and server version.

A start says how much KV cache was left. The difference to the prediction is what the formulas miss, and it is the same
for every other start of that model on that card: utilisation and length do not change it.

The store is the trials themselves: each has its prediction in its spec and what its servers have logged in its status.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from cotune.api.trial import Measurement, ObservedServer, PredictedServer, Prediction, PredictionError
from cotune.planning.cards import Card
from cotune.planning.model_config import ModelConfig
from cotune.planning.sizes import GIB
from cotune.planning.vllm import VllmPlan, VllmSettings, plan_vllm

_LOGGED_GIB_ERROR = round(0.005 * GIB)
"""vLLM logs two decimals."""


@dataclass(frozen=True)
class Subject:
    """What a calibration holds for."""

    model: str
    card: str
    version: str
    """Of the server: its image, as the template names it."""


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
    unit: str = "tokens"

    @property
    def share(self) -> float:
        """Of what was predicted: -0.009 when 0.9 % less was measured; 0 predicted is off by all of it."""
        return (self.measured - self.predicted) / self.predicted if self.predicted else float(self.measured != 0)

    def __str__(self) -> str:
        return f"predicted {self.predicted:,} {self.unit}, measured {self.measured:,}, {100 * self.share:+.1f} %"


Offsets = Mapping[Subject, int]
"""Bytes that a start takes beyond the uncalibrated prediction."""


@dataclass(frozen=True)
class ComparedStart:
    """One start beside the prediction that its trial carries."""

    subject: Subject
    server_version: str
    """As the server's log says it: an image's name may have come to mean another one."""
    missed: int
    """Bytes that it took beyond the uncalibrated prediction."""
    at: datetime
    trial: str


def calibrate(starts: Sequence[ObservedStart], configs: Mapping[str, ModelConfig], card: Card) -> Offsets:
    """The offset of every subject: the median over its starts, so that one odd start does not decide."""
    differences: dict[Subject, list[int]] = {}
    for start in starts:
        predicted = plan_vllm(configs[start.subject.model], start.settings, card).kv_cache
        differences.setdefault(start.subject, []).append(predicted - start.kv_cache)
    return {subject: round(median(found)) for subject, found in differences.items()}


def learn(starts: Iterable[ComparedStart]) -> Offsets:
    """The offset of every subject: the median over the starts of the server version that started last."""
    by_subject: dict[Subject, list[ComparedStart]] = {}
    for start in starts:
        by_subject.setdefault(start.subject, []).append(start)
    offsets: dict[Subject, int] = {}
    for subject, found in by_subject.items():
        newest = max(found, key=lambda it: (it.at, it.trial)).server_version
        offsets[subject] = round(median(it.missed for it in found if it.server_version == newest))
    return offsets


def compared(
    trial: str, prediction: Prediction, servers: Sequence[ObservedServer], at: datetime
) -> Iterator[ComparedStart]:
    """The starts of one trial, each beside its prediction; those whose log has no figure are left out.

    Args:
        trial: its name.
        prediction: what the planner said of it.
        servers: what the logs say.
        at: when it ended.
    """
    predicted = {it.component: it for it in prediction.servers}
    for server in servers:
        said = predicted.get(server.component)
        if said is None:
            continue
        kv_cache = _measured_bytes(said, server)
        if kv_cache is not None:
            missed = said.kv_cache_bytes + said.offset_bytes - kv_cache - _of_compiling(said, server)
            yield ComparedStart(Subject(said.model, said.card, said.image), server.version, missed, at, trial)


def model_digest(config: ModelConfig, card: Card) -> str:
    """Names a model for its calibration; another after any change of its configuration, of the formulas or of the card.

    An offset is what the formulas miss: once they compute otherwise, what was learned about them holds no more.
    """
    plan = plan_vllm(config, VllmSettings(), card)
    figures = (card.total_bytes, plan.budget, plan.weights, plan.activations, plan.non_torch, plan.tokens)
    text = json.dumps([config.model_dump(mode="json"), figures], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def error(plan: VllmPlan, measured_tokens: int) -> Error:
    """How far a plan's tokens were off."""
    return Error(plan.tokens, measured_tokens)


def prediction_errors(prediction: Prediction, measurements: Sequence[Measurement]) -> tuple[PredictionError, ...]:
    """The predicted figures that were measured too: tokens of each KV cache, and what is left of the card."""
    found = {it.metric: it for it in measurements}
    wanted = [(f"{it.component}.kvCache.tokens", it.kv_cache_tokens, "tokens") for it in prediction.servers]
    if prediction.free_mib is not None:
        wanted.append(("gpu.freeMiB", prediction.free_mib, "MiB"))
    return tuple(
        PredictionError(
            metric=metric,
            predicted=str(predicted),
            measured=found[metric].value,
            message=str(Error(predicted, round(float(found[metric].value)), unit)),
        )
        for metric, predicted, unit in wanted
        if metric in found
    )


def _of_compiling(said: PredictedServer, server: ObservedServer) -> int:
    """What a start took beyond the prediction because it compiled, or did not: no error of the formulas."""
    match server.compiled:
        case True:
            return said.if_compiled_bytes
        case False:
            return -said.if_loaded_bytes
        case None:
            return 0


def _measured_bytes(said: PredictedServer, server: ObservedServer) -> int | None:
    """Bytes that were left for the KV cache.

    Tokens are the finer figure: their share of the predicted ones is the bytes' share, to within a block. The log's
    gibibytes bound it, for where tokens cost differently (hybrid models).
    """
    tokens = server.kv_cache_tokens
    by_tokens = said.kv_cache_bytes * tokens // said.kv_cache_tokens if tokens and said.kv_cache_tokens else None
    if server.kv_cache_gib is None:
        return by_tokens
    logged = round(float(server.kv_cache_gib) * GIB)
    if by_tokens is None:
        return logged
    return min(max(by_tokens, logged - _LOGGED_GIB_ERROR), logged + _LOGGED_GIB_ERROR)
