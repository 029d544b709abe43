"""vLLM's command line in a process that imported everything while another server was being measured.

Usage: python3 -m gpu.warm_vllm READY_FD. It imports, writes one byte to READY_FD and reads a line of JSON from standard
input: the arguments behind `vllm`. It never touches the card before that, so that vLLM may fork its engine, which then
has no imports of its own to wait for (VLLM_WORKER_MULTIPROC_METHOD=fork).
"""

import importlib
import json
import os
import sys

MODULES = (
    "vllm.entrypoints.cli.main",
    "vllm.entrypoints.cli.serve",
    "vllm.entrypoints.openai.api_server",
    "vllm.v1.engine.core",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.worker.gpu_worker",
    "vllm.v1.worker.gpu.model_runner",
    "vllm.v1.attention.backends.flash_attn",
    "vllm.model_executor.models.llama",
    "vllm.model_executor.models.qwen2",
    "vllm.model_executor.models.qwen3",
    "vllm.model_executor.models.gemma3",
)


def main() -> int:
    """Import, wait to be told, serve; returns vLLM's own exit code."""
    ready = int(sys.argv[1])
    for name in MODULES:
        importlib.import_module(name)
    if importlib.import_module("torch").cuda.is_initialized():
        print("error: an import took the card", file=sys.stderr)
        return 1
    os.write(ready, b"1")
    os.close(ready)
    line = sys.stdin.readline()
    if not line:
        return 0
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), sys.stdin.fileno())
    sys.argv = ["vllm", *json.loads(line)]
    return importlib.import_module("vllm.entrypoints.cli.main").main() or 0


if __name__ == "__main__":
    sys.exit(main())
