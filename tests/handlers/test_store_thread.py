import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cotune.artifacts.directory import DirectoryStore
from cotune.artifacts.store import Entry, NotStoredError, StoreError
from cotune.handlers.store_thread import StoreThread


class HungStore:
    """A network file system whose server has gone away."""

    def __init__(self) -> None:
        self.answers = threading.Event()

    def put(self, content: bytes) -> str:
        self.answers.wait(30)
        return "sha256:late"

    def get(self, digest: str) -> bytes:
        raise NotStoredError(digest)

    def list(self) -> Iterator[Entry]:
        yield from ()

    def delete(self, digest: str) -> None:
        raise NotStoredError(digest)


def test_a_store_that_does_not_answer_is_given_up_and_holds_nobody_else_up() -> None:
    hung = HungStore()

    async def scenario() -> None:
        thread = StoreThread(hung, patience=0.2)
        went_on = asyncio.create_task(asyncio.sleep(0.01, "went on"))
        with pytest.raises(StoreError, match=r"has not answered for 0\.2 s"):
            await thread.put(b"x")
        assert went_on.done(), "other work has gone on meanwhile"
        with pytest.raises(StoreError, match="has not answered"):
            await thread.get("sha256:x")
        hung.answers.set()
        thread.close()

    asyncio.run(scenario())


def test_what_the_store_says_is_passed_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        thread = StoreThread(DirectoryStore(tmp_path))
        digest = await thread.put(b"x")
        assert [it.digest for it in await thread.entries()] == [digest]
        assert await thread.get(digest) == b"x"
        await thread.delete(digest)
        with pytest.raises(NotStoredError):
            await thread.get(digest)
        thread.close()

    asyncio.run(scenario())


def test_what_is_stored_or_taken_away_too_late_does_not_reach_the_store(tmp_path: Path) -> None:
    class TooLateError(Exception):
        pass

    def too_late() -> None:
        raise TooLateError

    async def scenario() -> None:
        in_time = StoreThread(DirectoryStore(tmp_path))
        digest = await in_time.put(b"x")
        late = StoreThread(DirectoryStore(tmp_path), before_write=too_late)
        with pytest.raises(TooLateError):
            await late.put(b"y")
        with pytest.raises(TooLateError):
            await late.delete(digest)
        assert [it.digest for it in await late.entries()] == [digest]
        assert await late.get(digest) == b"x"

    asyncio.run(scenario())
