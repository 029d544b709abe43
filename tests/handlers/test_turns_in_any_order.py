"""Passes of several profiles, of which any may have its call answered next: nobody is in a namespace beside another.

The passes ask and write what the reconciler's do, in as many calls; who goes first is asked of the same functions.
COTUNE_SEED=N repeats a run.
"""

import asyncio
import copy
import os
import random
from collections import Counter
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from cotune.api.profile import (
    AskedOutcome,
    AskedRevision,
    GuardedWorkload,
    ProfilePhase,
    ProfileSpec,
    ProfileStatus,
    Stage,
    StageStatus,
)
from cotune.handlers.rivals import rival_of
from cotune.handlers.turns import Turns, namespaces_of_pass
from cotune.rollout.progress import IN_PROGRESS, begun, by_name, current_stage, goes_before, in_the_middle, with_stage
from cotune.rollout.to_revision import taken_back, unanswered
from support.resources import manifest

SEED = int(os.environ.get("COTUNE_SEED") or random.randrange(2**32))
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMESPACES, PROFILES = ("staging", "canary", "prod"), ("p", "q", "r")
PASSES = 8
AFTER = {
    ProfilePhase.PROGRESSING: (ProfilePhase.BAKING, ProfilePhase.ROLLING_BACK),
    ProfilePhase.BAKING: (ProfilePhase.PROMOTED, ProfilePhase.PROMOTED, ProfilePhase.ROLLING_BACK),
    ProfilePhase.ROLLING_BACK: (ProfilePhase.ROLLED_BACK, ProfilePhase.DEGRADED),
    ProfilePhase.DEGRADED: (ProfilePhase.ROLLED_BACK,),
}
GUARDED = (GuardedWorkload(component="stt", generation=1),)


class NoTurns(Turns):
    """Whoever comes has it."""

    @asynccontextmanager
    async def of(self, namespaces: Iterable[str], patience_seconds: float) -> AsyncGenerator[bool]:
        yield True


class BesideEachOtherError(AssertionError):
    """Two profiles in one namespace."""


class Played:
    """The profiles, and calls that wait for their answers."""

    def __init__(self, turns: Turns, chance: random.Random) -> None:
        self.turns, self.chance = turns, chance
        self.seen = Counter[str]()
        self.calls: list[asyncio.Future[None]] = []
        self.bodies = {name: self._profile(name, age) for age, name in enumerate(PROFILES)}

    def _profile(self, name: str, age: int) -> dict[str, Any]:
        body = manifest("GpuProfile")
        created = NOW.replace(second=age).isoformat()
        body["metadata"] = {"name": name, "namespace": "lab", "creationTimestamp": created, "version": 0}
        places = self.chance.sample(NAMESPACES, self.chance.randint(1, len(NAMESPACES)))
        body["spec"]["rollout"] = {"stages": [{"name": f"in-{it}", "namespace": it} for it in places]}
        return body

    async def run(self) -> None:
        """Pass after pass of each profile, until all are made."""
        tasks = {asyncio.create_task(self._passes(it)): it for it in PROFILES}
        while tasks:
            for _ in range(5):  # Until everybody waits for a call or for a turn.
                await asyncio.sleep(0)
            if over := [it for it in tasks if it.done()]:
                for task in over:
                    name = tasks.pop(task)
                    if not task.cancelled():
                        await task
                    else:  # Another operator goes on.
                        tasks[asyncio.create_task(self._passes(name))] = name
                continue
            self.calls = [it for it in self.calls if not it.done()]
            assert self.calls, "they wait for each other"
            if self.chance.random() < 0.02:
                self.seen["died"] += 1
                self.chance.choice(list(tasks)).cancel()
            elif self.chance.random() < 0.05:
                self._edit(self.chance.choice(PROFILES))
            else:
                self.chance.choice(self.calls).set_result(None)

    def _edit(self, name: str) -> None:
        """A person asks for a revision of a stage, or takes that back."""
        body = copy.deepcopy(self.bodies[name])
        stage = self.chance.choice(body["spec"]["rollout"]["stages"])
        stage["toRevision"] = self.chance.choice([None, "cotune-0000000001", "cotune-0000000002"])
        body["metadata"]["version"] += 1
        self.bodies[name] = body

    async def _passes(self, name: str) -> None:
        for _ in range(PASSES):
            await self._call()
            body = copy.deepcopy(self.bodies[name])
            async with self.turns.of(namespaces_of_pass(body), 60) as is_mine:
                assert is_mine
                await self._pass(body)

    async def _pass(self, body: dict[str, Any]) -> None:
        spec, status = ProfileSpec.model_validate(body["spec"]), ProfileStatus.model_validate(body.get("status") or {})
        for stage, state in unanswered(spec, status):
            await self._write(body, status, await self._answered(body, stage, state))
            return
        for stage, state in begun(spec, status):
            if state.guarded and self.chance.random() < 0.5:
                is_alone = in_the_middle(rival_of(body), await self._rivals(), stage.namespace) is None
                phase = ProfilePhase.ROLLING_BACK if is_alone else state.phase
                self.seen["a guarded stage goes back" if is_alone else "a guarded stage is another's"] += 1
                await self._write(body, status, state.model_copy(update={"phase": phase, "guarded": ()}))
                return
        in_progress = [(stage, it) for stage, it in begun(spec, status) if it.phase in IN_PROGRESS]
        if in_progress:
            stage, state = self.chance.choice(in_progress)
            await self._call()
            phase = self.chance.choice(AFTER[state.phase])
            guarded = GUARDED if phase is ProfilePhase.PROMOTED else ()
            await self._write(body, status, state.model_copy(update={"phase": phase, "guarded": guarded}))
            return
        stage = current_stage(spec, status)
        if stage is None:
            return
        if goes_before(rival_of(body), await self._rivals(), stage.namespace, NOW) is not None:
            self.seen["another goes first"] += 1
            return
        for _ in range(self.chance.randrange(3)):
            await self._call()
        await self._write(body, status, StageStatus(name=stage.name, phase=ProfilePhase.PROGRESSING))

    async def _answered(self, body: dict[str, Any], stage: Stage, state: StageStatus) -> StageStatus:
        if stage.to_revision is None:
            return state.model_copy(update={"asked": None})
        asked = AskedRevision(
            revision=stage.to_revision, outcome=AskedOutcome.TAKEN, reason="RevisionTaken", message="", at=NOW
        )
        if state.phase in IN_PROGRESS or in_the_middle(rival_of(body), await self._rivals(), stage.namespace):
            return state.model_copy(update={"asked": asked})
        await self._call()
        self.seen["a revision was taken"] += 1
        return taken_back(state.model_copy(update={"asked": asked}), "", NOW)

    async def _rivals(self) -> "list[Any]":
        await self._call()
        found = [rival_of(it) for it in self.bodies.values()]
        await self._call()
        return found

    async def _write(self, body: dict[str, Any], status: ProfileStatus, new: StageStatus) -> None:
        await self._call()
        name = body["metadata"]["name"]
        if self.bodies[name]["metadata"]["version"] != body["metadata"]["version"]:
            self.seen["conflict"] += 1
            return
        body["status"] = {
            "stages": [it.model_dump(mode="json", by_alias=True) for it in with_stage(status.stages, new)]
        }
        body["metadata"]["version"] += 1
        self.bodies[name] = body
        old = by_name(status).get(new.name)
        self.seen["a stage began"] += old is None
        self._judge()
        await self._call()

    def _judge(self) -> None:
        for namespace in NAMESPACES:
            here = [name for name, body in self.bodies.items() if self._is_in_the_middle(body, namespace)]
            if len(here) > 1:
                raise BesideEachOtherError(f"{' and '.join(here)} are in the middle of a stage in {namespace}")

    @staticmethod
    def _is_in_the_middle(body: dict[str, Any], namespace: str) -> bool:
        spec, status = ProfileSpec.model_validate(body["spec"]), ProfileStatus.model_validate(body.get("status") or {})
        return any(it.phase in IN_PROGRESS for stage, it in begun(spec, status) if stage.namespace == namespace)

    async def _call(self) -> None:
        self.calls.append(call := asyncio.get_running_loop().create_future())
        await call


@pytest.mark.timeout(300)
def test_no_two_profiles_are_in_the_middle_of_a_stage_in_one_namespace_whoever_is_answered_next() -> None:
    print(f"COTUNE_SEED={SEED}")
    seen = Counter[str]()
    for seed in range(SEED, SEED + 80):
        turns = Turns()
        played = Played(turns, random.Random(seed))
        asyncio.run(played.run())
        seen.update(played.seen)
        assert not turns.at_work

    print("; ".join(f"{what}: {times}" for what, times in sorted(seen.items())))
    for what in ("another goes first", "a stage began", "conflict", "died"):
        assert seen[what] > 20, what
    for what in ("a guarded stage goes back", "a guarded stage is another's", "a revision was taken"):
        assert seen[what] > 2, what


@pytest.mark.timeout(300)
def test_without_turns_they_would_be() -> None:
    """What the other test is worth."""

    def is_found(seed: int) -> bool:
        try:
            asyncio.run(Played(NoTurns(), random.Random(seed)).run())
        except BesideEachOtherError:
            return True
        return False

    assert any(is_found(seed) for seed in range(SEED, SEED + 150))
