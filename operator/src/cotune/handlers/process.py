"""One process of the operator: a standby until it leads, and over as soon as it leads no more."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, NoReturn

from prometheus_client import Gauge, start_http_server

from cotune.cluster.leadership import Leadership
from cotune.cluster.objects import Objects
from cotune.handlers.health import Health
from cotune.handlers.operator import Operator, watch
from cotune.handlers.settings import Settings

LOST = 3
"""Exit code of a process that leads no more."""

LAST_PASSES_SECONDS = 20.0
"""Within the pod's grace period. A pass that takes longer is cut off, and the Lease is left to end by itself."""

_LONGEST_ATTEMPT_SECONDS = 120.0

LEADER = Gauge("cotune_leader", "1 in the process that leads, 0 in one that stands by.")

_logger = logging.getLogger("cotune")


async def serve(settings: Settings) -> int:
    """Stand by, lead, and end when a signal says so; the exit code. Who loses the Lease does not return from here."""
    stopping = asyncio.Event()
    _heed_signals(stopping)
    start_http_server(settings.metrics_port)
    async with contextlib.AsyncExitStack() as stack:
        own = await Objects.connect(timeout_seconds=settings.election.renew_deadline / 2)
        stack.push_async_callback(own.close)
        leadership = Leadership(
            own, settings.namespace, settings.lease, settings.identity, settings.election, when_lost=_end
        )
        process = _Process(settings, leadership, stopping)
        health = Health(alive=process.trouble, ready=process.not_ready)
        await stack.enter_async_context(health.served(settings.liveness_port))
        _logger.info("%s stands by", settings.identity)
        return await process.run()


@dataclass
class _Process:
    settings: Settings
    leadership: Leadership
    stopping: asyncio.Event
    operator: Operator | None = field(default=None, init=False)

    async def run(self) -> int:
        if not await self._unless_stopped(self.leadership.acquire()):
            return 0
        async with self.leadership.renewing():
            if await self._unless_stopped(self.leadership.passes_the_fence()):
                return await self._lead()
        await self.leadership.release()
        return 0

    def trouble(self) -> str:
        """What only a restart mends."""
        if (idle := self.leadership.idle_seconds()) > _LONGEST_ATTEMPT_SECONDS:
            return f"the Lease was not looked at for {idle:.0f} s"
        return self.operator.trouble() if self.operator is not None else ""

    def not_ready(self) -> str:
        """A standby is ready when it can see who leads: with the API server out of reach it could not take over."""
        if not self.leadership.has_looked:
            return "the Lease could not be read yet"
        return "it may not write yet" if self.leadership.leads and self.operator is None else ""

    async def _lead(self) -> int:
        async with Operator.running(self.settings, self.leadership.check) as operator:
            watches = asyncio.create_task(watch(operator, lambda: _heed_signals(self.stopping)), name="watches")
            self.operator = operator
            LEADER.set(1)
            _logger.info("%s leads: watching experiments, trials and profiles", self.settings.identity)
            if await self._unless_stopped(asyncio.wait({watches})):
                _logger.error("the watches have ended", exc_info=watches.exception())
                return 1  # The Lease ends by itself: kopf has cut off whatever was in work.
            _logger.info("ending, once the passes in work have ended")
            if await operator.finish(LAST_PASSES_SECONDS):
                await self.leadership.release()
            watches.cancel()
            await asyncio.wait({watches})
            return 0

    async def _unless_stopped(self, work: Coroutine[Any, Any, object]) -> bool:
        """Do it; whether it was done before a signal came."""
        doing, stopped = asyncio.create_task(work), asyncio.create_task(self.stopping.wait())
        await asyncio.wait({doing, stopped}, return_when=asyncio.FIRST_COMPLETED)
        is_done = doing.done()
        for task in (doing, stopped):
            task.cancel()
        await asyncio.gather(doing, stopped, return_exceptions=True)
        return is_done


def _heed_signals(stopping: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)


def _end(why: str) -> NoReturn:
    """At once: whatever was still written would be written beside another leader."""
    _logger.error("this process leads no more: %s", why)
    os._exit(LOST)
