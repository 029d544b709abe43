"""`make gpu-code`: this repository's code as committed, and the chart as helm renders it, for the GPU machine."""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

from localcluster.binaries import HELM, KUBERNETES, ensure_built, required_version
from localcluster.locations import Cache

_REPOSITORY = Path(__file__).parents[2]
_FOLDERS = (
    *("tests/gpu", "operator/src", "servers/src", "local-cluster", "demo/src", "simulation/src"),
    *("crds", "helm", "examples", "images", "pyproject.toml"),
)
_VALUES = (
    *("labNamespaces={voice-lab}", "tunedNamespaces={voice-staging,voice-prod}"),
    # The only node is dedicated to trials.
    "tolerations[0].operator=Exists",
)


def rendered_chart() -> bytes:
    """All objects of the chart, for the local cluster's Kubernetes."""
    version = required_version((KUBERNETES.folder / "go.mod").read_text(), "k8s.io/kubernetes")
    command = [str(ensure_built(HELM, Cache.from_environment()) / "helm"), "template", "cotune", "helm/cotune"]
    command += ["--namespace", "cotune-system", "--kube-version", version]
    command += [word for it in _VALUES for word in ("--set", it)]
    return subprocess.run(command, cwd=_REPOSITORY, capture_output=True, check=True).stdout


def main() -> int:
    """Write build/gpu-code/code.tar.gz."""
    target = _REPOSITORY / "build" / "gpu-code" / "code.tar.gz"
    target.parent.mkdir(parents=True, exist_ok=True)
    command = ["git", "archive", "--format=tar", "HEAD", *_FOLDERS]
    committed = subprocess.run(command, cwd=_REPOSITORY, capture_output=True, check=True).stdout
    with (
        tarfile.open(fileobj=io.BytesIO(committed)) as source,
        tarfile.open(target, "w:gz") as archive,
    ):
        for member in source.getmembers():
            archive.addfile(member, source.extractfile(member) if member.isfile() else None)
        chart = rendered_chart()
        member = tarfile.TarInfo("rendered/chart.yaml")
        member.size = len(chart)
        archive.addfile(member, io.BytesIO(chart))
    print(f"{target.relative_to(_REPOSITORY)}: {target.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
