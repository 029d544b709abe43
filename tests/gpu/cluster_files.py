"""Debian's programs and libraries into the machine's own file tree, where it has none: what is there stays."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

_RULE = "-t nat -A POSTROUTING -m comment --comment x -m mark --mark 1 -m statistic --mode random --probability 0.5"
"""What the service proxy's rules are made of."""


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


def choose_iptables(folder: Path) -> str:
    """Let `iptables` be the variant that this kernel knows; returns what each says, the chosen one last.

    Args:
        folder: of the programs.
    """
    said: list[str] = []
    for kind in ("nft", "legacy"):
        program = folder / f"xtables-{kind}-multi"
        command = ["unshare", "--net", str(program), "iptables", *_RULE.split(), "-j", "MASQUERADE"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said.append(f"{kind}: {done.stderr.strip() or 'works'}")
        if done.returncode == 0:
            for name in ("iptables", "iptables-save", "iptables-restore"):
                link = folder / name
                link.unlink(missing_ok=True)
                link.symlink_to(program.name)
            break
    return "; ".join(said)
