"""`cotune` as a process of its own, in an environment that the test says."""

import os
import subprocess
import sys
from pathlib import Path

_SOURCE = Path(__file__).parents[2] / "operator" / "src"


def cotune(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run one command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "cotune.cli", *words],
        env=os.environ | {"PYTHONPATH": str(_SOURCE)} | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
