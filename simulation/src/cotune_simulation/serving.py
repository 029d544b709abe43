"""Listening, as all simulated servers do."""

import asyncio

from aiohttp import web

from cotune_simulation.faults import Faults


async def serve(application: web.Application, host: str, port: int) -> None:
    """Listen until cancelled; a request whose client goes away is given up.

    :raises ValueError: a variable asks for a fault that is not known.
    """
    Faults.from_environment().add_to(application)
    runner = web.AppRunner(application, access_log=None, handle_signals=False, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
