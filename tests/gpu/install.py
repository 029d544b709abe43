"""Unpack bundles, one after the other: every part's digest is checked before anything is written.

Usage, on the machine: PYTHONPATH=tests python3 -m gpu.install BUNDLE... --into FOLDER. What does not fit into one
transfer comes in several bundles, each with a manifest of its own; the folder is the same.
"""

import argparse
import compileall
import hashlib
import json
import sys
import tarfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SITE, TOKENIZER, WEIGHTS, SPEECH, CLUSTER = "site", "tokenizer", "weights", "speech", "cluster"
_FOLDERS = {"tokenizer": TOKENIZER, "whisper": WEIGHTS, "speech": SPEECH, "cluster": CLUSTER}
"""Where a part goes, by the first word of its name; packages, whatever they are called, go to the site folder."""


class BundleError(Exception):
    """The bundle is not the one that its manifest describes."""


def install(bundles: Iterable[Path], into: Path) -> "list[str]":
    """Every part into its folder, byte code of packages compiled on all cores.

    Returns:
        The names of the wheels inside.

    Raises:
        BundleError: a part is missing, or its digest differs.
    """
    targets: dict[Path, Path] = {}
    wheels: list[str] = []
    for bundle in bundles:
        manifest = json.loads((bundle / "manifest.json").read_text())
        for name, part in manifest["parts"].items():
            path = bundle / name
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != part["sha256"]:
                raise BundleError(f"{path} is missing, or differs from the manifest")
            targets[path] = into / folder_of(name)
        wheels += manifest["wheels"]
    with ThreadPoolExecutor() as pool:
        list(pool.map(_unpack, targets, targets.values()))
    if into / SITE in targets.values():
        compileall.compile_dir(into / SITE, quiet=2, workers=0)
        known = into / "wheels.json"
        earlier: list[str] = json.loads(known.read_text()) if known.exists() else []
        known.write_text(json.dumps(sorted({*earlier, *wheels})))
    return wheels


def installed(into: Path) -> "list[str]":
    """The names of all wheels that earlier calls have installed."""
    known = into / "wheels.json"
    return json.loads(known.read_text()) if known.exists() else []


def folder_of(part: str) -> str:
    """The folder of a part, such as `whisper-1.tar.xz`."""
    return _FOLDERS.get(part.partition(".")[0].partition("-")[0], SITE)


def _unpack(part: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # Debian's packages have absolute links, which the stricter filter refuses.
    rules = "tar" if folder.name == CLUSTER else "data"
    with tarfile.open(part) as archive:
        archive.extractall(folder, filter=rules)


def main() -> int:
    """Unpack, and say how long it took."""
    parser = argparse.ArgumentParser(prog="gpu.install", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--into", type=Path, default=Path("/opt/cotune"))
    options = parser.parse_args()
    begin = time.monotonic()
    wheels = install(options.bundles, options.into)
    print(f"{len(options.bundles)} bundles, {len(wheels)} wheels in {time.monotonic() - begin:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
