"""The speech servers of a recording: one for each size, all there from the beginning to the end of a sharing mode.

Only one of them is asked at a time. The others hold memory and run nothing: what they hold is said beside each window.
"""

import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from gpu.server import end_group, start_process

_LIMIT_SECONDS = 90.0
_POLL_SECONDS = 0.2


class SpeechError(Exception):
    """A server ended, or is not ready in time."""


@dataclass(frozen=True)
class SpeechServer:
    """One size."""

    size: str
    port: int
    process: "Popen[bytes]"
    log: Path
    begin: float

    def is_ready(self) -> bool:
        """Whether it answers.

        Raises:
            SpeechError: it has ended.
        """
        if self.process.poll() is not None:
            raise SpeechError(f"{self.size} ended: {self.log.read_text(errors='replace')[-1500:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2):
                return True
        except OSError:
            return False


def start_speech(
    ports: Mapping[str, int], environment: Mapping[str, str], folder: Path, module: str
) -> "list[SpeechServer]":
    """Start all of them at once; `environment` names the folder of the checkpoints in ASR_MODELS."""
    servers: list[SpeechServer] = []
    for size, port in ports.items():
        log = folder / f"stt-{size}.log"
        own = {**environment, "ASR_WHISPER_SIZE": size, "PORT": str(port), "ASR_DEVICE": "cuda"}
        process = start_process([sys.executable, "-m", module], own, log)
        servers.append(SpeechServer(size, port, process, log, time.monotonic()))
    return servers


def wait_until_ready(servers: "list[SpeechServer]", meanwhile: Callable[[], None]) -> "dict[str, float]":
    """Seconds to readiness by size; all start together, so that each is slower than alone.

    Raises:
        SpeechError: one ended, or is not ready in time.
    """
    seconds: dict[str, float] = {}
    end = time.monotonic() + _LIMIT_SECONDS
    while len(seconds) < len(servers):
        for it in servers:
            if it.size not in seconds and it.is_ready():
                seconds[it.size] = round(time.monotonic() - it.begin, 1)
        if time.monotonic() > end:
            late = [it for it in servers if it.size not in seconds]
            words = late[0].log.read_text(errors="replace")[-500:]
            raise SpeechError(f"{', '.join(it.size for it in late)} not ready after {_LIMIT_SECONDS:.0f} s: {words}")
        meanwhile()
        time.sleep(_POLL_SECONDS)
    return seconds


def end_speech(servers: "list[SpeechServer]") -> None:
    """End all of them."""
    for it in servers:
        end_group(it.process, grace_seconds=3)
