"""What the demonstration makes for the records, against a real API server and controller manager."""

import asyncio
from pathlib import Path

import cotune_demo.records
import pytest
from cotune.cluster.kinds import Kind
from cotune_demo.cluster import Commands
from cotune_demo.records import CLAIM, make_volume
from support.api_server import ApiServer
from support.played_cluster import PlayedObjects, eventually, within

CLAIMS = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")

pytestmark = pytest.mark.apiserver


def test_the_volume_that_is_made_by_hand_is_bound_to_the_operators_claim_and_is_made_twice_without_harm(
    api_server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cotune_demo.records, "folder", lambda: tmp_path / "records")
    commands = Commands(api_server.kubectl, Path("helm"), api_server.kubeconfig)

    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        await make_volume(commands, namespace)
        left = tmp_path / "records" / "left"
        await asyncio.to_thread(left.write_text, "by an earlier run")

        async def is_bound() -> bool:
            return (await objects.get(CLAIMS, namespace, CLAIM)).get("status", {}).get("phase") == "Bound"

        await eventually(is_bound, "a claim with its volume")
        await make_volume(commands, namespace)
        assert await is_bound()
        assert not await asyncio.to_thread(left.exists)

    within(api_server, scenario)
