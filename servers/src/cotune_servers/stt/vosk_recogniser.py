"""VOSK: a small model on the CPU, which hears at once what Whisper then checks."""

import importlib
import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cotune_servers.stt.audio import SAMPLE_RATE, Samples

_CHUNK = SAMPLE_RATE // 4
"""Samples that are given at once; VOSK looks for the end of a sentence after each."""


class Recogniser(Protocol):
    """What hears first."""

    def hear(self, audio: Samples) -> str:
        """The text, of `Samples` at 16 kHz."""
        ...


class VoskError(Exception):
    """The package or the model is not there."""


class VoskRecogniser:
    """A VOSK model in a folder, such as a volume.

    Raises:
        VoskError: the package `vosk` is not installed, or the folder holds no model.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "am").is_dir() and not (folder / "final.mdl").is_file():
            raise VoskError(f"ASR_VOSK_MODEL: {folder} holds no model of VOSK")
        try:
            # Whoever serves Whisper alone does not need it.
            self._vosk: Any = importlib.import_module("vosk")
        except (ImportError, OSError) as error:
            raise VoskError(f"ASR_MODE=hybrid needs the package vosk: {error}") from error
        self._vosk.SetLogLevel(-1)
        try:
            self._model = self._vosk.Model(str(folder))
        except Exception as error:  # VOSK raises nothing narrower.
            raise VoskError(f"ASR_VOSK_MODEL: {folder}: {error}") from error

    def hear(self, audio: Samples) -> str:
        """The text, of `Samples` at 16 kHz; all sentences of it."""
        recogniser = self._vosk.KaldiRecognizer(self._model, float(SAMPLE_RATE))
        whole = np.clip(np.rint(audio * 32_767), -32_768, 32_767).astype("<i2")
        parts: list[str] = []
        for begin in range(0, len(whole), _CHUNK):
            if recogniser.AcceptWaveform(whole[begin : begin + _CHUNK].tobytes()):
                parts.append(_text(recogniser.Result()))
        parts.append(_text(recogniser.FinalResult()))
        return " ".join(filter(None, parts))


def _text(result: str) -> str:
    return str(json.loads(result).get("text", "")).strip()
