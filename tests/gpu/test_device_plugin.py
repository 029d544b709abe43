"""The real card's plugin against a kubelet's socket; its messages are on the wire what the kubelet's own types are."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cotune_simulation.device_plugin import deviceplugin_pb2 as generated
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from gpu import kubelet_api as api
from gpu.device_plugin import RealCard, Shares, keep_registered

_UUID = "GPU-11111111-2222-3333-4444-555555555555"


class Kubelet:
    """Speaks with the generated types."""

    def __init__(self) -> None:
        self.registered: asyncio.Queue[Any] = asyncio.Queue()

    def __mapping__(self) -> "dict[str, Handler]":
        handler = Handler(self._register, Cardinality.UNARY_UNARY, generated.RegisterRequest, generated.Empty)
        return {"/v1beta1.Registration/Register": handler}

    async def _register(self, stream: Any) -> None:
        self.registered.put_nowait(await stream.recv_message())
        await stream.send_message(generated.Empty())

    @asynccontextmanager
    async def plugin(self, folder: Path) -> AsyncGenerator[Channel]:
        server = Server([self])
        await server.start(path=str(folder / "kubelet.sock"))
        files = [Path("/dev/nvidia0"), Path("/dev/nvidiactl")]
        shares = Shares(RealCard(_UUID, 0, lambda: True), 2, files)
        task = asyncio.create_task(keep_registered(shares, folder))
        try:
            async with asyncio.timeout(10):
                request = await self.registered.get()
            assert (request.version, request.resource_name) == ("v1beta1", "nvidia.com/gpu")
            async with Channel(path=str(folder / request.endpoint)) as channel:
                yield channel
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            server.close()
            await server.wait_closed()


def test_the_kubelet_sees_every_share_by_the_cards_uuid(tmp_path: Path) -> None:
    async def shares() -> "set[tuple[str, str]]":
        async with Kubelet().plugin(tmp_path) as channel:
            path = "/v1beta1.DevicePlugin/ListAndWatch"
            method: Any = UnaryStreamMethod(channel, path, generated.Empty, generated.ListAndWatchResponse)
            async with asyncio.timeout(10), method.open() as stream:
                await stream.send_message(generated.Empty(), end=True)
                found = await stream.recv_message()
                await stream.cancel()
                return {(it.ID, it.health) for it in found.devices}

    assert asyncio.run(shares()) == {(f"{_UUID}::0", "Healthy"), (f"{_UUID}::1", "Healthy")}


def test_a_container_gets_the_device_files_and_the_uuid(tmp_path: Path) -> None:
    async def allocated() -> Any:
        async with Kubelet().plugin(tmp_path) as channel:
            path = "/v1beta1.DevicePlugin/Allocate"
            call: Any = UnaryUnaryMethod(channel, path, generated.AllocateRequest, api.AllocateResponse)
            requests = [generated.ContainerAllocateRequest(devices_ids=[f"{_UUID}::1"])]
            return await call(generated.AllocateRequest(container_requests=requests), timeout=5)

    (found,) = asyncio.run(allocated()).container_responses
    assert [(it.container_path, it.host_path, it.permissions) for it in found.devices] == [
        ("/dev/nvidia0", "/dev/nvidia0", "rw"),
        ("/dev/nvidiactl", "/dev/nvidiactl", "rw"),
    ]
    as_a_map = generated.ContainerAllocateResponse.FromString(found.SerializeToString())
    assert dict(as_a_map.envs) == {"NVIDIA_VISIBLE_DEVICES": _UUID}


def test_a_share_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    async def allocate() -> None:
        async with Kubelet().plugin(tmp_path) as channel:
            path = "/v1beta1.DevicePlugin/Allocate"
            call: Any = UnaryUnaryMethod(channel, path, generated.AllocateRequest, api.AllocateResponse)
            requests = [generated.ContainerAllocateRequest(devices_ids=["GPU-other::0"])]
            await call(generated.AllocateRequest(container_requests=requests), timeout=5)

    with pytest.raises(GRPCError, match="unknown devices: GPU-other::0"):
        asyncio.run(allocate())
