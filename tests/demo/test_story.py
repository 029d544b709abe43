"""The scene of an experiment of which nothing fits, watched on an API server that is played."""

import asyncio
from typing import Any, cast

import pytest
from cotune.cluster.kinds import EXPERIMENT, POD, Kind
from cotune.cluster.objects import Object, Objects
from cotune_demo import story
from cotune_demo.cluster import Commands, DemoError
from cotune_demo.killing import Killer
from cotune_demo.progress import Progress
from cotune_demo.scenes import SIMULATED
from cotune_demo.story import Story

STALLED = {
    "type": "Stalled",
    "status": "True",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-11-24T01:00:00Z",
    "reason": "NothingFeasible",
    "message": "none of 4 candidates can start",
}
ENDED: Object = {"phase": "Failed", "trials": {"skipped": 4}, "conditions": [STALLED]}
REFUSED = {"reason": "NoCacheBlocks", "count": 4, "skipped": 4, "example": "judgeMemory=0.30: judge: ..."}
PLAN = {"candidates": 4, "fitting": 0, "doubtful": 0, "refused": [REFUSED]}


class Played:
    """Both kubectl and the API server: what is applied is kept, statuses come one after the other."""

    def __init__(self, statuses: list[Object], pods: tuple[Object, ...] = ()) -> None:
        self.applied: list[str] = []
        self._statuses = statuses
        self._pods = pods

    async def do(self, *words: str) -> str:
        self.applied.append(words[-1].rpartition("/")[2])
        return ""

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        assert (kind, name) == (EXPERIMENT, "nothing-fits")
        status = self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]
        return {"metadata": {"name": name}, "status": status}

    async def list(self, kind: Kind, namespace: str, labels: "dict[str, str] | None" = None) -> tuple[Object, ...]:
        return self._pods if kind is POD else ()


def told(played: Played) -> Story:
    commands, progress = cast("Commands", played), Progress()
    killer = Killer(commands, progress, is_ordered=False)
    return Story(commands, cast("Objects", played), progress, killer, SIMULATED)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "_POLL_SECONDS", 0.0)


def test_it_is_applied_and_watched_to_its_end() -> None:
    played = Played([{}, {"phase": "Planning"}, ENDED | {"plan": PLAN}])

    found = asyncio.run(told(played).nothing_feasible("nothing-fits.yaml"))

    assert played.applied == ["nothing-fits.yaml"]
    assert (found.name, found.phase, found.reason) == ("nothing-fits", "Failed", "NothingFeasible")
    assert found.message == "none of 4 candidates can start"
    assert (found.trials, found.pods) == (0, 0)
    assert found.plan is not None
    assert found.plan.refused[0].skipped == 4


def test_pods_that_were_seen_on_the_way_are_counted() -> None:
    pod: dict[str, Any] = {"metadata": {"uid": "1"}}

    found = asyncio.run(told(Played([{"phase": "Running"}, ENDED], (pod,))).nothing_feasible("nothing-fits.yaml"))

    assert found.pods == 1


def test_one_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "_LONGEST_PLANNING", 0.05)

    with pytest.raises(DemoError, match="nothing-fits has not ended"):
        asyncio.run(told(Played([{"phase": "Running"}])).nothing_feasible("nothing-fits.yaml"))
