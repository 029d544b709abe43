"""Reading and writing objects against a real API server."""

import asyncio
import json
from pathlib import Path

import pytest
from cotune.cluster.kinds import CONFIG_MAP, DEPLOYMENT
from cotune.cluster.objects import AlreadyExistsError, ApiError, ConflictError, ForbiddenError, NotFoundError, Object
from support.api_server import ApiServer
from support.played_cluster import PlayedObjects, connected, deployment, within

pytestmark = pytest.mark.apiserver


def config_map(namespace: str, name: str = "one", labels: dict[str, str] | None = None, **data: str) -> Object:
    metadata = {"name": name, "namespace": namespace, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def test_what_was_created_is_read_back(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        made = await objects.create(CONFIG_MAP, namespace, config_map(namespace, size="small"))

        assert await objects.get(CONFIG_MAP, namespace, "one") == made
        assert made["data"] == {"size": "small"}

    within(api_server, scenario)


def test_a_taken_name_and_a_missing_object_have_errors_of_their_own(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await objects.create(CONFIG_MAP, namespace, config_map(namespace))

        with pytest.raises(AlreadyExistsError) as taken:
            await objects.create(CONFIG_MAP, namespace, config_map(namespace))
        with pytest.raises(NotFoundError) as missing:
            await objects.get(CONFIG_MAP, namespace, "two")

        assert (taken.value.status, taken.value.reason) == (409, "AlreadyExists")
        assert (missing.value.status, missing.value.reason) == (404, "NotFound")
        assert await objects.find(CONFIG_MAP, namespace, "two") is None

    within(api_server, scenario)


def test_a_refused_field_is_named(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        body = deployment(namespace, "server", "server", [])
        body["spec"]["replicas"] = -1

        with pytest.raises(ApiError, match=r"spec\.replicas") as refused:
            await objects.create(DEPLOYMENT, namespace, body)

        assert (refused.value.status, refused.value.reason) == (422, "Invalid")

    within(api_server, scenario)


def test_a_list_has_what_carries_the_labels_and_says_what_it_is(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await objects.create(CONFIG_MAP, namespace, config_map(namespace, "a", {"app": "x", "tier": "1"}))
        await objects.create(CONFIG_MAP, namespace, config_map(namespace, "b", {"app": "x", "tier": "2"}))

        found = await objects.list(CONFIG_MAP, namespace, {"app": "x", "tier": "2"})

        assert [(it["apiVersion"], it["kind"], it["metadata"]["name"]) for it in found] == [("v1", "ConfigMap", "b")]

    within(api_server, scenario)


def test_a_merge_changes_what_it_names_and_null_takes_away(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await objects.create(CONFIG_MAP, namespace, config_map(namespace, kept="1", changed="1", gone="1"))

        merged = await objects.merge(CONFIG_MAP, namespace, "one", {"data": {"changed": "2", "gone": None}})

        assert merged["data"] == {"kept": "1", "changed": "2"}

    within(api_server, scenario)


def test_a_replacement_of_something_older_is_a_conflict(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        old = await objects.create(CONFIG_MAP, namespace, config_map(namespace, size="small"))
        await objects.replace(CONFIG_MAP, old | {"data": {"size": "base"}})

        with pytest.raises(ConflictError):
            await objects.replace(CONFIG_MAP, old | {"data": {"size": "tiny"}})

        assert (await objects.get(CONFIG_MAP, namespace, "one"))["data"] == {"size": "base"}

    within(api_server, scenario)


def test_what_is_applied_no_more_falls_away_and_the_rest_stays(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        owner = await asyncio.to_thread(api_server.apply, config_map(namespace, theirs="1"))
        assert owner.accepted, owner.text
        applied = await objects.apply(CONFIG_MAP, config_map(namespace, ours="1"))

        emptied = await objects.apply(CONFIG_MAP, config_map(namespace))

        assert applied["data"] == {"theirs": "1", "ours": "1"}
        assert emptied["data"] == {"theirs": "1"}

    within(api_server, scenario)


def test_only_the_object_of_the_identity_is_deleted(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        made = await objects.create(CONFIG_MAP, namespace, config_map(namespace))

        await objects.delete(CONFIG_MAP, namespace, "one", uid="00000000-0000-0000-0000-000000000000")
        assert await objects.find(CONFIG_MAP, namespace, "one") is not None

        await objects.delete(CONFIG_MAP, namespace, "one", uid=made["metadata"]["uid"])
        assert await objects.find(CONFIG_MAP, namespace, "one") is None

        await objects.delete(CONFIG_MAP, namespace, "one")  # Gone already: no error.

    within(api_server, scenario)


def test_a_user_without_the_right_is_forbidden(api_server: ApiServer, tmp_path: Path) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        token = await asyncio.to_thread(api_server.run, "create", "token", "default", "--namespace", namespace)
        assert token.accepted, token.text
        kubeconfig = json.loads(api_server.kubeconfig.read_text())
        kubeconfig["users"][0]["user"] = {"token": token.text.strip()}
        (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))

        async with connected(tmp_path / "kubeconfig") as stranger:
            with pytest.raises(ForbiddenError, match="cannot list"):
                await stranger.list(CONFIG_MAP, namespace)
            with pytest.raises(ForbiddenError, match="cannot create"):
                await stranger.create(CONFIG_MAP, namespace, config_map(namespace))
            with pytest.raises(ForbiddenError, match="cannot watch"):
                await anext(stranger.changes(CONFIG_MAP, namespace, 3))

    within(api_server, scenario)


def test_changes_are_told_as_they_come_and_end_when_the_server_ends_them(api_server: ApiServer) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await objects.create(CONFIG_MAP, namespace, config_map(namespace, "before"))
        seen: list[tuple[str, str | None]] = []

        async def watch() -> None:
            async for metadata in objects.changes(CONFIG_MAP, namespace, 3):
                seen.append((metadata["name"], metadata.get("labels", {}).get("size")))

        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            tasks.create_task(watch())
            while ("before", None) not in seen:
                await asyncio.sleep(0.01)
            await objects.create(CONFIG_MAP, namespace, config_map(namespace, "after", {"size": "small"}))
            while ("after", "small") not in seen:
                await asyncio.sleep(0.01)
            before = len(seen)
            await objects.delete(CONFIG_MAP, namespace, "after")
            while len(seen) == before:
                await asyncio.sleep(0.01)
        assert seen[-1] == ("after", "small")

    within(api_server, scenario)
