"""What every benchmark prints and writes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parents[3] / "build" / "bench"


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns of equal width, and an empty line."""
    everything = [head, *rows]
    widths = [max(len(row[column]) for row in everything) for column in range(len(head))]
    for row in everything:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()


def write_result(name: str, result: Mapping[str, Any]) -> None:
    """Write build/bench/NAME.json and say so."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    path = _FOLDER / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written: build/bench/{name}.json")
