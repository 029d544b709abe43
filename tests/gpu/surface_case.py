"""What a surface is recorded over: parameters, the model, the load. Read from tests/gpu/cases/*-surface.json."""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cotune.api.workload import Arrivals, Protocol
from cotune.measurement.contract import ProbeConfiguration, ProbeStream

_LLM_PORT = 8000
_SPEECH_PORT = 9000
"""Of the first size; the others follow."""

Candidate = Mapping[str, str]
"""Value by parameter: sharing, llmMemory, llmMaxSeqs, whisperModel."""


@dataclass(frozen=True)
class LlmStart:
    """What a start of vLLM depends on."""

    memory: str
    max_seqs: str

    def command(self, model: Path, arguments: "tuple[str, ...]", port: int) -> "list[str]":
        """The words behind `vllm`."""
        words = ["serve", str(model), "--served-model-name", "llm", "--host", "127.0.0.1", "--port", str(port)]
        return [*words, "--gpu-memory-utilization", self.memory, "--max-num-seqs", self.max_seqs, *arguments]


@dataclass(frozen=True)
class SurfaceCase:
    """One file."""

    document: Mapping[str, Any]
    """As it stands there, for the record."""
    port_offset: int = 0
    """Added to every port: recorders beside each other, of a card each, need ports of their own."""

    @property
    def model(self) -> "dict[str, Any]":
        """`name`, `config` and `arguments`."""
        return self.document["model"]

    @property
    def repeats(self) -> int:
        """Windows of each candidate."""
        return self.document["repeats"]

    @property
    def start_seconds(self) -> float:
        """What a start of vLLM is reckoned to take."""
        return self.document["estimates"]["startSeconds"]

    @property
    def run_seconds(self) -> float:
        """What one window is reckoned to take, with all around it."""
        return self.document["estimates"]["runSeconds"]

    @property
    def sizes(self) -> "tuple[str, ...]":
        """Of the speech server."""
        return self.values("whisperModel")

    def values(self, parameter: str) -> "tuple[str, ...]":
        """All values of one parameter."""
        return next(tuple(it["values"]) for it in self.document["parameters"] if it["name"] == parameter)

    def starts(self) -> "Iterator[LlmStart]":
        """Every start of vLLM that a sharing mode needs."""
        for memory, seqs in itertools.product(self.values("llmMemory"), self.values("llmMaxSeqs")):
            yield LlmStart(memory, seqs)

    def candidate(self, mode: str, start: LlmStart, size: str) -> "dict[str, str]":
        """The assignment of all parameters."""
        return {"sharing": mode, "llmMemory": start.memory, "llmMaxSeqs": start.max_seqs, "whisperModel": size}

    @property
    def llm_port(self) -> int:
        """Of vLLM."""
        return _LLM_PORT + self.port_offset

    def speech_port(self, size: str) -> int:
        """Every size has a server of its own."""
        return _SPEECH_PORT + self.port_offset + self.sizes.index(size)

    def probe(self, size: str, repeat: int, corpus: Path) -> ProbeConfiguration:
        """The load of one window: the same for all candidates, another one for each repeat.

        A case whose load names only one of the components shows what that one does while nobody else computes.
        """
        load = self.document["load"]
        streams: list[ProbeStream] = []
        if llm := load.get("llm"):
            streams.append(
                ProbeStream(
                    component="llm",
                    protocol=Protocol.OPENAI_COMPLETIONS,
                    host="127.0.0.1",
                    port=self.llm_port,
                    arrivals=_poisson(llm["ratePerSecond"]),
                    prompt_tokens=llm["promptTokens"],
                    output_tokens=llm["outputTokens"],
                    timeout_seconds=llm["timeoutSeconds"],
                )
            )
        if speech := load.get("stt"):
            streams.append(
                ProbeStream(
                    component="stt",
                    protocol=Protocol.OPENAI_TRANSCRIPTIONS,
                    host="127.0.0.1",
                    port=self.speech_port(size),
                    arrivals=_poisson(speech["ratePerSecond"]),
                    corpus=str(corpus),
                    timeout_seconds=speech["timeoutSeconds"],
                )
            )
        return ProbeConfiguration(
            gpu=True,
            seed=1000 + repeat,
            warmup_seconds=load["warmupSeconds"],
            duration_seconds=load["durationSeconds"],
            cooldown_seconds=load["cooldownSeconds"],
            grace_seconds=load["graceSeconds"],
            streams=tuple(streams),
        )


def read_case(path: Path, port_offset: int = 0) -> SurfaceCase:
    """The case of a file."""
    return SurfaceCase(json.loads(path.read_text()), port_offset)


def _poisson(rate: str) -> Arrivals:
    return Arrivals.model_validate({"type": "Poisson", "ratePerSecond": rate})
