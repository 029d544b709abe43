"""Records of trials through the reconciler: a real API server and a real directory; nodes and kubelets are played."""

import asyncio
import functools
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cotune.handlers.records
import pytest
from apiserver.test_reconcilers import (
    Driven,
    condition,
    create_trial,
    drive,
    play_trial_pods,
    trial_reconciler,
)
from cotune.api.trial import Measurement, TrialPhase
from cotune.artifacts.directory import DirectoryStore
from cotune.artifacts.making import Ended
from cotune.artifacts.record import TrialRecord, canonical_bytes, parse_record
from cotune.artifacts.retention import Retention
from cotune.artifacts.verification import FaultKind, verify
from cotune.cluster.cards import Cards
from cotune.cluster.kinds import EXPERIMENT, POD, PROFILE, TRIAL
from cotune.cluster.objects import ApiError, Object
from cotune.handlers.store_thread import StoreThread
from cotune.handlers.sweeper import Sweeper
from cotune.trials.probe_pod import PROBE
from cotune.trials.render import LABEL_COMPONENT
from support.api_server import ApiServer
from support.played_cluster import PlayedObjects, play_ended, play_kubelet, within
from support.records import record, result
from support.resources import manifest
from support.small_disk import small_disk

pytestmark = pytest.mark.apiserver

CALLS_OF_TRIAL = 11
"""How many calls the longest pass makes."""


def last_line() -> str:
    """What a probe says of the story's stack, with the raw values that its figures come from."""
    said = result(components=("judge", "stt"))
    of_servers = {"stt.wer": "0.05", "judge.kvCache.concurrency": "3.4", "judge.kvCache.tokens": "6976"}
    more = (Measurement(metric=metric, value=value, samples=200) for metric, value in of_servers.items())
    return said.model_copy(update={"measurements": (*said.measurements, *more)}).model_dump_json(by_alias=True)


LAST_LINE = last_line()


async def play(objects: PlayedObjects, namespace: str, trial: str) -> None:
    """Every pod becomes ready; the probe ends when the trial measures."""
    await play_kubelet(objects, namespace)
    phase = (await objects.get(TRIAL, namespace, trial)).get("status", {}).get("phase")
    for pod in await objects.list(POD, namespace, {LABEL_COMPONENT: PROBE}):
        if phase == "Measuring" and pod["status"]["phase"] != "Succeeded":
            objects.logs[pod["metadata"]["name"]] = f"all services answer\n{LAST_LINE}\n"
            await play_ended(objects, pod)


async def run_trial(
    objects: PlayedObjects, namespace: str, name: str, store: StoreThread | None, dies_after: int | None = None
) -> Driven:
    async def one_pass(body: Object, now: datetime) -> timedelta | None:
        return await trial_reconciler(objects, namespace, store).reconcile(body, now)

    playing = functools.partial(play, objects, namespace, name)
    return await drive(objects, TRIAL, namespace, name, one_pass, playing, dies_after)


def records(folder: Path) -> list[tuple[str, TrialRecord]]:
    store = DirectoryStore(folder)
    return [(it.digest, parse_record(store.get(it.digest))) for it in store.list()]


def test_a_trial_ends_with_a_record_that_its_status_names_and_that_verifies(
    api_server: ApiServer, tmp_path: Path
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        name = await create_trial(objects, namespace)
        driven = await run_trial(objects, namespace, name, StoreThread(DirectoryStore(tmp_path)))

        trial = await objects.get(TRIAL, namespace, name)
        [(digest, kept)] = records(tmp_path)
        assert trial["status"]["phase"] == "Succeeded", trial["status"]
        assert trial["status"]["artifact"] == {"digest": digest, "bytes": len(canonical_bytes(kept))}
        assert condition(trial, "ArtifactStored") == ("True", "RecordStored", digest)
        found = verify(DirectoryStore(tmp_path), [trial])
        assert found.faults == ()
        assert found.records[0].recomputed == 20
        assert {it.component for it in kept.manifest.pods} == {"judge", "stt", PROBE}
        assert (kept.manifest.node.name if kept.manifest.node else "") == "lab"
        experiment = await objects.get(EXPERIMENT, namespace, "voice")
        assert kept.lineage.experiment_uid == experiment["metadata"]["uid"]
        assert kept.lineage.spec_digest == experiment["status"]["specDigest"]
        [asr] = next(it for it in kept.manifest.pods if it.component == "stt").containers
        assert ("ASR_WHISPER_SIZE", "small") in [(it.name, it.value) for it in asr.env]
        assert kept.logs == ()
        assert driven.most_calls == CALLS_OF_TRIAL

        trial["status"]["measurements"][0]["value"] = "1"
        assert [it.kind for it in verify(DirectoryStore(tmp_path), [trial]).faults] == [FaultKind.DIFFERS]

    within(api_server, scenario)


@pytest.mark.parametrize("calls", range(CALLS_OF_TRIAL))
def test_a_pass_that_dies_anywhere_leaves_one_record_and_the_status_names_it(
    api_server: ApiServer, tmp_path: Path, calls: int
) -> None:
    """With the last of them it dies between the store and the write of the status."""

    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        name = await create_trial(objects, namespace)
        driven = await run_trial(objects, namespace, name, StoreThread(DirectoryStore(tmp_path)), calls)

        trial = await objects.get(TRIAL, namespace, name)
        assert driven.deaths > 0
        [(digest, _)] = records(tmp_path)
        assert trial["status"]["artifact"]["digest"] == digest
        assert verify(DirectoryStore(tmp_path), [trial]).holds

    within(api_server, scenario)


def test_between_the_store_and_the_status_a_pass_has_died(api_server: ApiServer, tmp_path: Path) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        name = await create_trial(objects, namespace)
        refused = ApiError(503, "ServiceUnavailable", "the API server is away")
        path = TRIAL.path(namespace, name, "status")
        one_pass = trial_reconciler(objects, namespace, StoreThread(DirectoryStore(tmp_path))).reconcile

        async def until(phase: str) -> Object:
            while (body := await objects.get(TRIAL, namespace, name)).get("status", {}).get("phase") != phase:
                await one_pass(body, datetime.now(UTC))
                await play_kubelet(objects, namespace)
            return body

        measuring = await until("Measuring")
        await play(objects, namespace, name)
        objects.refuse = lambda call: refused if (call.method, call.path) == ("PATCH", path) else None
        stored: set[str] = set()
        for minutes in range(2):
            with pytest.raises(ApiError):
                await one_pass(measuring, datetime.now(UTC) + timedelta(minutes=minutes))
            stored |= {it for it, _ in records(tmp_path)}
        [digest] = stored
        objects.refuse = lambda _: None
        await run_trial(objects, namespace, name, StoreThread(DirectoryStore(tmp_path)))

        trial = await objects.get(TRIAL, namespace, name)
        assert [it for it, _ in records(tmp_path)] == [digest] == [trial["status"]["artifact"]["digest"]]

    within(api_server, scenario)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system without room, but for what takes the file `filler` away."""
    with small_disk(tmp_path / "full", kib=256) as mount:
        (mount / "filler").write_bytes(bytes(256 << 10))
        assert os.statvfs(mount).f_bavail == 0
        yield mount


async def measured_on_a_full_disk(objects: PlayedObjects, namespace: str, disk: Path) -> tuple[str, datetime, Object]:
    """The name of a trial whose record finds no room, when its result was committed, and its status then."""
    name = await create_trial(objects, namespace)
    one_pass = trial_reconciler(objects, namespace, StoreThread(DirectoryStore(disk))).reconcile
    while True:
        body, now = await objects.get(TRIAL, namespace, name), datetime.now(UTC)
        if body.get("status", {}).get("phase") == "Succeeded":
            return name, datetime.fromisoformat(body["status"]["finishedAt"]), body["status"]
        await one_pass(body, now)
        await play(objects, namespace, name)


@pytest.mark.parametrize("seconds", [1, 59])
def test_a_full_store_loses_no_result_and_gets_the_record_when_there_is_room(
    api_server: ApiServer, full_disk: Path, seconds: int
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        name, ended, status = await measured_on_a_full_disk(objects, namespace, full_disk)
        holds, reason, message = condition({"status": status}, "ArtifactStored")
        assert (holds, reason) == ("False", "StoreUnavailable")
        assert "No space left on device; tried until" in message
        assert len(status["measurements"]) > 20
        one_pass = trial_reconciler(objects, namespace, StoreThread(DirectoryStore(full_disk))).reconcile
        for _ in range(2):
            await one_pass(await objects.get(TRIAL, namespace, name), ended + timedelta(seconds=seconds))
        assert len(await objects.list(POD, namespace)) == 3, "the record is made of what the pods say"
        assert "fitness" in (await objects.get(TRIAL, namespace, name))["status"], "its judgement waits for nothing"

        (full_disk / "filler").unlink()
        await one_pass(await objects.get(TRIAL, namespace, name), ended + timedelta(seconds=seconds))
        await run_trial(objects, namespace, name, StoreThread(DirectoryStore(full_disk)))

        trial = await objects.get(TRIAL, namespace, name)
        assert condition(trial, "ArtifactStored")[:2] == ("True", "RecordStored")
        assert trial["status"]["measurements"] == status["measurements"]
        assert verify(DirectoryStore(full_disk), [trial]).holds
        assert await objects.list(POD, namespace) == ()

    within(api_server, scenario)


def test_a_store_that_stays_full_loses_the_record_only_and_gives_the_card_back(
    api_server: ApiServer, full_disk: Path
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        name, ended, status = await measured_on_a_full_disk(objects, namespace, full_disk)
        one_pass = trial_reconciler(objects, namespace, StoreThread(DirectoryStore(full_disk))).reconcile
        assert await Cards(objects, namespace).holder("lab") is not None
        while await one_pass(await objects.get(TRIAL, namespace, name), ended + timedelta(seconds=61)) is not None:
            await asyncio.sleep(0.02)

        trial = await objects.get(TRIAL, namespace, name)
        assert (await objects.list(POD, namespace), await Cards(objects, namespace).holder("lab")) == ((), None)
        assert trial["status"]["phase"] == "Succeeded"
        assert trial["status"]["measurements"] == status["measurements"]
        assert "artifact" not in trial["status"]
        assert condition(trial, "ArtifactStored")[:2] == ("False", "StoreUnavailable")
        assert condition(trial, "Feasible")[0] == "True"

    within(api_server, scenario)


@pytest.mark.parametrize("pods", ["one that nobody thought of", "none whose log is given"])
def test_what_no_record_can_be_made_of_keeps_its_result_and_gives_its_card_back(
    api_server: ApiServer, full_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pods: str
) -> None:
    def refuse(_: Ended) -> TrialRecord:
        raise KeyError("labels")

    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        if pods == "one that nobody thought of":
            monkeypatch.setattr(cotune.handlers.records, "make_record", refuse)
            name = await create_trial(objects, namespace)
            await run_trial(objects, namespace, name, StoreThread(DirectoryStore(tmp_path)))
            why = ("False", "RecordNotMade", "KeyError: 'labels'")
        else:
            name, ended, _ = await measured_on_a_full_disk(objects, namespace, full_disk)
            (full_disk / "filler").unlink()
            objects.logs.clear()
            one_pass = trial_reconciler(objects, namespace, StoreThread(DirectoryStore(full_disk))).reconcile
            await one_pass(await objects.get(TRIAL, namespace, name), ended + timedelta(seconds=1))
            told = f"the kubelet does not give the probe's log any more; tried until {until(ended)}"
            why = ("False", "StoreUnavailable", told)
            assert condition(await objects.get(TRIAL, namespace, name), "ArtifactStored") == why
            while await one_pass(await objects.get(TRIAL, namespace, name), ended + timedelta(seconds=61)) is not None:
                await asyncio.sleep(0.02)

        trial = await objects.get(TRIAL, namespace, name)
        assert (trial["status"]["phase"], "artifact" in trial["status"]) == ("Succeeded", False)
        assert len(trial["status"]["measurements"]) > 20
        assert condition(trial, "ArtifactStored") == why
        assert (await objects.list(POD, namespace), await Cards(objects, namespace).holder("lab")) == ((), None)
        assert records(full_disk) == []

    within(api_server, scenario)


def until(ended: datetime) -> str:
    return (ended + timedelta(seconds=60)).isoformat(timespec="seconds")


def test_without_a_store_a_trial_says_so_and_nothing_waits(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        name = await create_trial(objects, namespace)
        await run_trial(objects, namespace, name, None)

        trial = await objects.get(TRIAL, namespace, name)
        assert trial["status"]["phase"] == "Succeeded"
        assert condition(trial, "ArtifactStored")[:2] == ("False", "NotConfigured")
        assert await objects.list(POD, namespace) == ()

    within(api_server, scenario)


def test_a_failed_trial_leaves_a_manifest_and_the_end_of_its_logs(api_server: ApiServer, tmp_path: Path) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        name = await create_trial(objects, namespace)
        one_pass = trial_reconciler(objects, namespace, StoreThread(DirectoryStore(tmp_path))).reconcile

        async def crash() -> None:
            await play_kubelet(objects, namespace)
            for pod in await objects.list(POD, namespace, {LABEL_COMPONENT: "judge"}):
                objects.logs[pod["metadata"]["name"]] = "loading\ntorch.OutOfMemoryError: CUDA out of memory.\n"
                if pod["status"]["phase"] != "Failed":
                    await play_ended(objects, pod, exit_code=1)

        await drive(objects, TRIAL, namespace, name, one_pass, crash, None)

        trial = await objects.get(TRIAL, namespace, name)
        [(_, kept)] = records(tmp_path)
        assert (kept.phase, kept.reason) == (TrialPhase.FAILED, "CudaOutOfMemory")
        assert "loading\ntorch.OutOfMemoryError" in next(it.text for it in kept.logs if it.component == "judge")
        judge = next(it for it in kept.manifest.pods if it.component == "judge")
        assert judge.containers[0].exit_code == 1
        assert verify(DirectoryStore(tmp_path), [trial]).holds

    within(api_server, scenario)


def test_an_invalid_trial_keeps_what_the_probe_said_and_none_of_it_counts(
    api_server: ApiServer, tmp_path: Path
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        name = await create_trial(objects, namespace)
        one_pass = trial_reconciler(objects, namespace, StoreThread(DirectoryStore(tmp_path))).reconcile
        hot = {"throttled": 300, "throttle_reasons": ["HwThermalSlowdown"]}
        playing = functools.partial(play_trial_pods, objects, namespace, name, **hot)
        await drive(objects, TRIAL, namespace, name, one_pass, playing, None)

        [(_, kept)] = records(tmp_path)
        assert (kept.phase, kept.reason, kept.measurements) == (TrialPhase.INVALID, "Throttled", ())
        assert kept.result is not None
        assert kept.result.measurements
        trial = await objects.get(TRIAL, namespace, name)
        assert trial["status"]["measurements"] == []

    within(api_server, scenario)


def stored(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Records of an experiment that nobody has any more, made in 2026; name to digest."""
    store = DirectoryStore(folder)
    return {it: store.put(canonical_bytes(record(it))) for it in names}


def test_a_sweep_takes_what_is_too_old_and_leaves_what_a_profile_comes_from(
    api_server: ApiServer, tmp_path: Path
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        digests = stored(tmp_path, ["voice-1", "voice-2", "voice-3"])
        name = digests["voice-3"][7:]
        (tmp_path / name[:2] / f"{name}.json.gz").write_bytes(b"?")
        body: Any = manifest("GpuProfile")
        body["metadata"] = {"name": "living", "namespace": namespace}
        body["spec"]["provenance"]["artifact"] = digests["voice-1"]
        await objects.create(PROFILE, namespace, body)
        store = StoreThread(DirectoryStore(tmp_path))
        later = datetime(2027, 11, 27, tzinfo=UTC)

        assert await Sweeper(objects, store, Retention(), asyncio.Event()).sweep(later) == ()
        sweeper = Sweeper(objects, store, Retention(days=30), asyncio.Event())
        assert await sweeper.sweep(later) == (digests["voice-2"],)
        assert await sweeper.sweep(later) == ()
        assert {it.digest for it in await store.entries()} == {digests["voice-1"], digests["voice-3"]}

        await objects.delete(PROFILE, namespace, "living")
        assert await sweeper.sweep(later) == (digests["voice-1"],)

    within(api_server, scenario)


def test_a_sweep_that_cannot_ask_the_cluster_takes_nothing(api_server: ApiServer, tmp_path: Path) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        digests = stored(tmp_path, ["voice-1"])
        away = ApiError(503, "ServiceUnavailable", "away")
        objects.refuse = lambda call: away if call.path.endswith("gpuprofiles") else None
        store = StoreThread(DirectoryStore(tmp_path))
        sweeper = Sweeper(objects, store, Retention(days=1), asyncio.Event())

        with pytest.raises(ApiError):
            await sweeper.sweep(datetime(2027, 11, 27, tzinfo=UTC))

        assert [it.digest for it in await store.entries()] == list(digests.values())

    within(api_server, scenario)


def test_a_running_experiment_keeps_all_of_its_records(api_server: ApiServer, tmp_path: Path) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        name = await create_trial(objects, namespace)
        store = StoreThread(DirectoryStore(tmp_path))
        await run_trial(objects, namespace, name, store)
        sweeper = Sweeper(objects, store, Retention(days=1), asyncio.Event())

        assert await sweeper.sweep(datetime.now(UTC) + timedelta(days=9)) == ()

        await objects.delete(EXPERIMENT, namespace, "voice")
        [(digest, _)] = records(tmp_path)
        assert await sweeper.sweep(datetime.now(UTC) + timedelta(days=9)) == (digest,)

    within(api_server, scenario)
