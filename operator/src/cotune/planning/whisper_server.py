"""Speech to text with Whisper, as a server of the stack."""

from dataclasses import dataclass

from cotune.planning.cards import Card
from cotune.planning.server import Part, Situation, Start
from cotune.planning.whisper import Backend, Precision, plan_whisper


@dataclass(frozen=True)
class WhisperServer:
    """One server that transcribes one request at a time."""

    component: str
    size: str
    precision: Precision = Precision.FLOAT16
    backend: Backend = Backend.OPENAI
    beams: int | None = None

    def start(self, situation: Situation) -> Start:
        """Predict one start.

        Raises:
            UnknownSizeError: no size has this name.
            UnsupportedPrecisionError: the backend does not have this precision.
        """
        plan = plan_whisper(self.size, situation.card, self.precision, self.backend, self.beams)
        return Start(
            (
                Part(self.component, "Whisper weights", plan.weights),
                Part(self.component, "decoder cache", plan.cache),
                Part(self.component, "working", plan.working),
                Part(self.component, "context", plan.context),
            )
        )

    def appearing(self, card: Card) -> int:
        """All of it: it is loaded in seconds."""
        return self.start(Situation(card)).held
