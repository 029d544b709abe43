"""The second site's story: what is expected of it, what is said of it, and how it is watched."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from cotune.cluster.kinds import DEPLOYMENT, EXPERIMENT, PROFILE, TRIAL, Kind
from cotune.cluster.objects import Object, Objects
from cotune_demo import preparation, target
from cotune_demo.cluster import Commands, DemoError
from cotune_demo.progress import Progress
from cotune_demo.scenes import EDGE
from cotune_demo.summary import Check, TargetSummary
from cotune_demo.target import TargetStory
from cotune_demo.target_checks import same_target, target_checks
from support.told_target import GOOD_TARGET, MORE, NO_ROOM, TINY, profile

Change = Callable[[TargetSummary], TargetSummary]


def changed(**update: object) -> Change:
    return lambda found: found.model_copy(update=update)


def with_simpler(**update: object) -> Change:
    return changed(simpler=GOOD_TARGET.simpler.model_copy(update=update))


def with_copied(**update: object) -> Change:
    return changed(copied=GOOD_TARGET.copied.model_copy(update=update))


def with_copied_trial(index: int, **update: object) -> Change:
    trials = list(GOOD_TARGET.copied.trials)
    trials[index] = trials[index].model_copy(update=update)
    return with_copied(trials=tuple(trials))


def failed(found: Iterator[Check]) -> list[str]:
    return [it.what for it in found if not it.holds]


def test_all_of_it_holds_when_everything_went_well() -> None:
    found = list(target_checks(GOOD_TARGET))

    assert len(found) == 7
    assert all(it.holds for it in found)
    assert "60 s in 2 trials, and 130 s in 4" in found[5].seen


def test_a_run_without_it_does_not_hold() -> None:
    assert failed(target_checks(None)) == ["an experiment that is simpler than its target was made"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (with_simpler(conditions={"TargetCopied": "Copied"}), "says beforehand"),
        (with_simpler(conditions={"SimplerThanTarget": "ServicesMissing", "TargetCopied": "NoGrant"}), "beforehand"),
        (with_simpler(validated=(TINY.model_copy(update={"kept": False}), MORE)), "tiny is kept"),
        (with_simpler(validated=(TINY.model_copy(update={"value": "small"}), MORE)), "tiny is kept"),
        (with_simpler(validated=(MORE,)), "tiny is kept"),
        (with_simpler(validated=(TINY,)), "is left out"),
        (with_simpler(validated=(TINY, MORE.model_copy(update={"kept": True}))), "is left out"),
        (with_simpler(validated=(TINY, MORE.model_copy(update={"reason": "NoGainAlone"}))), "is left out"),
        (with_simpler(validated=(TINY, MORE.model_copy(update={"message": "no room"}))), "is left out"),
        (changed(profile=profile("RolledBack")), "to production"),
        (changed(profile=None), "to production"),
        (changed(values={"edge-staging": "tiny", "edge-prod": "small"}), "to production"),
        (with_copied(changes={}), "the same changes"),
        (with_copied(trials=GOOD_TARGET.copied.trials[:3]), "the same changes"),
        (with_copied_trial(2, reason="NoCacheBlocks"), "the same changes"),
        (changed(gpu_seconds_saved=1.0), "fewer GPU-seconds"),
        (with_copied_trial(0, probe_pods=2), "ran twice"),
    ],
)
def test_each_expectation_fails_for_what_it_is_there_for(change: Change, what: str) -> None:
    found = failed(target_checks(change(GOOD_TARGET)))

    assert len(found) == 1, found
    assert what in found[0]


def test_a_copy_that_takes_as_much_of_the_cards_saves_nothing() -> None:
    worse = GOOD_TARGET.model_copy(
        update={
            "copied": GOOD_TARGET.copied.model_copy(update={"gpu_seconds": 130.0}),
            "gpu_seconds_saved": 0.0,
        }
    )

    assert failed(target_checks(worse)) == ["and that takes fewer GPU-seconds"]


def test_a_killed_run_that_comes_to_the_same_holds_whatever_it_took() -> None:
    slower = GOOD_TARGET.model_copy(update={"simpler": GOOD_TARGET.simpler.model_copy(update={"gpu_seconds": 150.0})})

    assert same_target(GOOD_TARGET, slower).holds


@pytest.mark.parametrize(
    "killed",
    [
        None,
        GOOD_TARGET.model_copy(update={"profile": profile("RolledBack")}),
        with_simpler(validated=(TINY,))(GOOD_TARGET),
        with_copied(trials=GOOD_TARGET.copied.trials[:3])(GOOD_TARGET),
        with_copied_trial(0, phase="Invalid")(GOOD_TARGET),
    ],
)
def test_a_killed_run_that_comes_to_something_else_does_not_hold(killed: TargetSummary | None) -> None:
    assert not same_target(GOOD_TARGET, killed).holds


STATUS: dict[str, Any] = {
    "phase": "Succeeded",
    "gpuSeconds": "130.0",
    "profile": "simpler-1",
    "validation": {
        "changes": [
            {"parameter": "whisperModel", "value": "tiny", "kept": True, "reason": "Validated", "message": ""},
            {"parameter": "judgeMemory", "value": "0.85", "kept": False, "reason": "CardTaken", "message": NO_ROOM},
        ]
    },
    "conditions": [
        {
            "type": "SimplerThanTarget",
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-11-24T01:00:00Z",
            "reason": "ServicesMissing",
            "message": "edge-staging runs embeddings, chat",
        }
    ],
}
CHANGE = {"component": "stt", "env": "ASR_WHISPER_SIZE", "from": "small", "to": "tiny"}


class Played:
    """Both kubectl and the API server: both experiments end at the second look, the profile at the third."""

    def __init__(self, looks: int = 2) -> None:
        self.applied: list[str] = []
        self._looks = looks
        self._seen: dict[str, int] = {}

    async def do(self, *words: str) -> str:
        if words[0] == "apply":
            self.applied.append(words[-1].rpartition("/")[2])
        return ""

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        if kind is DEPLOYMENT:
            size = {"edge-staging": "tiny", "edge-prod": "small"}[namespace]
            container = {"env": [{"name": "ASR_WHISPER_SIZE", "value": size}]}
            return {"spec": {"template": {"spec": {"containers": [container]}}}}
        assert namespace == "edge-lab"
        looks = self._seen[name] = self._seen.get(name, 0) + 1
        if kind is PROFILE:
            phase = "Promoted" if looks > self._looks else "Progressing"
            return {"metadata": {"name": name}, "spec": {"changes": [CHANGE]}, "status": {"phase": phase}}
        assert kind is EXPERIMENT
        seconds = {"simpler": "130.0", "copied": "60.0"}[name]
        return {"status": STATUS | {"gpuSeconds": seconds} if looks >= self._looks else {"phase": "Running"}}

    async def find(self, kind: Kind, namespace: str, name: str) -> Object:
        assert kind is PROFILE
        return {"metadata": {"name": name}, "spec": {"changes": [CHANGE]}}

    async def list(self, kind: Kind, namespace: str, labels: "dict[str, str] | None" = None) -> tuple[Object, ...]:
        assert namespace == "edge-lab"
        if kind is not TRIAL:
            pod = {"labels": {"cotune.dev/trial": "simpler-1-0", "cotune.dev/component": "probe"}, "uid": "one"}
            return ({"metadata": pod},)
        assert labels is not None
        name = f"{labels['cotune.dev/experiment']}-1-0"
        spec = {"experiment": "simpler", "candidate": [{"name": "judgeMemory", "value": "0.50"}], "repeat": 0}
        moment = "2026-11-24T01:00:00Z"
        return ({"metadata": {"name": name, "creationTimestamp": moment}, "spec": spec, "status": {"phase": "Failed"}},)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "_POLL_SECONDS", 0.0)


def told(played: Played) -> TargetStory:
    return TargetStory(cast("Commands", played), cast("Objects", played), Progress(), EDGE)


def test_both_experiments_are_watched_to_their_end_and_the_rollout_of_the_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    played = Played()

    found = asyncio.run(told(played).tell(ready_seconds=1))

    assert sorted(played.applied) == ["copied.yaml", "simpler.yaml"]
    assert [(it.parameter, it.kept, it.reason) for it in found.simpler.validated] == [
        ("whisperModel", True, "Validated"),
        ("judgeMemory", False, "CardTaken"),
    ]
    assert found.simpler.conditions == {"SimplerThanTarget": "ServicesMissing"}
    assert found.simpler.changes == found.copied.changes == {"stt.ASR_WHISPER_SIZE": "tiny"}
    assert (found.simpler.gpu_seconds, found.copied.gpu_seconds, found.gpu_seconds_saved) == (130.0, 60.0, 70.0)
    assert [it.probe_pods for it in (*found.simpler.trials, *found.copied.trials)] == [1, 0]
    assert found.profile is not None
    assert found.profile.phase == "Promoted"
    assert found.values == {"edge-staging": "tiny", "edge-prod": "small"}
    said = capsys.readouterr().out
    assert said.count("experiment simpler: SimplerThanTarget True, ServicesMissing: edge-staging runs") == 1


def test_an_experiment_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "_LONGEST_SECONDS", 0.05)

    with pytest.raises(DemoError, match="has not ended"):
        asyncio.run(told(Played(looks=10**9)).tell(ready_seconds=1))


def test_its_namespaces_are_forgotten_by_whatever_runs_next() -> None:
    assert {EDGE.lab, EDGE.staging, EDGE.production} <= set(preparation.ALL_NAMESPACES)
