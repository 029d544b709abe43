"""An experiment on a real cluster, watched to its end: what came of it, and what its trials have been on the way."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from cotune.cluster.kinds import EXPERIMENT, POD, TRIAL
from cotune.cluster.objects import Object, Objects
from cotune.handlers.experiment import LABEL_EXPERIMENT
from cotune.trials.probe_pod import PROBE
from cotune.trials.render import LABEL_COMPONENT, LABEL_TRIAL

_POLL_SECONDS = 0.25
_ENDED = {"Succeeded", "Failed"}
FINISHED = {"Succeeded", "Failed", "Skipped", "Invalid"}

Intervene = Callable[["WatchedExperiment", str], Coroutine[Any, Any, None]]
"""Called with a trial's name once it has a node; runs beside the trial."""


@dataclass
class WatchedExperiment:
    """One experiment and all that was seen of its trials."""

    objects: Objects
    namespace: str
    name: str
    body: Object = field(default_factory=Object)
    trials: dict[str, Object] = field(default_factory=dict[str, Object])
    """As they were last seen, in the order in which they were made."""
    phases: dict[str, list[str]] = field(default_factory=lambda: defaultdict[str, list[str]](list))
    results: dict[str, list[str]] = field(default_factory=lambda: defaultdict[str, list[str]](list))
    """What each trial has stored as measured, every time that it was something else."""
    probes: dict[str, set[str]] = field(default_factory=lambda: defaultdict[str, set[str]](set))
    """The identities of the probes that each trial has had."""

    async def run(self, spec: Object, patience: float, intervene: Intervene | None = None, times: int = 100) -> None:
        """Apply it and watch it until it has ended.

        Args:
            spec: the experiment's.
            patience: in seconds.
            intervene: what is done to a trial.
            times: to how many trials it is done.

        Raises:
            AssertionError: it does not end, or the intervention was not possible.
        """
        body: Object = {
            "apiVersion": EXPERIMENT.api_version,
            "kind": EXPERIMENT.name,
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": spec,
        }
        await self.objects.create(EXPERIMENT, self.namespace, body)
        tasks: dict[str, asyncio.Task[None]] = {}
        try:
            async with asyncio.timeout(patience):
                while not await self._has_ended():
                    for trial in filter(self.node, self.trials):
                        if intervene is not None and trial not in tasks and len(tasks) < times:
                            tasks[trial] = asyncio.create_task(intervene(self, trial))
                    for task in tasks.values():
                        if task.done():
                            task.result()
                    await asyncio.sleep(_POLL_SECONDS)
                await asyncio.gather(*tasks.values())
        except TimeoutError as error:
            raise AssertionError(f"{self.name} does not end: {self.told()}") from error
        finally:
            for task in tasks.values():
                task.cancel()

    async def running(self, trial: str, component: str) -> Object:
        """The pod of one component, or of the probe, once all of its containers run."""
        labels = {LABEL_TRIAL: trial, LABEL_COMPONENT: component}
        while True:
            for pod in await self.objects.list(POD, self.namespace, labels):
                status = pod.get("status", {})
                containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
                if containers and all("running" in it.get("state", {}) for it in containers):
                    return pod
            self.goes_on(trial)
            await asyncio.sleep(_POLL_SECONDS)

    def goes_on(self, trial: str) -> None:
        """What is waited for can still come.

        Raises:
            AssertionError: the trial has ended.
        """
        assert self.phase(trial) not in FINISHED, f"{trial} has ended before its time: {self.told()}"

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until what was seen is so; for how long, is up to `run`."""
        while not holds():
            await asyncio.sleep(_POLL_SECONDS)

    def phase(self, trial: str) -> str:
        """A trial's phase; empty before it has any."""
        return str(self.trials.get(trial, {}).get("status", {}).get("phase", ""))

    def node(self, trial: str) -> str:
        """The node of a trial; empty as long as it has none."""
        return str(self.trials.get(trial, {}).get("status", {}).get("node") or "")

    def ends(self) -> list[tuple[str, str]]:
        """Phase and reason of all trials, in the order in which they were made."""
        return [(it["status"]["phase"], it["status"].get("reason", "")) for it in self.trials.values()]

    def metric(self, trial: Object, name: str) -> float:
        """What a trial has measured."""
        return next(float(it["value"]) for it in trial["status"]["measurements"] if it["metric"] == name)

    def told(self) -> str:
        """All that it and its trials say of themselves."""
        said = [f"{name}: {json.dumps(it.get('status', {}))[:1500]}" for name, it in self.trials.items()]
        return "\n".join([json.dumps(self.body.get("status", {}))[:2000], *said])

    async def _has_ended(self) -> bool:
        self.body = await self.objects.get(EXPERIMENT, self.namespace, self.name)
        found = await self.objects.list(TRIAL, self.namespace, {LABEL_EXPERIMENT: self.name})
        for it in sorted(found, key=lambda it: (it["metadata"]["creationTimestamp"], it["metadata"]["name"])):
            self._seen(it)
        for pod in await self.objects.list(POD, self.namespace, {LABEL_COMPONENT: PROBE}):
            trial = pod["metadata"]["labels"][LABEL_TRIAL]
            if trial in self.trials:
                self.probes[trial].add(pod["metadata"]["uid"])
        return self.body.get("status", {}).get("phase") in _ENDED

    def _seen(self, trial: Object) -> None:
        name, status = trial["metadata"]["name"], trial.get("status", {})
        self.trials[name] = trial
        if (phase := status.get("phase", "")) not in self.phases[name][-1:]:
            self.phases[name].append(phase)
        if (result := json.dumps(status.get("measurements") or [])) not in self.results[name][-1:]:
            self.results[name].append(result)
