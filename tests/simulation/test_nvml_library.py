"""Unmodified `pynvml` reads the simulated card through the simulated library."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from support.simulated_card import REPOSITORY, RunningCard

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
    folder = tmp_path_factory.mktemp("nvml")
    subprocess.run(
        ["make", "--silent", "-C", str(REPOSITORY / "simulation" / "nvml"), f"OUT={folder}"],
        check=True,
        timeout=60,
        env=os.environ | {"MAKEFLAGS": ""},
    )
    return folder


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
