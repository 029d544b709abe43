"""Keeps a plugin registered: a kubelet that starts again forgets its plugins and removes their sockets."""

import asyncio
from pathlib import Path

from grpclib.exceptions import GRPCError

from cotune_simulation.device_plugin.kubelet import KUBELET_SOCKET, DevicePlugin, plugin_server, register

_WATCH_SECONDS = 0.5


async def keep_registered(plugin: DevicePlugin, folder: Path, endpoint: str, resource: str) -> None:
    """Serve `plugin` at `folder/endpoint` and register it, again after each start of the kubelet; never ends."""
    kubelet = folder / KUBELET_SOCKET
    own = folder / endpoint
    while True:
        identity = await _appeared(kubelet)
        own.unlink(missing_ok=True)
        server = plugin_server(plugin)
        await server.start(path=str(own))
        try:
            await register(kubelet, endpoint, resource)
            print(f"registered {resource} with the kubelet", flush=True)
            while own.exists() and _identity(kubelet) == identity:
                await asyncio.sleep(_WATCH_SECONDS)
            print("the kubelet was restarted", flush=True)
        except (GRPCError, OSError, TimeoutError) as error:
            print(f"the kubelet did not take the registration: {error}", flush=True)
            await asyncio.sleep(_WATCH_SECONDS)
        finally:
            server.close()
            await server.wait_closed()


async def _appeared(socket: Path) -> tuple[int, int]:
    while (identity := _identity(socket)) is None:
        await asyncio.sleep(_WATCH_SECONDS)
    return identity


def _identity(socket: Path) -> tuple[int, int] | None:
    """Which socket lies there: inode and time of its making."""
    try:
        state = socket.stat()
    except FileNotFoundError:
        return None
    return state.st_ino, state.st_ctime_ns
