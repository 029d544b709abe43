import pytest
from cotune.trials.root_cause import Cause, root_cause

PREFIX = "(EngineCore pid=31) ERROR 11-23 12:00:00 [core.py:1100] "
END = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"

# As vLLM 0.26.0 and torch 2.11.0 wrote them on an NVIDIA H200.
MESSAGES = [
    (
        Cause.NO_CACHE_BLOCKS,
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
        "initializing the engine",
    ),
    (
        Cause.CONTEXT_TOO_LONG,
        "ValueError: To serve at least one request with the model's max seq len (131072), (3.5 GiB KV cache is needed, "
        "which is larger than the available KV cache memory (2.11 GiB).",
    ),
    (
        Cause.CONTEXT_TOO_LONG,  # Of vLLM 0.11.
        "ValueError: To serve at least one request with the models's max seq len (16384), (0.88 GiB KV cache is needed",
    ),
    (
        Cause.CARD_TAKEN,
        "ValueError: Free memory on device cuda:0 (98.77/139.8 GiB) on startup is less than desired GPU memory "
        "utilization (0.9, 125.82 GiB).",
    ),
    (
        Cause.PROFILING_DISTURBED,
        "AssertionError: Error in memory profiling. Initial free memory 108.77 GiB, current free memory 136.04 GiB.",
    ),
    (
        Cause.CUDA_OUT_OF_MEMORY,
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 102.00 MiB. GPU 0 has a total capacity of "
        "139.80 GiB of which 13.56 MiB is free.",
    ),
]


@pytest.mark.parametrize(("cause", "message"), MESSAGES)
def test_the_cause_is_found_above_the_last_line(cause: Cause, message: str) -> None:
    log = f"INFO starting\n{PREFIX}{message}\nINFO shutting down\n{END}\n"

    found = root_cause(log)

    assert found.cause is cause
    assert found.line == message


def test_the_first_cause_counts() -> None:
    log = "\n".join(f"{PREFIX}{message}" for _, message in MESSAGES)

    assert root_cause(log).cause is Cause.NO_CACHE_BLOCKS


@pytest.mark.parametrize(("log", "line"), [("", ""), ("one\nSegmentation fault\n\n", "Segmentation fault")])
def test_an_unknown_end_is_told_by_the_last_line(log: str, line: str) -> None:
    found = root_cause(log)

    assert found.cause is Cause.UNKNOWN
    assert found.line == line


def test_a_disturbed_neighbour_is_not_the_candidates_fault() -> None:
    assert Cause.NO_CACHE_BLOCKS.blames_the_candidate()
    assert not Cause.PROFILING_DISTURBED.blames_the_candidate()
    assert not Cause.UNKNOWN.blames_the_candidate()
