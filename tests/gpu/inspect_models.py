"""Let vLLM look at the architectures of a run beforehand: it does so in a process of its own, and keeps what it saw.

Usage: python3 -m gpu.inspect_models ARCHITECTURE...
"""

import importlib
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def main() -> int:
    """One process an architecture, all at once; what they find goes to VLLM_CACHE_ROOT/modelinfos."""
    registry: Any = importlib.import_module("vllm.model_executor.models.registry").ModelRegistry

    def inspect(architecture: str) -> object:
        return registry.models[architecture].inspect_model_cls()

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(inspect, sys.argv[1:]))
    return 0 if all(found) else 1


if __name__ == "__main__":
    sys.exit(main())
