"""`gpu.largestAllocMiB`: the largest single allocation that still succeeds beside the loaded stack.

Found by trying: CUDA's driver is asked for memory and gets it back at once, halving the range until it is one page
wide. It disturbs, since for a moment it takes what is free: after the window, when nothing is asked of the services.
It runs in a process of its own (`python -m cotune.measurement.largest_allocation`), whose context ends with it: the
figure is what a newcomer could allocate at once, once it has its context. Whoever allocates in the same moment may
fail; so it is only done where an experiment names the metric.

Source: CUDA's driver interface, `cuMemAlloc` and `cuMemGetInfo`. Virtual addresses are contiguous whatever pages lie
behind them, so that the figure is what is free, or what MPS lets a client have.
"""

# ctypes knows its functions only at run time.
# pyright: reportUnknownMemberType=false

import asyncio
import ctypes
import sys
from typing import Any, Protocol

_MIB = 1 << 20
_PAGE = 2 * _MIB
"""What the driver gives out at a time."""
_OUT_OF_MEMORY = 2
_SECONDS = 60


class CudaError(RuntimeError):
    """The driver is not there, or answers with an error that is not want of memory."""


class Allocator(Protocol):
    """What the search asks of a card."""

    def free_bytes(self) -> int:
        """What the card says is free."""
        ...

    def succeeds(self, size: int) -> bool:
        """Whether so many bytes are given in one piece; they are given back at once."""
        ...


class CudaAllocator:
    """The first card that this process sees, through CUDA's driver library."""

    def __init__(self, library: Any = None) -> None:
        """Make a context.

        Args:
            library: stands in for `libcuda.so.1`.

        Raises:
            CudaError: there is no such library or no card.
        """
        try:
            self._cuda = ctypes.CDLL("libcuda.so.1") if library is None else library
        except OSError as error:
            raise CudaError(f"no CUDA driver: {error}") from error
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def free_bytes(self) -> int:
        """Of `cuMemGetInfo`."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def succeeds(self, size: int) -> bool:
        """Allocate and free.

        Raises:
            CudaError: it failed for another reason than want of memory.
        """
        address = ctypes.c_uint64()
        status = int(self._cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size)))
        if status == _OUT_OF_MEMORY:
            return False
        if status != 0:
            raise CudaError(f"cuMemAlloc failed with {status}")
        self._call("cuMemFree_v2", address)
        return True

    def _call(self, name: str, *arguments: object) -> None:
        status = int(getattr(self._cuda, name)(*arguments))
        if status != 0:
            raise CudaError(f"{name} failed with {status}")


def largest_allocation(card: Allocator) -> int:
    """Bytes, a multiple of 2 MiB; 0 where not even one page is given.

    Raises:
        CudaError: the driver fails.
    """
    low, high = 0, card.free_bytes() // _PAGE
    if high and card.succeeds(high * _PAGE):
        return high * _PAGE
    while high - low > 1:
        middle = (low + high) // 2
        if card.succeeds(middle * _PAGE):
            low = middle
        else:
            high = middle
    return low * _PAGE


async def measure_largest_allocation(command: "tuple[str, ...] | None" = None) -> tuple[float | None, str]:
    """Run the search in a process of its own.

    Args:
        command: stands in for this module's.

    Returns:
        MiB and an empty text, or None and why it is not known.
    """
    words = command or (sys.executable, "-m", "cotune.measurement.largest_allocation")
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(_SECONDS):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return None, f"no answer in {_SECONDS} s"
    if process.returncode != 0:
        lines = errors.decode(errors="replace").strip().splitlines()
        return None, lines[-1] if lines else f"exit code {process.returncode}"
    return float(output), ""


def main() -> int:
    """Print MiB; exit code 1 and a line on stderr where it cannot be known."""
    try:
        print(largest_allocation(CudaAllocator()) / _MIB)
    except CudaError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
