"""Why a server ended, read from its log.

A termination message is often too short for vLLM's: its last line is `RuntimeError: Engine core initialization failed.
See root cause above.`, and the cause stands far above it. The patterns are the messages of vLLM 0.26 and torch 2.11 as
they were read on a real card; vLLM 0.11 wrote "the models's max seq len".
"""

import re
from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """Known reasons, as they stand in a trial's `status.reason`."""

    NO_CACHE_BLOCKS = "NoCacheBlocks"
    """The memory budget is smaller than weights and activations."""
    CONTEXT_TOO_LONG = "ContextTooLong"
    """Not even one request of the model's maximum length fits into the KV cache."""
    CARD_TAKEN = "CardTaken"
    """Less memory is free than vLLM was told to use."""
    PROFILING_DISTURBED = "ProfilingDisturbed"
    """A neighbour freed memory while vLLM measured it. Worth one retry: the candidate is not to blame."""
    CUDA_OUT_OF_MEMORY = "CudaOutOfMemory"
    """An allocation on the card failed."""
    OOM_KILLED = "OOMKilled"
    """The kernel ended it for want of the machine's memory: no log says so, the kubelet does."""
    NO_GPU = "NoGpu"
    """The process sees no card."""
    CARD_ERROR = "CardError"
    """The card has failed, or is gone."""
    UNKNOWN = "Unknown"
    """None of the above: the message is the log's last line."""

    def blames_the_candidate(self) -> bool:
        """Whether the same candidate would end in the same way again."""
        return self not in {Cause.PROFILING_DISTURBED, Cause.UNKNOWN, Cause.NO_GPU, Cause.CARD_ERROR}


@dataclass(frozen=True)
class RootCause:
    """What the log says."""

    cause: Cause
    line: str
    """The line of the log, without the prefix of the logger; empty when the log is."""


_LONGEST_LINE = 1000

CUDA_OUT_OF_MEMORY = re.compile(
    r"(?:torch\.)?(?:cuda\.)?OutOfMemoryError: CUDA out of memory|(?:RuntimeError: )?CUDA error: out of memory"
    r"|(?:RuntimeError: )?CUDA failed with error out of memory|CUBLAS_STATUS_ALLOC_FAILED"
)
"""Of torch, of CUDA's runtime as torch and CTranslate2 hand it on, and of cuBLAS."""

_PATTERNS = (
    (Cause.NO_CACHE_BLOCKS, re.compile(r"ValueError: No available memory for the cache blocks")),
    (Cause.CONTEXT_TOO_LONG, re.compile(r"ValueError: To serve at least one request with the models?'s max seq len")),
    (Cause.CARD_TAKEN, re.compile(r"ValueError: Free memory on device \S+ \(.*\) on startup is less than desired")),
    (Cause.PROFILING_DISTURBED, re.compile(r"AssertionError: Error in memory profiling\.")),
    (Cause.CUDA_OUT_OF_MEMORY, CUDA_OUT_OF_MEMORY),
    (Cause.CARD_ERROR, re.compile(r"(RuntimeError: )?CUDA error: uncorrectable ECC error encountered")),
    (Cause.CARD_ERROR, re.compile(r"NVML: GPU (is lost|requires re(set|start))")),
    (Cause.NO_GPU, re.compile(r"RuntimeError: (No CUDA GPUs are available|Found no NVIDIA driver)")),
)


def root_cause(log: str) -> RootCause:
    """The first known cause in the log: what comes after it are its consequences."""
    for line in log.splitlines():
        for cause, pattern in _PATTERNS:
            if found := pattern.search(line):
                return RootCause(cause, line[found.start() :].strip()[:_LONGEST_LINE])
    last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "")
    return RootCause(Cause.UNKNOWN, last[:_LONGEST_LINE])
