"""A node agent as a process of its own, over a simulated card."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from support.simulated_card import REPOSITORY, RunningCard
from support.simulated_server import free_port


@contextmanager
def running_agent(card: RunningCard, library: Path, cgroups: Path) -> Generator[tuple[int, int]]:
    """A running agent's ports: for probes, and for Prometheus."""
    api, metrics = free_port(), free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "cotune.measurement.agent"],
        stdout=subprocess.PIPE,
        text=True,
        env=card.environment()
        | {"PYTHONPATH": str(REPOSITORY / "operator" / "src"), "LD_LIBRARY_PATH": str(library)}
        | {"COTUNE_NODE": "lab", "COTUNE_CGROUPS": str(cgroups)}
        | {"COTUNE_AGENT_PORT": str(api), "COTUNE_AGENT_METRICS_PORT": str(metrics)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("node lab: ")
        yield api, metrics
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()
