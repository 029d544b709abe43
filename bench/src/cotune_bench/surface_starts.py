"""The starts of vLLM in a recorded surface, in the schema of tests/data/planner: one copy of the data for both."""

from collections.abc import Mapping
from typing import Any


def is_surface(document: Mapping[str, Any]) -> bool:
    """Whether it is a surface.json, and no recording of starts alone."""
    return "case" in document and "runs" in document


def recorded_starts(document: Mapping[str, Any], recording: str) -> dict[str, Any]:
    """The card and every start of a surface as `cotune_bench.planner.read_cases` wants them.

    What others held on the card when a start began is `gpuUsedMiBBefore`: speech servers of every size, and under MPS
    its server. `recording` goes before each start's name.

    Raises:
        KeyError: it is no surface of schema 1.
    """
    model, about = document["case"]["model"], document["card"]
    return {
        "meta": {
            "gpu": about["gpu"],
            "gpuIdleMiB": about["gpuIdleMiB"],
            "vllm": about["vllm"],
            "models": {model["name"]: model["config"]},
        },
        "starts": [_start(it, model, recording) for it in document["starts"]],
    }


def _start(recorded: Mapping[str, Any], model: Mapping[str, Any], recording: str) -> dict[str, Any]:
    memory, sequences = recorded["llmMemory"], recorded["llmMaxSeqs"]
    bound = ["--gpu-memory-utilization", memory, "--max-num-seqs", sequences]
    return {
        **recorded,
        "name": f"{recording}-{memory}-{sequences}",
        "model": model["name"],
        "arguments": [*bound, *model["arguments"]],
        "startupSeconds": recorded["seconds"],
    }
