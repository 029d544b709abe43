"""`cotune report` against a real API server, which also takes the played experiment as what it says it is."""

import asyncio
from pathlib import Path

import pytest
from cotune.cluster.kinds import EXPERIMENT, PROFILE, TRIAL
from support.api_server import ApiServer
from support.command_line import cotune
from support.played_cluster import connected, new_namespace
from support.played_experiment import NAME, Body, played

pytestmark = pytest.mark.apiserver

KINDS = {it.name: it for it in (EXPERIMENT, TRIAL, PROFILE)}


async def stored(server: ApiServer, bodies: list[Body]) -> str:
    """Create them in a new namespace, then write their statuses as the operator does."""
    async with connected(server.kubeconfig) as objects:
        namespace = await new_namespace(objects)
        for it in bodies:
            kind, name = KINDS[it["kind"]], it["metadata"]["name"]
            made = {key: it[key] for key in ("apiVersion", "kind", "spec")}
            await objects.create(kind, namespace, made | {"metadata": {"name": name, "namespace": namespace}})
            await objects.merge(kind, namespace, name, {"status": it["status"]}, subresource="status")
        return namespace


def test_an_experiment_is_reported_from_the_cluster(api_server: ApiServer, tmp_path: Path) -> None:
    bodies = played().bodies
    verdict = bodies[0]["status"]["verdict"]["trial"]
    few = [*bodies[:6], *(it for it in bodies[6:] if it["metadata"]["name"] == verdict), bodies[-1]]
    namespace = asyncio.run(stored(api_server, few))
    where = ("-n", namespace, "--output", str(tmp_path))

    found = cotune("report", NAME, *where, KUBECONFIG=str(api_server.kubeconfig))
    assert found.returncode == 0, found.stderr
    text = (tmp_path / "voice-report.md").read_text()
    assert "**judgeMemory=0.60 whisperModel=tiny is better than what runs today" in text
    assert "from 6 trials" in text
    assert "| production | voice-prod | Manual | AwaitingApproval |" in text

    missing = cotune("report", "nobody", *where, "--kubeconfig", str(api_server.kubeconfig))
    assert missing.returncode == 1
    assert missing.stderr == f"cotune: error: there is no GpuAllocationExperiment nobody in namespace {namespace}\n"
