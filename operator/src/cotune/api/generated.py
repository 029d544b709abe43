"""Files that are generated from the models: written, or compared with what lies in the repository."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path


def write_or_check(files: Mapping[str, str], pattern: str, target: str) -> int:
    """The command line of a generator; its exit code.

    Args:
        files: name to text; no other file of the pattern belongs into the folder.
        pattern: of the names, such as `*.yaml`.
        target: the make target that writes them, for whoever reads the error.
    """
    parser = argparse.ArgumentParser(description=write_or_check.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file differs")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    folder: Path = options.folder
    if not options.check:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
        return 0
    found = {path.name: path.read_text() for path in folder.glob(pattern)}
    differing = sorted(name for name in files.keys() | found.keys() if files.get(name) != found.get(name))
    if differing:
        print(f"error: {', '.join(differing)} differ from the models: run `make {target}`", file=sys.stderr)
        return 1
    return 0
