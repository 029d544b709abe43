"""Stages with gates, against a real API server and a real Prometheus; the tests play the kubelets and the figure."""

import asyncio
import copy
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cotune.cluster.events import Events
from cotune.cluster.kinds import DEPLOYMENT, EVENT, GRANT, POD, PROFILE
from cotune.cluster.objects import ConflictError, Object
from cotune.cluster.prometheus import Prometheus
from cotune.cluster.workloads import ANNOTATION_REVISION
from cotune.handlers.gates import Gates
from cotune.handlers.profile import ProfileReconciler
from support.api_server import ApiServer
from support.played_cluster import PlayedObjects, deployment, eventually, play_ready, within
from support.prometheus import RunningPrometheus, running_prometheus
from support.resources import manifest

pytestmark = [pytest.mark.apiserver, pytest.mark.prometheus]

GOOD, BAD = 0.2, 0.5


@pytest.fixture(scope="module")
def prometheus() -> Iterator[RunningPrometheus]:
    with running_prometheus() as running:
        running.figure.labels("idle").set(GOOD)
        running.has_seen("idle")
        yield running


@dataclass
class Rollout:
    """A profile with one stage, whose figure in Prometheus changes with the stage's workloads."""

    objects: PlayedObjects
    namespace: str
    running: RunningPrometheus
    after: float
    """The figure once the change is in place."""
    slowest: float = 0.0
    """Seconds that the longest pass has taken."""
    phases: list[str] = field(default_factory=list[str])

    @property
    def query(self) -> str:
        return f'figure{{part="{self.namespace}"}}'

    async def begin(self, gates: list[Object], bake_seconds: int = 3, **stage: Any) -> None:
        self.running.figure.labels(self.namespace).set(GOOD)
        for name, container in (("judge", "vllm"), ("whisper", "asr")):
            await self.objects.create(DEPLOYMENT, self.namespace, deployment(self.namespace, name, container, [], 1))
        grant = copy.deepcopy(manifest("GpuTuningGrant"))
        grant["metadata"]["namespace"] = self.namespace
        grant["spec"]["from"] = [{"namespace": self.namespace}]
        await self.objects.create(GRANT, self.namespace, grant)
        body = copy.deepcopy(manifest("GpuProfile"))
        body["metadata"] = {"name": "p", "namespace": self.namespace}
        # A guard would go on looking after the promotion.
        only: Object = {"name": "only", "namespace": self.namespace, "guardSeconds": 0, "gates": gates}
        only["bakeSeconds"] = bake_seconds
        body["spec"]["rollout"] = {"stages": [only | stage]}
        await self.objects.create(PROFILE, self.namespace, body)

    async def passes(self, gates: Gates, until: str = "") -> Object:
        """Pass after pass until the profile is over, or in a phase; what the stage says then."""
        reconciler = ProfileReconciler(self.objects, Events(self.objects, "test"), gates)
        deadline = time.monotonic() + 60
        while True:
            body = await self.objects.get(PROFILE, self.namespace, "p")
            phase = body.get("status", {}).get("phase", "")
            self.phases.append(phase)
            if until and phase == until:
                return body
            assert time.monotonic() < deadline, body.get("status")
            started = time.monotonic()
            try:
                again = await reconciler.reconcile(body, datetime.now(UTC))
            except ConflictError:
                again = timedelta()
            self.slowest = max(self.slowest, time.monotonic() - started)
            if again is None:
                return await self.objects.get(PROFILE, self.namespace, "p")
            await self.play()
            await asyncio.sleep(0.05)

    async def play(self) -> None:
        """Pods become ready at once; the figure is what the change makes of it."""
        for pod in await self.objects.list(POD, self.namespace):
            if "containerStatuses" in pod.get("status", {}) or "deletionTimestamp" in pod["metadata"]:
                continue
            if ANNOTATION_REVISION in pod["metadata"].get("annotations", {}):
                self.running.figure.labels(self.namespace).set(self.after)
            await play_ready(self.objects, pod)

    async def events(self) -> set[tuple[str, str]]:
        found = await self.objects.list(EVENT, self.namespace)
        return {(it["reason"], it["type"]) for it in found if it["reason"].startswith("Gate")}


def gate(rollout: Rollout, name: str = "figure", **fields: Any) -> Object:
    return {
        "name": name,
        "promQL": {"query": rollout.query, "stepSeconds": 1},
        "minimumSamples": 3,
        "initialDelaySeconds": 1,
        "deadlineSeconds": 4,
    } | fields


AGAINST = {"goal": "Minimize", "tolerance": "0.1", "windowSeconds": 10}


@pytest.mark.parametrize(
    ("held_against", "after", "phase", "outcome", "words"),
    [
        ({"max": "0.3"}, GOOD, "Promoted", "Passed", "0.2 (mean of "),
        ({"againstBaseline": AGAINST}, GOOD, "Promoted", "Passed", "max 0.22: baseline 0.2 with a tolerance of 0.1"),
        ({"max": "0.3"}, BAD, "RolledBack", "Failed", "max 0.3, with a confidence of 0.9"),
        ({"againstBaseline": AGAINST}, BAD, "RolledBack", "Failed", "max 0.22: baseline 0.2"),
        ({"max": "0.3", "dryRun": True}, BAD, "Promoted", "Failed", "0.5 (mean of "),
    ],
)
def test_a_stage_ends_as_its_gate_says(
    api_server: ApiServer,
    prometheus: RunningPrometheus,
    held_against: Object,
    after: float,
    phase: str,
    outcome: str,
    words: str,
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        rollout = Rollout(objects, namespace, prometheus, after)
        await rollout.begin([gate(rollout, **held_against)])
        await asyncio.to_thread(prometheus.has_seen, namespace, 4)

        body = await rollout.passes(Gates(Prometheus(prometheus.url)))

        (stage,) = body["status"]["stages"]
        (found,) = stage["gates"]
        assert (body["status"]["phase"], found["outcome"]) == (phase, outcome), stage
        assert words in found["message"]
        if phase == "RolledBack":
            assert stage["message"].startswith("gate figure: 0.5 (mean of ")
            degraded = next(it for it in body["status"]["conditions"] if it["type"] == "Degraded")
            assert words in degraded["message"]
        assert (f"Gate{outcome}", "Warning" if outcome == "Failed" else "Normal") in await rollout.events()

    within(api_server, scenario)


@pytest.mark.parametrize(
    ("query", "outcome"), [("nobody_says_this", "NoData"), ("figure", "Error"), ("vector(0) / 0", "NaN")]
)
def test_a_gate_that_cannot_be_decided_takes_the_stage_back_after_its_deadline(
    api_server: ApiServer, prometheus: RunningPrometheus, query: str, outcome: str
) -> None:
    prometheus.figure.labels("another").set(GOOD)

    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        rollout = Rollout(objects, namespace, prometheus, GOOD)
        await rollout.begin([gate(rollout, max="0.3", promQL={"query": query, "stepSeconds": 1}, deadlineSeconds=1)])

        body = await rollout.passes(Gates(Prometheus(prometheus.url)))

        (stage,) = body["status"]["stages"]
        assert stage["gates"][0]["outcome"] == outcome
        assert stage["phase"] == "RolledBack"
        assert stage["message"].startswith(f"gate figure is not decided 1 s after the bake time: {outcome}: ")
        assert ("GateUndecided", "Warning" if outcome == "Error" else "Normal") in await rollout.events()

    within(api_server, scenario)


def test_a_prometheus_that_does_not_answer_holds_up_no_pass(
    api_server: ApiServer, prometheus: RunningPrometheus
) -> None:
    """It takes connections and says nothing: each query takes its 2 s."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"

        async def scenario(objects: PlayedObjects, namespace: str) -> None:
            rollout = Rollout(objects, namespace, prometheus, GOOD)
            await rollout.begin([gate(rollout, max="0.3", deadlineSeconds=1)])

            body = await rollout.passes(Gates(Prometheus(url, timeout_seconds=2)))

            (stage,) = body["status"]["stages"]
            assert stage["message"].endswith("Error: no answer within 2 s")
            assert stage["phase"] == "RolledBack"
            assert rollout.slowest < 1.5

        within(api_server, scenario)


def test_an_operator_that_dies_while_a_stage_bakes_asks_again(
    api_server: ApiServer, prometheus: RunningPrometheus
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        rollout = Rollout(objects, namespace, prometheus, BAD)
        await rollout.begin([gate(rollout, max="0.3", initialDelaySeconds=2)], bake_seconds=5)
        dying = Gates(Prometheus(prometheus.url))
        await rollout.passes(dying, until="Baking")
        await dying.close()

        body = await rollout.passes(Gates(Prometheus(prometheus.url)))

        assert body["status"]["phase"] == "RolledBack"
        assert body["status"]["stages"][0]["message"].startswith("gate figure: 0.5")

    within(api_server, scenario)


def test_a_gate_that_is_edited_while_the_stage_bakes_is_looked_at_anew(
    api_server: ApiServer, prometheus: RunningPrometheus
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        rollout = Rollout(objects, namespace, prometheus, GOOD)
        await rollout.begin([gate(rollout, max="0.3", deadlineSeconds=60, minimumSamples=4)], bake_seconds=4)
        gates = Gates(Prometheus(prometheus.url))
        body = await rollout.passes(gates, until="Baking")
        stages = body["spec"]["rollout"]["stages"]
        stages[0]["gates"][0]["max"] = "0.1"
        await objects.merge(PROFILE, namespace, "p", {"spec": {"rollout": {"stages": stages}}})

        body = await rollout.passes(gates)

        (found,) = body["status"]["stages"][0]["gates"]
        assert (body["status"]["phase"], found["observedGeneration"]) == ("RolledBack", 2)
        assert "max 0.1" in found["message"]

    within(api_server, scenario)


def test_without_a_prometheus_a_stage_with_gates_does_not_begin(
    api_server: ApiServer, prometheus: RunningPrometheus
) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        rollout = Rollout(objects, namespace, prometheus, GOOD)
        await rollout.begin([gate(rollout, max="0.3")])
        body = await objects.get(PROFILE, namespace, "p")

        await ProfileReconciler(objects, Events(objects, "test")).reconcile(body, datetime.now(UTC))

        status = (await objects.get(PROFILE, namespace, "p"))["status"]
        stalled = next(it for it in status["conditions"] if it["type"] == "Stalled")
        assert (stalled["status"], stalled["reason"]) == ("True", "NoPrometheus")
        assert "stages" not in status or status["stages"] == []

    within(api_server, scenario)


def test_a_stage_begins_in_its_window_only(api_server: ApiServer, prometheus: RunningPrometheus) -> None:
    async def scenario(objects: PlayedObjects, namespace: str) -> None:
        rollout = Rollout(objects, namespace, prometheus, GOOD)
        now = datetime.now(UTC)
        later = {"from": f"{now + timedelta(hours=2):%H:%M}", "to": f"{now + timedelta(hours=3):%H:%M}"}
        await rollout.begin([], bake_seconds=0, window=later)
        reconciler = ProfileReconciler(objects, Events(objects, "test"))

        await reconciler.reconcile(await objects.get(PROFILE, namespace, "p"), now)
        before = (await objects.get(PROFILE, namespace, "p"))["status"]

        async def has_begun() -> bool:
            await rollout.play()
            body = await objects.get(PROFILE, namespace, "p")
            await reconciler.reconcile(body, now + timedelta(hours=2, minutes=1))
            return bool((await objects.get(PROFILE, namespace, "p"))["status"].get("stages"))

        # Its workloads must be ready first.
        await eventually(has_begun, "a stage that begins in its window")
        inside = (await objects.get(PROFILE, namespace, "p"))["status"]
        # It has begun: the window is of no concern any more.
        body = await rollout.passes(Gates())

        progressing = next(it for it in before["conditions"] if it["type"] == "Progressing")
        assert (progressing["reason"], before.get("stages", [])) == ("OutsideWindow", [])
        assert f"opens at {now + timedelta(hours=2):%Y-%m-%dT%H:%M}+00:00 (UTC)" in progressing["message"]
        assert inside["stages"][0]["phase"] == "Progressing"
        assert body["status"]["phase"] == "Promoted"

    within(api_server, scenario)
