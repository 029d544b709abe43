"""The files of `examples/`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.yaml"))


def documents(file: str) -> list[dict[str, Any]]:
    """The objects of a file, in their order."""
    return list(cast("Iterable[dict[str, Any]]", yaml.safe_load_all((EXAMPLES / file).read_text())))


def one(file: str, kind: str) -> dict[str, Any]:
    """The only object of a kind in a file."""
    found = [it for it in documents(file) if it["kind"] == kind]
    assert len(found) == 1, f"{file} holds {len(found)} {kind}"
    return found[0]
