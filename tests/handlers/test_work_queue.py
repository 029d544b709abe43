import asyncio
from datetime import timedelta

import pytest
from cotune.cluster.objects import ApiError
from cotune.handlers import work_queue
from cotune.handlers.work_queue import Key, WorkQueue, back_off_seconds

KEY, OTHER = Key("lab", "voice"), Key("lab", "other")


async def eventually(holds: "asyncio.Event") -> None:
    await asyncio.wait_for(holds.wait(), 10)


def test_what_is_added_while_in_work_is_looked_at_once_more_and_never_twice_at_a_time() -> None:
    async def scenario() -> tuple[int, int]:
        passes, at_once, most_at_once = 0, 0, 0
        entered, release, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def reconcile(key: Key) -> timedelta | None:
            nonlocal passes, at_once, most_at_once
            passes += 1
            at_once += 1
            most_at_once = max(most_at_once, at_once)
            entered.set()
            await release.wait()
            at_once -= 1
            if passes == 2:
                done.set()
            return None

        queue = WorkQueue("test", reconcile, workers=3)
        async with queue.running():
            queue.add(KEY)
            await eventually(entered)
            for _ in range(5):
                queue.add(KEY)
            await asyncio.sleep(0)
            release.set()
            await eventually(done)
            await asyncio.sleep(0.05)
        return passes, most_at_once

    assert asyncio.run(scenario()) == (2, 1)


def test_an_error_is_tried_again_and_does_not_hold_up_other_keys() -> None:
    async def scenario() -> list[Key]:
        seen: list[Key] = []
        healed = asyncio.Event()

        async def reconcile(key: Key) -> timedelta | None:
            seen.append(key)
            if key == KEY and seen.count(KEY) < 2:
                raise RuntimeError("the API server has a bad moment")
            if key == KEY:
                healed.set()
            return None

        queue = WorkQueue("test", reconcile, workers=1)
        async with queue.running():
            queue.add(KEY)
            queue.add(OTHER)
            await eventually(healed)
        return seen

    assert asyncio.run(scenario()) == [KEY, OTHER, KEY]


def test_a_pass_that_asks_for_it_is_repeated_and_an_event_comes_before_the_time() -> None:
    async def scenario() -> int:
        passes = 0
        second, third = asyncio.Event(), asyncio.Event()

        async def reconcile(key: Key) -> timedelta | None:
            nonlocal passes
            passes += 1
            if passes == 2:
                second.set()
            if passes == 3:
                third.set()
            return timedelta(0) if passes == 1 else timedelta(hours=1)

        queue = WorkQueue("test", reconcile, workers=1)
        async with queue.running():
            queue.add(KEY)
            await eventually(second)
            await asyncio.sleep(0)
            queue.add(KEY)
            await eventually(third)
        return passes

    assert asyncio.run(scenario()) == 3


def test_in_a_hurry_nobody_waits_for_his_time() -> None:
    async def scenario() -> list[Key]:
        seen: list[Key] = []
        both, again = asyncio.Event(), asyncio.Event()

        async def reconcile(key: Key) -> timedelta | None:
            seen.append(key)
            (both if len(seen) == 2 else again).set()
            return timedelta(hours=1) if len(seen) <= 2 else None

        queue = WorkQueue("test", reconcile, workers=1)
        async with queue.running():
            queue.add(KEY)
            queue.add(OTHER)
            await eventually(both)
            await asyncio.sleep(0)
            queue.hurry()
            while len(seen) < 4:
                again.clear()
                await eventually(again)
        return seen

    assert asyncio.run(scenario()) == [KEY, OTHER, KEY, OTHER]


def test_the_back_off_doubles_up_to_a_minute_however_many_failures_there_were() -> None:
    assert [back_off_seconds(it) for it in (1, 2, 3, 8, 100, 100_000)] == [0.5, 1.0, 2.0, 60.0, 60.0, 60.0]


def test_a_worker_that_has_ended_and_a_pass_that_does_not_end_are_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> list[str]:
        entered, release = asyncio.Event(), asyncio.Event()

        async def reconcile(key: Key) -> timedelta | None:
            entered.set()
            await release.wait()
            return None

        queue = WorkQueue("test", reconcile, workers=1)
        troubles: list[str] = []
        async with queue.running():
            queue.add(KEY)
            await eventually(entered)
            troubles.append(queue.trouble())
            monkeypatch.setattr(work_queue, "LONGEST_PASS", -1.0)
            troubles.append(queue.trouble())
            release.set()
            await asyncio.sleep(0.01)
            troubles.append(queue.trouble())
            for task in asyncio.all_tasks():
                if task.get_name() == "test-0":
                    task.cancel()
            await asyncio.sleep(0.01)
            troubles.append(queue.trouble())
        return troubles

    assert asyncio.run(scenario()) == ["", "passes do not end: lab/voice for 0 s", "", "workers have ended: test-0"]


@pytest.mark.parametrize(("patience", "ends"), [(10.0, True), (0.01, False)])
def test_what_is_in_work_may_end_and_nothing_else_begins(patience: float, ends: bool) -> None:
    async def scenario() -> tuple[bool, list[Key], str]:
        begun: list[Key] = []
        entered, release = asyncio.Event(), asyncio.Event()

        async def reconcile(key: Key) -> timedelta | None:
            begun.append(key)
            entered.set()
            await release.wait()
            return None

        queue = WorkQueue("test", reconcile, workers=1)
        async with queue.running():
            queue.add(KEY)
            await eventually(entered)
            queue.add(OTHER)
            finishing = asyncio.create_task(queue.finish(patience))
            await asyncio.sleep(0.05)
            release.set()
            has_ended = await finishing
            queue.add(KEY)
            await asyncio.sleep(0.05)
            return has_ended, begun, queue.trouble()

    assert asyncio.run(scenario()) == (ends, [KEY], "")


@pytest.mark.parametrize(("wanted", "is_left_alone"), [(30.0, True), (0.0, False)])
def test_an_api_server_that_wants_to_be_left_alone_is(
    monkeypatch: pytest.MonkeyPatch, wanted: float, is_left_alone: bool
) -> None:
    monkeypatch.setattr(work_queue, "_FIRST_BACK_OFF", 0.01)

    async def scenario() -> int:
        passes = 0

        async def reconcile(key: Key) -> timedelta | None:
            nonlocal passes
            passes += 1
            raise ApiError(429, "TooManyRequests", "later", wanted)

        queue = WorkQueue("test", reconcile, workers=1)
        async with queue.running():
            queue.add(KEY)
            await asyncio.sleep(0.3)
        return passes

    assert (asyncio.run(scenario()) == 1) == is_left_alone
