"""The way from the host to the API server inside the cluster's network namespace.

The listening socket was opened in the host's namespace and stays there; this process then enters the cluster's
namespace, so that the connections it makes start inside.
"""

import argparse
import asyncio
import socket
from pathlib import Path

from localcluster.namespaces import enter_network

_CHUNK_BYTES = 1 << 16


async def serve(listening: socket.socket, host: str, port: int) -> None:
    """Pass every connection on `listening` to `host:port` until cancelled."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(reader, upstream_writer), _copy(upstream_reader, writer))

    server = await asyncio.start_server(connected, sock=listening, limit=_CHUNK_BYTES)
    await server.serve_forever()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Copy one direction and pass its end on, so that half-closed connections keep working."""
    try:
        while chunk := await source.read(_CHUNK_BYTES):
            target.write(chunk)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()
    except OSError:
        target.close()
        return
    # TLS has no half-closed connections: a peer that ended its side is finished, but may still be flushing.
    await _closed_soon(target)


async def _closed_soon(target: asyncio.StreamWriter) -> None:
    await asyncio.sleep(1.0)
    target.close()


def main() -> None:
    """Entry point of the relay process."""
    parser = argparse.ArgumentParser(prog="localcluster.relay")
    parser.add_argument("--socket", type=int, required=True, help="descriptor of the listening socket")
    parser.add_argument("--network", type=Path, required=True, help="handle of the cluster's network namespace")
    parser.add_argument("--target", required=True, help="host:port inside that namespace")
    arguments = parser.parse_args()
    host, _, port = arguments.target.rpartition(":")
    listening = socket.socket(fileno=arguments.socket)
    enter_network(arguments.network)
    asyncio.run(serve(listening, host, int(port)))


if __name__ == "__main__":
    main()
