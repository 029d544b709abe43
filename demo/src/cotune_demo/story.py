"""The story, act by act: experiment, winner, rollout, two broken profiles, a namespace that invited nobody."""

import asyncio
import base64
import tempfile
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import yaml
from cotune.api.experiment import ExperimentStatus
from cotune.cluster.kinds import DEPLOYMENT, EXPERIMENT, POD, PROFILE, TRIAL, Kind
from cotune.cluster.objects import ApiError, Object, Objects
from localcluster.locations import repository_root

from cotune_demo import reading
from cotune_demo.cluster import Commands, DemoError
from cotune_demo.killing import Killer
from cotune_demo.preparation import OPERATOR, UNINVITED
from cotune_demo.progress import Progress
from cotune_demo.report import figures, settings
from cotune_demo.scenes import LAB, PRODUCTION, STAGING, Scene
from cotune_demo.summary import (
    BrokenSummary,
    NothingFeasibleSummary,
    PlanSummary,
    ProfileSummary,
    Refusal,
    TrialSummary,
    UninvitedSummary,
    WinnerSummary,
)

_POLL_SECONDS = 0.5
_LONGEST_ROLLOUT = 300
_LONGEST_PLANNING = 30
_ROLLOUT_OVER = {"Promoted", "RolledBack", "Degraded"}
_EXPERIMENT = "cotune.dev/experiment"
_SECRET = Kind("v1", "Secret", "secrets")


@dataclass
class Experiment:
    """What came of the experiment."""

    phase: str
    reason: str
    trials: tuple[TrialSummary, ...]
    plan: PlanSummary | None
    winner: WinnerSummary | None
    profile: str | None


@dataclass
class Story:
    """Watches the cluster, and tells what happens there."""

    commands: Commands
    objects: Objects
    progress: Progress
    killer: Killer
    scene: Scene
    _probes: "dict[str, set[str]]" = field(default_factory=dict[str, "set[str]"])
    _told: "set[str]" = field(default_factory=set[str])

    async def nothing_feasible(self, file: str) -> NothingFeasibleSummary:
        """Apply an experiment of which nothing fits, before the lab has any other, and watch it to its end.

        Raises:
            DemoError: it does not end.
        """
        self.progress.say(f"kubectl apply -f examples/{file}: an experiment of which nothing fits the card")
        name = next(
            it["metadata"]["name"]
            for it in cast(
                "list[Object]", list(yaml.safe_load_all((repository_root() / "examples" / file).read_text()))
            )
            if it["kind"] == EXPERIMENT.name
        )
        await self._apply(file)
        begun, pods = self.progress.seconds, set[str]()
        while self.progress.seconds < begun + _LONGEST_PLANNING:
            body = await self.objects.get(EXPERIMENT, LAB, name)
            status: Object = body.get("status") or {}
            pods |= {it["metadata"]["uid"] for it in await self.objects.list(POD, LAB)}
            if status.get("phase") in {"Succeeded", "Failed"}:
                took = self.progress.seconds - begun
                trials = await self.objects.list(TRIAL, LAB, {_EXPERIMENT: name})
                found = reading.nothing_feasible(body, len(trials), len(pods), took)
                self.progress.say(f"experiment {name} {found.phase}, {found.reason}: {found.message}")
                return found
            self.progress.waiting(f"experiment {name}: {status.get('phase', 'Pending')}")
            await asyncio.sleep(_POLL_SECONDS)
        raise DemoError(f"the experiment {name} has not ended after {_LONGEST_PLANNING} s")

    async def experiment(self) -> Experiment:
        """Apply the experiment and watch it to its end.

        Raises:
            DemoError: it does not end.
        """
        self.progress.say(
            f"kubectl apply -f examples/{self.scene.experiment}: {self.scene.candidates} candidates, the full "
            "stack for each that can start"
        )
        await self.killer.hold_the_profile_back()
        await self._apply(self.scene.experiment)
        while self.progress.seconds < self.scene.longest_seconds:
            body = await self.objects.get(EXPERIMENT, LAB, self.scene.name)
            trials = sorted(await self.objects.list(TRIAL, LAB), key=lambda it: it["metadata"]["creationTimestamp"])
            pods = await self.objects.list(POD, LAB)
            self._count_probes(pods)
            status: Object = body.get("status") or {}
            await self._tell_trials(trials, pods)
            if status.get("phase") in {"Succeeded", "Failed"}:
                return self._experiment(status, trials)
            if all(_phase(it) in reading.TRIAL_OVER for it in trials):
                held = any("quota" in it["message"] for it in status.get("conditions", ()))
                await self.killer.after_the_last_trial(held)
            await asyncio.sleep(_POLL_SECONDS)
        raise DemoError(f"the experiment has not ended after {self.scene.longest_seconds:.0f} s")

    async def rollout(self, name: str) -> ProfileSummary:
        """Watch a profile to its end."""
        body, _ = await self._watch(name)
        return reading.profile(body)

    async def broken(self, file: str) -> BrokenSummary:
        """Apply a broken profile and watch cotune take it back."""
        self.progress.say(f"kubectl apply -f examples/broken/{file}: a deliberately broken profile")
        name = yaml.safe_load((repository_root() / "examples" / "broken" / file).read_text())["metadata"]["name"]
        before = await self.objects.list(DEPLOYMENT, PRODUCTION)
        await self._apply(f"broken/{file}")
        body, first_signs = await self._watch(name)
        after = await self.objects.list(DEPLOYMENT, PRODUCTION)
        profile = reading.profile(body)
        stage = reading.failed_stage(profile)
        return BrokenSummary(
            profile=profile,
            failed_stage=stage.name if stage else None,
            first_sign_at=min(first_signs, default=None),
            condition_at=reading.degraded_at(body),
            ready_at=stage.finished_at if stage and stage.phase == "RolledBack" else None,
            generations_before=_generations(before),
            generations_after=_generations(after),
            values_before=_values(before),
            values_after=_values(after),
            is_production_ready=all(
                it.get("status", {}).get("readyReplicas") == it["spec"]["replicas"] for it in after
            ),
        )

    async def uninvited(self) -> UninvitedSummary:
        """A namespace without a grant: named in a profile, and tried with the operator's own credentials."""
        self.progress.say(
            f"namespace {UNINVITED} has not invited cotune: a profile names it, and nothing may happen there"
        )
        await self.commands.apply(*_uninvited_namespace())
        before = (await self.objects.get(DEPLOYMENT, UNINVITED, "theirs"))["metadata"]["generation"]
        await self.commands.apply(_profile_for_the_uninvited())
        reason = await self._stalled_reason("uninvited")
        refusals = await self._refusals()
        for it in refusals:
            self.progress.say(f"  the operator tries to {it.attempt}: {it.answer[:110]}")
        after = (await self.objects.get(DEPLOYMENT, UNINVITED, "theirs"))["metadata"]["generation"]
        return UninvitedSummary(refusals=refusals, condition=reason, generation_before=before, generation_after=after)

    async def _apply(self, example: str) -> None:
        await self.commands.do("apply", "-f", str(repository_root() / "examples" / example))

    def _count_probes(self, pods: "tuple[Object, ...]") -> None:
        for trial, pod in reading.probes(pods):
            self._probes.setdefault(trial, set()).add(pod)

    async def _tell_trials(self, trials: "list[Object]", pods: "tuple[Object, ...]") -> None:
        for number, body in enumerate(trials, 1):
            name = body["metadata"]["name"]
            found = reading.trial(body, len(self._probes.get(name, ())))
            head = f"trial {number:2}/{self.scene.candidates + self.scene.fresh_runs}  {settings(found.parameters)}"
            judged = found.phase != "Succeeded" or "Feasible" in _conditions(body)
            if found.phase in reading.TRIAL_OVER and judged:
                if name not in self._told:
                    self._told.add(name)
                    self.progress.say(f"{head}  {found.phase}  {_outcome(found, body)}")
            elif found.phase in reading.TRIAL_OVER:
                self.progress.waiting(f"{head}  {found.phase}, to be compared with the baseline", about=name)
            else:
                self.progress.waiting(f"{head}  {found.phase}{_waits_for(found, pods)}", about=name)
                await self.killer.in_a_trial(name, found.phase, number)

    def _experiment(self, status: Object, trials: "list[Object]") -> Experiment:
        found = tuple(reading.trial(it, len(self._probes.get(it["metadata"]["name"], ()))) for it in trials)
        ready = next(it for it in status["conditions"] if it["type"] == "Ready")
        self.progress.say(f"experiment {status['phase']}, {ready['reason']}: {ready['message']}")
        winner = None
        if said := status.get("winner"):
            best = next(it for it in found if it.name == said["trial"])
            winner = WinnerSummary(
                parameters=best.parameters,
                fitness=float(said["fitness"]),
                baseline_fitness=float(said["baselineFitness"]),
            )
        planned = reading.plan(ExperimentStatus.model_validate(status))
        return Experiment(status["phase"], ready["reason"], found, planned, winner, status.get("profile"))

    async def _watch(self, name: str) -> tuple[Object, list[datetime]]:
        """The profile at its end, and when containers of the failing stage have ended with an error."""
        end = self.progress.seconds + _LONGEST_ROLLOUT
        signs: dict[str, list[datetime]] = {}
        while self.progress.seconds < end:
            body = await self.objects.get(PROFILE, LAB, name)
            found = reading.profile(body)
            current = found.stages[-1] if found.stages else None
            if current is not None:
                namespace = {"staging": STAGING, "production": PRODUCTION}[current.name]
                for pod in await self.objects.list(POD, namespace):
                    signs.setdefault(current.name, []).extend(
                        it for it in reading.errors_at(pod) if current.started_at and it >= _second(current.started_at)
                    )
                if current.phase == "Progressing":
                    await self.killer.in_a_rollout(name, current.name, current.message)
            if found.phase in _ROLLOUT_OVER:
                self.progress.say(f"profile {name}: {found.phase}" + (f": {current.message}" if current else ""))
                failed = reading.failed_stage(found)
                return body, signs.get(failed.name, []) if failed else []
            stage = f"{current.name} {current.phase}: {current.message}" if current else "not begun"
            self.progress.waiting(f"profile {name}: {stage}")
            await asyncio.sleep(_POLL_SECONDS)
        raise DemoError(f"profile {name} has not ended after {_LONGEST_ROLLOUT} s")

    async def _stalled_reason(self, profile: str) -> str:
        for _ in range(60):
            conditions = _conditions(await self.objects.get(PROFILE, LAB, profile))
            if (stalled := conditions.get("Stalled")) and stalled["status"] == "True":
                self.progress.say(f"profile {profile}: Stalled, {stalled['reason']}: {stalled['message']}")
                return str(stalled["reason"])
            await asyncio.sleep(_POLL_SECONDS)
        raise DemoError(f"profile {profile} is not Stalled after 30 s")

    async def _refusals(self) -> tuple[Refusal, ...]:
        """What the API server answers to the operator's own token.

        Not by kubectl: before it patches it reads, and the refusal that one sees is that of the reading.
        """
        token = await self.commands.do("create", "token", "cotune", "--namespace", OPERATOR)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "kubeconfig"
            path.write_text(_as_operator(self.commands.kubeconfig.read_text(), token))
            operator = await Objects.connect(path)
        replicas: Object = {"spec": {"replicas": 1}}
        pod: Object = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "x", "namespace": UNINVITED},
            "spec": {"containers": [{"name": "x", "image": "x"}]},
        }
        attempts: dict[str, Awaitable[object]] = {
            "read its Deployment": operator.get(DEPLOYMENT, UNINVITED, "theirs"),
            "change its Deployment": operator.merge(DEPLOYMENT, UNINVITED, "theirs", replicas),
            "scale its Deployment": operator.merge(DEPLOYMENT, UNINVITED, "theirs", replicas, subresource="scale"),
            "create a pod": operator.create(POD, UNINVITED, pod),
            "read its Secrets": operator.list(_SECRET, UNINVITED),
        }
        try:
            return tuple([Refusal(attempt=it, answer=await _answer(call)) for it, call in attempts.items()])
        finally:
            await operator.close()


async def _answer(call: Awaitable[object]) -> str:
    try:
        await call
    except ApiError as refusal:
        return " ".join(str(refusal).split())
    return "it was allowed"


def _outcome(found: TrialSummary, body: Mapping[str, Any]) -> str:
    if found.fitness is not None:
        return f"fitness {found.fitness:.3f}: {figures(found.metrics)}"
    feasible = _conditions(body).get("Feasible")
    return feasible["message"] if feasible else f"{found.reason}: {found.message[:110]}"


def _waits_for(found: TrialSummary, pods: "tuple[Object, ...]") -> str:
    match found.phase:
        case "Pending":
            return ": waits for the card"
        case "Draining":
            return ": the probe waits until the card is drained"
        case "Starting":
            there = [it for it in pods if it["metadata"].get("labels", {}).get(reading.LABEL_TRIAL) == found.name]
            return f": waits for {found.message}" if found.message else f": {len(there)} pods"
        case "Measuring":
            return ": all services under load"
        case _:
            return ""


def _conditions(body: Mapping[str, Any]) -> Mapping[str, Any]:
    status: Object = body.get("status") or {}
    return {it["type"]: it for it in status.get("conditions", ())}


def _phase(trial: Mapping[str, Any]) -> str:
    status: Object = trial.get("status") or {}
    return str(status.get("phase", "Pending"))


def _generations(deployments: "tuple[Object, ...]") -> "dict[str, int]":
    return {it["metadata"]["name"]: it["metadata"]["generation"] for it in deployments}


def _values(deployments: "tuple[Object, ...]") -> "dict[str, str]":
    wanted = {"JUDGE_MEMORY", "ASR_WHISPER_SIZE"}
    containers = [it for deployment in deployments for it in deployment["spec"]["template"]["spec"]["containers"]]
    return {it["name"]: it["value"] for container in containers for it in container["env"] if it["name"] in wanted}


def _second(moment: datetime) -> datetime:
    """Kubernetes gives the end of containers in whole seconds."""
    return moment.replace(microsecond=0)


def _as_operator(kubeconfig: str, token: str) -> str:
    administrator = cast("dict[str, Any]", yaml.safe_load(kubeconfig))
    cluster: dict[str, Any] = administrator["clusters"][0]["cluster"]
    if file := cluster.pop("certificate-authority", None):
        cluster["certificate-authority-data"] = base64.b64encode(Path(file).read_bytes()).decode()
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": cluster}],
            "users": [{"name": "operator", "user": {"token": token}}],
            "contexts": [{"name": "operator", "context": {"cluster": "local", "user": "operator"}}],
            "current-context": "operator",
        }
    )


def _uninvited_namespace() -> "tuple[dict[str, Any], ...]":
    labels = {"app": "theirs"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "theirs", "image": "example/theirs"}]}}
    return (
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": UNINVITED}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "theirs", "namespace": UNINVITED},
            "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": pod},
        },
    )


def _profile_for_the_uninvited() -> "dict[str, Any]":
    return {
        "apiVersion": PROFILE.api_version,
        "kind": PROFILE.name,
        "metadata": {"name": "uninvited", "namespace": LAB},
        "spec": {
            "changes": [{"component": "theirs", "env": "SETTING", "to": "x"}],
            "startOrder": ["theirs"],
            "rollout": {"stages": [{"name": "theirs", "namespace": UNINVITED}]},
        },
    }
