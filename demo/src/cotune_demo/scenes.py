"""What is demonstrated: on a simulated card, or with the real servers on the CPU."""

import sys
from dataclasses import dataclass, replace

LAB, STAGING, PRODUCTION = "voice-lab", "voice-staging", "voice-prod"
"""Namespaces of the first site."""


@dataclass(frozen=True)
class Site:
    """A lab, and where what it finds goes."""

    lab_nodes: tuple[str, ...]
    """Dedicated to trials."""
    stage_nodes: tuple[str, ...]
    lab: str
    """A namespace, as are the next two."""
    staging: str
    production: str
    services: str
    """The folder of what the owners of staging and production have there."""
    deployments: tuple[str, ...]
    """What of it must be ready before the operator may touch it."""

    @property
    def tuned(self) -> tuple[str, str]:
        """The namespaces that invite the operator."""
        return self.staging, self.production


@dataclass(frozen=True)
class Scene:
    """One demonstration; files are relative to `examples/`."""

    title: str
    command: str
    is_simulation: bool
    images: tuple[str, ...]
    site: Site
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
    target: Site | None = None
    """Where an experiment is made that is simpler than what runs there; None: that is not told."""

    @property
    def sites(self) -> tuple[Site, ...]:
        """The first is the story's."""
        return (self.site, self.target) if self.target is not None else (self.site,)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Those that the scene needs."""
        return tuple(name for it in self.sites for name in (*it.lab_nodes, *it.stage_nodes))


_FIRST_SITE = Site(("lab",), ("staging", "production"), LAB, STAGING, PRODUCTION, services="", deployments=())

EDGE = Site(
    # One card for each of its experiments. Any lab has any card of the product that is free.
    lab_nodes=("lab-2", "lab-3"),
    stage_nodes=("edge-staging", "edge-production"),
    lab="edge-lab",
    staging="edge-staging",
    production="edge-prod",
    services="target",
    deployments=("embeddings", "chat", "judge", "whisper"),
)
"""A second site, whose staging runs more than its experiment."""

SIMULATED = Scene(
    title="cotune tunes the voice stack: a SIMULATION of the card and its servers on a real Kubernetes",
    command="make demo",
    is_simulation=True,
    images=("operator", "probe", "simulated-card", "simulated-servers"),
    site=replace(_FIRST_SITE, services="simulated", deployments=("neighbour", "judge", "whisper")),
    ready_seconds=120,
    experiment="voice-stack.yaml",
    name="voice",
    candidates=15,
    fresh_runs=9,
    corpus=(sys.executable, "-m", "cotune_simulation.speech"),
    longest_seconds=900,
    hopeless="nothing-fits.yaml",
    target=EDGE,
)

REAL = Scene(
    title="cotune tunes real vLLM and real Whisper on the CPU, on real noisy speech: no card, no simulation",
    command="make demo-real",
    is_simulation=False,
    images=("operator", "probe", "stt", "vllm-cpu"),
    site=replace(_FIRST_SITE, services="real-cpu", deployments=("llm", "whisper")),
    ready_seconds=400,
    experiment="real-cpu/experiment.yaml",
    name="voice-cpu",
    candidates=4,
    fresh_runs=9,
    corpus=(sys.executable, "-m", "cotune_demo.speech", "--snr-db", "10"),
    longest_seconds=3600,
)
