"""What the planner asks of every kind of server: what it will hold on the card, and whether it starts.

Each kind has a module of its own that answers: `vllm_server`, `whisper_server`, `declared_service`.
"""

from dataclasses import dataclass
from typing import Protocol

from cotune.planning.cards import Card
from cotune.planning.vllm import Refusal, VllmPlan


class PlanningError(ValueError):
    """The stack cannot be planned; the message names the component and what is missing."""


@dataclass(frozen=True)
class Part:
    """One share of the card."""

    component: str
    what: str
    """`weights`, `activations`, `KV cache`, `working`, `context`, ..."""
    size: int


@dataclass(frozen=True)
class Situation:
    """The card as a server finds it; bytes."""

    card: Card
    taken: int = 0
    """What others hold when it starts."""
    taken_meanwhile: int = 0
    """What others take while it starts."""
    freed_meanwhile: int = 0
    """What others give back while it starts."""


@dataclass(frozen=True)
class Start:
    """One server's start, as predicted."""

    parts: tuple[Part, ...]
    """What it holds once it serves; where it is refused, what it would have held."""
    refusal: Refusal | None = None
    """Its own: that too little is left for its parts is seen by whoever adds them up."""
    message: str = ""
    doubts: tuple[str, ...] = ()
    """Why the prediction may be wrong, whether it starts or not."""
    unknown: tuple[str, ...] = ()
    """What it may hold beside its parts: that casts doubt on a plan that fits, and never on one that does not."""
    language_model: VllmPlan | None = None
    """Of a server with a KV cache."""

    @property
    def held(self) -> int:
        """All parts together."""
        return sum(it.size for it in self.parts)


class Server(Protocol):
    """One service of the stack; equal ones are predicted alike."""

    @property
    def component(self) -> str:
        """Its name in the stack."""
        ...

    def start(self, situation: Situation) -> Start:
        """Predict one start.

        Raises:
            ValueError, KeyError: its settings make no sense; the message says which.
        """
        ...

    def appearing(self, card: Card) -> int:
        """What it takes at once when it starts, in bytes: what a neighbour that measures itself meanwhile misses."""
        ...
