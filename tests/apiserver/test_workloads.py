"""Deployments that belong to somebody else, changed against a real API server."""

import asyncio
import copy
from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest
from cotune.api.grant import GrantTarget
from cotune.cluster.kinds import DEPLOYMENT, POD
from cotune.cluster.objects import FIELD_MANAGER, ApiError, ConflictError, Object, Objects
from cotune.cluster.workloads import ANNOTATION_REVISION, Workload, Workloads
from support.api_server import ApiServer
from support.played_cluster import PlayedObjects, deployment, eventually, within

pytestmark = pytest.mark.apiserver

SIZE = "ASR_WHISPER_SIZE"
BEFORE, AFTER = {"name": "BEFORE", "value": "1"}, {"name": "AFTER", "value": "$(ASR_WHISPER_SIZE)"}
LITERAL = {"name": SIZE, "value": "small"}
FROM_ELSEWHERE = {"name": SIZE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}


def target(container: str = "asr") -> GrantTarget:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "whisper"}
    return GrantTarget.model_validate(
        {"component": "stt", "workloadRef": reference, "container": container, "env": [SIZE]}
    )


async def own(server: ApiServer, namespace: str, *env: Mapping[str, Any]) -> Object:
    """The owner applies the Deployment with kubectl."""
    body = deployment(namespace, "whisper", "asr", [dict(it) for it in env])
    answer = await asyncio.to_thread(server.apply, body)
    assert answer.accepted, answer.text
    return body


async def observe(objects: Objects, namespace: str, container: str = "asr") -> Workload:
    """Read it when its controller has said all that it has to say: what follows is written on this reading."""

    async def is_settled() -> bool:
        deployment = await objects.get(DEPLOYMENT, namespace, "whisper")
        status = deployment.get("status", {})
        reasons = {it["reason"] for it in status.get("conditions", ())}
        seen = status.get("observedGeneration") == deployment["metadata"]["generation"]
        return seen and {"NewReplicaSetAvailable", "MinimumReplicasAvailable"} <= reasons

    await eventually(is_settled, "a settled Deployment")
    found = await Workloads(objects, namespace).observe({"stt": target(container)}, {"stt": frozenset({SIZE})})
    return found["stt"]


async def template(objects: Objects, namespace: str) -> Any:
    return (await objects.get(DEPLOYMENT, namespace, "whisper"))["spec"]["template"]


def env_of(pod_template: Any) -> list[Any]:
    return cast("list[Any]", pod_template["spec"]["containers"][0]["env"])


def leaves(fields: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The fields of a managedFields entry, as paths."""
    for name, below in fields.items():
        if below:
            yield from leaves(below, f"{path}/{name}")
        else:
            yield f"{path}/{name}"


def test_a_change_owns_the_variable_and_the_mark_and_nothing_else(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await own(api_server, namespace, BEFORE, AFTER)
        workload = await observe(objects, namespace)

        await Workloads(objects, namespace).set_values(workload, {SIZE: "tiny"}, "revision-1")

        managed = (await objects.get(DEPLOYMENT, namespace, "whisper"))["metadata"]["managedFields"]
        mine = [it for it in managed if it["manager"] == FIELD_MANAGER]
        container = '/f:spec/f:template/f:spec/f:containers/k:{"name":"asr"}'
        variable = f'{container}/f:env/k:{{"name":"{SIZE}"}}'
        assert [it["operation"] for it in mine] == ["Apply"]
        assert set(leaves(mine[0]["fieldsV1"])) == {
            f"/f:spec/f:template/f:metadata/f:annotations/f:{ANNOTATION_REVISION}",
            # A list's item cannot be named without its key.
            *(f"{container}/{it}" for it in (".", "f:name")),
            *(f"{variable}/{it}" for it in (".", "f:name", "f:value")),
        }

    within(api_server, scenario)


def test_what_the_owner_has_said_survives_a_change(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await own(api_server, namespace, BEFORE, LITERAL, AFTER)
        before = await template(objects, namespace)

        await Workloads(objects, namespace).set_values(await observe(objects, namespace), {SIZE: "tiny"}, "revision-1")

        expected = copy.deepcopy(before)
        expected["metadata"]["annotations"][ANNOTATION_REVISION] = "revision-1"
        env_of(expected)[1]["value"] = "tiny"
        assert await template(objects, namespace) == expected

    within(api_server, scenario)


def test_a_variable_that_the_owner_does_not_have_falls_away_again(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await own(api_server, namespace, BEFORE)
        workloads = Workloads(objects, namespace)
        await workloads.set_values(await observe(objects, namespace), {SIZE: "tiny"}, "revision-1")

        await workloads.set_values(await observe(objects, namespace), {SIZE: None}, None)

        assert env_of(await template(objects, namespace)) == [BEFORE]

    within(api_server, scenario)


@pytest.mark.parametrize("env", [[BEFORE], [BEFORE, LITERAL, AFTER], []], ids=["absent", "literal", "no env at all"])
def test_after_a_rollback_the_template_is_the_old_one(api_server: ApiServer, env: list[Object]) -> None:
    """Only then does the Deployment controller find the old ReplicaSet."""

    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await own(api_server, namespace, *env)
        workloads, before = Workloads(objects, namespace), await template(objects, namespace)
        old = await observe(objects, namespace)
        await workloads.set_values(old, {SIZE: "tiny"}, "revision-1")
        assert await template(objects, namespace) != before

        await workloads.set_values(await observe(objects, namespace), old.observed.values, old.marker)

        assert await template(objects, namespace) == before

    within(api_server, scenario)


def test_a_second_rollback_to_a_marked_template_is_the_marked_one(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await own(api_server, namespace, LITERAL)
        workloads = Workloads(objects, namespace)
        await workloads.set_values(await observe(objects, namespace), {SIZE: "base"}, "revision-1")
        good, before = await observe(objects, namespace), await template(objects, namespace)
        await workloads.set_values(good, {SIZE: "tiny"}, "revision-2")

        await workloads.set_values(await observe(objects, namespace), good.observed.values, good.marker)

        assert good.marker == "revision-1"
        assert await template(objects, namespace) == before

    within(api_server, scenario)


def test_a_variable_that_was_set_before_is_observed_though_nobody_asks_for_it(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await own(api_server, namespace, BEFORE)
        workloads = Workloads(objects, namespace)
        await workloads.set_values(await observe(objects, namespace), {SIZE: "tiny"}, "revision-1")

        found = await workloads.observe({"stt": target()}, {})

        assert found["stt"].observed.values == {SIZE: "tiny"}

    within(api_server, scenario)


@pytest.mark.parametrize("env", [[LITERAL], [BEFORE]], ids=["literal", "absent"])
def test_the_owner_may_apply_the_manifest_again(api_server: ApiServer, env: list[Object]) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        body = await own(api_server, namespace, *env)
        await Workloads(objects, namespace).set_values(await observe(objects, namespace), {SIZE: "tiny"}, "revision-1")

        answer = await asyncio.to_thread(api_server.apply, body)

        assert answer.accepted, answer.text

    within(api_server, scenario)


def test_a_variable_with_a_source_is_not_bindable(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await own(api_server, namespace, FROM_ELSEWHERE)

        observed = (await observe(objects, namespace)).observed
        assert observed.unbindable.startswith(f"Deployment whisper, container asr: {SIZE} has valueFrom")

    within(api_server, scenario)


def test_a_container_that_does_not_exist_is_not_bindable(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await own(api_server, namespace, LITERAL)

        observed = (await observe(objects, namespace, container="sidecar")).observed
        assert observed.unbindable == "Deployment whisper has no container sidecar"

    within(api_server, scenario)


def test_a_workload_that_does_not_exist_is_not_observed(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        assert await Workloads(objects, namespace).observe({"stt": target()}, {}) == {}

    within(api_server, scenario)


def test_scaling_changes_the_replicas_only(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await own(api_server, namespace, LITERAL)
        before = await template(objects, namespace)

        await Workloads(objects, namespace).scale(await observe(objects, namespace), 2)

        after = await objects.get(DEPLOYMENT, namespace, "whisper")
        assert (after["spec"]["replicas"], after["spec"]["template"]) == (2, before)

    within(api_server, scenario)


@pytest.mark.parametrize("write", ["scale", "set_values"])
def test_a_write_on_an_old_reading_is_refused(api_server: ApiServer, write: str) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await own(api_server, namespace, LITERAL)
        old = await observe(objects, namespace)
        await objects.merge(DEPLOYMENT, namespace, "whisper", {"spec": {"replicas": 3}})
        before = await objects.get(DEPLOYMENT, namespace, "whisper")
        workloads = Workloads(objects, namespace)

        with pytest.raises(ConflictError):
            await (workloads.scale(old, 0) if write == "scale" else workloads.set_values(old, {SIZE: "tiny"}, "r-1"))

        assert (await objects.get(DEPLOYMENT, namespace, "whisper"))["spec"] == before["spec"]

    within(api_server, scenario)


def test_a_rehearsal_finds_what_would_be_refused_and_changes_nothing(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await own(api_server, namespace, LITERAL)
        workloads, workload = Workloads(objects, namespace), await observe(objects, namespace)

        await workloads.rehearse(workload, {SIZE: "tiny"}, "revision-1")
        with pytest.raises(ApiError, match="Invalid value") as refusal:
            await workloads.rehearse(workload, {"NO=NAME": "tiny"}, "revision-1")

        assert refusal.value.status == 422
        after = await objects.get(DEPLOYMENT, namespace, "whisper")
        assert after["metadata"]["generation"] == workload.deployment["metadata"]["generation"]

    within(api_server, scenario)


def test_an_evicted_pod_is_no_pod(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        body = await own(api_server, namespace)
        labels = body["spec"]["selector"]["matchLabels"]
        for name in ("evicted", "alive"):
            pod: Object = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": namespace, "labels": labels},
                "spec": {"containers": [{"name": "asr", "image": "example/whisper:1"}]},
            }
            await objects.create(POD, namespace, pod)
        evicted: Object = {"status": {"phase": "Failed", "reason": "Evicted"}}
        await objects.merge(POD, namespace, "evicted", evicted, subresource="status")

        assert (await observe(objects, namespace)).observed.pods == 1

    within(api_server, scenario)
