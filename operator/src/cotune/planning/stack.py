"""A whole stack on one card: every service in its order of start, each finding what the ones before it have left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cotune.planning.cards import Card
from cotune.planning.server import Part, PlanningError, Server, Situation, Start
from cotune.planning.sizes import gib
from cotune.planning.vllm import Refusal, VllmPlan

OTHERS = "others"
"""Whoever holds something before the stack starts, as the component of a part."""

NOT_BESIDE: Mapping[str, frozenset[str]] = {}


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
    language_models: Mapping[str, VllmPlan]
    """By component, the refused one included."""
    doubts: tuple[str, ...] = ()
    """Why the plan may be wrong, each with its component."""
    wanted: tuple[Part, ...] = ()
    """What the refused component would have held."""

    @property
    def fits(self) -> bool:
        """Whether every service starts."""
        return self.refusal is None

    @property
    def is_doubtful(self) -> bool:
        """Whether the plan may be wrong."""
        return bool(self.doubts)


def plan_stack(
    servers: Sequence[Server],
    card: Card,
    taken: int = 0,
    leaving: int = 0,
    client_limit: int | None = None,
    beside: Mapping[str, frozenset[str]] = NOT_BESIDE,
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
        beside: component to those that may start at the same time, wherever they stand in the order.

    Raises:
        PlanningError: a server's settings make no sense.
    """
    parts = [Part(OTHERS, "held", taken)] if taken else []
    language_models: dict[str, VllmPlan] = {}
    doubts, unknown = list[str](), list[str]()
    free = card.total_bytes - taken
    for index, server in enumerate(servers):
        mates = beside.get(server.component, frozenset())
        earlier = sum(it.size for it in parts if it.component in mates)
        meanwhile = earlier + sum(_appearing(it, card) for it in servers[index + 1 :] if it.component in mates)
        start = _start(server, Situation(card, card.total_bytes - free - earlier, meanwhile, leaving))
        doubts += [f"{server.component}: {it}" for it in start.doubts]
        unknown += [f"{server.component}: {it}" for it in start.unknown]
        if start.language_model is not None:
            language_models[server.component] = start.language_model
            if meanwhile:
                doubts.append(f"{server.component}: {gib(meanwhile):.2f} GiB may be taken while it measures itself")
            # Once is enough: what was given back is free for whoever comes next.
            parts, free, leaving = _returned(parts, leaving), free + leaving, 0
        refusal, message = _refusal(start, free, client_limit)
        if refusal is not None:
            return StackPlan(
                total=card.total_bytes,
                parts=tuple(parts),
                free=free,
                refused=server.component,
                refusal=refusal,
                message=f"{server.component}: {message}",
                language_models=language_models,
                doubts=tuple(doubts),
                wanted=start.parts,
            )
        parts += start.parts
        free -= start.held
    return StackPlan(
        total=card.total_bytes,
        parts=tuple(parts),
        free=free,
        refused=None,
        refusal=None,
        message="",
        language_models=language_models,
        doubts=(*doubts, *unknown),
    )


def _start(server: Server, situation: Situation) -> Start:
    try:
        return server.start(situation)
    except (ValueError, KeyError) as error:
        raise _named(server, error) from error


def _appearing(server: Server, card: Card) -> int:
    try:
        return server.appearing(card)
    except (ValueError, KeyError) as error:
        raise _named(server, error) from error


def _named(server: Server, error: Exception) -> PlanningError:
    """What a server finds wrong with its settings, with its name."""
    return PlanningError(f"{server.component}: {error.args[0] if error.args else error}")


def _refusal(start: Start, free: int, client_limit: int | None) -> tuple[Refusal | None, str]:
    """The server's own refusal, or what the sum says."""
    held = gib(start.held)
    if start.refusal is not None:
        return start.refusal, start.message
    if client_limit is not None and start.held > client_limit:
        return (
            Refusal.CLIENT_LIMIT,
            f"{held:.2f} GiB are needed, and MPS lets a client have {gib(client_limit):.2f} GiB",
        )
    if start.held > free:
        return Refusal.CUDA_OUT_OF_MEMORY, f"{held:.2f} GiB are needed, and {gib(free):.2f} GiB are left"
    return None, ""


def _returned(parts: Sequence[Part], size: int) -> list[Part]:
    """The parts once others have given so much back."""
    return [Part(it.component, it.what, it.size - size) if it.component == OTHERS else it for it in parts]
