import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import cotune.handlers.sweeper
import pytest
from cotune.artifacts.directory import DirectoryStore
from cotune.artifacts.retention import Retention
from cotune.handlers.store_thread import StoreThread
from cotune.handlers.sweeper import Sweeper


def test_it_looks_at_its_start_and_when_something_could_not_be_stored_and_an_error_does_not_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[datetime] = []

    async def sweep(_: Sweeper, now: datetime) -> tuple[str, ...]:
        looked.append(now)
        if len(looked) == 1:
            raise OSError("away")
        return ()

    monkeypatch.setattr(Sweeper, "sweep", sweep)
    monkeypatch.setattr(cotune.handlers.sweeper, "_AT_MOST_EVERY_SECONDS", 0.0)

    async def until(count: int) -> None:
        async with asyncio.timeout(30):
            while len(looked) < count:
                await asyncio.sleep(0.01)

    async def scenario() -> None:
        is_short = asyncio.Event()
        store = StoreThread(DirectoryStore(tmp_path))
        async with Sweeper(cast("Any", None), store, Retention(days=1), is_short).running():
            for count in (1, 2, 3):
                await until(count)
                await asyncio.sleep(0.05)
                assert len(looked) == count, "an hour has not gone by"
                is_short.set()
            await until(4)
        store.close()

    asyncio.run(scenario())
