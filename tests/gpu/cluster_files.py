"""Debian's programs and libraries into the machine's own file tree, where it has none: what is there stays."""

import shutil
from collections.abc import Iterator
from pathlib import Path


def add_missing(source: Path, target: Path) -> "list[str]":
    """Copy files and links that `target` lacks; returns their paths."""
    return sorted(_copied(source, target))


def _copied(source: Path, target: Path) -> Iterator[str]:
    for path in sorted(it for it in source.rglob("*") if it.is_symlink() or it.is_file()):
        place = target / path.relative_to(source)
        if not (place.is_symlink() or place.exists()):
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place, follow_symlinks=False)
            yield str(path.relative_to(source))
