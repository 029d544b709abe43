"""Speech with known transcripts: what transcriptions are measured with, and against."""

import json
import wave
from dataclasses import dataclass
from pathlib import Path

from pydantic import RootModel, ValidationError


class CorpusError(ValueError):
    """The folder is no corpus; the message says what is missing."""


@dataclass(frozen=True)
class Clip:
    """One recording."""

    name: str
    audio: bytes
    """The WAV file."""
    seconds: float
    transcript: str


class _Transcripts(RootModel[dict[str, str]]):
    """File name to reference text."""


def read_corpus(folder: Path) -> tuple[Clip, ...]:
    """The clips of a folder with `*.wav` and `transcripts.json`, by name.

    Raises:
        CorpusError: no transcripts, no clips, or a clip that is no WAV file.
    """
    try:
        transcripts = _Transcripts.model_validate_json((folder / "transcripts.json").read_bytes()).root
    except (OSError, ValidationError, json.JSONDecodeError) as error:
        raise CorpusError(f"{folder}/transcripts.json: {error}") from error
    if not transcripts:
        raise CorpusError(f"{folder}/transcripts.json names no clip")
    return tuple(_clip(folder / name, text) for name, text in sorted(transcripts.items()))


def _clip(path: Path, transcript: str) -> Clip:
    try:
        with wave.open(str(path)) as recording:
            seconds = recording.getnframes() / recording.getframerate()
        return Clip(path.name, path.read_bytes(), seconds, transcript)
    except (OSError, EOFError, wave.Error) as error:
        raise CorpusError(f"{path}: {error}") from error
