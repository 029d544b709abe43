"""What the kubelet asks: `/healthz`, does only a restart help, and `/readyz`, can the process do its part."""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web


@dataclass(frozen=True)
class Health:
    """Two questions; each answer is what is wrong, empty: nothing."""

    alive: Callable[[], str]
    ready: Callable[[], str]

    @contextlib.asynccontextmanager
    async def served(self, port: int) -> AsyncGenerator[None]:
        """Answer as long as the context lasts, from the loop that does the work: one that hangs does not answer."""
        app = web.Application()
        app.router.add_get("/healthz", _answering(self.alive))
        app.router.add_get("/readyz", _answering(self.ready))
        runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=1, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "0.0.0.0", port).start()
            yield
        finally:
            await runner.cleanup()


def _answering(question: Callable[[], str]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        trouble = question()
        return web.Response(text=trouble or "ok", status=503 if trouble else 200)

    return answer
