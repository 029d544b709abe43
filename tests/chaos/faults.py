"""Where the operator's calls are made, and what may befall one of them."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Any

from apiserver.test_reconcilers import drive
from cotune.cluster.objects import ApiError, ConflictError, Object
from kubernetes.aio import client
from support.played_cluster import DiedError, PlayedObjects

_HANDLERS, _OBJECTS = "/cotune/handlers/", "/cotune/cluster/objects.py"
_OPERATOR = (_HANDLERS, "/cotune/cluster/")
_NO_STEP = {"statuses", "finalizers"}
"""Modules whose functions write for others: a point is named after the caller."""


class Fault(StrEnum):
    """What befalls one call."""

    DIES_BEFORE = "dies before it is sent"
    DIES_AFTER = "dies after it is committed"
    CONFLICT = "409: changed meanwhile"
    TOO_MANY = "429 with Retry-After"
    BROKEN = "500"
    UNANSWERED = "committed, and no answer in time"
    STALE = "a list as it was before"
    ETCD = "etcd is killed and starts again"
    KUBELET = "the kubelet stands still for a minute"


WRITES = (Fault.DIES_BEFORE, Fault.DIES_AFTER, Fault.CONFLICT, Fault.TOO_MANY, Fault.BROKEN, Fault.UNANSWERED)


@dataclass(frozen=True, order=True)
class Site:
    """A line of the operator's code that writes."""

    module: str
    function: str
    method: str

    def __str__(self) -> str:
        return f"{self.module}.{self.function.rpartition('.')[2]}.{self.method}"


@dataclass(frozen=True, order=True)
class Point:
    """A call as a step of a job makes it."""

    step: str
    """Module and function of the handler, as `profile._begin`."""
    call: str
    """As `create ControllerRevision`."""

    def __str__(self) -> str:
        return f"{self.step}: {self.call}"


@dataclass(frozen=True)
class Plan:
    """One fault at one call."""

    fault: Fault
    point: Point
    occurrence: int
    """0: the first time that this point is reached."""

    def __str__(self) -> str:
        return f"{self.point} ({self.occurrence + 1}.): {self.fault}"


class InjectedError(Exception):
    """Mixed into what a fault raises, so that the test knows it again."""


class InjectedApiError(InjectedError, ApiError):
    """429 or 500."""


class InjectedConflictError(InjectedError, ConflictError):
    """409."""


class InjectedTimeoutError(InjectedError, TimeoutError):
    """As the client raises it."""


class FaultyObjects(PlayedObjects):
    """Objects that name the points that they pass, and let a fault happen at one of them."""

    def __init__(self, api: client.ApiClient, timeout_seconds: float = 20) -> None:
        super().__init__(api, timeout_seconds)
        self.plan: Plan | None = None
        self.passed: Counter[Point] = Counter()
        """Writes, and lists, of the operator."""
        self.sites: set[Site] = set()
        self.has_happened = False
        self.restart_etcd: Callable[[], None] = lambda: None
        self.hold_kubelet: Callable[[], None] = lambda: None
        self.is_ill = False
        """Errors of the API server are to be expected, for everybody."""
        self._answers: dict[str, list[bytes]] = {}

    def is_retried(self, error: Exception) -> bool:
        return super().is_retried(error) or isinstance(error, InjectedError) or (self.is_ill and _is_outage(error))

    async def _request(
        self, method: str, path: str, body: Object | None, query: list[tuple[str, str]], content_type: str
    ) -> bytes:
        frames = _frames()
        if not any(_HANDLERS in it.f_code.co_filename for it in frames):
            return await self._patiently(method, path, body, query, content_type)
        if not any(it.f_code is drive.__code__ for it in frames):  # A job's own preparations.
            return await super()._request(method, path, body, query, content_type)
        is_write = method != "GET"
        is_list = method == "GET" and _name(path) is None
        if not is_write and not is_list:
            return await super()._request(method, path, body, query, content_type)
        point = Point(_step(frames), _call(method, path, query, content_type))
        if is_write:
            self.sites.add(_site(frames))
        occurrence = self.passed[point]
        self.passed[point] += 1
        plan = self.plan
        if plan is None or (plan.point, plan.occurrence) != (point, occurrence):
            answer = await super()._request(method, path, body, query, content_type)
            if is_list:
                self._answers.setdefault(f"{path}?{query}", []).append(answer)
            return answer
        self.has_happened = True

        async def send() -> bytes:
            return await super(FaultyObjects, self)._request(method, path, body, query, content_type)

        return await self._befall(plan.fault, f"{path}?{query}", send)

    async def _befall(self, fault: Fault, key: str, send: Callable[[], Any]) -> bytes:
        match fault:
            case Fault.DIES_BEFORE:
                raise DiedError(key)
            case Fault.DIES_AFTER:
                await send()
                raise DiedError(key)
            case Fault.CONFLICT:
                raise InjectedConflictError(409, "Conflict", "the object has been modified")
            case Fault.TOO_MANY:
                raise InjectedApiError(429, "TooManyRequests", "the server has received too many requests")
            case Fault.BROKEN:
                raise InjectedApiError(500, "InternalError", "etcdserver: leader changed")
            case Fault.UNANSWERED:
                await send()
                raise InjectedTimeoutError(key)
            case Fault.STALE:
                newest = await send()
                # As it was when it was last read, or before there was anything.
                before = self._answers.get(key, [])
                empty = json.dumps(json.loads(newest) | {"items": []}).encode()
                return before[-1] if before else empty
            case Fault.ETCD:
                self.is_ill = True
                await asyncio.to_thread(self.restart_etcd)
                return await send()
            case Fault.KUBELET:
                self.hold_kubelet()
                return await send()

    async def _patiently(
        self, method: str, path: str, body: Object | None, query: list[tuple[str, str]], content_type: str
    ) -> bytes:
        """Who plays kubelets and looks at the outcome waits for the API server to be well again."""
        deadline = asyncio.get_running_loop().time() + 60
        while True:
            try:
                return await super()._request(method, path, body, query, content_type)
            except Exception as error:
                if not (self.is_ill and _is_outage(error)) or asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(0.1)


def _is_outage(error: Exception) -> bool:
    if isinstance(error, ApiError):
        return error.status >= 500 or error.status == 429
    return isinstance(error, (OSError, TimeoutError)) or type(error).__module__.startswith("aiohttp")


def _frames() -> list[FrameType]:
    """From the call outwards."""
    found: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


def _step(frames: list[FrameType]) -> str:
    steps = [it.f_code for it in frames if _HANDLERS in it.f_code.co_filename]
    names = [(Path(it.co_filename).stem, it.co_name) for it in steps]
    module, function = next((it for it in names if it[0] not in _NO_STEP), names[0])
    return f"{module}.{function}"


def _site(frames: list[FrameType]) -> Site:
    of_objects = [n for n, it in enumerate(frames) if it.f_code.co_filename.endswith(_OBJECTS)]
    outermost = max(of_objects)
    caller = frames[outermost + 1].f_code
    return Site(Path(caller.co_filename).stem, caller.co_qualname, frames[outermost].f_code.co_name)


def _call(method: str, path: str, query: list[tuple[str, str]], content_type: str) -> str:
    verbs = {"POST": "create", "PUT": "replace", "DELETE": "delete", "GET": "list"}
    verb = verbs.get(method) or ("apply" if "apply-patch" in content_type else "patch")
    parts = path.split("/")
    offset = 5 if parts[1] == "apis" else 4
    rest = parts[offset + 1 :] if "namespaces" in parts else parts[offset - 1 :]
    what = f"{rest[0]}/{rest[2]}" if len(rest) > 2 else rest[0]
    tried = ", dry run" if ("dryRun", "All") in query else ""
    return f"{verb} {what}{tried}"


def _name(path: str) -> str | None:
    parts = path.split("/")
    offset = 4 if parts[1] == "apis" else 3
    rest = parts[offset:]
    if rest[0] == "namespaces" and len(rest) > 2:
        rest = rest[2:]
    return rest[1] if len(rest) > 1 else None
