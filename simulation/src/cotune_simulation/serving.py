"""Listening, as all simulated servers do."""

import asyncio

from aiohttp import web


async def serve(application: web.Application, host: str, port: int) -> None:
    """Listen until cancelled; a request whose client goes away is given up."""
    runner = web.AppRunner(application, access_log=None, handle_signals=False, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
