"""A device plugin for the real card of the machine: one GPU, offered as so many shares (time-slicing).

NVIDIA's own plugin is a Go module that the registry refuses (tests/gpu/README.md has its answer): this one stands in.
It speaks the kubelet's protocol, reads the card by NVML, watches its health and hands out the real device files; ids of
shares are those of NVIDIA's plugin, `GPU-<uuid>::<number>`. What it has not: MIG, several cards, CDI, MPS's limits.

Usage, in a privileged container: python3 -m gpu.device_plugin --replicas 6
"""

import argparse
import asyncio
import importlib
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from gpu import kubelet_api as api

_RESOURCE, _VERSION = "nvidia.com/gpu", "v1beta1"
_SOCKET, _KUBELET = "cotune-nvidia.sock", "kubelet.sock"
_SHARED_FILES = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
_HEALTH_SECONDS, _WATCH_SECONDS, _CALL_SECONDS = 5.0, 0.5, 5.0


@dataclass(frozen=True)
class RealCard:
    """The one card."""

    uuid: str
    minor: int
    is_healthy: Callable[[], bool]
    """Whether the driver still answers for it."""

    @classmethod
    def open(cls, index: int | None = None) -> "RealCard":
        """By NVML.

        Args:
            index: of several cards this one; the others are somebody else's.

        Raises:
            RuntimeError: there is not exactly one, and none was chosen.
        """
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        if index is None and (count := nvml.nvmlDeviceGetCount()) != 1:
            raise RuntimeError(f"{count} cards, and this plugin serves one: --index chooses it")
        handle = nvml.nvmlDeviceGetHandleByIndex(index or 0)

        def is_healthy() -> bool:
            with suppress(nvml.NVMLError):
                nvml.nvmlDeviceGetMemoryInfo(handle)
                return True
            return False

        return cls(str(nvml.nvmlDeviceGetUUID(handle)), int(nvml.nvmlDeviceGetMinorNumber(handle)), is_healthy)

    def device_files(self, folder: Path = Path("/dev")) -> "list[Path]":
        """What a process opens to use it."""
        return [it for name in (f"nvidia{self.minor}", *_SHARED_FILES) if (it := folder / name).exists()]


class Shares:
    """What the kubelet asks a plugin."""

    def __init__(self, card: RealCard, replicas: int, files: Sequence[Path]) -> None:
        self._card = card
        self._files = files
        self._ids = [f"{card.uuid}::{number}" for number in range(replicas)]

    async def watch_devices(self) -> AsyncIterator[Any]:
        """All shares now, and again whenever the card's health changes."""
        sent: str | None = None
        while True:
            health = "Healthy" if await asyncio.to_thread(self._card.is_healthy) else "Unhealthy"
            if health != sent:
                yield api.ListAndWatchResponse(devices=[api.Device(ID=it, health=health) for it in self._ids])
                sent = health
            await asyncio.sleep(_HEALTH_SECONDS)

    def allocate(self, request: Any) -> Any:
        """The same device files for every container.

        Raises:
            ValueError: a share is not ours.
        """
        responses: list[Any] = []
        for container in request.container_requests:
            if unknown := set(container.devices_ids) - set(self._ids):
                raise ValueError(f"unknown devices: {', '.join(sorted(unknown))}")
            files = [api.DeviceSpec(container_path=str(it), host_path=str(it), permissions="rw") for it in self._files]
            variables = [api.EnvsEntry(key="NVIDIA_VISIBLE_DEVICES", value=self._card.uuid)]
            responses.append(api.ContainerAllocateResponse(envs=variables, devices=files))
        return api.AllocateResponse(container_responses=responses)


class _Service:
    """The gRPC service; the names of its methods are found in its mapping."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares

    def __mapping__(self) -> "dict[str, Handler]":
        service = f"/{_VERSION}.DevicePlugin"
        one, many = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        return {
            f"{service}/GetDevicePluginOptions": Handler(self._options, one, api.Empty, api.DevicePluginOptions),
            f"{service}/ListAndWatch": Handler(self._list_and_watch, many, api.Empty, api.ListAndWatchResponse),
            f"{service}/Allocate": Handler(self._allocate, one, api.AllocateRequest, api.AllocateResponse),
        }

    async def _options(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(api.DevicePluginOptions())

    async def _list_and_watch(self, stream: Any) -> None:
        await stream.recv_message()
        async for devices in self._shares.watch_devices():
            await stream.send_message(devices)

    async def _allocate(self, stream: Any) -> None:
        request = await stream.recv_message()
        try:
            await stream.send_message(self._shares.allocate(request))
        except ValueError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error


async def keep_registered(shares: Shares, folder: Path) -> None:
    """Serve beside the kubelet's socket and register, again after each start of the kubelet; never ends."""
    kubelet, own = folder / _KUBELET, folder / _SOCKET
    while True:
        while (identity := _identity(kubelet)) is None:
            await asyncio.sleep(_WATCH_SECONDS)
        own.unlink(missing_ok=True)
        server = Server([_Service(shares)])
        await server.start(path=str(own))
        try:
            await _register(kubelet)
            print(f"registered {_RESOURCE} with the kubelet", flush=True)
            while own.exists() and _identity(kubelet) == identity:
                await asyncio.sleep(_WATCH_SECONDS)
        except (GRPCError, OSError, TimeoutError) as error:
            print(f"the kubelet did not take the registration: {error}", flush=True)
            await asyncio.sleep(_WATCH_SECONDS)
        finally:
            server.close()
            await server.wait_closed()


async def _register(kubelet: Path) -> None:
    async with Channel(path=str(kubelet)) as channel:
        path = f"/{_VERSION}.Registration/Register"
        call: Any = UnaryUnaryMethod(channel, path, api.RegisterRequest, api.Empty)
        request = api.RegisterRequest(version=_VERSION, endpoint=_SOCKET, resource_name=_RESOURCE)
        await call(request, timeout=_CALL_SECONDS)


def _identity(socket: Path) -> "tuple[int, int] | None":
    """Which socket lies there: inode and time of its making."""
    try:
        state = socket.stat()
    except FileNotFoundError:
        return None
    return state.st_ino, state.st_ctime_ns


def _end(_signal: int, _frame: object) -> None:
    sys.exit(0)


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="gpu.device_plugin", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--replicas", type=int, default=6)
    parser.add_argument("--index", type=int, help="of several cards, as NVML counts them")
    parser.add_argument("--plugins", type=Path, default=Path("/var/lib/kubelet/device-plugins"))
    options = parser.parse_args()
    # The first process of a container gets no signal that it does not handle.
    signal.signal(signal.SIGTERM, _end)
    card = RealCard.open(options.index)
    files = card.device_files()
    print(f"{card.uuid}: {options.replicas} shares, files {', '.join(map(str, files))}", flush=True)
    asyncio.run(keep_registered(Shares(card, options.replicas, files), options.plugins))
    return 0


if __name__ == "__main__":
    sys.exit(main())
