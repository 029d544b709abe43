"""A whole stack on one card: every service in its order of start, each finding what the ones before it have left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cotune.planning.cards import Card
from cotune.planning.model_config import ModelConfig
from cotune.planning.sizes import gib
from cotune.planning.vllm import Refusal, VllmPlan, VllmSettings, plan_vllm
from cotune.planning.whisper import WhisperPlan, plan_whisper


@dataclass(frozen=True)
class VllmServer:
    """A language model under vLLM."""

    component: str
    config: ModelConfig
    settings: VllmSettings
    offset: int = 0
    """Learned from earlier starts, in bytes."""


@dataclass(frozen=True)
class WhisperServer:
    """Speech to text."""

    component: str
    size: str
    value_bytes: int = 2


@dataclass(frozen=True)
class DeclaredService:
    """Anything else: so much, because somebody says so or a trial has shown it."""

    component: str
    held: int


Server = VllmServer | WhisperServer | DeclaredService


@dataclass(frozen=True)
class Part:
    """One share of the card."""

    component: str
    what: str
    """`weights`, `activations`, `KV cache`, `working`, `context`, ..."""
    size: int


@dataclass(frozen=True)
class StackPlan:
    """What one candidate is predicted to do to the card; bytes."""

    total: int
    parts: tuple[Part, ...]
    """Of the services that start, in their order; together with `free` they are the whole card."""
    free: int
    refused: str | None
    """The first component that does not start; those after it are not planned."""
    refusal: Refusal | None
    message: str
    is_doubtful: bool
    language_models: Mapping[str, VllmPlan]
    """By component, the refused one included."""

    @property
    def fits(self) -> bool:
        """Whether every service starts."""
        return self.refusal is None


def plan_stack(servers: Sequence[Server], card: Card, taken: int = 0) -> StackPlan:
    """Plan one candidate.

    Args:
        servers: the services in the order in which they start.
        card: the card.
        taken: bytes that others hold before the first of them starts.
    """
    parts = [Part("others", "held", taken)] if taken else []
    language_models: dict[str, VllmPlan] = {}
    free, is_doubtful = card.total_bytes - taken, False
    for server in servers:
        refusal, message = None, ""
        match server:
            case VllmServer():
                plan = plan_vllm(server.config, server.settings, card, card.total_bytes - free, server.offset)
                language_models[server.component] = plan
                refusal, message, wanted = plan.refusal, plan.message, _vllm_parts(server.component, plan)
                is_doubtful = is_doubtful or plan.is_doubtful
            case WhisperServer():
                wanted = _whisper_parts(server.component, plan_whisper(server.size, card, server.value_bytes))
            case DeclaredService():
                wanted = (Part(server.component, "held", server.held),)
        size = sum(it.size for it in wanted)
        if refusal is None and size > free:
            refusal = Refusal.CUDA_OUT_OF_MEMORY
            message = f"{gib(size):.2f} GiB are needed, and {gib(free):.2f} GiB are left by those before it"
        if refusal is not None:
            words = f"{server.component}: {message}"
            return StackPlan(
                card.total_bytes, tuple(parts), free, server.component, refusal, words, is_doubtful, language_models
            )
        parts += wanted
        free -= size
    return StackPlan(card.total_bytes, tuple(parts), free, None, None, "", is_doubtful, language_models)


def _vllm_parts(component: str, plan: VllmPlan) -> tuple[Part, ...]:
    return (
        Part(component, "weights", plan.weights),
        Part(component, "activations", plan.activations),
        Part(component, "libraries", plan.non_torch),
        Part(component, "KV cache", plan.kv_cache),
        Part(component, "context and graphs", plan.outside),
    )


def _whisper_parts(component: str, plan: WhisperPlan) -> tuple[Part, ...]:
    return (
        Part(component, "weights", plan.weights),
        Part(component, "working", plan.working),
        Part(component, "context", plan.context),
    )
