"""Anything that is neither vLLM nor Whisper: it holds what somebody says, or what a trial has shown."""

from dataclasses import dataclass

from cotune.planning.cards import Card
from cotune.planning.server import Part, Situation, Start


@dataclass(frozen=True)
class DeclaredService:
    """A service that holds so much, all told."""

    component: str
    held: int
    unknown: str = ""
    """Why it may hold more; empty: it does not."""

    def start(self, situation: Situation) -> Start:
        """It starts wherever there is room for it."""
        del situation
        parts = (Part(self.component, "held", self.held),)
        return Start(parts, unknown=(self.unknown,) if self.unknown else ())

    def appearing(self, card: Card) -> int:
        """All of it."""
        del card
        return self.held
