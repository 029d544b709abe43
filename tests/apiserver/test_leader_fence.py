"""The leader's fence on a real API server: what a pod writes that leads no more is refused, and nobody else notices."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cotune.cluster.cards import Cards
from cotune.cluster.election import Timing
from cotune.cluster.kinds import CONTROLLER_REVISION, DEPLOYMENT, LEASE, POD, PROFILE, SERVICE, TRIAL
from cotune.cluster.leadership import Leadership
from cotune.cluster.objects import ApiError, FencedError, Object, Objects
from cotune.trials.render import TrialIdentity
from support.api_server import ApiServer, running_api_server
from support.helm import CRDS
from support.played_cluster import PlayedObjects, connected, deployment, eventually
from support.replicas import HOME, LAB, LEADER, STAGING, install, replica_pod, token_file
from support.resources import manifest

pytestmark = [pytest.mark.apiserver, pytest.mark.helm]

TIMING = Timing(duration=3, renew_deadline=2, retry=0.1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ApiServer]:
    with running_api_server("fence", CRDS) as server:
        install(server)
        yield server


@dataclass
class Replica:
    """One of the operator's pods, with the token that the kubelet would give it."""

    identity: str
    objects: Objects
    leadership: Leadership
    lost: list[str] = field(default_factory=list[str])


@asynccontextmanager
async def replica(server: ApiServer, administrator: Objects, folder: Path, name: str) -> AsyncGenerator[Replica]:
    pod = await replica_pod(server, administrator, folder, name)
    objects = await Objects.connect(pod.kubeconfig)
    lost: list[str] = []
    leadership = Leadership(objects, HOME, LEADER, pod.identity, TIMING, lost.append)
    try:
        yield Replica(pod.identity, objects, leadership, lost)
    finally:
        await objects.close()


@dataclass(frozen=True)
class Scene:
    """Two replicas, and what they write to."""

    administrator: PlayedObjects
    old: Replica
    new: Replica


@asynccontextmanager
async def scene(server: ApiServer, folder: Path) -> AsyncGenerator[Scene]:
    async with AsyncExitStack() as stack:
        administrator = await stack.enter_async_context(connected(server.kubeconfig))
        old, new = [
            await stack.enter_async_context(replica(server, administrator, folder, it)) for it in ("old", "new")
        ]
        await administrator.delete(LEASE, HOME, LEADER)
        for kind, namespace, body in (
            (PROFILE, LAB, manifest("GpuProfile") | {"metadata": {"name": "p", "namespace": LAB}}),
            (DEPLOYMENT, STAGING, deployment(STAGING, "whisper", "asr", [])),
        ):
            await administrator.delete(kind, namespace, body["metadata"]["name"])
            await administrator.create(kind, namespace, body)
        await administrator.delete(TRIAL, LAB, "running")
        await administrator.delete(POD, LAB, "running", grace=0)
        yield Scene(administrator, old, new)


def trial(name: str) -> Object:
    return manifest("GpuTrial") | {"metadata": {"name": name, "namespace": LAB}}


def pod(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": LAB},
        "spec": {"containers": [{"name": "main", "image": "x"}]},
    }


async def writes(objects: Objects) -> dict[str, str]:
    """One write to every kind of thing that the operator writes, tried only; what the API server said to each."""
    status: Object = {"status": {"phase": "Pending"}}
    replicas: Object = {"spec": {"replicas": 0}}
    template = deployment(STAGING, "whisper", "asr", [{"name": "SIZE", "value": "tiny"}])
    revision: Object = {"apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 1, "data": {}}
    service: Object = {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}]}}
    card: Object = {"apiVersion": LEASE.api_version, "kind": "Lease"}
    asked = {
        "trial": objects.create(TRIAL, LAB, trial("fenced"), dry_run=True),
        "pod": objects.create(POD, LAB, pod("fenced"), dry_run=True),
        "service": objects.create(SERVICE, LAB, service | {"metadata": {"name": "fenced"}}, dry_run=True),
        "status": objects.merge(PROFILE, LAB, "p", status, subresource="status", dry_run=True),
        "finalizer": objects.merge(PROFILE, LAB, "p", {"metadata": {"finalizers": ["a.b/c"]}}, dry_run=True),
        "workload": objects.apply(DEPLOYMENT, template, dry_run=True),
        "scale": objects.merge(DEPLOYMENT, STAGING, "whisper", replicas, subresource="scale", dry_run=True),
        "revision": objects.create(
            CONTROLLER_REVISION, STAGING, revision | {"metadata": {"name": "fenced"}}, dry_run=True
        ),
        "card": objects.create(LEASE, HOME, card | {"metadata": {"name": "card-lab"}}, dry_run=True),
    }
    answers: dict[str, str] = {}
    for what, call in asked.items():
        try:
            await call
            answers[what] = "accepted"
        except (ApiError, FencedError) as error:
            answers[what] = f"{type(error).__name__}: {error}"
    return answers


async def refused(objects: Objects) -> bool:
    return all(it.startswith("FencedError") for it in (await writes(objects)).values())


async def lead(who: Replica) -> None:
    await who.leadership.acquire()
    await asyncio.wait_for(who.leadership.passes_the_fence(), 30)


def test_only_the_leader_writes_whatever_it_writes(cluster: ApiServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(cluster, tmp_path) as it:
            await lead(it.old)
            # The API server takes policies that were just made into use one after the other.
            async with asyncio.timeout(30):
                while not await refused(it.new.objects):
                    await asyncio.sleep(0.1)

            accepted, refusals = await writes(it.old.objects), await writes(it.new.objects)

            assert set(accepted.values()) == {"accepted"}, accepted
            for what, said in refusals.items():
                assert said.startswith("FencedError: "), (what, said)
                assert "ValidatingAdmissionPolicy 'cotune-fence" in said
                assert f"only the leader writes, which is {it.old.identity}, not {it.new.identity}" in said
            assert len(refusals) == 9

    asyncio.run(scenario())


def test_an_old_leader_that_comes_back_is_refused_by_the_time_the_new_one_begins(
    cluster: ApiServer, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with scene(cluster, tmp_path) as it:
            await lead(it.old)
            assert await it.old.objects.create(TRIAL, LAB, trial("running"))
            assert await it.old.objects.create(POD, LAB, pod("running"))
            # The old one renews no more: it is paused, or cut off.
            await lead(it.new)

            with pytest.raises(FencedError, match="ValidatingAdmissionPolicy 'cotune-fence'"):
                await it.old.objects.merge(TRIAL, LAB, "running", {"status": {"phase": "Failed"}}, subresource="status")
            with pytest.raises(FencedError, match="ValidatingAdmissionPolicy 'cotune-fence-shared'"):
                await it.old.objects.delete(POD, LAB, "running", grace=0)
            assert await refused(it.old.objects)
            assert "status" not in await it.administrator.get(TRIAL, LAB, "running")
            assert await it.administrator.get(POD, LAB, "running")
            assert set((await writes(it.new.objects)).values()) == {"accepted"}
            it.old.leadership.check()
            assert it.old.lost == ["the Lease was not renewed in time"]

    asyncio.run(scenario())


def test_a_lease_that_was_given_back_lets_its_last_holder_write_nothing(cluster: ApiServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(cluster, tmp_path) as it:
            await lead(it.old)
            await it.old.leadership.release()

            async def is_refused() -> bool:
                return await refused(it.old.objects)

            await eventually(is_refused, "the last holder fenced off")
            assert "and nobody leads" in (await writes(it.old.objects))["trial"]

    asyncio.run(scenario())


def test_without_a_lease_the_operator_writes_no_results_and_everybody_else_writes_as_ever(
    cluster: ApiServer, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with scene(cluster, tmp_path) as it:

            async def is_refused() -> bool:
                said = await writes(it.old.objects)
                return all(said[what].startswith("FencedError") for what in ("trial", "status"))

            await eventually(is_refused, "the operator's own kinds closed")
            assert await it.administrator.create(POD, LAB, pod("somebodys"), dry_run=True)
            body = deployment(STAGING, "whisper", "asr", [{"name": "SIZE", "value": "base"}])
            assert await it.administrator.apply(DEPLOYMENT, body, dry_run=True)

    asyncio.run(scenario())


def test_a_token_that_is_bound_to_no_pod_is_nobodys(cluster: ApiServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(cluster, tmp_path) as it:
            await lead(it.old)
            unbound = await Objects.connect(token_file(cluster, tmp_path / "unbound.yaml"))
            try:
                said = await writes(unbound)
            finally:
                await unbound.close()

            assert all("not a token that is bound to no pod" in it for it in said.values()), said

    asyncio.run(scenario())


def test_a_new_pod_of_the_same_name_is_another_one(cluster: ApiServer, tmp_path: Path) -> None:
    """A StatefulSet's pod, or one that was made by hand, comes back under its name."""

    async def scenario() -> None:
        async with scene(cluster, tmp_path) as it:
            await lead(it.old)
            name, _, uid = it.old.identity.partition("_")
            lease = await it.administrator.get(LEASE, HOME, LEADER)
            other = f"{name}_{uid[::-1]}"
            await it.administrator.replace(LEASE, lease | {"spec": lease["spec"] | {"holderIdentity": other}})

            async def is_refused() -> bool:
                return await refused(it.old.objects)

            await eventually(is_refused, "the pod of the same name fenced off")

    asyncio.run(scenario())


def test_two_replicas_take_turns_and_each_renews_its_lease_meanwhile(cluster: ApiServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(cluster, tmp_path) as it:
            await it.old.leadership.acquire()
            waiting = asyncio.create_task(it.new.leadership.acquire())
            async with it.old.leadership.renewing():
                await asyncio.sleep(2 * TIMING.duration)
                assert it.old.leadership.leads
                assert not waiting.done()
            await it.old.leadership.release()

            await asyncio.wait_for(waiting, TIMING.duration)

            lease = await it.administrator.get(LEASE, HOME, LEADER)
            assert lease["spec"]["holderIdentity"] == it.new.identity
            assert it.old.lost == []

    asyncio.run(scenario())


def test_the_card_of_a_trial_is_the_leaders_to_give(cluster: ApiServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(cluster, tmp_path) as it:
            await lead(it.new)
            identity = TrialIdentity(LAB, "fenced", "uid", "voice")

            with pytest.raises(FencedError):
                await Cards(it.old.objects, HOME).acquire("lab", identity)
            assert await Cards(it.new.objects, HOME).acquire("lab", identity)

    asyncio.run(scenario())
