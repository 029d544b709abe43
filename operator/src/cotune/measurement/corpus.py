"""Speech with known transcripts: what transcriptions are measured with, and against."""

import io
import json
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import RootModel, ValidationError

TRANSCRIPTS = "transcripts.json"


class CorpusError(ValueError):
    """There is no corpus; the message says what is missing."""


@dataclass(frozen=True)
class Clip:
    """One recording."""

    name: str
    """As in `transcripts.json`, folders included: no two clips of a corpus have the same."""
    audio: bytes
    """The WAV file."""
    seconds: float
    transcript: str
    condition: str | None = None
    """Under which it is sent, as the last part of its metric's name; None: the corpus has only one."""


class _Transcripts(RootModel[dict[str, str]]):
    """File name to reference text."""


def read_corpus(folder: Path) -> tuple[Clip, ...]:
    """The clips of a folder with `*.wav` and `transcripts.json`, by name.

    Raises:
        CorpusError: no transcripts, no clips, or a clip that is no WAV file.
    """
    return corpus_of(lambda name: (folder / name).read_bytes(), str(folder))


def corpus_of(read: Callable[[str], bytes], where: str) -> tuple[Clip, ...]:
    """The clips of whatever holds files by name.

    Args:
        read: gives a file's content, or raises `OSError` or `KeyError`.
        where: it begins the messages.

    Raises:
        CorpusError: no transcripts, no clips, or a clip that is no WAV file.
    """
    try:
        transcripts = _Transcripts.model_validate_json(read(TRANSCRIPTS)).root
    except (OSError, KeyError, ValidationError, json.JSONDecodeError) as error:
        raise CorpusError(f"{where}/{TRANSCRIPTS}: {error}") from error
    if not transcripts:
        raise CorpusError(f"{where}/{TRANSCRIPTS} names no clip")
    return tuple(_clip(read, where, name, text) for name, text in sorted(transcripts.items()))


def _clip(read: Callable[[str], bytes], where: str, name: str, transcript: str) -> Clip:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise CorpusError(f"{where}/{TRANSCRIPTS} names a clip outside: {name}")
    try:
        audio = read(name)
        with wave.open(io.BytesIO(audio)) as recording:
            seconds = recording.getnframes() / recording.getframerate()
    except (OSError, KeyError, EOFError, wave.Error) as error:
        raise CorpusError(f"{where}/{name}: {error}") from error
    return Clip(name, audio, seconds, transcript)
