"""`python -m cotune_demo.target`: an experiment that is simpler than staging, and the same on a copy of staging."""

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from cotune.api.experiment import ExperimentStatus, ValidatedChange
from cotune.api.profile import ProfileStatus
from cotune.cluster.kinds import DEPLOYMENT, EXPERIMENT, PROFILE, TRIAL, Kind
from cotune.cluster.objects import ApiError, Object, Objects
from localcluster.errors import LocalClusterError
from localcluster.locations import repository_root

from cotune_demo.cluster import Commands, DemoError, start
from cotune_demo.preparation import LAB, PRODUCTION, STAGING, prepare
from cotune_demo.progress import Progress
from cotune_demo.scenes import SIMULATED

SCENE = replace(
    SIMULATED,
    services="target",
    deployments=("embeddings", "chat", "judge", "whisper"),
    experiment="target/simpler.yaml",
)
SIMPLER, COPIED = "simpler", "copied"
"""The experiments, and the files of `examples/target/`."""

_EXPERIMENT = "cotune.dev/experiment"
_POLL_SECONDS = 0.25
_LONGEST_SECONDS = 900
_SIZE = "ASR_WHISPER_SIZE"


@dataclass(frozen=True)
class Told:
    """What came of one of the two experiments."""

    status: ExperimentStatus
    trials: tuple[Object, ...]
    changes: tuple[Object, ...]
    """The profile's."""

    @property
    def gpu_seconds(self) -> float:
        """For which its trials held their cards."""
        return float(self.status.gpu_seconds or 0)

    @property
    def started(self) -> int:
        """How many trials were started."""
        return sum("startedAt" in (it.get("status") or {}) and not it["spec"]["skipped"] for it in self.trials)

    def change(self, parameter: str) -> ValidatedChange | None:
        """What was validated of one parameter; None: it is no change of the winner."""
        changes = self.status.validation.changes if self.status.validation is not None else ()
        return next((it for it in changes if it.parameter == parameter), None)

    def reason(self, condition: str) -> str:
        """Of a condition; empty: there is none."""
        return next((it.reason for it in self.status.conditions if it.type == condition), "")


@dataclass(frozen=True)
class Target:
    """Both, and what was promoted of the first."""

    simpler: Told
    copied: Told
    phases: tuple[str, ...]
    """Of the stages of the first profile."""
    sizes: tuple[tuple[str, str], ...]
    """Namespace and Whisper of it, in the end."""


@dataclass(frozen=True)
class Expectation:
    """What must have happened, and what did."""

    what: str
    holds: bool
    seen: str


async def tell(commands: Commands, objects: Objects, progress: Progress) -> Target:
    """Both experiments, one after the other.

    Raises:
        DemoError: one does not end.
    """
    simpler = await _experiment(commands, objects, progress, SIMPLER)
    phases: tuple[str, ...] = ()
    if simpler.status.profile is not None:
        profile = await _ended(objects, progress, PROFILE, simpler.status.profile)
        phases = tuple(str(it.phase) for it in ProfileStatus.model_validate(profile["status"]).stages)
    copied = await _experiment(commands, objects, progress, COPIED)
    sizes = tuple([(it, await _size(objects, it)) for it in (STAGING, PRODUCTION)])
    return Target(simpler, copied, phases, sizes)


def expectations(found: Target) -> Iterator[Expectation]:
    """What has to come of it."""
    simpler, copied = found.simpler, found.copied
    yield Expectation(
        "the experiment says beforehand that staging runs more than it does",
        simpler.reason("SimplerThanTarget") == "ServicesMissing" and simpler.reason("TargetCopied") == "Copied",
        f"SimplerThanTarget {simpler.reason('SimplerThanTarget')}, TargetCopied {simpler.reason('TargetCopied')}",
    )
    tiny, memory = simpler.change("whisperModel"), simpler.change("judgeMemory")
    yield Expectation(
        "tiny holds beside what runs in staging",
        tiny is not None and tiny.kept and tiny.value == "tiny",
        f"{tiny.value}: {tiny.reason}: {tiny.message}" if tiny is not None else "not proposed",
    )
    yield Expectation(
        "0.85 of the card for the judge is left out, for it does not start beside embeddings and chat",
        memory is not None
        and (memory.value, memory.kept, memory.reason) == ("0.85", False, "CardTaken")
        and f"in {STAGING}, beside embeddings, chat: " in memory.message,
        f"{memory.value}: {memory.reason}: {memory.message}" if memory is not None else "not proposed",
    )
    yield Expectation(
        "what is left is promoted to production, without a person",
        found.phases == ("Promoted", "Promoted") and set(found.sizes) == {(STAGING, "tiny"), (PRODUCTION, "tiny")},
        f"{', '.join(found.phases)}; {found.sizes}",
    )
    yield Expectation(
        "on a copy of staging and with the planner the same changes come out",
        bool(simpler.changes) and copied.changes == simpler.changes,
        f"{simpler.changes} and {copied.changes}",
    )
    yield Expectation(
        "and that takes fewer GPU-seconds",
        0 < copied.gpu_seconds < simpler.gpu_seconds,
        f"{copied.gpu_seconds:.0f} s in {copied.started} trials, and {simpler.gpu_seconds:.0f} s in {simpler.started}",
    )


async def _experiment(commands: Commands, objects: Objects, progress: Progress, name: str) -> Told:
    file = repository_root() / "examples" / "target" / f"{name}.yaml"
    progress.say(f"kubectl apply -f {file.relative_to(repository_root())}")
    await commands.do("apply", "-f", str(file))
    body = await _ended(objects, progress, EXPERIMENT, name)
    status = ExperimentStatus.model_validate(body["status"])
    for it in status.conditions:
        if it.type in {"Ready", "TargetCopied", "SimplerThanTarget", "StackCopied"}:
            progress.say(f"experiment {name}: {it.type} {it.status}, {it.reason}: {it.message}")
    trials = await objects.list(TRIAL, LAB, {_EXPERIMENT: name})
    profile = await objects.find(PROFILE, LAB, status.profile) if status.profile is not None else None
    return Told(status, trials, tuple(profile["spec"]["changes"]) if profile is not None else ())


async def _ended(objects: Objects, progress: Progress, kind: Kind, name: str) -> Object:
    finished = {"Succeeded", "Failed"} if kind is EXPERIMENT else {"Promoted", "RolledBack", "Degraded"}
    begun = progress.seconds
    while progress.seconds < begun + _LONGEST_SECONDS:
        body = await objects.get(kind, LAB, name)
        status: Any = body.get("status") or {}
        if status.get("phase") in finished:
            return body
        progress.waiting(f"{kind.name} {name}: {status.get('phase', 'Pending')}{await _running(objects, name)}")
        await asyncio.sleep(_POLL_SECONDS)
    raise DemoError(f"{kind.name} {name} has not ended after {_LONGEST_SECONDS} s")


async def _running(objects: Objects, experiment: str) -> str:
    """What an experiment's trials are doing."""
    found = await objects.list(TRIAL, LAB, {_EXPERIMENT: experiment})
    latest = max(found, key=lambda it: datetime.fromisoformat(it["metadata"]["creationTimestamp"]), default=None)
    if latest is None:
        return ""
    values = " ".join(str(it["value"]) for it in latest["spec"]["candidate"])
    status: Object = latest.get("status") or {}
    phase = status.get("phase", "Pending")
    return f", trial {len(found)} ({latest['spec']['purpose']} {values}): {phase}"


async def _size(objects: Objects, namespace: str) -> str:
    whisper = await objects.get(DEPLOYMENT, namespace, "whisper")
    env = whisper["spec"]["template"]["spec"]["containers"][0]["env"]
    return next(str(it["value"]) for it in env if it["name"] == _SIZE)


async def _run(commands: Commands) -> Target:
    progress = Progress()
    objects = await Objects.connect(commands.kubeconfig)
    try:
        await prepare(commands, progress, SCENE)
        return await tell(commands, objects, progress)
    finally:
        await objects.close()


def summary(found: Target, told: Sequence[Expectation]) -> dict[str, Any]:
    """Both experiments as data."""
    return {
        "simulation": "of the card and its servers, on a real Kubernetes",
        "experiments": {
            name: {
                "gpuSeconds": round(it.gpu_seconds, 1),
                "trialsStarted": it.started,
                "trialsSkipped": sum(trial["spec"]["skipped"] for trial in it.trials),
                "changes": it.changes,
                "validated": [
                    {"parameter": change.parameter, "value": change.value, "kept": change.kept, "reason": change.reason}
                    for change in (it.status.validation.changes if it.status.validation is not None else ())
                ],
            }
            for name, it in ((SIMPLER, found.simpler), (COPIED, found.copied))
        },
        "gpuSecondsSaved": round(found.simpler.gpu_seconds - found.copied.gpu_seconds, 1),
        "stages": found.phases,
        "checks": [asdict(it) for it in told],
    }


def main() -> int:
    """Exit code 0: everything happened that had to; 1: something did not."""
    try:
        found = asyncio.run(_run(start(list(SCENE.images))))
    except (DemoError, LocalClusterError, ApiError) as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 1
    print("A SIMULATION of the card and its servers on a real Kubernetes")
    told = list(expectations(found))
    for it in told:
        print(f"{'ok ' if it.holds else 'NOT'} {it.what}\n      {it.seen}")
    saved = found.simpler.gpu_seconds - found.copied.gpu_seconds
    print(f"the copy and the planner saved {saved:.0f} of {found.simpler.gpu_seconds:.0f} GPU-seconds")
    path = repository_root() / "build" / "demo" / "target.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(summary(found, told), indent=2) + "\n")
    print(f"summary: {path.relative_to(repository_root())}")
    return 0 if all(it.holds for it in told) else 1


if __name__ == "__main__":
    sys.exit(main())
