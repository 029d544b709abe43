"""Checkpoints for the speech server out of the bundle's weights: tiny.en and base, and two sizes enlarged from them.

Usage: PYTHONPATH=tests:servers/src python3 -m gpu.whisper_models WEIGHTS FOLDER. A model each in a process of its own.
"""

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cotune_servers.weights.eight_bits import restored
from cotune_servers.weights.enlarged import enlarged
from cotune_servers.weights.whisper_checkpoint import State, write_checkpoint


@dataclass(frozen=True)
class Enlargement:
    """A size without weights of its own."""

    source: str
    times: int
    layers: int


ENLARGED = {"small-sized": Enlargement("tiny.en", 2, 12), "medium-sized": Enlargement("base", 2, 24)}
"""384 and 512 features doubled are the 768 and 1024 of Whisper small and medium; 12 and 24 layers are theirs too."""
REAL = ("tiny.en", "base")


def read_state(folder: Path) -> "tuple[dict[str, int], State]":
    """Dimensions and arrays of a model as `gpu.stack_bundle.weight_files` writes them."""
    arrays: State = {}
    for path in sorted(folder.glob("*.npy")):
        name = path.name.removesuffix(".npy")
        if name.endswith(".rounded"):
            name = name.removesuffix(".rounded")
            arrays[name] = restored(np.load(path), np.load(folder / f"{name}.scales.npy"))
        elif not name.endswith(".scales"):
            arrays[name] = np.load(path)
    return json.loads((folder / "dimensions.json").read_text()), arrays


def make(size: str, weights: Path, folder: Path) -> int:
    """Write one checkpoint; returns the number of its parameters."""
    how = ENLARGED.get(size)
    dimensions, arrays = read_state(weights / (how.source if how else size))
    if how:
        dimensions, arrays = enlarged(dimensions, arrays, how.times, how.layers)
    return write_checkpoint(dimensions, arrays, folder / f"{size}.pt")


def main() -> int:
    """Make all whose weights are there."""
    parser = argparse.ArgumentParser(prog="gpu.whisper_models", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        sizes = [it for it in REAL if (options.weights / it).is_dir()]
        sizes += [name for name, it in ENLARGED.items() if it.source in sizes]
        found = {it: pool.submit(make, it, options.weights, options.folder) for it in sizes}
        for size, count in found.items():
            print(f"{size}: {count.result():,} parameters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
