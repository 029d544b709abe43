"""The second site's story: an experiment that is simpler than staging, and the same on a copy of staging."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cotune.api.experiment import ExperimentStatus
from cotune.cluster.kinds import DEPLOYMENT, EXPERIMENT, POD, PROFILE, TRIAL
from cotune.cluster.objects import Object, Objects
from localcluster.locations import repository_root

from cotune_demo import reading
from cotune_demo.cluster import Commands, DemoError
from cotune_demo.preparation import services_ready
from cotune_demo.progress import Progress
from cotune_demo.report import settings
from cotune_demo.scenes import Site
from cotune_demo.summary import ProfileSummary, TargetExperimentSummary, TargetSummary

SIMPLER, COPIED = "simpler", "copied"
"""The experiments, and the files of `examples/target/`."""

_EXPERIMENT = "cotune.dev/experiment"
_POLL_SECONDS = 1.0
_LONGEST_SECONDS = 900
_SIZE = "ASR_WHISPER_SIZE"
_TOLD = ("TargetCopied", "SimplerThanTarget", "StackCopied")
_EXPERIMENT_OVER = frozenset({"Succeeded", "Failed"})
_PROFILE_OVER = frozenset({"Promoted", "RolledBack", "Degraded"})


@dataclass
class TargetStory:
    """Watches the second site, and tells what happens there."""

    commands: Commands
    objects: Objects
    progress: Progress
    site: Site
    _probes: "dict[str, set[str]]" = field(default_factory=dict[str, "set[str]"])
    _told: "set[tuple[str, str]]" = field(default_factory=set[tuple[str, str]])

    async def tell(self, ready_seconds: int) -> TargetSummary:
        """Both experiments at the same time, and the rollout of what came of the first.

        Args:
            ready_seconds: how long each service of the site may take to be ready.

        Raises:
            DemoError: one does not end.
        """
        # The second is over long before the first changes staging: it runs half as many trials.
        (simpler, profile), copied, _ = await asyncio.gather(
            self._with_its_rollout(SIMPLER),
            self._experiment(COPIED),
            services_ready(self.commands, self.progress, self.site, ready_seconds),
        )
        return TargetSummary(
            simpler=simpler,
            copied=copied,
            profile=profile,
            values={it: await self._size(it) for it in self.site.tuned},
            gpu_seconds_saved=round(simpler.gpu_seconds - copied.gpu_seconds, 1),
        )

    async def _with_its_rollout(self, experiment: str) -> tuple[TargetExperimentSummary, ProfileSummary | None]:
        found = await self._experiment(experiment)
        name = await self._profile_of(experiment)
        return found, await self._profile(name) if name is not None else None

    async def _experiment(self, name: str) -> TargetExperimentSummary:
        file = repository_root() / "examples" / "target" / f"{name}.yaml"
        self.progress.say(f"kubectl apply -f {file.relative_to(repository_root())}")
        await self.commands.do("apply", "-f", str(file))
        end = self.progress.seconds + _LONGEST_SECONDS
        while self.progress.seconds < end:
            body = await self.objects.get(EXPERIMENT, self.site.lab, name)
            trials = await self.objects.list(TRIAL, self.site.lab, {_EXPERIMENT: name})
            for trial, pod in reading.probes(await self.objects.list(POD, self.site.lab)):
                self._probes.setdefault(trial, set()).add(pod)
            status = ExperimentStatus.model_validate(body.get("status") or {})
            self._say_conditions(name, status)
            if status.phase in _EXPERIMENT_OVER:
                return await self._summary(name, status, trials)
            self._say_trials(name, trials)
            await asyncio.sleep(_POLL_SECONDS)
        raise DemoError(f"experiment {name} has not ended after {_LONGEST_SECONDS} s")

    async def _summary(
        self, name: str, status: ExperimentStatus, trials: "tuple[Object, ...]"
    ) -> TargetExperimentSummary:
        profile = await self.objects.find(PROFILE, self.site.lab, status.profile) if status.profile else None
        found = sorted(trials, key=lambda it: it["metadata"]["creationTimestamp"])
        return reading.target_experiment(
            name,
            status,
            tuple(reading.trial(it, len(self._probes.get(it["metadata"]["name"], ()))) for it in found),
            reading.profile(profile).changes if profile is not None else {},
        )

    def _say_conditions(self, experiment: str, status: ExperimentStatus) -> None:
        for it in status.conditions:
            words = f"experiment {experiment}: {it.type} {it.status}, {it.reason}: {it.message}"
            is_end = it.type == "Ready" and status.phase in _EXPERIMENT_OVER
            if (it.type in _TOLD or is_end) and (experiment, words) not in self._told:
                self._told.add((experiment, words))
                self.progress.say(words)

    def _say_trials(self, experiment: str, trials: "tuple[Object, ...]") -> None:
        for body in trials:
            found = reading.trial(body, 0)
            head = f"{experiment} {found.purpose.lower()} {settings(found.parameters)}  {found.phase}"
            if found.phase not in reading.TRIAL_OVER:
                self.progress.waiting(head, about=found.name)
            elif (experiment, found.name) not in self._told:
                self._told.add((experiment, found.name))
                self.progress.say(f"{head}{f'  {found.reason}: {found.message[:110]}' if found.reason else ''}")

    async def _profile_of(self, experiment: str) -> str | None:
        body = await self.objects.get(EXPERIMENT, self.site.lab, experiment)
        return ExperimentStatus.model_validate(body["status"]).profile

    async def _profile(self, name: str) -> ProfileSummary:
        """A profile at its end."""
        end = self.progress.seconds + _LONGEST_SECONDS
        while self.progress.seconds < end:
            found = reading.profile(await self.objects.get(PROFILE, self.site.lab, name))
            if found.phase in _PROFILE_OVER:
                self.progress.say(f"profile {name}: {_stages(found)}")
                return found
            self.progress.waiting(f"profile {name}: {_stages(found)}", about=name)
            await asyncio.sleep(_POLL_SECONDS)
        raise DemoError(f"profile {name} has not ended after {_LONGEST_SECONDS} s")

    async def _size(self, namespace: str) -> str:
        whisper: Mapping[str, Any] = await self.objects.get(DEPLOYMENT, namespace, "whisper")
        env = whisper["spec"]["template"]["spec"]["containers"][0]["env"]
        return next(str(it["value"]) for it in env if it["name"] == _SIZE)


def _stages(profile: ProfileSummary) -> str:
    return ", ".join(f"{it.name} {it.phase}" for it in profile.stages) or profile.phase
