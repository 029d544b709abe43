"""The language model's folder, as a case describes it: configuration and tokenizer; its weights are random.

Usage: PYTHONPATH=tests python3 -m gpu.llm_model CASE SCRATCH, after `gpu.install` of gpu-bundle.
"""

import argparse
import sys
from pathlib import Path

from gpu.install import TOKENIZER
from gpu.record_starts import write_models
from gpu.surface_case import SurfaceCase, read_case


def write_model(case: SurfaceCase, scratch: Path) -> Path:
    """The folder that a server is started with."""
    tokenizer = scratch / TOKENIZER
    tokenizer.mkdir(exist_ok=True)
    name: str = case.model["name"]
    return write_models({name: case.model["config"]}, tokenizer, scratch / "models")[name]


def main() -> int:
    """Write it and say where."""
    parser = argparse.ArgumentParser(prog="gpu.llm_model", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("case", type=Path)
    parser.add_argument("scratch", type=Path)
    options = parser.parse_args()
    print(write_model(read_case(options.case), options.scratch))
    return 0


if __name__ == "__main__":
    sys.exit(main())
