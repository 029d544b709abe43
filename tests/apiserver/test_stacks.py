"""Pods and services of trials on a real API server."""

from typing import Any

import pytest
from cotune.cluster.kinds import POD, SERVICE, TRIAL
from cotune.cluster.objects import Object
from cotune.cluster.stacks import NameTakenError, Stacks
from cotune.trials.lifecycle import PodState
from cotune.trials.out_of_memory import Ends
from cotune.trials.render import Manifest, TrialIdentity, component_pod, component_service
from cotune.trials.tenancy import PodIdentity
from support.api_server import ApiServer
from support.played_cluster import PlayedObjects, eventually, play_ended, play_ready, within
from support.resources import manifest, voice_experiment

pytestmark = pytest.mark.apiserver

STT = voice_experiment().stack.components[1]


async def trial(objects: PlayedObjects, namespace: str, name: str = "first") -> TrialIdentity:
    body: Any = manifest("GpuTrial") | {"metadata": {"name": name, "namespace": namespace}}
    made = await objects.create(TRIAL, namespace, body)
    return TrialIdentity(namespace, name, made["metadata"]["uid"], "voice")


def stack(of: TrialIdentity, size: str = "tiny") -> list[Manifest]:
    return [component_service(of, STT), component_pod(of, STT, {"ASR_WHISPER_SIZE": size}, "lab")]


async def left(objects: PlayedObjects, namespace: str) -> list[str]:
    return [it["metadata"]["name"] for kind in (SERVICE, POD) for it in await objects.list(kind, namespace)]


def test_a_second_attempt_adopts_what_the_first_has_created(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        mine, stacks = await trial(objects, namespace), Stacks(objects)
        await stacks.ensure(mine, stack(mine))
        before = await objects.list(POD, namespace)

        await stacks.ensure(mine, stack(mine))

        assert [it["metadata"]["uid"] for it in await objects.list(POD, namespace)] == [before[0]["metadata"]["uid"]]

    within(api_server, scenario)


@pytest.mark.parametrize("kind", [POD, SERVICE], ids=["pod", "service"])
def test_a_foreign_object_of_the_name_is_left_alone(api_server: ApiServer, kind: Any) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        mine, stacks = await trial(objects, namespace), Stacks(objects)
        foreign: Object = next(it for it in stack(mine) if it["kind"] == kind.name)
        del foreign["metadata"]["ownerReferences"]
        before = await objects.create(kind, namespace, foreign)

        with pytest.raises(NameTakenError, match=f"{kind.name} {namespace}/{foreign['metadata']['name']}"):
            await stacks.ensure(mine, stack(mine))

        after = await objects.get(kind, namespace, foreign["metadata"]["name"])
        assert (after["metadata"]["uid"], after["spec"]) == (before["metadata"]["uid"], before["spec"])

    within(api_server, scenario)


def test_a_pod_made_from_something_else_is_not_adopted(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        mine, stacks = await trial(objects, namespace), Stacks(objects)
        await stacks.ensure(mine, stack(mine, "tiny"))

        with pytest.raises(NameTakenError, match="Pod"):
            await stacks.ensure(mine, stack(mine, "small"))

    within(api_server, scenario)


def test_cleaning_up_takes_the_trials_own_and_nothing_else(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        mine, other, stacks = await trial(objects, namespace), await trial(objects, namespace, "other"), Stacks(objects)
        unowned: Object = component_pod(mine, STT, {}, "lab")
        unowned["metadata"] |= {"name": "unowned", "ownerReferences": []}
        await objects.create(POD, namespace, unowned)
        await stacks.ensure(other, stack(other))
        foreign = await left(objects, namespace)
        await stacks.ensure(mine, stack(mine))

        assert not await stacks.clean_up(mine)  # Something was still there to be deleted.

        async def is_clean() -> bool:
            return await stacks.clean_up(mine)

        await eventually(is_clean, "a trial without pods")
        assert await left(objects, namespace) == foreign

    within(api_server, scenario)


def test_a_pod_is_observed_with_its_state_and_the_log_of_its_end(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        mine, stacks = await trial(objects, namespace), Stacks(objects)
        await stacks.ensure(mine, stack(mine))
        pod = (await objects.list(POD, namespace))[0]
        objects.logs[pod["metadata"]["name"]] = "its last words"

        states = [(await stacks.observe(mine)).components["stt"]]
        await play_ready(objects, pod)
        states.append((await stacks.observe(mine)).components["stt"])
        await play_ended(objects, pod, exit_code=1)
        states.append((await stacks.observe(mine)).components["stt"])

        assert [it.state for it in states] == [PodState.WAITING, PodState.READY, PodState.FAILED]
        assert states[-1].log == "its last words"

    within(api_server, scenario)


def state(container: str, **more: Any) -> Object:
    return {"containerID": f"containerd://{container}", "exitCode": 137, "reason": "OOMKilled", **more}


def test_what_a_container_said_and_how_it_ended_before_it_started_again_is_not_lost(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        mine, stacks = await trial(objects, namespace), Stacks(objects)
        await stacks.ensure(mine, stack(mine))
        pod = (await objects.list(POD, namespace))[0]
        name, moment = pod["metadata"]["name"], "2026-01-01T12:00:00Z"
        objects.logs[name], objects.previous_logs[name] = "up again", "its last words"
        await play_ready(objects, pod)
        [status] = (await objects.get(POD, namespace, name))["status"]["containerStatuses"]
        again = status | {
            "containerID": "containerd://second",
            "restartCount": 1,
            "lastState": {"terminated": state("first", message="no memory", startedAt=moment, finishedAt=moment)},
        }
        await objects.merge(POD, namespace, name, {"status": {"containerStatuses": [again]}}, subresource="status")

        run = (await stacks.runs(await stacks.observe(mine)))["stt"]

        assert (run.log, run.previous_logs, run.restarts) == ("up again", ("its last words",), 1)
        assert run.ends == Ends(messages=("no memory",), killed=("first",))
        assert run.evidence.identity == PodIdentity(pod["metadata"]["uid"], frozenset({"first", "second"}))
        assert {moment, status["state"]["running"]["startedAt"]} == {
            f"{it:%Y-%m-%dT%H:%M:%SZ}" for it in run.evidence.moments
        }

    within(api_server, scenario)


def test_a_container_that_never_ended_is_not_asked_for_an_earlier_log(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        mine, stacks = await trial(objects, namespace), Stacks(objects)
        await stacks.ensure(mine, stack(mine))
        pod = (await objects.list(POD, namespace))[0]
        objects.previous_logs[pod["metadata"]["name"]] = "nobody's"
        await play_ready(objects, pod)

        run = (await stacks.runs(await stacks.observe(mine)))["stt"]

        assert (run.previous_logs, run.ends, run.restarts) == ((), Ends(), 0)
        assert run.evidence.moments == (), "a first start was before the pod was ready"

    within(api_server, scenario)


def test_a_pod_that_the_kernel_ended_says_which_container(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        mine, stacks = await trial(objects, namespace), Stacks(objects)
        await stacks.ensure(mine, stack(mine))
        pod = (await objects.list(POD, namespace))[0]
        await play_ended(objects, pod, exit_code=137, reason="OOMKilled")

        found = (await stacks.observe(mine)).components["stt"]

        assert (found.state, found.oom_killed) == (PodState.FAILED, (pod["spec"]["containers"][0]["name"],))

    within(api_server, scenario)
