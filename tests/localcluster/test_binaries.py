"""The Go modules of the cluster's programs."""

import re

import pytest
from localcluster.binaries import KUBERNETES, MODULES, ON_REQUEST, Module, content_key, required_version


@pytest.mark.parametrize("module", [*MODULES, *ON_REQUEST], ids=lambda module: module.name)
def test_every_module_reports_the_version_it_requires(module: Module) -> None:
    if module.version_of is not None:
        assert required_version((module.folder / "go.mod").read_text(), module.version_of).startswith("v")


def test_staging_modules_are_of_the_same_release_as_kubernetes() -> None:
    go_mod = (KUBERNETES.folder / "go.mod").read_text()
    release = required_version(go_mod, "k8s.io/kubernetes").removeprefix("v1.")
    replaced = re.findall(r"^\t(k8s\.io/\S+) => (k8s\.io/\S+) v0\.(\S+)$", go_mod, re.MULTILINE)
    assert len(replaced) > 30
    assert {(name == target, version) for name, target, version in replaced} == {(True, release)}


def test_the_key_depends_on_the_build_settings() -> None:
    keys = {content_key(module) for module in (*MODULES, *ON_REQUEST)}
    assert len(keys) == len((*MODULES, *ON_REQUEST))


def test_a_version_that_is_not_required_is_an_error() -> None:
    with pytest.raises(ValueError, match="is not required"):
        required_version("require example.com/a v1.0.0\n", "example.com/b")
