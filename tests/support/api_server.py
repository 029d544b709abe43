"""kubectl against a real API server."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What kubectl said."""

    accepted: bool
    text: str


@dataclass(frozen=True)
class ApiServer:
    """kubectl against the API server, as its administrator."""

    kubectl: Path
    kubeconfig: Path

    def run(self, *arguments: str, text: str = "") -> Answer:
        done = subprocess.run(
            [self.kubectl, "--kubeconfig", self.kubeconfig, *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Answer(done.returncode == 0, done.stdout + done.stderr)

    def apply(self, manifest: dict[str, Any], *options: str) -> Answer:
        return self.run("apply", *options, "-f", "-", text=json.dumps(manifest))
