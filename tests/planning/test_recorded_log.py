"""What a recorder reads of the compilation cache in vLLM's log."""

import pytest
from gpu.vllm_log import read_log

LOADED = "[backends.py:292] Directly load the compiled graph(s) for compile range (1, 8192) from the cache, took 0.7 s"
COMPILED = "[backends.py:319] Compiling a graph for compile range (1, 8192) takes 9.81 s"


@pytest.mark.parametrize(
    ("log", "state"), [(LOADED, "warm"), (COMPILED, "cold"), (f"{LOADED}\n{COMPILED}", "cold"), ("eager", None)]
)
def test_a_log_says_whether_anything_was_compiled(log: str, state: str | None) -> None:
    assert read_log(log).compile_cache == state
