"""`python -m cotune_simulation.neighbour`: some other service on the card, for example embeddings.

It holds `HOLD_MIB` MiB (default 1229, the 1.2 GB of the public report of 2025-10-28), its context included, and
answers `/embed`, with GET too, after `KERNEL_MS` milliseconds of kernels (default 4).
"""

import asyncio
import os
import sys

from aiohttp import web

from cotune_simulation import announce
from cotune_simulation.card import socket_path
from cotune_simulation.card.client import CardClient, NoCardError
from cotune_simulation.figures import MIB
from cotune_simulation.serving import serve
from cotune_simulation.termination import end_at_sigterm
from cotune_simulation.torch_memory import NO_CARD, TorchOutOfMemoryError, take

_DIMENSIONS = 8


def main() -> int:
    """Serve until SIGTERM; returns 1 after a failed start."""
    announce("neighbour")
    end_at_sigterm()
    held = int(os.environ.get("HOLD_MIB") or 1229) * MIB
    kernel_ms = float(os.environ.get("KERNEL_MS") or 4)
    return asyncio.run(_run(held, kernel_ms, int(os.environ.get("PORT") or 8080)))


async def _run(held: int, kernel_ms: float, port: int) -> int:
    try:
        card = await CardClient.connect(socket_path())
        await take(card, held)
    except NoCardError as error:
        print(f"{NO_CARD} (the simulation's reason: {error})", file=sys.stderr, flush=True)
        return 1
    except TorchOutOfMemoryError as error:
        print(error, file=sys.stderr, flush=True)
        return 1

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def embed(_: web.Request) -> web.Response:
        await card.run(kernel_ms)
        return web.json_response({"simulation": True, "embedding": [0.0] * _DIMENSIONS})

    application = web.Application()
    application.add_routes([web.get("/health", health), web.get("/embed", embed), web.post("/embed", embed)])
    print(f"holding {held // MIB} MiB, listening on port {port}", flush=True)
    await serve(application, "0.0.0.0", port)
    return 1


if __name__ == "__main__":
    sys.exit(main())
