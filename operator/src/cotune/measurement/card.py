"""The card as NVML shows it: whether it is drained, and what the loaded stack takes of it."""

# pynvml has no types: they stop at this file's signatures.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, cast

import pynvml

from cotune.measurement.contract import MOST_CARD_SAMPLES, CardConduct, CardIdentity, CardProcess, CardSamples
from cotune.measurement.xid import XidWatch

_MIB = 1 << 20
_IDLE_SHARE = 0.006
"""Of its memory an idle card may show as used by its driver: an H200 shows 615 of 143,771 MiB."""
_CONTEXT_MIB = 128
"""Unlisted memory above this is that of a process which NVML does not list: no CUDA context is smaller."""
_IDLE_LEAST_MIB = 256
"""What a small card's driver may take; the context of any CUDA process takes as much on top of it."""
_SAMPLES_A_SECOND = 10
MPS_VARIABLE = "CUDA_MPS_PIPE_DIRECTORY"
"""The device plugin sets it in every container with a share of a card under MPS."""

_THROTTLING = {
    0x08: "HwSlowdown",
    0x20: "SwThermalSlowdown",
    0x40: "HwThermalSlowdown",
    0x80: "HwPowerBrakeSlowdown",
}
"""NVML's clock event reasons that say something of the machine's state on that day.

A card at its power cap (0x04) is not among them: that is what the load makes of this card, whenever it is run.
"""


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
    held: Mapping[int, float] = field(default_factory=dict[int, float])
    """Process id to MiB, for the processes that NVML lists with their memory."""
    throttle_reasons: int | None = None
    """NVML's bits; None: the driver does not say. So with the following."""
    sm_clock_mhz: int | None = None
    power_watts: float | None = None
    temperature_celsius: int | None = None
    uncorrected_ecc_errors: int | None = None
    """Since the driver was loaded."""
    mps_server_mib: float = 0.0
    """What the server of MPS holds, which is nobody's process and stays when its clients have gone."""
    seconds: float = 0.0
    """From the start of the watch that it belongs to."""

    @property
    def unlisted_mib(self) -> float:
        """What is used and not accounted for by a listed process."""
        return max(0.0, self.used_mib - self.mps_server_mib - sum(self.held.values()))

    @property
    def is_idle(self) -> bool:
        """Whether nobody computes on the card, and no memory is left over from somebody who did.

        Processes of other containers are not always listed; their memory always is.
        """
        of_others = self.used_mib - self.mps_server_mib
        return self.processes == 0 and of_others <= max(_IDLE_LEAST_MIB, _IDLE_SHARE * self.total_mib)


def card_uuids() -> tuple[str, ...]:
    """All cards that NVML shows here; none without a driver."""
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(it) for it in range(int(pynvml.nvmlDeviceGetCount()))]
        return tuple(_text(pynvml.nvmlDeviceGetUUID(it)) for it in handles)
    except pynvml.NVMLError:
        return ()


class Card:
    """The one card that the pod was given a share of, or one of those that a node agent sees."""

    def __init__(self, uuid: str | None = None) -> None:
        """Open NVML.

        Args:
            uuid: of several cards this one.

        Raises:
            CardError: there is no driver, no such card, or without `uuid` not exactly one card.
        """
        try:
            pynvml.nvmlInit()
            if uuid is None and (count := int(pynvml.nvmlDeviceGetCount())) != 1:
                raise CardError(f"the pod sees {count} cards, and a trial runs on one")
            self._is_mps = MPS_VARIABLE in os.environ
            self._handle = (
                pynvml.nvmlDeviceGetHandleByIndex(0) if uuid is None else pynvml.nvmlDeviceGetHandleByUUID(uuid)
            )
            self.uuid = _text(pynvml.nvmlDeviceGetUUID(self._handle))
        except pynvml.NVMLError as error:
            raise CardError(f"NVML: {error}") from error

    def listen(self) -> XidWatch:
        """Listen to what the driver tells of critical errors of this card, from now on."""
        return XidWatch(self._handle)

    def needs_reset(self) -> bool | None:
        """Whether memory that had uncorrectable errors waits for a reset to be replaced; None: it is not told."""
        rows = _known(lambda: pynvml.nvmlDeviceGetRemappedRows(self._handle)[2])
        return _flag(rows if rows is not None else _known(self._pages_pending))

    def _pages_pending(self) -> object:
        """What cards before Ampere have in place of rows."""
        return pynvml.nvmlDeviceGetRetiredPagesPendingStatus(self._handle)

    def read(self) -> Reading:
        """The card now; a few calls to the driver, each far below a millisecond.

        Raises:
            CardError: NVML does not answer.
        """
        try:
            memory = pynvml.nvmlDeviceGetMemoryInfo(self._handle)
            rates = pynvml.nvmlDeviceGetUtilizationRates(self._handle)
            processes = pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
            # Under MPS all processes are its clients, for the card is in exclusive mode then, but for its server.
            clients = pynvml.nvmlDeviceGetMPSComputeRunningProcesses(self._handle) if self._is_mps else processes
        except pynvml.NVMLError as error:
            raise CardError(f"NVML: {error}") from error
        return Reading(
            used_mib=int(memory.used) / _MIB,
            free_mib=int(memory.free) / _MIB,
            total_mib=int(memory.total) / _MIB,
            utilization=int(rates.gpu) / 100,
            processes=len(clients),
            held=_held(clients),
            mps_server_mib=sum(mib for pid, mib in _held(processes).items() if pid not in _held(clients)),
            throttle_reasons=_known(lambda: pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle)),
            sm_clock_mhz=_known(lambda: pynvml.nvmlDeviceGetClockInfo(self._handle, pynvml.NVML_CLOCK_SM)),
            power_watts=milliwatts / 1000
            if (milliwatts := _known(lambda: pynvml.nvmlDeviceGetPowerUsage(self._handle))) is not None
            else None,
            temperature_celsius=_known(
                lambda: pynvml.nvmlDeviceGetTemperature(self._handle, pynvml.NVML_TEMPERATURE_GPU)
            ),
            uncorrected_ecc_errors=_known(
                lambda: pynvml.nvmlDeviceGetTotalEccErrors(
                    self._handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
                )
            ),
        )

    def identity(self) -> CardIdentity:
        """Which card it is, and what drives it.

        Raises:
            CardError: NVML does not answer.
        """
        cuda = _known(pynvml.nvmlSystemGetCudaDriverVersion_v2)
        return CardIdentity(
            uuid=self.uuid,
            product=_said(lambda: pynvml.nvmlDeviceGetName(self._handle)),
            memory_mib=round(self.read().total_mib, 3),
            driver_version=_said(pynvml.nvmlSystemGetDriverVersion),
            cuda_version=None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
            nvml_version=_said(pynvml.nvmlSystemGetNVMLVersion),
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

    async def watch(self, seconds: float, seen: Callable[[Reading], None] = lambda _: None) -> list[Reading]:
        """Read the card ten times a second for so long; at least once.

        Args:
            seconds: for how long.
            seen: gets every reading at once.
        """
        readings: list[Reading] = []
        start = time.monotonic()
        while not readings or time.monotonic() < start + seconds:
            at = time.monotonic() - start
            readings.append(replace(await asyncio.to_thread(self.read), seconds=at))
            seen(readings[-1])
            # From the start on, so that slow readings do not add up.
            due = start + len(readings) / _SAMPLES_A_SECOND
            await asyncio.sleep(max(0.0, min(due, start + seconds) - time.monotonic()))
        return readings


def card_conduct(
    uuid: str,
    drained: Reading,
    readings: Sequence[Reading],
    xids: tuple[int, ...] | None = None,
    needs_reset: bool | None = None,
) -> CardConduct:
    """What the readings of a window say beside its metrics.

    Args:
        uuid: the card's.
        drained: the card before the stack was started.
        readings: of the window, at least one.
        xids: critical errors that the driver told in the window; None: it tells none.
        needs_reset: as `Card.needs_reset` says after the window.
    """
    first = readings[0]
    pids = {pid for it in readings for pid in it.held}
    held = {pid: min(it.held.get(pid, 0.0) for it in readings) for pid in first.held}
    came = {pid: min(it.held[pid] for it in readings if pid in it.held) for pid in sorted(pids - first.held.keys())}
    reasons = [it.throttle_reasons for it in readings if it.throttle_reasons is not None]
    seen = {name for bit, name in _THROTTLING.items() if any(it & bit for it in reasons)}
    before, after = readings[0].uncorrected_ecc_errors, readings[-1].uncorrected_ecc_errors
    clocks = [it.sm_clock_mhz for it in readings if it.sm_clock_mhz is not None]
    watts = [it.power_watts for it in readings if it.power_watts is not None]
    degrees = [it.temperature_celsius for it in readings if it.temperature_celsius is not None]
    return CardConduct(
        uuid=uuid,
        readings=len(readings),
        rise_mib=min(it.used_mib for it in readings) - drained.used_mib,
        processes=_processes(held),
        # The two are read one after the other: a single reading may fall into an allocation.
        are_all_listed=median(it.unlisted_mib for it in readings) <= drained.used_mib + _CONTEXT_MIB,
        newcomers=_processes(came),
        throttled=sum(any(it & bit for bit in _THROTTLING) for it in reasons) if reasons else None,
        throttle_reasons=tuple(sorted(seen)),
        sm_clock_mhz=min(clocks, default=None),
        power_watts=max(watts, default=None),
        temperature_celsius=max(degrees, default=None),
        uncorrected_ecc_errors=max(after - before, 0) if before is not None and after is not None else None,
        xids=xids[:64] if xids is not None else None,
        needs_reset=needs_reset,
    )


def _held(processes: Sequence[Any]) -> dict[int, float]:
    """Process id to MiB, for those that NVML lists with their memory."""
    return {int(it.pid): int(it.usedGpuMemory) / _MIB for it in processes if it.usedGpuMemory is not None}


def card_samples(readings: Sequence[Reading], most: int = MOST_CARD_SAMPLES) -> CardSamples:
    """The readings of a window as they are kept, at most so many.

    Args:
        readings: at least one.
        most: at least two.
    """
    kept = [readings[it] for it in _evenly(len(readings), most, _fullest(readings))]
    return CardSamples(
        seconds=tuple(round(it.seconds, 3) for it in kept),
        used_mib=tuple(round(it.used_mib, 6) for it in kept),
        utilization=tuple(it.utilization for it in kept),
        sm_clock_mhz=tuple(it.sm_clock_mhz for it in kept),
        power_watts=tuple(it.power_watts for it in kept),
        temperature_celsius=tuple(it.temperature_celsius for it in kept),
    )


def _fullest(readings: Sequence[Reading]) -> int:
    return max(range(len(readings)), key=lambda it: readings[it].used_mib)


def _evenly(count: int, most: int, always: int) -> list[int]:
    """At most so many of `count` places at even distances, the first and the last and `always` among them."""
    if count <= most:
        return list(range(count))
    places = [it * (count - 1) // (most - 1) for it in range(most)]
    if always not in places:
        # It takes the place of its neighbour, but for the ends: they say how long the window was.
        nearest = min(range(1, most - 1), key=lambda it: abs(places[it] - always), default=0)
        places[nearest] = always
    return sorted(places)


def _processes(held: Mapping[int, float]) -> tuple[CardProcess, ...]:
    return tuple(CardProcess(pid=pid, least_mib=round(mib, 1)) for pid, mib in sorted(held.items())[:256])


def _known(read: Callable[[], object]) -> int | None:
    """What the driver says; None where this card or this driver says nothing of it."""
    with suppress(pynvml.NVMLError):
        return cast("int", read())
    return None


def _flag(said: int | None) -> bool | None:
    return None if said is None else bool(said)


def _said(read: Callable[[], str | bytes]) -> str | None:
    with suppress(pynvml.NVMLError):
        return _text(read())
    return None


def _text(said: str | bytes) -> str:
    return said.decode() if isinstance(said, bytes) else said
