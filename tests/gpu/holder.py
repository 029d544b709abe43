"""A neighbour on the card: holds so many GiB, says so, and stays until its standard input closes.

Usage: python3 -m gpu.holder GIB. With 0 it holds its context alone and prints what torch sees of the card.
"""

import importlib
import json
import sys
from typing import Any


def main() -> int:
    """Take the memory, print one line of JSON, wait."""
    torch: Any = importlib.import_module("torch")
    size = round(float(sys.argv[1]) * 2**30)
    held = torch.empty(size, dtype=torch.uint8, device="cuda")
    free, total = torch.cuda.mem_get_info()
    seen = {"totalBytes": total, "freeBytes": free, "heldBytes": held.numel(), "torch": torch.__version__}
    print(json.dumps(seen | {"gpu": torch.cuda.get_device_name()}), flush=True)
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
