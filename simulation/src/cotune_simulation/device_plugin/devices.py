"""The card as the kubelet's devices, and what a container gets with them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from cotune_simulation.card import DEFAULT_SOCKET
from cotune_simulation.device_plugin import deviceplugin_pb2 as api
from cotune_simulation.device_plugin.kubelet import HEALTHY, UNHEALTHY

NVML_LIBRARY = "libnvidia-ml.so.1"
NVML_IN_CONTAINERS = Path("/usr/lib/x86_64-linux-gnu") / NVML_LIBRARY
"""In the dynamic linker's default path of Debian and its kin."""

UNHEALTHY_MARK = "unhealthy"
"""A file of this name in the node's folder makes the card unhealthy."""

_HEALTH_SECONDS = 0.5


@dataclass(frozen=True)
class NodeFolder:
    """The node's folder for the card, on the host: socket, library, identity and health mark."""

    path: Path

    @property
    def socket(self) -> Path:
        """The card's socket."""
        return self.path / "run" / DEFAULT_SOCKET.name

    @property
    def library(self) -> Path:
        """The NVML library that containers get."""
        return self.path / NVML_LIBRARY

    @property
    def identity(self) -> Path:
        """The file that says which card this is."""
        return self.path / "card.json"

    @property
    def unhealthy_mark(self) -> Path:
        """Exists while the card is unhealthy."""
        return self.path / UNHEALTHY_MARK


class SharedCard:
    """One card, advertised as so many devices as there are replicas (time-slicing, MPS), or as itself with one."""

    def __init__(self, uuid: str, replicas: int, folder: NodeFolder, mps: bool = False) -> None:
        self._mps = mps
        self._uuid = uuid
        self._folder = folder
        self._ids = [uuid] if replicas == 1 else [f"{uuid}::{number}" for number in range(replicas)]

    async def watch_devices(self) -> AsyncIterator[api.ListAndWatchResponse]:
        """All devices now, and again whenever the card's health changes."""
        sent: str | None = None
        while True:
            health = UNHEALTHY if self._folder.unhealthy_mark.exists() else HEALTHY
            if health != sent:
                yield api.ListAndWatchResponse(devices=[api.Device(ID=name, health=health) for name in self._ids])
                sent = health
            await asyncio.sleep(_HEALTH_SECONDS)

    def allocate(self, request: api.AllocateRequest) -> api.AllocateResponse:
        """The same for every container: the card's UUID, its socket and NVML.

        :raises ValueError: a device is not ours.
        """
        responses: list[api.ContainerAllocateResponse] = []
        for container in request.container_requests:
            if unknown := set(container.devices_ids) - set(self._ids):
                raise ValueError(f"unknown devices: {', '.join(sorted(unknown))}")
            responses.append(self._container())
        return api.AllocateResponse(container_responses=responses)

    def _container(self) -> api.ContainerAllocateResponse:
        # The folder, not the socket itself: a restarted daemon makes a new one.
        socket = api.Mount(
            container_path=str(DEFAULT_SOCKET.parent), host_path=str(self._folder.socket.parent), read_only=True
        )
        library = api.Mount(container_path=str(NVML_IN_CONTAINERS), host_path=str(self._folder.library), read_only=True)
        # NVIDIA's plugin mounts the folder of the pipe and /dev/shm, too: nobody here would open them.
        pipe = {"CUDA_MPS_PIPE_DIRECTORY": "/mps/nvidia.com/gpu/pipe"} if self._mps else {}
        envs = {"NVIDIA_VISIBLE_DEVICES": self._uuid, **pipe}
        return api.ContainerAllocateResponse(envs=envs, mounts=[socket, library])
