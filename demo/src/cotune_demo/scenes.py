"""What is demonstrated: on a simulated card, or with the real servers on the CPU."""

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Scene:
    """One demonstration; files are relative to `examples/`."""

    title: str
    command: str
    is_simulation: bool
    images: tuple[str, ...]
    services: str
    """The folder of what the owners of staging and production have there."""
    deployments: tuple[str, ...]
    """What of it must be ready before the operator may touch it."""
    ready_seconds: int
    """How long each of them may take."""
    experiment: str
    """The file of the experiment."""
    name: str
    """The experiment's name."""
    candidates: int
    fresh_runs: int
    """After the search: to confirm the best candidate and, if it makes two changes, to validate each of them."""
    corpus: tuple[str, ...]
    """The command that writes the corpus, without the folder."""
    longest_seconds: float
    """An experiment that has not ended by then is given up."""
    hopeless: str | None = None
    """The file of an experiment of which nothing fits the card; None: there is no card."""


SIMULATED = Scene(
    title="cotune tunes the voice stack: a SIMULATION of the card and its servers on a real Kubernetes",
    command="make demo",
    is_simulation=True,
    images=("operator", "probe", "simulated-card", "simulated-servers"),
    services="simulated",
    deployments=("neighbour", "judge", "whisper"),
    ready_seconds=120,
    experiment="voice-stack.yaml",
    name="voice",
    candidates=15,
    fresh_runs=9,
    corpus=(sys.executable, "-m", "cotune_simulation.speech"),
    longest_seconds=900,
    hopeless="nothing-fits.yaml",
)

REAL = Scene(
    title="cotune tunes real vLLM and real Whisper on the CPU, on real noisy speech: no card, no simulation",
    command="make demo-real",
    is_simulation=False,
    images=("operator", "probe", "stt", "vllm-cpu"),
    services="real-cpu",
    deployments=("llm", "whisper"),
    ready_seconds=400,
    experiment="real-cpu/experiment.yaml",
    name="voice-cpu",
    candidates=4,
    fresh_runs=9,
    corpus=(sys.executable, "-m", "cotune_demo.speech", "--snr-db", "10"),
    longest_seconds=3600,
)
