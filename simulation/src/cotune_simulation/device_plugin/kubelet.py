"""The kubelet's side of the device plugin interface: names, paths and calls, with types."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from cotune_simulation.device_plugin import deviceplugin_pb2 as api

VERSION = "v1beta1"
HEALTHY = "Healthy"
UNHEALTHY = "Unhealthy"
KUBELET_SOCKET = "kubelet.sock"

_CALL_SECONDS = 5


class DevicePlugin(Protocol):
    """What the kubelet asks a plugin."""

    def watch_devices(self) -> AsyncIterator[api.ListAndWatchResponse]:
        """All devices now, and again whenever one of them changes; never ends."""
        ...

    def allocate(self, request: api.AllocateRequest) -> api.AllocateResponse:
        """What each container needs to use the devices chosen for it.

        :raises ValueError: a device is not ours.
        """
        ...


def plugin_server(plugin: DevicePlugin) -> Server:
    """A gRPC server for one plugin, not yet started."""
    return Server([_DevicePluginService(plugin)])


async def register(kubelet_socket: Path, endpoint: str, resource: str) -> None:
    """Tell the kubelet that `resource` is served at the socket named `endpoint` beside its own.

    :raises GRPCError, OSError, TimeoutError: the kubelet does not answer or refuses.
    """
    async with Channel(path=str(kubelet_socket)) as channel:
        call = UnaryUnaryMethod(channel, f"/{VERSION}.Registration/Register", api.RegisterRequest, api.Empty)
        request = api.RegisterRequest(version=VERSION, endpoint=endpoint, resource_name=resource)
        await call(request, timeout=_CALL_SECONDS)


class _DevicePluginService:
    """The gRPC service; the names of its methods are found in its mapping."""

    def __init__(self, plugin: DevicePlugin) -> None:
        self._plugin = plugin

    def __mapping__(self) -> dict[str, Handler]:
        service = f"/{VERSION}.DevicePlugin"
        one, many = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        return {
            f"{service}/GetDevicePluginOptions": Handler(self._options, one, api.Empty, api.DevicePluginOptions),
            f"{service}/ListAndWatch": Handler(self._list_and_watch, many, api.Empty, api.ListAndWatchResponse),
            f"{service}/Allocate": Handler(self._allocate, one, api.AllocateRequest, api.AllocateResponse),
        }

    async def _options(self, stream: Stream[api.Empty, api.DevicePluginOptions]) -> None:
        await stream.recv_message()
        await stream.send_message(api.DevicePluginOptions())

    async def _list_and_watch(self, stream: Stream[api.Empty, api.ListAndWatchResponse]) -> None:
        await stream.recv_message()
        async for devices in self._plugin.watch_devices():
            await stream.send_message(devices)

    async def _allocate(self, stream: Stream[api.AllocateRequest, api.AllocateResponse]) -> None:
        request = await stream.recv_message()
        assert request is not None
        try:
            await stream.send_message(self._plugin.allocate(request))
        except ValueError as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
