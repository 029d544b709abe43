"""`python -m cotune_demo`: the demonstration.

`--kill` kills the operator three times meanwhile; `--real` runs the real servers on the CPU and simulates nothing.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cotune.cluster.objects import ApiError, Objects
from localcluster.errors import LocalClusterError
from localcluster.locations import repository_root
from pydantic import ValidationError

from cotune_demo.checks import checks, real_checks, same_outcome
from cotune_demo.cluster import Commands, DemoError, start
from cotune_demo.killing import Killer
from cotune_demo.preparation import prepare, services_ready
from cotune_demo.progress import Progress
from cotune_demo.records import verified
from cotune_demo.report import lines
from cotune_demo.scenes import REAL, SIMULATED, Scene
from cotune_demo.story import Experiment, Story
from cotune_demo.summary import (
    BrokenSummary,
    ProfileSummary,
    Summary,
    TargetSummary,
    TrialSummary,
    UninvitedSummary,
)
from cotune_demo.target import TargetStory

_BROKEN = ("cannot-start.yaml", "too-much-for-production.yaml")


def main() -> int:
    """Exit code 0: everything happened that had to; 1: something did not."""
    parser = argparse.ArgumentParser(prog="python -m cotune_demo", description=__doc__)
    parser.add_argument(
        "--kill", action="store_true", help="kill the operator three times, and compare with a run without"
    )
    parser.add_argument("--real", action="store_true", help="the real vLLM and the real Whisper, on the CPU")
    options = parser.parse_args()
    if options.kill and options.real:
        parser.error("--kill and --real: one of them")
    folder = repository_root() / "build" / "demo"
    reference = folder / "summary.json"
    try:
        if options.real:
            return 0 if _run_once(folder / "summary-real.json", REAL) else 1
        if not options.kill:
            return 0 if _run_once(reference, SIMULATED) else 1
        compare_with = good_run(reference)
        if compare_with is None:
            print("first a run without kills, to compare with", flush=True)
            if not _run_once(reference, SIMULATED):
                return 1
            compare_with = good_run(reference)
        return 0 if _run_once(folder / "summary-kill.json", SIMULATED, is_kill=True, compare_with=compare_with) else 1
    except (DemoError, LocalClusterError, ApiError) as error:
        print(f"demo: error: {error}", file=sys.stderr)
        return 1


def good_run(path: Path) -> Summary | None:
    """The summary of a run in which every expectation held; None when there is none, or one of another version."""
    try:
        summary = Summary.model_validate_json(path.read_text())
    except (FileNotFoundError, ValidationError):
        return None
    return summary if summary.checks and all(it.holds for it in summary.checks) else None


def _run_once(path: Path, scene: Scene, is_kill: bool = False, compare_with: Summary | None = None) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    commands = start(list(scene.images), nodes=scene.nodes)
    summary = asyncio.run(_tell(commands, scene, is_kill, begun))
    judge = checks if scene.is_simulation else real_checks
    judged = tuple(judge(summary)) + (tuple(same_outcome(compare_with, summary)) if compare_with else ())
    summary = summary.model_copy(update={"checks": judged})
    path.write_text(summary.model_dump_json(indent=2) + "\n")
    print("\n".join(lines(summary)))
    print(f"summary: {path.relative_to(repository_root())}")
    print(f"look around: export KUBECONFIG={commands.kubeconfig}; kubectl get gae,gt,gpp,gtg -A")
    print("make cluster-down ends the cluster and leaves nothing behind")
    failed = [it for it in judged if not it.holds]
    if failed:
        print(
            f"demo: error: {len(failed)} of {len(judged)} expectations do not hold: {failed[0].what}", file=sys.stderr
        )
    return not failed


async def _tell(commands: Commands, scene: Scene, is_kill: bool, begun: float) -> Summary:
    started_at, progress = datetime.now(UTC), Progress()
    set_up_seconds = time.monotonic() - begun
    objects = await Objects.connect(commands.kubeconfig)
    try:
        await prepare(commands, progress, scene)
        # The uninvited namespace has one, too.
        killer = Killer(commands, progress, is_kill, by_hand=len(_BROKEN) + 1)
        story = Story(commands, objects, progress, killer, scene)
        hopeless = await story.nothing_feasible(scene.hopeless) if scene.hopeless else None
        (experiment, profile), (broken, uninvited), target = await asyncio.gather(
            _search(story), _meanwhile(story), _second_site(story)
        )
        progress.say("cotune verify: the records of the trials, and the trials beside them")
        records = await verified(commands, *(it.lab for it in scene.sites))
    finally:
        await objects.close()
    return Summary(
        title=scene.title,
        is_simulation=scene.is_simulation,
        command=f"{scene.command} KILL=1" if is_kill else scene.command,
        started_at=started_at,
        seconds=round(progress.seconds, 1),
        set_up_seconds=round(set_up_seconds, 1),
        kills=tuple(killer.kills),
        experiment_phase=experiment.phase,
        experiment_reason=experiment.reason,
        gpu_seconds=_gpu_seconds(experiment.trials),
        plan=experiment.plan,
        nothing_feasible=hopeless,
        trials=experiment.trials,
        winner=experiment.winner,
        profile=profile,
        target=target,
        broken=broken,
        uninvited=uninvited,
        records=records,
    )


async def _search(story: Story) -> tuple[Experiment, ProfileSummary | None]:
    experiment = await story.experiment()
    return experiment, await story.rollout(experiment.profile) if experiment.profile else None


async def _second_site(main: Story) -> TargetSummary | None:
    """What has cards of its own: an experiment that is simpler than its target."""
    if (site := main.scene.target) is None:
        return None
    story = TargetStory(main.commands, main.objects, main.progress.beside("edge: "), site)
    return await story.tell(main.scene.ready_seconds)


async def _meanwhile(main: Story) -> tuple[tuple[BrokenSummary, ...], UninvitedSummary | None]:
    """What needs no card of the lab's, while the search has it: profiles by hand in staging and production."""
    commands, scene, progress = main.commands, main.scene, main.progress.beside("meanwhile: ")
    await services_ready(commands, progress, scene.site, scene.ready_seconds)
    if not scene.is_simulation:
        return (), None
    story = Story(commands, main.objects, progress, Killer(commands, progress, is_ordered=False), scene)
    broken = tuple([await story.broken(it) for it in _BROKEN])
    return broken, await story.uninvited()


def _gpu_seconds(trials: Sequence[TrialSummary]) -> float:
    return round(
        sum((it.finished_at - it.started_at).total_seconds() for it in trials if it.started_at and it.finished_at), 1
    )


if __name__ == "__main__":
    sys.exit(main())
