"""Grants with a field that this operator does not know: an API server of its own has resources that are newer than it.

What has begun is taken back, and nothing begins: a field that is not understood may forbid it.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from apiserver.test_quiesce import comes_back, quiesce_of, replicas, told
from apiserver.test_quiesce import until as until_production
from apiserver.test_rollback import one_pass, until_phase
from cotune.cluster.kinds import GRANT, PROFILE
from cotune.cluster.objects import Object
from support.api_server import ApiServer, running_api_server
from support.played_cluster import PlayedObjects, new_namespace, within
from support.played_quiesce import create_production, create_quiescing, pass_of_experiment
from support.played_stage import create_profile, create_stage, stage_of, templates

pytestmark = pytest.mark.apiserver

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server whose grants have one field more."""
    folder = tmp_path_factory.mktemp("newer")
    for file in CRDS.glob("*.yaml"):
        body = yaml.safe_load(file.read_text())
        if body["spec"]["names"]["plural"] == GRANT.plural:
            [version] = body["spec"]["versions"]
            properties = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
            properties["courtesy"] = {"type": "string"}
        (folder / file.name).write_text(yaml.safe_dump(body))
    with running_api_server("newer", folder) as server:
        yield server


async def ask_for_courtesy(objects: PlayedObjects, namespace: str, courtesy: str | None = "Please") -> None:
    """The owner uses the new field, or does not any more."""
    [grant] = await objects.list(GRANT, namespace)
    patch: Object = {"spec": {"courtesy": courtesy}}
    stored = await objects.merge(GRANT, namespace, grant["metadata"]["name"], patch)
    assert stored["spec"].get("courtesy") == courtesy


def unread(namespace: str) -> str:
    return f"a grant of namespace {namespace} cannot be read: courtesy: "


def test_production_that_is_stopped_comes_back(newer: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production = await new_namespace(objects)
        await create_production(objects, production, namespace)
        await create_quiescing(objects, namespace, production)
        await until_production(objects, namespace, production, "Quiesced")

        await ask_for_courtesy(objects, production)
        await comes_back(objects, namespace, production, "GrantInvalid")

        assert unread(production) in (await quiesce_of(objects, namespace))["message"]

    within(newer, scenario)


def test_production_is_not_stopped_until_it_can_be_read(newer: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        production = await new_namespace(objects)
        await create_production(objects, production, namespace)
        await create_quiescing(objects, namespace, production)

        await ask_for_courtesy(objects, production)
        for _ in range(5):
            await pass_of_experiment(objects, namespace)
        for kind in ("Quiesced", "Stalled"):
            _, reason, message = await told(objects, namespace, kind)
            assert reason == "GrantInvalid"
            assert unread(production) in message
        assert await replicas(objects, production) == {"judge": 1, "whisper": 1}

        await ask_for_courtesy(objects, production, None)
        await until_production(objects, namespace, production, "Quiesced")

    within(newer, scenario)


def test_a_stage_that_has_begun_is_taken_back(newer: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        before = await templates(objects, namespace)
        await create_profile(objects, namespace, namespace)
        await until_phase(objects, namespace, "Progressing")

        await ask_for_courtesy(objects, namespace)
        await until_phase(objects, namespace, "RolledBack")

        assert (await stage_of(objects, namespace)).message.startswith(f"GrantInvalid: {unread(namespace)}")
        assert await templates(objects, namespace) == before

    within(newer, scenario)


def test_no_stage_begins(newer: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await create_stage(objects, namespace)
        before = await templates(objects, namespace)
        await create_profile(objects, namespace, namespace)

        await ask_for_courtesy(objects, namespace)
        for _ in range(3):
            await one_pass(objects, namespace)

        status = (await objects.get(PROFILE, namespace, "p"))["status"]
        assert [it["reason"] for it in status["conditions"] if it["type"] == "Stalled"] == ["GrantInvalid"]
        assert not status.get("stages")
        assert await templates(objects, namespace) == before

    within(newer, scenario)
