"""`KUBEBUILDER_ASSETS`: the API tests run the programs of the user's folder."""

import os
from pathlib import Path

import pytest
from localcluster import cluster
from localcluster.binaries import KUBERNETES, api_programs, ensure_built
from localcluster.errors import LocalClusterError
from localcluster.locations import Cache, Instance
from localcluster.supervisor import read_records
from localcluster.topology import DEFAULT_CARD, Topology

pytestmark = pytest.mark.apiserver

PROGRAMS = ("etcd", "kube-apiserver", "kubectl")


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's, with links to the built programs in it."""
    built = ensure_built(KUBERNETES, Cache.from_environment())
    for program in PROGRAMS:
        (tmp_path / program).symlink_to(built / program)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    return tmp_path


def test_a_control_plane_runs_the_programs_of_the_chosen_folder(assets: Path) -> None:
    instance = Instance.named(f"assets-{os.getpid()}")
    try:
        cluster.up(instance, Topology(node_names=(), card=DEFAULT_CARD), Cache.from_environment())
        records = read_records(instance)
        started = [
            Path(f"/proc/{records[name].pid}/cmdline").read_text().split("\0")[0] for name in ("etcd", "kube-apiserver")
        ]
    finally:
        cluster.down(instance)

    assert started == [str(assets / "etcd"), str(assets / "kube-apiserver")]


def test_a_folder_that_lacks_a_program_is_refused(assets: Path) -> None:
    (assets / "kubectl").unlink()

    with pytest.raises(LocalClusterError, match="has no kubectl"):
        api_programs(Path("/built"))


def test_without_a_chosen_folder_the_built_programs_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)

    assert api_programs(Path("/built")) == Path("/built")
