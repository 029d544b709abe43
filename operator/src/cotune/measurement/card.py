"""The card as NVML shows it: whether it is drained, and what the loaded stack takes of it."""

# pynvml has no types: they stop at this file's signatures.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import pynvml

_MIB = 1 << 20
_IDLE_SHARE = 0.006
"""Of its memory an idle card may show as used by its driver: an H200 shows 615 of 143,771 MiB."""
_IDLE_LEAST_MIB = 256
"""What a small card's driver may take; the context of any CUDA process takes as much on top of it."""
_SAMPLES_A_SECOND = 4


class CardError(RuntimeError):
    """NVML does not answer, or shows another number of cards than one."""


@dataclass(frozen=True)
class Reading:
    """The card at one moment."""

    used_mib: float
    free_mib: float
    total_mib: float
    utilization: float
    """0 to 1: the share of the last moments in which some kernel ran."""
    processes: int

    @property
    def is_idle(self) -> bool:
        """Whether nobody computes on the card, and no memory is left over from somebody who did.

        Processes of other containers are not always listed; their memory always is.
        """
        return self.processes == 0 and self.used_mib <= max(_IDLE_LEAST_MIB, _IDLE_SHARE * self.total_mib)


class Card:
    """The one card that the pod was given a share of."""

    def __init__(self) -> None:
        """Open NVML.

        Raises:
            CardError: there is no driver, or not exactly one card.
        """
        try:
            pynvml.nvmlInit()
            count = int(pynvml.nvmlDeviceGetCount())
            if count != 1:
                raise CardError(f"the pod sees {count} cards, and a trial runs on one")
            self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        except pynvml.NVMLError as error:
            raise CardError(f"NVML: {error}") from error

    def read(self) -> Reading:
        """The card now; a few calls to the driver, each far below a millisecond.

        Raises:
            CardError: NVML does not answer.
        """
        try:
            memory = pynvml.nvmlDeviceGetMemoryInfo(self._handle)
            rates = pynvml.nvmlDeviceGetUtilizationRates(self._handle)
            processes = pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except pynvml.NVMLError as error:
            raise CardError(f"NVML: {error}") from error
        return Reading(
            used_mib=int(memory.used) / _MIB,
            free_mib=int(memory.free) / _MIB,
            total_mib=int(memory.total) / _MIB,
            utilization=int(rates.gpu) / 100,
            processes=len(processes),
        )

    async def drained(self, seen: Callable[[Reading], None], interval_seconds: float = 0.25) -> Reading:
        """Returns when two readings in a row show an idle card: one may fall between two processes.

        Args:
            seen: gets every reading that does not show an idle card.
            interval_seconds: between two readings.
        """
        in_a_row = 0
        while True:
            reading = await asyncio.to_thread(self.read)
            in_a_row = in_a_row + 1 if reading.is_idle else 0
            if not reading.is_idle:
                seen(reading)
            if in_a_row == 2:
                return reading
            await asyncio.sleep(interval_seconds)

    async def watch(self, seconds: float) -> list[Reading]:
        """Read the card a few times a second for so long; at least once."""
        readings: list[Reading] = []
        end = time.monotonic() + seconds
        while not readings or time.monotonic() < end:
            readings.append(await asyncio.to_thread(self.read))
            await asyncio.sleep(1 / _SAMPLES_A_SECOND)
        return readings
