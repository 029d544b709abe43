"""ControllerRevisions of a stage on a real API server."""

from typing import Any

import pytest
from cotune.api.grant import GrantSpec
from cotune.cluster.kinds import CONTROLLER_REVISION
from cotune.cluster.objects import NotFoundError
from cotune.cluster.revisions import ANNOTATION_PROFILE, LABELS, Revisions
from cotune.rollout.state import Revision, WorkloadRevision
from support.api_server import ApiServer
from support.played_cluster import PlayedObjects, within
from support.resources import manifest

pytestmark = pytest.mark.apiserver

SMALL = Revision((WorkloadRevision("judge", {}, 1), WorkloadRevision("stt", {"SIZE": "small", "OTHER": None}, 2)))
TARGETS = {it.component: it for it in GrantSpec.model_validate(manifest("GpuTuningGrant")["spec"]).targets}
TINY = SMALL.with_values({("stt", "SIZE"): "tiny"})


def test_the_same_content_is_the_same_revision(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        revisions = Revisions(objects, namespace)

        first = await revisions.ensure(SMALL, TARGETS, None, "voice-lab/first")
        again = await revisions.ensure(SMALL, TARGETS, None, "voice-lab/second")

        assert again == first
        stored = await objects.list(CONTROLLER_REVISION, namespace)
        assert [it["metadata"]["name"] for it in stored] == [first.name]
        assert stored[0]["metadata"]["annotations"] == {ANNOTATION_PROFILE: "voice-lab/first"}

    within(api_server, scenario)


def test_numbers_go_up_from_zero(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        revisions = Revisions(objects, namespace)

        names = [(await revisions.ensure(it, TARGETS, None, "voice-lab/first")).name for it in (SMALL, TINY, SMALL)]

        stored = await objects.list(CONTROLLER_REVISION, namespace)
        assert {it["metadata"]["name"]: it["revision"] for it in stored} == {names[0]: 0, names[1]: 1}

    within(api_server, scenario)


def test_a_stored_revision_is_read_back_whole(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        revisions = Revisions(objects, namespace)

        stored = await revisions.ensure(SMALL, TARGETS, {"judge": None, "stt": "cotune-before"}, "voice-lab/first")

        assert await revisions.get(stored.name) == stored
        assert stored.revision == SMALL
        assert {name: (it.workload_ref, it.container) for name, it in stored.targets.items()} == {
            name: (it.workload_ref, it.container) for name, it in TARGETS.items()
        }
        assert stored.markers == {"judge": None, "stt": "cotune-before"}

    within(api_server, scenario)


def test_a_revision_to_be_applied_marks_the_templates_with_its_own_name(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        revisions = Revisions(objects, namespace)

        stored = await revisions.ensure(TINY, TARGETS, None, "voice-lab/first")

        assert (await revisions.get(stored.name)).markers == {"judge": stored.name, "stt": stored.name}

    within(api_server, scenario)


def test_what_is_not_named_after_its_content_is_nobodys_way_back(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        revisions = Revisions(objects, namespace)
        first = await revisions.ensure(SMALL, TARGETS, None, "voice-lab/first")
        others: dict[str, Any] = {"cotune-0000000000": {"workloads": []}, "mine": {"a": "b"}}
        for name, data in others.items():
            body = {"apiVersion": CONTROLLER_REVISION.api_version, "kind": CONTROLLER_REVISION.name, "revision": 7}
            metadata = {"name": name, "namespace": namespace, "labels": dict(LABELS)}
            await objects.create(CONTROLLER_REVISION, namespace, body | {"metadata": metadata, "data": data})

            assert await revisions.find(name) is None

        assert await revisions.stored() == [first]
        await revisions.prune(TARGETS, ())
        assert len(await objects.list(CONTROLLER_REVISION, namespace)) == 3

    within(api_server, scenario)


def test_an_unknown_revision_is_an_error(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        with pytest.raises(NotFoundError):
            await Revisions(objects, namespace).get("cotune-0000000000")

    within(api_server, scenario)
