"""A device plugin for the real card of the machine: one GPU, offered as so many shares (time-slicing).

NVIDIA's own plugin is a Go module that the registry refuses (docs/results has the answer), so this one stands in for it. It
speaks the kubelet's protocol, reads the card by NVML, watches its health and hands out the real device files; the ids of
shares are those of NVIDIA's plugin, `GPU-<uuid>::<number>`. What it has not: MIG, several cards, CDI, MPS's limits.

Usage, in a privileged container: python3 -m gpu.device_plugin --replicas 6
"""

import argparse
import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cotune_simulation.device_plugin import deviceplugin_pb2 as api
from cotune_simulation.device_plugin.kubelet import HEALTHY, UNHEALTHY
from cotune_simulation.device_plugin.registration import keep_registered
from cotune_simulation.termination import end_at_sigterm

_RESOURCE = "nvidia.com/gpu"
_SOCKET = "cotune-nvidia.sock"
_SHARED_FILES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
_HEALTH_SECONDS = 5.0


@dataclass(frozen=True)
class RealCard:
    """The one card."""

    uuid: str
    minor: int
    nvml: Any
    handle: Any

    @classmethod
    def open(cls) -> "RealCard":
        """By NVML.

        Raises:
            RuntimeError: there is not exactly one.
        """
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        if (count := nvml.nvmlDeviceGetCount()) != 1:
            raise RuntimeError(f"{count} cards, and this plugin serves one")
        handle = nvml.nvmlDeviceGetHandleByIndex(0)
        return cls(str(nvml.nvmlDeviceGetUUID(handle)), int(nvml.nvmlDeviceGetMinorNumber(handle)), nvml, handle)

    def is_healthy(self) -> bool:
        """Whether the driver still answers for it."""
        try:
            self.nvml.nvmlDeviceGetMemoryInfo(self.handle)
        except self.nvml.NVMLError:
            return False
        return True

    def device_files(self, folder: Path = Path("/dev")) -> "list[Path]":
        """What a process opens to use it."""
        return [it for name in (f"nvidia{self.minor}", *_SHARED_FILES) if (it := folder / name).exists()]


class Shares:
    """What the kubelet asks a plugin."""

    def __init__(self, card: RealCard, replicas: int, files: Sequence[Path]) -> None:
        self._card = card
        self._files = files
        self._ids = [f"{card.uuid}::{number}" for number in range(replicas)]

    async def watch_devices(self) -> AsyncIterator[api.ListAndWatchResponse]:
        """All shares now, and again whenever the card's health changes."""
        sent: str | None = None
        while True:
            health = HEALTHY if await asyncio.to_thread(self._card.is_healthy) else UNHEALTHY
            if health != sent:
                yield api.ListAndWatchResponse(devices=[api.Device(ID=it, health=health) for it in self._ids])
                sent = health
            await asyncio.sleep(_HEALTH_SECONDS)

    def allocate(self, request: api.AllocateRequest) -> api.AllocateResponse:
        """The same device files for every container.

        Raises:
            ValueError: a share is not ours.
        """
        responses: list[api.ContainerAllocateResponse] = []
        for container in request.container_requests:
            if unknown := set(container.devices_ids) - set(self._ids):
                raise ValueError(f"unknown devices: {', '.join(sorted(unknown))}")
            devices = [
                api.DeviceSpec(container_path=str(it), host_path=str(it), permissions="rw") for it in self._files
            ]
            envs = {"NVIDIA_VISIBLE_DEVICES": self._card.uuid}
            responses.append(api.ContainerAllocateResponse(envs=envs, devices=devices))
        return api.AllocateResponse(container_responses=responses)


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="gpu.device_plugin", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--replicas", type=int, default=6)
    parser.add_argument("--plugins", type=Path, default=Path("/var/lib/kubelet/device-plugins"))
    options = parser.parse_args()
    end_at_sigterm()
    card = RealCard.open()
    files = card.device_files()
    print(f"{card.uuid}: {options.replicas} shares, files {', '.join(map(str, files))}", flush=True)
    asyncio.run(keep_registered(Shares(card, options.replicas, files), options.plugins, _SOCKET, _RESOURCE))
    return 0


if __name__ == "__main__":
    sys.exit(main())
