"""Unmodified `pynvml` reads the simulated card through the simulated library."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest
from support.simulated_card import RunningCard, build_nvml_library, start

READ = """
import json, pynvml
pynvml.nvmlInit()
card = pynvml.nvmlDeviceGetHandleByIndex(0)
memory = pynvml.nvmlDeviceGetMemoryInfo(card)
print(json.dumps({
    "count": pynvml.nvmlDeviceGetCount(),
    "name": pynvml.nvmlDeviceGetName(card),
    "uuid": pynvml.nvmlDeviceGetUUID(card),
    "total": memory.total, "free": memory.free, "used": memory.used,
    "utilization": pynvml.nvmlDeviceGetUtilizationRates(card).gpu,
    "processes": {p.pid: p.usedGpuMemory for p in pynvml.nvmlDeviceGetComputeRunningProcesses(card)},
}))
"""
HOLD_AND_READ = """
import asyncio, os, subprocess, sys
from cotune_simulation.card import socket_path
from cotune_simulation.card.client import CardClient
async def main():
    client = await CardClient.connect(socket_path())
    await client.allocate(512 * 1024 * 1024)
    print(os.getpid(), flush=True)
    print(subprocess.run([sys.executable, "-c", sys.argv[1]], capture_output=True, text=True, check=True).stdout)
asyncio.run(main())
"""
MIB = 1024 * 1024


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_nvml_library(tmp_path_factory.mktemp("nvml"))


def python(card: RunningCard, library: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=card.environment() | {"LD_LIBRARY_PATH": str(library)},
    )


def test_an_idle_card_reads_as_its_product(card: RunningCard, library: Path) -> None:
    done = python(card, library, "-c", READ)

    assert done.returncode == 0, done.stderr
    seen = cast("dict[str, Any]", json.loads(done.stdout))
    assert seen["count"] == 1
    assert seen["name"] == "NVIDIA GeForce RTX 3060"
    assert seen["uuid"].startswith("GPU-")
    assert seen["total"] == 12_288 * MIB
    assert seen["used"] + seen["free"] == seen["total"]
    assert seen["processes"] == {}


def test_memory_is_seen_per_process(card: RunningCard, library: Path) -> None:
    done = python(card, library, "-c", HOLD_AND_READ, READ)

    assert done.returncode == 0, done.stderr
    pid, reading, *_ = done.stdout.splitlines()
    seen = cast("dict[str, Any]", json.loads(reading))
    assert seen["processes"] == {pid: 512 * MIB}
    assert seen["free"] == (12_288 - 200 - 512) * MIB


def test_without_the_card_the_library_says_so(card: RunningCard, library: Path) -> None:
    card.stop()

    done = python(card, library, "-c", "import pynvml; pynvml.nvmlInit()")

    assert done.returncode == 1
    assert "NVMLError" in done.stderr


READ_THE_REST = """
import asyncio, pynvml
from cotune_simulation.card import socket_path
from cotune_simulation.card.client import CardClient
def refused(call, *arguments):
    try:
        call(*arguments)
    except pynvml.NVMLError as error:
        return type(error).__name__
async def main():
    pynvml.nvmlInit()
    card = pynvml.nvmlDeviceGetHandleByUUID(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(0)))
    assert refused(pynvml.nvmlDeviceGetProcessUtilization, card, 0) == "NVMLError_NotFound"
    assert pynvml.nvmlDeviceGetPerformanceState(card) == 8
    client = await CardClient.connect(socket_path())
    await client.allocate(1024 * 1024)
    await client.run(kernel_ms=400)
    assert pynvml.nvmlDeviceGetUtilizationRates(card).gpu == 100
    assert pynvml.nvmlDeviceGetPerformanceState(card) == 0
    newest = pynvml.nvmlDeviceGetProcessUtilization(card, 0)
    assert [sample.smUtil for sample in newest] == [100]
    assert refused(pynvml.nvmlDeviceGetProcessUtilization, card, newest[0].timeStamp * 2) == "NVMLError_NotFound"
    split = pynvml.nvmlDeviceGetMemoryInfo(card, pynvml.nvmlMemory_v2)
    assert (split.reserved, split.used) == (200 * 1024 * 1024, 1024 * 1024)
    assert split.total == split.reserved + split.used + split.free
    assert pynvml.nvmlSystemGetDriverVersion() == "580.159"
    assert pynvml.nvmlSystemGetNVMLVersion() == "13.580.159"
    assert pynvml.nvmlSystemGetCudaDriverVersion() == 13000
    assert pynvml.nvmlDeviceGetCudaComputeCapability(card) == (8, 6)
    assert pynvml.nvmlDeviceGetClockInfo(card, pynvml.NVML_CLOCK_SM) == 1777
    assert 15000 < pynvml.nvmlDeviceGetPowerUsage(card) <= 170000
    # Of a load that is a little past on a busy machine.
    assert 38 < pynvml.nvmlDeviceGetTemperature(card, pynvml.NVML_TEMPERATURE_GPU) <= 66
    assert pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(card) == 0
    await client.throttle(0x20)
    assert pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(card) & 0x20
    assert pynvml.nvmlDeviceGetClockInfo(card, pynvml.NVML_CLOCK_SM) == 888
    assert pynvml.nvmlDeviceGetGraphicsRunningProcesses(card) == []
    assert refused(pynvml.nvmlDeviceGetHandleByUUID, "GPU-other") == "NVMLError_NotFound"
    assert refused(pynvml.nvmlDeviceGetHandleByIndex, 1) == "NVMLError_InvalidArgument"
    assert refused(pynvml.nvmlDeviceGetFanSpeed, card) == "NVMLError_FunctionNotFound"
    pynvml.nvmlShutdown()
    assert refused(pynvml.nvmlDeviceGetCount) == "NVMLError_Uninitialized"
asyncio.run(main())
"""


def test_utilisation_versions_clocks_and_refusals_are_those_of_nvml(card: RunningCard, library: Path) -> None:
    done = python(card, library, "-c", READ_THE_REST)

    assert done.returncode == 0, done.stderr


FAIL_AND_READ = """
import asyncio, pynvml
from cotune_simulation.card import socket_path
from cotune_simulation.card.client import CardClient
async def main():
    pynvml.nvmlInit()
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    client = await CardClient.connect(socket_path())
    await client.fail(xid=13)
    events = pynvml.nvmlEventSetCreate()
    assert pynvml.nvmlDeviceGetSupportedEventTypes(card) & pynvml.nvmlEventTypeXidCriticalError
    pynvml.nvmlDeviceRegisterEvents(card, pynvml.nvmlEventTypeXidCriticalError, events)
    try:
        pynvml.nvmlEventSetWait_v2(events, 1)
    except pynvml.NVMLError as error:
        print(type(error).__name__)
    await client.fail(xid=48)
    await client.fail(xid=94)
    print([int(pynvml.nvmlEventSetWait_v2(events, 5000).eventData) for _ in range(2)])
    pynvml.nvmlEventSetFree(events)
    try:
        await client.fail(uncorrected=2)
        uncorrected = (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC)
        print(pynvml.nvmlDeviceGetTotalEccErrors(card, *uncorrected), pynvml.nvmlDeviceGetRemappedRows(card)[2])
    except ValueError as error:
        print(error)
    try:
        pynvml.nvmlDeviceGetRemappedRows(card)
    except pynvml.NVMLError as error:
        print(type(error).__name__)
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("product", "memory"),
    [("NVIDIA-H200", ["2 1"]), ("NVIDIA-GeForce-RTX-3060", ["has no error-correcting memory", "NotSupported"])],
)
def test_errors_are_told_to_who_listens_and_lost_memory_is_counted_where_the_card_can(
    library: Path, tmp_path: Path, product: str, memory: list[str]
) -> None:
    card = start(tmp_path / "another.sock", product)
    try:
        done = python(card, library, "-c", FAIL_AND_READ)
    finally:
        card.stop()

    assert done.returncode == 0, done.stderr
    timeout, xids, *rest = done.stdout.splitlines()
    assert (timeout, xids) == ("NVMLError_Timeout", "[48, 94]"), "not the one from before it listened"
    assert len(rest) == len(memory)
    assert all(word in line for word, line in zip(memory, rest, strict=True))


READ_AGAIN_AND_AGAIN = """
import pynvml
pynvml.nvmlInit()
card = pynvml.nvmlDeviceGetHandleByIndex(0)
print("reading", flush=True)
while True:
    pynvml.nvmlDeviceGetMemoryInfo(card)
"""


def test_a_process_that_was_held_up_in_the_middle_of_a_reading_goes_on(card: RunningCard, library: Path) -> None:
    """The card is held up first, so that the process waits for its answer when it is held up itself."""
    reader = subprocess.Popen(
        [sys.executable, "-c", READ_AGAIN_AND_AGAIN],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=card.environment() | {"LD_LIBRARY_PATH": str(library)},
    )
    try:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
        for _ in range(3):
            card.process.send_signal(signal.SIGSTOP)
            time.sleep(0.1)
            for number in (signal.SIGSTOP, signal.SIGCONT):
                reader.send_signal(number)
                time.sleep(0.02)
            card.process.send_signal(signal.SIGCONT)
            time.sleep(0.05)

        assert reader.poll() is None, reader.stdout.read()
    finally:
        card.process.send_signal(signal.SIGCONT)
        reader.kill()
        reader.communicate()
