"""VOSK first, and Whisper corrects: its text is answered where the two are not alike enough."""

from typing import Any

from cotune_servers.stt.audio import Samples
from cotune_servers.stt.similarity import similarity
from cotune_servers.stt.transcriber import Model
from cotune_servers.stt.vosk_recogniser import Recogniser

VOSK, WHISPER = "vosk", "whisper"


class HybridModel:
    """A model made of two.

    Args:
        recogniser: hears first.
        whisper: hears the same, and is right where they differ much.
        correct_below: the similarity under which its text is taken.
    """

    def __init__(self, recogniser: Recogniser, whisper: Model, correct_below: float) -> None:
        self._recogniser = recogniser
        self._whisper = whisper
        self._correct_below = correct_below

    def transcribe(self, audio: Samples, **options: Any) -> dict[str, Any]:
        """The result's `text`, by which `engine` it is, and the `similarity` of both texts."""
        first = self._recogniser.hear(audio)
        second = str(self._whisper.transcribe(audio, **options)["text"]).strip()
        alike = similarity(first, second)
        is_corrected = alike < self._correct_below
        text, engine = (second, WHISPER) if is_corrected else (first, VOSK)
        return {"text": text, "engine": engine, "similarity": alike}
