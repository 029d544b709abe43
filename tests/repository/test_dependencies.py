"""The image of the operator installs what the package asks for."""

import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def test_the_operators_lock_is_made_from_the_packages_dependencies() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = (REPOSITORY / "requirements" / "operator.in").read_text().splitlines()

    assert [line for line in lines if not line.startswith("#")] == project["dependencies"]


def test_kubectl_finds_the_commands_by_the_name_of_their_program() -> None:
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]

    assert scripts["kubectl-cotune"] == scripts["cotune"]


_ENVIRONMENTS_OF_THEIR_OWN = {"gpu", "bench-load", "llm"}
"""What is installed beside the packages that the image of a machine with a GPU already has, the load generator that the
probe is compared with, and vLLM for cards with the torch that it pins: none meets another package of ours."""


def test_every_lock_names_one_version_for_one_package() -> None:
    versions: dict[str, set[str]] = {}
    locks = (it for it in (REPOSITORY / "requirements").glob("*.txt") if it.stem not in _ENVIRONMENTS_OF_THEIR_OWN)
    for lock in locks:
        for line in lock.read_text().splitlines():
            name, separator, version = line.removesuffix(" \\").partition("==")
            if separator and not line.startswith((" ", "#")):
                versions.setdefault(name, set()).add(version)

    assert versions
    assert not {name: found for name, found in versions.items() if len(found) > 1}
