"""Pods that change wake whoever waits for them: he would look again by himself, but later."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from time import monotonic

import aiohttp

from cotune.cluster.objects import ApiError, Object
from cotune.handlers.work_queue import Key, back_off_seconds

WATCH_SECONDS = 60
"""A watch that nobody needs any more ends by itself after this."""

_FOLLOWED_SECONDS = 30.0
"""How long a follower is told of pods after it has asked for it last."""

_PAUSE_SECONDS = 0.2
"""Between two watches, or a server that ends each at once would be asked without a pause."""

_logger = logging.getLogger("cotune.pods")


@dataclass(frozen=True)
class Follower:
    """Who is to look at the cluster when a pod has changed."""

    key: Key
    wake: Callable[[Key], None]
    label: tuple[str, str] | None = None
    """Of the pods that it waits for; None: all pods of the namespace."""

    def is_for(self, labels: Mapping[str, str]) -> bool:
        """Whether a pod with these labels is one of them."""
        return self.label is None or labels.get(self.label[0]) == self.label[1]


class PodWatches:
    """One watch for each namespace in which somebody follows pods.

    Args:
        changes: the metadata of a namespace's pods as they change; each iteration ends by itself.
    """

    def __init__(self, changes: Callable[[str], AsyncIterator[Object]]) -> None:
        self._changes = changes
        self._followers: dict[str, dict[Follower, float]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, namespace: str, follower: Follower) -> None:
        """Wake the follower for a while whenever a pod of its changes; to be asked for again at every look."""
        self._followers.setdefault(namespace, {})[follower] = monotonic() + _FOLLOWED_SECONDS
        if namespace not in self._tasks:
            self._tasks[namespace] = asyncio.create_task(self._watch(namespace), name=f"pods-{namespace}")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Ends all watches in the end."""
        try:
            yield
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, namespace: str) -> None:
        failures = 0
        try:
            while self._wanted(namespace):
                try:
                    async for metadata in self._changes(namespace):
                        failures = 0
                        self._tell(namespace, metadata.get("labels") or {})
                except (ApiError, aiohttp.ClientError, TimeoutError, ValueError) as error:
                    failures += 1
                    _logger.debug("no watch of the pods in %s: %s; they are looked at all the same", namespace, error)
                await asyncio.sleep(back_off_seconds(failures) if failures else _PAUSE_SECONDS)
        finally:
            del self._tasks[namespace]

    def _wanted(self, namespace: str) -> bool:
        now = monotonic()
        left = {it: until for it, until in self._followers.get(namespace, {}).items() if until > now}
        self._followers[namespace] = left
        if not left:
            del self._followers[namespace]
        return bool(left)

    def _tell(self, namespace: str, labels: Mapping[str, str]) -> None:
        now = monotonic()
        for follower, until in self._followers.get(namespace, {}).items():
            if until > now and follower.is_for(labels):
                follower.wake(follower.key)
