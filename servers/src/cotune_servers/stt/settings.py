"""What the environment says."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_DEVICES = ("cuda", "cpu")
_MODES = ("whisper", "hybrid")


class SettingsError(ValueError):
    """A variable makes no sense; the message names it."""


@dataclass(frozen=True)
class Settings:
    """Everything that can be set, by environment variables, so that an experiment can bind them."""

    size: str
    """`ASR_WHISPER_SIZE`: a checkpoint `<size>.pt` in `ASR_MODELS`."""
    models: Path
    """`ASR_MODELS`: the folder of the checkpoints."""
    device: Literal["cuda", "cpu"]
    """`ASR_DEVICE`. There is no automatic choice: a server that falls back to the CPU in silence looks healthy."""
    language: str
    """`ASR_LANGUAGE`, as Whisper spells it."""
    queue: int
    """`ASR_QUEUE`: so many requests may wait for the one that is being transcribed; more are answered 429."""
    mode: Literal["whisper", "hybrid"]
    """`ASR_MODE`: Whisper alone, or VOSK first and Whisper to correct it."""
    vosk_model: Path
    """`ASR_VOSK_MODEL`: the folder of VOSK's model, for instance a volume."""
    correct_below: float
    """`ASR_CORRECT_BELOW`: Whisper's text is answered where the two are less alike than that."""
    port: int
    """`PORT`."""

    @property
    def checkpoint(self) -> Path:
        """The file of the weights."""
        return self.models / f"{self.size}.pt"


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: a variable has no usable value.
    """
    models = Path(environment.get("ASR_MODELS") or "/models")
    size = environment.get("ASR_WHISPER_SIZE") or "base"
    if not (models / f"{size}.pt").is_file():
        found = ", ".join(sorted(it.stem for it in models.glob("*.pt"))) or "none"
        raise SettingsError(f"ASR_WHISPER_SIZE: no checkpoint of {size!r} in {models}; there are: {found}")
    device = environment.get("ASR_DEVICE") or "cuda"
    if device not in _DEVICES:
        raise SettingsError(f"ASR_DEVICE: {device!r} is none of {', '.join(_DEVICES)}")
    mode = environment.get("ASR_MODE") or "whisper"
    if mode not in _MODES:
        raise SettingsError(f"ASR_MODE: {mode!r} is none of {', '.join(_MODES)}")
    return Settings(
        size=size,
        models=models,
        device=device,
        language=environment.get("ASR_LANGUAGE") or "en",
        queue=_number(environment, "ASR_QUEUE", default=16, low=0, high=10_000),
        mode=mode,
        vosk_model=Path(environment.get("ASR_VOSK_MODEL") or models / "vosk"),
        correct_below=_share(environment, "ASR_CORRECT_BELOW", default=0.75),
        port=_number(environment, "PORT", default=9000, low=1, high=65_535),
    )


def _number(environment: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environment.get(name) or str(default)
    try:
        number = int(text)
    except ValueError:
        raise SettingsError(f"{name}: {text!r} is no whole number") from None
    if not low <= number <= high:
        raise SettingsError(f"{name}: {number} is not within {low} and {high}")
    return number


def _share(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name) or str(default)
    try:
        share = float(text)
    except ValueError:
        raise SettingsError(f"{name}: {text!r} is no number") from None
    if not 0 <= share <= 1:
        raise SettingsError(f"{name}: {text} is not within 0 and 1")
    return share
