import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from cotune.api.profile import AskedOutcome, AskedRevision, GuardedWorkload, ProfilePhase, StageStatus
from cotune.handlers.turns import Turns, namespaces_of_pass
from support.resources import manifest

LONG, SHORT = 60, 0.05
REVISION = "cotune-0123456789"
STAGES = ("first", "second", "third")


def test_passes_of_one_namespace_take_turns_in_the_order_in_which_they_came() -> None:
    async def scenario() -> list[str]:
        turns, seen = Turns(), list[str]()

        async def one(name: str) -> None:
            async with turns.of(["prod"], LONG) as is_mine:
                assert is_mine
                seen.append(f"{name} looks")
                await asyncio.sleep(0)
                seen.append(f"{name} acts")

        await asyncio.gather(*(one(it) for it in "abc"))
        assert not turns.at_work
        return seen

    assert asyncio.run(scenario()) == [f"{name} {what}" for name in "abc" for what in ("looks", "acts")]


def test_a_pass_that_hangs_holds_up_no_other_namespace_and_its_own_no_longer_than_the_patience() -> None:
    async def scenario() -> None:
        turns, hangs, is_held = Turns(), asyncio.Event(), asyncio.Event()

        async def hang() -> None:
            async with turns.of(["slow"], LONG):
                is_held.set()
                await hangs.wait()

        hanging = asyncio.create_task(hang())
        await is_held.wait()
        async with turns.of(["prod", "staging"], 0) as is_mine:
            assert is_mine
        async with turns.of(["prod", "slow"], SHORT) as is_mine:
            assert not is_mine
            async with turns.of(["prod"], 0) as is_free:
                assert is_free, "who has to wait for one namespace keeps another"
        hangs.set()
        async with turns.of(["slow"], LONG) as is_mine:
            assert is_mine
        await hanging
        assert not turns.at_work

    asyncio.run(scenario())


@pytest.mark.parametrize("error", [TimeoutError, RuntimeError, asyncio.CancelledError])
def test_a_pass_that_fails_gives_its_turn_back_and_its_error_is_its_own(error: type[BaseException]) -> None:
    async def scenario() -> None:
        turns = Turns()
        with pytest.raises(error, match="of the pass"):
            async with turns.of(["prod", "staging"], LONG):
                raise error("of the pass")
        async with turns.of(["prod", "staging"], 0) as is_mine:
            assert is_mine

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(30))
def test_however_namespaces_overlap_all_passes_end_and_nothing_is_kept(seed: int) -> None:
    async def scenario() -> None:
        turns, at_work, chance = Turns(), set[str](), random.Random(seed)
        had = 0

        async def one(namespaces: Sequence[str], patience: float) -> None:
            nonlocal had
            async with turns.of(namespaces, patience) as is_mine:
                if is_mine:
                    assert not at_work & set(namespaces)
                    at_work.update(namespaces)
                    try:
                        for _ in range(chance.randrange(3)):
                            await asyncio.sleep(0)
                    finally:
                        at_work.difference_update(namespaces)
                    had += 1

        wanted = [chance.choices("abcd", k=chance.randint(1, 4)) for _ in range(20)]
        tasks = [asyncio.create_task(one(it, chance.choice([0, 0.001, LONG]))) for it in wanted]
        for _ in range(20):
            await asyncio.sleep(0)
            if chance.random() < 0.2:
                chance.choice(tasks).cancel()
        found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert all(it is None or isinstance(it, asyncio.CancelledError) for it in found), found
        assert had
        del tasks
        assert not turns.at_work

    asyncio.run(scenario())


def profile(*states: StageStatus, to_revision: str | None = None) -> dict[str, Any]:
    body = manifest("GpuProfile")
    stages: list[dict[str, Any]] = [{"name": it, "namespace": f"in-{it}"} for it in STAGES]
    if to_revision is not None:
        stages[0]["toRevision"] = to_revision
    body["spec"]["rollout"] = {"stages": stages}
    return body | {"status": {"stages": [it.model_dump(mode="json", by_alias=True) for it in states]}}


def state(name: str, phase: ProfilePhase, **fields: Any) -> StageStatus:
    return StageStatus(name=name, phase=phase, **fields)


DONE = state("first", ProfilePhase.PROMOTED)
GUARDED = state("first", ProfilePhase.PROMOTED, guarded=(GuardedWorkload(component="stt", generation=1),))
ASKED = AskedRevision(
    revision=REVISION,
    outcome=AskedOutcome.TAKEN,
    reason="RevisionTaken",
    message="",
    at=datetime(2026, 1, 1, tzinfo=UTC),
)


@pytest.mark.parametrize(
    ("body", "namespaces"),
    [
        (profile(), {"in-first"}),
        (profile(state("first", ProfilePhase.PENDING)), {"in-first"}),
        (profile(state("first", ProfilePhase.BAKING)), {"in-first"}),
        (profile(DONE), {"in-second"}),
        (profile(GUARDED), {"in-first", "in-second"}),
        (profile(DONE, state("second", ProfilePhase.DEGRADED)), {"in-second"}),
        (profile(DONE, to_revision=REVISION), {"in-first", "in-second"}),
        (profile(DONE.model_copy(update={"asked": ASKED}), to_revision=REVISION), {"in-second"}),
        (profile(DONE.model_copy(update={"asked": ASKED})), {"in-first", "in-second"}),
        (profile(state("first", ProfilePhase.ROLLED_BACK), state("second", ProfilePhase.BAKING)), {"in-second"}),
        (profile(state("first", ProfilePhase.ROLLING_BACK), state("second", ProfilePhase.PROMOTED)), {"in-first"}),
        (profile(*(state(it, ProfilePhase.PROMOTED) for it in STAGES)), set[str]()),
    ],
)
def test_a_pass_has_its_turn_where_it_may_act_and_nowhere_else(body: dict[str, Any], namespaces: set[str]) -> None:
    assert namespaces_of_pass(body) == namespaces
