"""Programs built once from Go modules and kept in the cache by the content they were built from."""

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from localcluster.errors import LocalClusterError
from localcluster.locations import Cache, repository_root
from localcluster.locks import held
from localcluster.progress import step


@dataclass(frozen=True)
class Module:
    """One of the Go modules below local-cluster/binaries."""

    name: str
    packages: tuple[str, ...]
    version_of: str | None = None
    """The required module whose version the programs report."""
    version_variable: str | None = None
    """The Go variable that holds the reported version."""
    links: tuple[str, ...] = ()
    """Names by which the only program of the module is called."""
    estimate: str = "under a minute"
    """How long the first build takes on two cores."""

    @property
    def folder(self) -> Path:
        """Where the module's source lies."""
        return repository_root() / "local-cluster" / "binaries" / self.name


KUBERNETES = Module(
    name="kubernetes",
    packages=(".",),
    version_of="k8s.io/kubernetes",
    version_variable="k8s.io/component-base/version.gitVersion",
    links=(
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
        "kubelet",
        "kubectl",
    ),
    estimate="5 to 10 minutes",
)
CONTAINERD = Module(
    name="containerd",
    packages=tuple(
        f"github.com/containerd/containerd/v2/cmd/{program}"
        for program in ("containerd", "containerd-shim-runc-v2", "ctr")
    ),
    version_of="github.com/containerd/containerd/v2",
    version_variable="github.com/containerd/containerd/v2/version.Version",
    estimate="1 to 2 minutes",
)
COREDNS = Module(name="coredns", packages=(".",), estimate="1 to 2 minutes")
HELM = Module(
    name="helm",
    packages=("helm.sh/helm/v3/cmd/helm",),
    version_of="helm.sh/helm/v3",
    version_variable="helm.sh/helm/v3/internal/version.version",
    estimate="1 to 3 minutes",
)
PAUSE = Module(name="pause", packages=(".",))
ARGO_ROLLOUTS = Module(
    name="argo-rollouts",
    packages=("github.com/argoproj/argo-rollouts/cmd/rollouts-controller",),
    version_of="github.com/argoproj/argo-rollouts",
    version_variable="github.com/argoproj/argo-rollouts/utils/version.version",
    estimate="10 to 15 minutes",
)
"""No part of the cluster: what `make bench-rollback` measures beside."""
KWOK = Module(
    name="kwok",
    packages=("sigs.k8s.io/kwok/cmd/kwok",),
    version_of="sigs.k8s.io/kwok",
    version_variable="sigs.k8s.io/kwok/pkg/consts.Version",
    estimate="2 to 4 minutes",
)
"""No part of the cluster: plays the kubelet of nodes that are not there, for `make bench-memory`."""

_API_PROGRAMS = ("etcd", "kube-apiserver", "kubectl")
MODULES = (KUBERNETES, CONTAINERD, COREDNS, HELM, PAUSE)
ON_REQUEST = (ARGO_ROLLOUTS, KWOK)
"""Modules that are no part of the cluster, and only built for whoever names them."""


def ensure_built(module: Module, cache: Cache) -> Path:
    """The folder with the module's programs, built now if its content has never been built.

    :raises LocalClusterError: there is no Go, or the build failed.
    """
    target = cache.programs / f"{module.name}-{content_key(module)}"
    if target.exists():
        return target
    go = shutil.which("go")
    if go is None:
        raise LocalClusterError("building the cluster's programs needs Go 1.26 or newer: install it and try again")
    with held(cache.programs / f".{module.name}.lock"):
        if target.exists():  # Another command has built it while this one waited.
            return target
        unfinished = target.with_name(f".{target.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        with step(f"building {module.name} (once, {module.estimate} on two cores)"):
            _build(go, module, unfinished)
        for link in module.links:
            (unfinished / link).symlink_to(module.name)
        unfinished.rename(target)
    return target


def api_programs(built: Path) -> Path:
    """The folder with etcd, kube-apiserver and kubectl: `KUBEBUILDER_ASSETS` where it is set, else what was built.

    :raises LocalClusterError: the folder lacks one of them.
    """
    chosen = os.environ.get("KUBEBUILDER_ASSETS")
    if not chosen:
        return built
    folder = Path(chosen).absolute()
    if missing := [it for it in _API_PROGRAMS if not os.access(folder / it, os.X_OK)]:
        raise LocalClusterError(f"KUBEBUILDER_ASSETS is {folder}, and that has no {' and no '.join(missing)}")
    return folder


def content_key(module: Module) -> str:
    """A digest of everything that the module's programs are made from."""
    digest = hashlib.sha256(repr(module).encode())
    for path in sorted(module.folder.iterdir()):
        if path.suffix in {".go", ".mod", ".sum"}:
            digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def required_version(go_mod: str, dependency: str) -> str:
    """The version of a dependency in the text of a go.mod.

    :raises ValueError: the module does not require it.
    """
    match = re.search(rf"^(?:require)?\s*{re.escape(dependency)} (v\S+)", go_mod, re.MULTILINE)
    if match is None:
        raise ValueError(f"{dependency} is not required")
    return match.group(1)


def _build(go: str, module: Module, target: Path) -> None:
    flags = "-s -w"
    if module.version_of is not None and module.version_variable is not None:
        version = required_version((module.folder / "go.mod").read_text(), module.version_of)
        flags += f" -X {module.version_variable}={version}"
    # A single program is named after its module, several go into the folder under their own names.
    output = target / module.name if module.packages == (".",) else f"{target}{os.sep}"
    command = [go, "build", "-trimpath", "-buildvcs=false", f"-ldflags={flags}", "-o", str(output), *module.packages]
    done = subprocess.run(
        command,
        cwd=module.folder,
        env={**os.environ, "CGO_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise LocalClusterError(f"building {module.name} failed: {done.stderr.strip()}")
