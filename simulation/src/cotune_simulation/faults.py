"""What a simulated server does wrong on purpose, so that it can be tried out who notices; nothing unless it is told to.

| variable | what happens |
|---|---|
| `COTUNE_SIMULATION_FAULT=error-body` | every other request is answered at once, with status 200 and an error |
| `COTUNE_SIMULATION_FAULT=truncated` | every other stream of tokens ends after half of them, as if it were whole |
| `COTUNE_SIMULATION_FAULT=wrong-transcript` | every other clip gets a text that nobody has said |
| `COTUNE_SIMULATION_STALL=2/10` | nothing is answered in the last 2 of every 10 seconds |
| `COTUNE_SIMULATION_CRASH_AFTER=20` | the 21st request ends the process with code 1 |

The kubelet's own requests are neither counted nor answered wrongly: a server that lies looks healthy.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count

from aiohttp import web

FAULT_VARIABLE = "COTUNE_SIMULATION_FAULT"
STALL_VARIABLE = "COTUNE_SIMULATION_STALL"
CRASH_VARIABLE = "COTUNE_SIMULATION_CRASH_AFTER"

NOBODY_SAID = "thank you for watching"
"""What Whisper is known to hear in silence."""
_KUBELET = "kube-probe/"
_FAULTY = web.RequestKey("fault", str)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Fault(StrEnum):
    """A lie in every other answer."""

    NONE = "none"
    ERROR_BODY = "error-body"
    TRUNCATED = "truncated"
    WRONG_TRANSCRIPT = "wrong-transcript"


@dataclass(frozen=True)
class Stall:
    """At the end of every period nothing is answered."""

    seconds: float
    period: float

    @classmethod
    def parse(cls, text: str) -> "Stall | None":
        """`2/10`, or nothing.

        :raises ValueError: it is neither, or the stall does not end within its period.
        """
        if not text:
            return None
        seconds, _, period = text.partition("/")
        stall = cls(float(seconds), float(period or "nan"))
        if not 0 < stall.seconds < stall.period:
            raise ValueError(f"{STALL_VARIABLE}: seconds/period, for example 2/10, found {text}")
        return stall

    def rest(self, since_start: float) -> float:
        """For how long a request that comes now is held back."""
        within = since_start % self.period
        return self.period - within if within >= self.period - self.seconds else 0.0


@dataclass(frozen=True)
class Faults:
    """The faults of one server."""

    fault: Fault = Fault.NONE
    stall: Stall | None = None
    crash_after: int | None = None
    _started: float = field(default_factory=time.monotonic)
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    @classmethod
    def from_environment(cls) -> "Faults":
        """What the variables say.

        :raises ValueError: one of them says nothing that is known.
        """
        crash_after = os.environ.get(CRASH_VARIABLE)
        return cls(
            Fault(os.environ.get(FAULT_VARIABLE) or Fault.NONE),
            Stall.parse(os.environ.get(STALL_VARIABLE) or ""),
            int(crash_after) if crash_after else None,
        )

    def add_to(self, application: web.Application) -> None:
        """Let every request pass through the faults first."""

        @web.middleware
        async def through_the_faults(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._handle(request, handler)

        application.middlewares.append(through_the_faults)

    async def _handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.headers.get("User-Agent", "").startswith(_KUBELET):
            return await handler(request)
        number = next(self._numbers)
        if self.crash_after is not None and number > self.crash_after:
            print(f"SIMULATION: ending at request {number}, as {CRASH_VARIABLE} says", file=sys.stderr, flush=True)
            os._exit(1)
        if self.stall is not None:
            await asyncio.sleep(self.stall.rest(time.monotonic() - self._started))
        if number % 2 == 0:
            if self.fault is Fault.ERROR_BODY:
                error = {"message": "the engine is dead", "type": "internal_error", "param": None, "code": 500}
                return web.json_response({"error": error})
            request[_FAULTY] = self.fault
        return await handler(request)


def has(request: web.Request, fault: Fault) -> bool:
    """Whether this request's answer is to be wrong in this way."""
    return request.get(_FAULTY) == fault
