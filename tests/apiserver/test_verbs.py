"""A person's verbs on the command line against a real API server, and what the operator makes of them."""

import asyncio
import copy
import os
import shlex
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cotune.cluster.events import Events
from cotune.cluster.kinds import DEPLOYMENT, GRANT, POD, PROFILE
from cotune.cluster.objects import ConflictError, Object
from cotune.cluster.workloads import ANNOTATION_REVISION
from cotune.handlers.profile import ProfileReconciler
from support.api_server import ApiServer
from support.command_line import cotune
from support.played_cluster import PlayedObjects, connected, deployment, new_namespace, play_crashing, play_ready
from support.resources import manifest

pytestmark = pytest.mark.apiserver

SIZE = "ASR_WHISPER_SIZE"


@dataclass
class Stage:
    """A profile with one stage in its own namespace, the operator's passes, and the commands of a person."""

    server: ApiServer
    objects: PlayedObjects
    namespace: str
    is_broken: bool = False
    """Whether pods with the change crash."""

    async def begin(self, **stage: Any) -> None:
        for name, container, env in (("judge", "vllm", []), ("whisper", "asr", [{"name": SIZE, "value": "small"}])):
            await self.objects.create(DEPLOYMENT, self.namespace, deployment(self.namespace, name, container, env, 1))
        grant = copy.deepcopy(manifest("GpuTuningGrant"))
        grant["metadata"]["namespace"] = self.namespace
        grant["spec"]["from"] = [{"namespace": self.namespace}]
        await self.objects.create(GRANT, self.namespace, grant)
        body = copy.deepcopy(manifest("GpuProfile"))
        body["metadata"] = {"name": "p", "namespace": self.namespace}
        only = {"name": "only", "namespace": self.namespace, "bakeSeconds": 3600}
        body["spec"]["rollout"] = {"stages": [only | stage]}
        await self.objects.create(PROFILE, self.namespace, body)

    async def status(self) -> Object:
        return (await self.objects.get(PROFILE, self.namespace, "p"))["status"]

    async def rollout(self) -> Object:
        return (await self.objects.get(PROFILE, self.namespace, "p"))["spec"]["rollout"]

    async def passes(self, until: str) -> None:
        """Pass after pass until the profile is in a phase, or is over."""
        reconciler = ProfileReconciler(self.objects, Events(self.objects, "test"))
        deadline = asyncio.get_running_loop().time() + 60
        while True:
            body = await self.objects.get(PROFILE, self.namespace, "p")
            if body.get("status", {}).get("phase") == until:
                return
            assert asyncio.get_running_loop().time() < deadline, body.get("status")
            try:
                again = await reconciler.reconcile(body, datetime.now(UTC))
            except ConflictError:
                again = timedelta()
            for pod in await self.objects.list(POD, self.namespace):
                if "containerStatuses" not in pod.get("status", {}) and "deletionTimestamp" not in pod["metadata"]:
                    is_marked = ANNOTATION_REVISION in pod["metadata"].get("annotations", {})
                    await (play_crashing if self.is_broken and is_marked else play_ready)(self.objects, pod)
            if again:
                await asyncio.sleep(0.05)

    async def says(self, *words: str) -> "subprocess.CompletedProcess[str]":
        where = ("-n", self.namespace, "--kubeconfig", str(self.server.kubeconfig))
        return await asyncio.to_thread(cotune, *words, *where)

    async def told(self, *words: str) -> str:
        done = await self.says(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout


@asynccontextmanager
async def stage(server: ApiServer, is_broken: bool = False, **fields: Any) -> AsyncGenerator[Stage]:
    async with connected(server.kubeconfig) as objects:
        made = Stage(server, objects, await new_namespace(objects), is_broken)
        await made.begin(**fields)
        yield made


def test_a_stage_that_awaits_approval_begins_once_it_is_approved(api_server: ApiServer) -> None:
    async def scenario() -> None:
        async with stage(api_server, approval="Manual", bakeSeconds=0) as it:
            await it.passes(until="AwaitingApproval")

            first, again = await it.told("approve", "p"), await it.told("approve", "p", "--stage", "only")
            await it.passes(until="Promoted")

            assert first == f"{it.namespace}/p: stage only is approved\n"
            assert again == f"{it.namespace}/p: stage only needs no approval (nothing to change)\n"
            late = await it.says("approve", "p")
            assert (late.returncode, late.stdout) == (1, "")
            assert (
                late.stderr
                == f"cotune: error: {it.namespace}/p: no stage is left to approve: the profile is Promoted\n"
            )

    asyncio.run(scenario())


def test_a_paused_profile_begins_once_it_is_resumed(api_server: ApiServer) -> None:
    async def scenario() -> None:
        async with stage(api_server, bakeSeconds=0) as it:
            assert (
                await it.told("pause", "p")
                == f"{it.namespace}/p: paused: no further stage begins, and no further batch\n"
            )
            body = await it.objects.get(PROFILE, it.namespace, "p")
            await ProfileReconciler(it.objects, Events(it.objects, "test")).reconcile(body, datetime.now(UTC))
            progressing = next(x for x in (await it.status())["conditions"] if x["type"] == "Progressing")
            assert progressing["reason"] == "Paused"

            await it.told("resume", "p")
            await it.passes(until="Promoted")

            assert (await it.rollout())["paused"] is False

    asyncio.run(scenario())


def test_an_aborted_stage_is_taken_back_and_starts_anew_when_it_is_retried(api_server: ApiServer) -> None:
    async def scenario() -> None:
        async with stage(api_server) as it:
            await it.passes(until="Baking")

            assert await it.told("abort", "p") == f"{it.namespace}/p: aborted: stage only is taken back\n"
            await it.passes(until="RolledBack")
            (taken_back,) = (await it.status())["stages"]
            assert taken_back["message"] == "Aborted: spec.rollout.abort is true"
            whisper = await it.objects.get(DEPLOYMENT, it.namespace, "whisper")
            assert whisper["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": SIZE, "value": "small"}]

            assert await it.told("retry", "p") == f"{it.namespace}/p: stage only starts anew\n"
            await it.passes(until="Baking")

            status, rollout = await it.status(), await it.rollout()
            assert (status["retries"], rollout["retries"], rollout["abort"]) == (1, 1, False)
            assert {x["type"]: x["status"] for x in status["conditions"]} == {
                "Progressing": "True",
                "Ready": "False",
                "Degraded": "False",
                "Stalled": "False",
            }

    asyncio.run(scenario())


def test_a_stage_that_fails_again_and_again_is_tried_as_often_as_it_was_said(api_server: ApiServer) -> None:
    async def scenario() -> None:
        async with stage(api_server, is_broken=True) as it:
            await it.objects.merge(PROFILE, it.namespace, "p", {"spec": {"rollout": {"retries": 1}}})
            await it.passes(until="RolledBack")
            assert (await it.status()).get("retries", 0) == 0

            body = await it.objects.get(PROFILE, it.namespace, "p")
            await ProfileReconciler(it.objects, Events(it.objects, "test")).reconcile(body, datetime.now(UTC))
            await it.passes(until="RolledBack")

            body = await it.objects.get(PROFILE, it.namespace, "p")
            again = await ProfileReconciler(it.objects, Events(it.objects, "test")).reconcile(body, datetime.now(UTC))
            assert again is None
            assert (body["status"]["retries"], body["status"]["phase"]) == (1, "RolledBack")
            it.is_broken = False
            await it.told("retry", "p")
            body = await it.objects.get(PROFILE, it.namespace, "p")
            await ProfileReconciler(it.objects, Events(it.objects, "test")).reconcile(body, datetime.now(UTC))
            await it.passes(until="Baking")
            assert (await it.status())["retries"] == 2

    asyncio.run(scenario())


def test_what_there_is_to_see_of_a_profile(api_server: ApiServer) -> None:
    async def scenario() -> None:
        async with stage(api_server) as it:
            before = await it.told("diff", "p")
            await it.passes(until="Baking")
            after, tree, history = [
                await it.told(*words) for words in (("diff", "p"), ("get", "profile", "p"), ("history", "p"))
            ]

            assert before.splitlines() == [
                f"stage only, namespace {it.namespace}",
                "deployment/judge, container vllm",
                "    nothing changes",
                "deployment/whisper, container asr",
                f"  - {SIZE}=small",
                f"  + {SIZE}=tiny",
                "all of them are stopped and started again",
                "expected downtime: unknown: no start of judge, stt was measured, neither here "
                "nor in a trial or earlier stage",
            ]
            assert after.count("    nothing changes\n") == 2
            assert after.splitlines()[-2:] == [
                "none of them is stopped",
                "expected downtime: 0 s: nothing changes, so nothing is stopped",
            ]
            assert tree.splitlines()[0] == f"{it.namespace}/p  Baking"
            assert f"└─ only  {it.namespace}  Baking  " in tree
            assert "min of bake time left" in tree
            header, first, second = history.splitlines()
            assert header.split() == ["NAMESPACE", "REVISION", "NAME", "CREATED", "FOR", "READY", "VALUES"]
            assert [line.split()[5] for line in (first, second)] == ["yes", "-"]
            assert first.split()[:2] == [it.namespace, "0"]
            assert first.endswith(f"stt:{SIZE}=small  what it goes back to")
            assert f"{it.namespace}/p" in second
            assert second.endswith(f"stt:{SIZE}=tiny   what it applies")

    asyncio.run(scenario())


def test_kubectl_runs_the_commands_as_its_plugin(api_server: ApiServer, tmp_path: Path) -> None:
    """With an executable of that name on the path, as pip makes it, and the namespace of kubectl's context."""
    assert api_server.apply(resource_named("plugged")).accepted
    plugin = tmp_path / "kubectl-cotune"
    source = Path(__file__).parents[2] / "operator" / "src"
    start = f"import sys; sys.argv[0] = {str(plugin)!r}; from cotune.cli.__main__ import main; sys.exit(main())"
    plugin.write_text(f'#!/bin/sh\nPYTHONPATH={source} exec {shlex.join([sys.executable, "-c", start])} "$@"\n')
    plugin.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "KUBECONFIG": str(api_server.kubeconfig)}

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [api_server.kubectl, "cotune", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert run("--help").stdout.startswith("usage: kubectl cotune ")
    done = run("pause", "plugged")
    assert (done.returncode, done.stdout) == (
        0,
        "default/plugged: paused: no further stage begins, and no further batch\n",
    ), done.stderr
    said = api_server.run(
        "get", "gpp", "plugged", "--show-managed-fields", "-o", "jsonpath={.metadata.managedFields[*].manager}"
    )
    assert "kubectl-cotune" in said.text.split()


def test_a_watch_ends_with_the_profile_and_says_how_it_went(api_server: ApiServer) -> None:
    async def scenario() -> None:
        async with stage(api_server, is_broken=True) as it:
            watch = asyncio.create_task(it.says("get", "profile", "p", "-w"))
            await it.passes(until="RolledBack")

            done = await watch

            assert done.returncode == 1
            assert done.stdout.splitlines()[-1].startswith(f"└─ only  {it.namespace}  RolledBack  took ")

    asyncio.run(scenario())


@pytest.mark.parametrize("words", [("approve",), ("pause",), ("retry",), ("get", "profile"), ("diff",), ("history",)])
def test_a_profile_that_is_not_there_is_1_and_one_line(api_server: ApiServer, words: tuple[str, ...]) -> None:
    done = cotune(*words, "nobody", "-n", "default", "--kubeconfig", str(api_server.kubeconfig))

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "cotune: error: there is no GpuProfile nobody in namespace default\n"


def test_who_may_not_is_told_so(api_server: ApiServer, tmp_path: Path) -> None:
    """The command has the rights of its kubeconfig, here those of a service account without any."""
    assert api_server.apply(resource_named("theirs")).accepted
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "stranger", "namespace": "default"}}
    assert api_server.apply(account).accepted
    token = api_server.run("create", "token", "stranger", "-n", "default").text.strip()
    settings = yaml.safe_load(api_server.kubeconfig.read_text())
    settings["users"][0]["user"] = {"token": token}
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(settings))

    done = cotune("pause", "theirs", "-n", "default", "--kubeconfig", str(tmp_path / "kubeconfig"))

    assert done.returncode == 1
    assert 'User "system:serviceaccount:default:stranger" cannot get resource "gpuprofiles"' in done.stderr


def test_a_context_of_the_kubeconfig_says_which_cluster_and_namespace(api_server: ApiServer, tmp_path: Path) -> None:
    assert api_server.apply(resource_named("elsewhere")).accepted
    settings = yaml.safe_load(api_server.kubeconfig.read_text())
    (found,) = settings["contexts"]
    there = {"name": "there", "context": found["context"] | {"namespace": "default"}}
    gone = {"name": "gone", "cluster": settings["clusters"][0]["cluster"] | {"server": "https://127.0.0.1:1"}}
    settings["clusters"].append(gone)
    here = {"name": "here", "context": found["context"] | {"cluster": "gone", "namespace": "nowhere"}}
    settings |= {"contexts": [here, there], "current-context": "here"}
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(settings))

    for where, environment in ((("--kubeconfig", str(file)), {}), ((), {"KUBECONFIG": str(file)})):
        done = cotune("get", "profile", "elsewhere", "--context", "there", *where, **environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("default/elsewhere  Pending")
        unknown = cotune("get", "profile", "elsewhere", "--context", "nobody", *where, **environment)
        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert unknown.stderr == "cotune: error: no cluster to ask: there is no context nobody in the kubeconfig\n"
    assert cotune("get", "profile", "elsewhere", "--kubeconfig", str(file)).returncode == 1


def resource_named(name: str) -> Object:
    made = copy.deepcopy(manifest("GpuProfile"))
    made["metadata"]["name"] = name
    return made
