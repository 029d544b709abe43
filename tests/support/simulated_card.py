"""A simulated card as its own process, as on a node."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cotune_simulation.card.client import CardClient

REPOSITORY = Path(__file__).parents[2]


@dataclass
class RunningCard:
    """A card's daemon and where it listens."""

    socket: Path
    process: subprocess.Popen[str]
    is_mps: bool = False

    def environment(self) -> dict[str, str]:
        """What the device plugin gives to a container."""
        pipe = {"CUDA_MPS_PIPE_DIRECTORY": "/mps/nvidia.com/gpu/pipe"} if self.is_mps else {}
        return os.environ | {
            "COTUNE_SIMULATION_SOCKET": str(self.socket),
            "PYTHONPATH": str(REPOSITORY / "simulation" / "src"),
            **pipe,
        }

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[CardClient]:
        client = await CardClient.connect(self.socket)
        try:
            yield client
        finally:
            await client.close()


def start(socket: Path, product: str = "NVIDIA-GeForce-RTX-3060", mps_replicas: int = 0) -> RunningCard:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "cotune_simulation.card"),
            *("--product", product, "--node", "lab"),
            *("--socket", str(socket), "--settling-seconds", "0.3", "--mps-replicas", str(mps_replicas)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "simulation" / "src")},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("listening"):
            return RunningCard(socket, process, mps_replicas > 0)
    raise AssertionError(f"the card ended with {process.wait()}")


async def wait_for_free(client: CardClient, free: int) -> None:
    """The end of a process reaches the card a moment after it."""
    async with asyncio.timeout(5):
        while await client.free_bytes() != free:
            await asyncio.sleep(0.01)


def build_nvml_library(folder: Path) -> Path:
    """The folder that now holds `libnvidia-ml.so.1` over the simulated card."""
    subprocess.run(
        ["make", "--silent", "-C", str(REPOSITORY / "simulation" / "nvml"), f"OUT={folder}"],
        check=True,
        timeout=60,
        env=os.environ | {"MAKEFLAGS": ""},
    )
    return folder
