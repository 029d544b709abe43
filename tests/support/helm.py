"""The chart as helm renders it."""

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from localcluster.binaries import HELM, ensure_built
from localcluster.locations import Cache

_CHART = Path(__file__).parents[2] / "helm" / "cotune"
CRDS = _CHART / "crds"
# Helm asks no cluster here, and knows an old Kubernetes by itself.
_KUBERNETES = "--kube-version=1.36.0"

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """The objects of a release."""

    objects: tuple[Manifest, ...]

    def all(self, kind: str) -> list[Manifest]:
        return [it for it in self.objects if it["kind"] == kind]

    def one(self, kind: str, name: str) -> Manifest:
        found = [it for it in self.all(kind) if it["metadata"]["name"] == name]
        assert len(found) == 1, f"{len(found)} objects {kind}/{name}"
        return found[0]


def render(*options: str, namespace: str = "cotune-system", release: str = "cotune") -> Rendered:
    """What `helm install` would apply.

    :raises AssertionError: helm refuses; the text says why.
    """
    text = _helm("template", release, str(_CHART), "--namespace", namespace, _KUBERNETES, *options)
    documents = cast("Iterable[Manifest | None]", yaml.safe_load_all(text))
    return Rendered(tuple(it for it in documents if it is not None))


def lint() -> str:
    """What `helm lint` says.

    :raises AssertionError: it finds fault.
    """
    return _helm("lint", "--strict", _KUBERNETES, str(_CHART))


def crds() -> tuple[Manifest, ...]:
    """The CRDs that the chart brings."""
    return tuple(cast("Manifest", yaml.safe_load(path.read_text())) for path in sorted(CRDS.iterdir()))


def _helm(*arguments: str) -> str:
    program = ensure_built(HELM, Cache.from_environment()) / "helm"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
