"""`python -m cotune.measurement.agent`: the node agent's process."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from aiohttp import web

from cotune.measurement.agent.contract import API_PORT, METRICS_PORT, NODE_VARIABLE
from cotune.measurement.agent.server import Api, NodeCards, metrics_application


def main() -> int:
    """Serve until SIGTERM; exit code 2: the node's name is not given."""
    if not (node := os.environ.get(NODE_VARIABLE, "")):
        print(f"agent: error: {NODE_VARIABLE} is not set", file=sys.stderr)
        return 2
    ports = tuple(
        int(os.environ.get(variable, default))
        for variable, default in (("COTUNE_AGENT_PORT", API_PORT), ("COTUNE_AGENT_METRICS_PORT", METRICS_PORT))
    )
    cgroups = Path(os.environ.get("COTUNE_CGROUPS", "/sys/fs/cgroup"))
    asyncio.run(_serve(NodeCards(node, cgroups), *ports))
    return 0


async def _serve(cards: NodeCards, api_port: int, metrics_port: int) -> None:
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    # Errors are told as they come: the driver is listened to from the start on, where it is there already.
    found = await asyncio.to_thread(cards.look)
    runners = [
        web.AppRunner(it, access_log=None, shutdown_timeout=1)
        for it in (Api(cards).application(), metrics_application(cards))
    ]
    try:
        for runner, port in zip(runners, (api_port, metrics_port), strict=True):
            await runner.setup()
            await web.TCPSite(runner, port=port).start()
        print(f"node {cards.node}: {', '.join(found) or 'no card yet'}; listening on {api_port}", flush=True)
        await over.wait()
    finally:
        for runner in runners:
            await runner.cleanup()
        await asyncio.to_thread(cards.close)


if __name__ == "__main__":
    sys.exit(main())
