"""Whoever waits for pods is woken when one of them changes, as long as somebody waits."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from cotune.cluster.objects import ApiError, Object
from cotune.handlers import pod_watches
from cotune.handlers.pod_watches import Follower, PodWatches
from cotune.handlers.work_queue import Key

TRIAL = Key("voice-lab", "voice-1")
PROFILE = Key("voice-lab", "voice-5f3c9a")


class Server:
    """Watches that are played: what is put in is told to the one that runs; None ends it."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Object | Exception | None] = asyncio.Queue()
        self.watched: list[str] = []

    async def changes(self, namespace: str) -> AsyncIterator[Object]:
        self.watched.append(namespace)
        while (event := await self.events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event


async def soon(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0)


def pod(**labels: str) -> Object:
    return {"name": "a-pod", "labels": {f"cotune.dev/{key}": value for key, value in labels.items()}}


def test_a_trial_is_woken_by_its_own_pods_only() -> None:
    async def scenario() -> list[Key]:
        server, woken = Server(), list[Key]()
        watches = PodWatches(server.changes)
        async with watches.running():
            watches.follow("voice-lab", Follower(TRIAL, woken.append, ("cotune.dev/trial", "voice-1")))
            for it in (pod(trial="voice-2"), {"name": "unlabelled"}, pod(trial="voice-1")):
                server.events.put_nowait(it)
            await soon(lambda: server.events.empty() and bool(woken))
        assert server.watched == ["voice-lab"]
        return woken

    assert asyncio.run(scenario()) == [TRIAL]


def test_all_pods_of_a_stage_wake_its_profile_and_one_watch_serves_all() -> None:
    async def scenario() -> list[Key]:
        server, woken = Server(), list[Key]()
        watches = PodWatches(server.changes)
        async with watches.running():
            for _ in range(3):
                watches.follow("voice-prod", Follower(PROFILE, woken.append))
            server.events.put_nowait(pod(app="judge"))
            await soon(lambda: bool(woken))
        assert server.watched == ["voice-prod"]
        return woken

    assert asyncio.run(scenario()) == [PROFILE]


@pytest.mark.parametrize("trouble", [None, ApiError(403, "Forbidden", "cannot watch"), TimeoutError()])
def test_a_watch_that_ends_or_is_refused_begins_again(
    trouble: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_watches, "back_off_seconds", float)

    async def scenario() -> list[Key]:
        server, woken = Server(), list[Key]()
        watches = PodWatches(server.changes)
        async with watches.running():
            watches.follow("voice-lab", Follower(TRIAL, woken.append))
            server.events.put_nowait(trouble)
            server.events.put_nowait(pod())
            await soon(lambda: bool(woken))
        assert server.watched == ["voice-lab", "voice-lab"]
        return woken

    assert asyncio.run(scenario()) == [TRIAL]


def test_what_nobody_follows_any_more_is_not_watched_and_can_be_followed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(pod_watches, "monotonic", lambda: now[0])

    async def scenario() -> None:
        server, woken = Server(), list[Key]()
        watches = PodWatches(server.changes)
        async with watches.running():
            watches.follow("voice-lab", Follower(TRIAL, woken.append))
            await soon(lambda: bool(server.watched))
            now[0] += 31
            server.events.put_nowait(pod())
            server.events.put_nowait(None)
            await soon(lambda: server.events.empty() and len(asyncio.all_tasks()) == 1)
            assert woken == []
            watches.follow("voice-lab", Follower(TRIAL, woken.append))
            server.events.put_nowait(pod())
            await soon(lambda: bool(woken))
        assert server.watched == ["voice-lab", "voice-lab"]

    asyncio.run(scenario())
