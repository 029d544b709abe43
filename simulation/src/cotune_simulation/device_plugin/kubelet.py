"""The kubelet's side of the device plugin interface: names, paths and calls, with types."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Protocol

import grpc
import grpc.aio

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


def plugin_server(plugin: DevicePlugin, socket: Path) -> grpc.aio.Server:
    """A gRPC server for one plugin, not yet started."""

    async def options(request: api.Empty, _: object) -> api.DevicePluginOptions:
        return api.DevicePluginOptions()

    async def list_and_watch(request: api.Empty, _: object) -> AsyncIterator[api.ListAndWatchResponse]:
        async for devices in plugin.watch_devices():
            yield devices

    async def allocate(
        request: api.AllocateRequest, context: "grpc.aio.ServicerContext[api.AllocateRequest, api.AllocateResponse]"
    ) -> api.AllocateResponse:
        try:
            return plugin.allocate(request)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    server = grpc.aio.server()
    handlers = {
        "GetDevicePluginOptions": grpc.unary_unary_rpc_method_handler(
            options, api.Empty.FromString, api.DevicePluginOptions.SerializeToString
        ),
        "ListAndWatch": grpc.unary_stream_rpc_method_handler(
            list_and_watch, api.Empty.FromString, api.ListAndWatchResponse.SerializeToString
        ),
        "Allocate": grpc.unary_unary_rpc_method_handler(
            allocate, api.AllocateRequest.FromString, api.AllocateResponse.SerializeToString
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"{VERSION}.DevicePlugin", handlers),))
    server.add_insecure_port(f"unix://{socket}")
    return server


async def register(kubelet_socket: Path, endpoint: str, resource: str) -> None:
    """Tell the kubelet that `resource` is served at the socket named `endpoint` beside its own.

    :raises grpc.RpcError: the kubelet does not answer or refuses.
    """
    async with grpc.aio.insecure_channel(f"unix://{kubelet_socket}") as channel:
        call: Callable[..., Awaitable[api.Empty]] = channel.unary_unary(
            f"/{VERSION}.Registration/Register",
            request_serializer=api.RegisterRequest.SerializeToString,
            response_deserializer=api.Empty.FromString,
        )
        request = api.RegisterRequest(version=VERSION, endpoint=endpoint, resource_name=resource)
        await call(request, timeout=_CALL_SECONDS)
