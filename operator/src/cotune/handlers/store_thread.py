"""A store whose calls block, for a program that must not: one thread of its own, and no endless patience."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from cotune.artifacts.store import Entry, Store, StoreError

_Answer = TypeVar("_Answer")

_PATIENCE_SECONDS = 20.0
"""A network file system that has gone away does not answer, for ever."""


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="artifacts")


@dataclass(frozen=True)
class StoreThread:
    """A store as the operator uses it. Every call may raise `StoreError`."""

    store: Store
    patience: float = _PATIENCE_SECONDS
    """Seconds."""
    before_write: Callable[[], None] = lambda: None
    """Called before anything is stored or taken away."""
    _thread: ThreadPoolExecutor = field(default_factory=_one_thread)

    async def put(self, content: bytes) -> str:
        """Store the bytes; their digest."""
        self.before_write()
        return await self._within(lambda: self.store.put(content))

    async def get(self, digest: str) -> bytes:
        """What was stored under this digest."""
        return await self._within(lambda: self.store.get(digest))

    async def entries(self) -> tuple[Entry, ...]:
        """All that is there, by digest."""
        return await self._within(lambda: tuple(self.store.list()))

    async def delete(self, digest: str) -> None:
        """Take it away; what is not there is no error."""
        self.before_write()
        await self._within(lambda: self.store.delete(digest))

    def close(self) -> None:
        """Begin nothing any more; what is in work is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _within(self, call: Callable[[], _Answer]) -> _Answer:
        working = asyncio.get_running_loop().run_in_executor(self._thread, call)
        try:
            return await asyncio.wait_for(working, self.patience)
        except TimeoutError:
            raise StoreError(f"the artifact store has not answered for {self.patience:g} s") from None
