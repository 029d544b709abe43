"""What recorded speech servers held on the card beside what the planner says of their size."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cotune.planning.cards import card
from cotune.planning.sizes import MIB
from cotune.planning.whisper import plan_whisper

from cotune_bench.surface_starts import is_surface

_ENLARGED = "-sized"
"""Ends the names of sizes whose dimensions are true and whose weights are a smaller model's."""
_HELD = "stt.gpuMemoryMiB"


@dataclass(frozen=True)
class SpeechRow:
    """One size in one recording, MiB."""

    recording: str
    size: str
    at_start: float
    """Ready, with one sentence of silence behind it."""
    measured: float
    """The most that NVML showed of its process after any window."""
    predicted: float

    @property
    def error(self) -> float:
        """Predicted less measured."""
        return self.predicted - self.measured


def speech_rows(files: Sequence[Path]) -> tuple[SpeechRow, ...]:
    """Every speech server of every surface among the files, in their order.

    Raises:
        OSError, json.JSONDecodeError: a file cannot be read.
        UnknownCardError: there is no data on its card.
    """
    rows: list[SpeechRow] = []
    for file in files:
        document: dict[str, Any] = json.loads(file.read_text())
        if not is_surface(document):
            continue
        product = card(str(document["card"]["gpu"]).replace(" ", "-"))
        for it in document["speechStarts"]:
            size = str(it["whisperModel"])
            at_start = float(it["gpuMemoryMiB"])
            seen = [
                float(one["value"])
                for run in document["runs"]
                if run["candidate"]["whisperModel"] == size
                for one in run["measurements"]
                if one["metric"] == _HELD
            ]
            predicted = plan_whisper(size.removesuffix(_ENLARGED), product).held / MIB
            rows.append(SpeechRow(file.parent.name, size, at_start, max([at_start, *seen]), predicted))
    return tuple(rows)
