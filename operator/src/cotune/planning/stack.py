"""A whole stack on one card: every service in its order of start, each finding what the ones before it have left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cotune.planning.cards import Card
from cotune.planning.model_config import ModelConfig
from cotune.planning.sizes import gib
from cotune.planning.vllm import Refusal, VllmPlan, VllmSettings, plan_vllm
from cotune.planning.whisper import Backend, Precision, WhisperPlan, plan_whisper


@dataclass(frozen=True)
class VllmServer:
    """A language model under vLLM."""

    component: str
    config: ModelConfig
    settings: VllmSettings
    offset: int = 0
    """Learned from earlier starts, in bytes."""
    starts_beside: bool = False
    """It does not wait for the one before it: it may take its memory while a vLLM before it measures itself."""


@dataclass(frozen=True)
class WhisperServer:
    """Speech to text."""

    component: str
    size: str
    precision: Precision = Precision.FLOAT16
    backend: Backend = Backend.OPENAI
    beams: int | None = None
    starts_beside: bool = False


@dataclass(frozen=True)
class DeclaredService:
    """Anything else: so much, because somebody says so or a trial has shown it."""

    component: str
    held: int
    starts_beside: bool = False


OTHERS = "others"
"""Whoever holds something before the stack starts, as the component of a part."""

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
    doubts: tuple[str, ...] = ()
    """Why the plan may be wrong, each with its component."""

    @property
    def fits(self) -> bool:
        """Whether every service starts."""
        return self.refusal is None


def plan_stack(
    servers: Sequence[Server], card: Card, taken: int = 0, leaving: int = 0, client_limit: int | None = None
) -> StackPlan:
    """Plan one candidate.

    A service that starts beside a vLLM may take its memory before, while or after that measures itself, which leaves
    vLLM with a smaller KV cache, or finds the card taken, or does nothing: the plan counts it as taken meanwhile, and
    is doubtful.

    Args:
        servers: the services in the order in which they start.
        card: the card.
        taken: bytes that others hold before the first of them starts.
        leaving: bytes of `taken` that are given back while the first vLLM measures itself, by a trial that is being
            cleared away, say.
        client_limit: bytes that one client may hold under MPS (`Card.client_limit`); None: no limit.
    """
    parts = [Part(OTHERS, "held", taken)] if taken else []
    language_models: dict[str, VllmPlan] = {}
    free, doubts = card.total_bytes - taken, list[str]()
    for index, server in enumerate(servers):
        refusal, message = None, ""
        match server:
            case VllmServer():
                beside = _taken_beside(servers, index, card)
                plan = plan_vllm(
                    server.config,
                    server.settings,
                    card,
                    card.total_bytes - free,
                    server.offset,
                    freed_while_profiling=leaving,
                    taken_while_profiling=beside,
                )
                language_models[server.component] = plan
                refusal, message, wanted = plan.refusal, plan.message, _vllm_parts(server.component, plan, card)
                doubts += [f"{server.component}: {it}" for it in plan.doubts]
                if beside:
                    doubts.append(f"{server.component}: {gib(beside):.2f} GiB may be taken while it measures itself")
                # Once is enough: what was given back is free for whoever comes next.
                parts, free, leaving = _returned(parts, leaving), free + leaving, 0
            case WhisperServer():
                wanted = _whisper_parts(server.component, _plan_whisper(server, card))
            case DeclaredService():
                wanted = (Part(server.component, "held", server.held),)
        size = sum(it.size for it in wanted)
        # The context counts, as it does in what MPS then calls free.
        if refusal is None and client_limit is not None and size > client_limit:
            refusal = Refusal.CLIENT_LIMIT
            message = f"{gib(size):.2f} GiB are needed, and MPS lets a client have {gib(client_limit):.2f} GiB"
        if refusal is None and size > free:
            refusal = Refusal.CUDA_OUT_OF_MEMORY
            message = f"{gib(size):.2f} GiB are needed, and {gib(free):.2f} GiB are left by those before it"
        if refusal is not None:
            words = f"{server.component}: {message}"
            return StackPlan(
                total=card.total_bytes,
                parts=tuple(parts),
                free=free,
                refused=server.component,
                refusal=refusal,
                message=words,
                is_doubtful=bool(doubts),
                language_models=language_models,
                doubts=tuple(doubts),
            )
        parts += wanted
        free -= size
    return StackPlan(
        total=card.total_bytes,
        parts=tuple(parts),
        free=free,
        refused=None,
        refusal=None,
        message="",
        is_doubtful=bool(doubts),
        language_models=language_models,
        doubts=tuple(doubts),
    )


def _taken_beside(servers: Sequence[Server], index: int, card: Card) -> int:
    """What the services that do not wait for this one take: all up to the first that does wait."""
    total = 0
    for server in servers[index + 1 :]:
        if not server.starts_beside:
            break
        match server:
            case VllmServer():
                total += plan_vllm(server.config, server.settings, card).weights + card.context_bytes
            case WhisperServer():
                total += _plan_whisper(server, card).held
            case DeclaredService():
                total += server.held
    return total


def _plan_whisper(server: WhisperServer, card: Card) -> WhisperPlan:
    return plan_whisper(server.size, card, server.precision, server.backend, server.beams)


def _returned(parts: Sequence[Part], size: int) -> list[Part]:
    """The parts once others have given so much back."""
    return [Part(it.component, it.what, it.size - size) if it.component == OTHERS else it for it in parts]


def _vllm_parts(component: str, plan: VllmPlan, card: Card) -> tuple[Part, ...]:
    """What it holds itself: what neighbours took or gave back meanwhile changes its KV cache and is not its own."""
    return (
        Part(component, "weights", plan.weights),
        Part(component, "activations", plan.activations),
        Part(component, "libraries", card.non_torch_bytes),
        Part(component, "KV cache", plan.kv_cache),
        Part(component, "context and graphs", plan.outside + plan.counted_graphs),
    )


def _whisper_parts(component: str, plan: WhisperPlan) -> tuple[Part, ...]:
    return (
        Part(component, "weights", plan.weights),
        Part(component, "decoder cache", plan.cache),
        Part(component, "working", plan.working),
        Part(component, "context", plan.context),
    )
