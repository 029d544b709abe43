"""A stage with a probe against a real API server: the test plays the kubelets, and what the probe's runs find."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cotune.cluster.kinds import CONFIG_MAP, GRANT, POD, PROFILE
from cotune.cluster.objects import Object
from cotune.cluster.workloads import ANNOTATION_REVISION
from cotune.trials.stage_probe_pod import LABEL_STAGE

from support.played_cluster import PlayedObjects, play_ended, play_ready
from support.played_probe import last_line
from support.played_stage import create_stage
from support.resources import manifest

P95 = "stt.latency.p95"
GOOD, BAD = (300.0, 310.0, 290.0), (700.0, 710.0, 690.0)
RUNS = len(GOOD)
SPEECH: Object = {
    "component": "stt",
    "protocol": "OpenAITranscriptions",
    "arrivals": {"type": "Constant", "ratePerSecond": "200"},
    "corpusRef": {"configMap": "speech"},
}
PROBE: Object = {"warmupSeconds": 0, "durationSeconds": 1, "runs": RUNS, "streams": [SPEECH]}
AGAINST: Object = {"goal": "Minimize", "tolerance": "0.1"}


def gate(**fields: Any) -> Object:
    """The p95 of speech: at most 500 ms, unless `fields` say otherwise."""
    against = {} if "againstBaseline" in fields else {"max": "500"}
    return {"name": "speech", "probe": {"metric": P95}, "deadlineSeconds": 30} | against | fields


async def create_probed_stage(
    objects: PlayedObjects, namespace: str, gates: list[Object], rate: str | None = "200", **stage: Any
) -> None:
    """Workloads, a grant that allows so much load (None: no probe at all), and a profile, all in one namespace."""
    await create_stage(objects, namespace, grant=False)
    grant = copy.deepcopy(manifest("GpuTuningGrant"))
    grant["metadata"]["namespace"] = namespace
    spec = grant["spec"] | {"from": [{"namespace": namespace}]}
    if rate is not None:
        spec |= {"allow": ["Rollout", "Probe"], "probe": {"maxRatePerSecond": rate}}
        spec["targets"][0] |= {"service": {"name": "whisper", "port": 8000}}
    await objects.create(GRANT, namespace, grant | {"spec": spec})
    speech: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "speech", "namespace": namespace}}
    await objects.create(CONFIG_MAP, namespace, speech)
    body = copy.deepcopy(manifest("GpuProfile"))
    body["metadata"] = {"name": "p", "namespace": namespace}
    body["spec"]["changes"][0] |= {"from": "small", "to": "tiny"}
    only: Object = {"name": "only", "namespace": namespace, "guardSeconds": 0, "bakeSeconds": RUNS, "probe": PROBE}
    body["spec"]["rollout"] = {"stages": [only | {"gates": gates} | stage]}
    await objects.create(PROFILE, namespace, body)


@dataclass
class PlayedKubelet:
    """Pods of workloads become ready at once, and those of probes end with the next figure."""

    objects: PlayedObjects
    namespace: str
    before: tuple[float, ...] = GOOD
    after: tuple[float, ...] = GOOD
    """One for each run that ends well; the last one again for all further ones."""
    error: str = ""
    """What every run of a probe ends with instead."""
    is_slow: bool = False
    """Runs of probes do not end."""
    ended: dict[str, str] = field(default_factory=dict[str, str])
    """Probe's pod to what it was before (`before` or `after` the change)."""

    async def play(self) -> None:
        """All that kubelets have to do now."""
        pods = await self.objects.list(POD, self.namespace)
        is_changed = any(ANNOTATION_REVISION in it["metadata"].get("annotations", {}) for it in pods)
        for pod in pods:
            if "containerStatuses" in pod.get("status", {}) or "deletionTimestamp" in pod["metadata"]:
                continue
            if LABEL_STAGE not in pod["metadata"].get("labels", {}):
                await play_ready(self.objects, pod)
            elif not self.is_slow:
                await self._end(pod, "after" if is_changed else "before")

    async def _end(self, pod: Object, when: str) -> None:
        name = pod["metadata"]["name"]
        figures = self.after if when == "after" else self.before
        number = sum(it == when for it in self.ended.values())
        self.ended[name] = when
        values: Mapping[str, str] = {P95: str(figures[min(number, len(figures) - 1)]), "judge.latency.p95": "1"}
        self.objects.logs[name] = self.error or f"measuring\n{last_line(values)}"
        await play_ended(self.objects, pod, exit_code=1 if self.error else 0)


async def probe_pods(objects: PlayedObjects, namespace: str) -> list[str]:
    """Those that are there."""
    found = await objects.list(POD, namespace)
    return [it["metadata"]["name"] for it in found if LABEL_STAGE in it["metadata"].get("labels", {})]
