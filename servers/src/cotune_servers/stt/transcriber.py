"""The model, and the one thread in which it works."""

import asyncio
import importlib
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from cotune_servers.stt.audio import SAMPLE_RATE, Samples

_WARM_UP_SECONDS = (1, 10, 29)
"""Lengths of the clips that are transcribed before the server is ready: the first clip of a new length is slow."""


class Model(Protocol):
    """What of `whisper.Whisper` is used."""

    def transcribe(self, audio: Samples, **options: Any) -> dict[str, Any]:
        """The result's `text`, of `Samples` at 16 kHz; of two models also the `engine` and the `similarity`."""
        ...


@dataclass(frozen=True)
class Transcript:
    """What was heard."""

    text: str
    engine: str | None = None
    """Whose text it is, where several have heard it."""
    similarity: float | None = None
    """Of their texts."""


class BusyError(Exception):
    """More requests wait than may."""

    def __init__(self, present: int, retry_seconds: int) -> None:
        super().__init__(f"{present} requests are in work or waiting")
        self.retry_seconds = retry_seconds
        """When there may be room again."""


class DeviceError(Exception):
    """The device that was asked for is not there."""


def load(checkpoint: Path, device: str) -> Model:
    """A Whisper checkpoint on a device.

    Raises:
        DeviceError: CUDA was asked for, and torch sees none, or the model lies elsewhere all the same.
        torch.OutOfMemoryError: the card has no room for it.
    """
    # Both are only in the server's image.
    torch: Any = importlib.import_module("torch")
    whisper: Any = importlib.import_module("whisper")
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("ASR_DEVICE=cuda, and torch sees no card here: set ASR_DEVICE=cpu where that is intended")
    model: Any = whisper.load_model(str(checkpoint), device=device)
    if model.device.type != device:
        raise DeviceError(f"ASR_DEVICE={device}, and the model lies on {model.device}")
    return cast("Model", model)


class Transcriber:
    """Transcribes one recording at a time; others wait, up to a bound.

    Args:
        model: what transcribes.
        language: as Whisper spells it.
        is_half: half precision, which only a card can.
        queue: how many may wait.
    """

    def __init__(self, model: Model, language: str, is_half: bool, queue: int) -> None:
        self._model = model
        self._options = {"language": language, "fp16": is_half, "temperature": 0.0, "condition_on_previous_text": False}
        self._most = queue + 1
        self._present = 0
        self._seconds = 0.0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="whisper")

    @property
    def present(self) -> int:
        """Requests in work or waiting."""
        return self._present

    async def warm_up(self) -> None:
        """Quiet noise of several lengths, so that the first request finds everything in place."""
        noise = np.random.default_rng(0)
        for seconds in _WARM_UP_SECONDS:
            clip = (noise.standard_normal(seconds * SAMPLE_RATE) * 1e-3).astype(np.float32)
            await self._in_thread(lambda clip=clip: self._model.transcribe(clip, **self._options))

    async def transcribe(self, audio: Samples) -> Transcript:
        """What is heard in one recording.

        Raises:
            BusyError: too many wait already.
        """
        if self._present >= self._most:
            raise BusyError(self._present, max(math.ceil(self._seconds), 1))
        self._present += 1
        try:
            result = await self._in_thread(lambda: self._timed(audio))
        finally:
            self._present -= 1
        return Transcript(str(result["text"]).strip(), result.get("engine"), result.get("similarity"))

    def close(self) -> None:
        """Wait for the recording in work, and end the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _timed(self, audio: Samples) -> "dict[str, Any]":
        began = time.monotonic()
        try:
            return self._model.transcribe(audio, **self._options)
        finally:
            self._seconds = time.monotonic() - began

    async def _in_thread(self, work: "Callable[[], dict[str, Any]]") -> "dict[str, Any]":
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
