"""Unpack a bundle: every part's digest is checked before anything is written."""

import compileall
import hashlib
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


class BundleError(Exception):
    """The bundle is not the one that its manifest describes."""


def install(bundle: Path, site: Path, model_files: Path) -> "list[str]":
    """Packages into `site`, the tokenizer into `model_files`, byte code compiled on all cores.

    Returns:
        The names of the wheels inside.

    Raises:
        BundleError: a part is missing, or its digest differs.
    """
    manifest = json.loads((bundle / "manifest.json").read_text())
    targets: dict[Path, Path] = {}
    for name, part in manifest["parts"].items():
        path = bundle / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != part["sha256"]:
            raise BundleError(f"{path} is missing, or differs from the manifest")
        targets[path] = model_files if name.startswith("tokenizer.") else site
    with ThreadPoolExecutor() as pool:
        list(pool.map(_unpack, targets, targets.values()))
    compileall.compile_dir(site, quiet=2, workers=0)
    return manifest["wheels"]


def _unpack(part: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(part) as archive:
        archive.extractall(folder, filter="data")
