"""`cotune diff PROFILE`: what a stage changes in the environment of its workloads, as they are now."""

import argparse
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from cotune.api.grant import GrantTarget
from cotune.api.profile import ProfileSpec, Stage, Strategy
from cotune.cli.session import (
    DONE,
    CommandError,
    ReadProfile,
    Session,
    add_cluster_arguments,
    chosen_stage,
    with_session,
)
from cotune.cluster.batches import planned
from cotune.cluster.downtimes import Downtimes
from cotune.cluster.kinds import DEPLOYMENT
from cotune.cluster.objects import ForbiddenError, Object
from cotune.rollout.downtime import balance
from cotune.rollout.progress import by_name
from cotune.rollout.stacks import spread, stack_of
from cotune.rollout.surge import with_surge


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("profile", metavar="PROFILE", help="its name")
    parser.add_argument("--stage", metavar="NAME", help="which (default: the one in progress, else the next)")
    add_cluster_arguments(parser)
    parser.set_defaults(run=with_session(_diff))


async def _diff(session: Session, options: argparse.Namespace) -> int:
    found = await session.profile(options.profile)
    stage = chosen_stage(found, options.stage)
    targets = await session.targets(found, stage)
    spec = spread(found.spec, targets.stacks)
    changed: set[str] = set()
    print(f"stage {stage.name}, namespace {stage.namespace}")
    for component, target in targets.by_component.items():
        name = target.workload.name
        deployment = await session.objects.find(DEPLOYMENT, stage.namespace, name)
        if deployment is None:
            raise CommandError(f"namespace {stage.namespace} has no Deployment {name}")
        lines = list(_lines(spec, component, target, deployment))
        if lines:
            changed.add(stack_of(component))
        print("\n".join([f"deployment/{name}, container {target.container}", *(lines or ["    nothing changes"])]))
    batches = _batches(found, stage) or await planned(session.objects, stage, targets)
    if not targets.stacks:
        print("all of them are stopped and started again" if changed else "none of them is stopped")
    for number, stacks in enumerate(batches, 1):
        print(f"batch {number} of {len(batches)}: {', '.join(f'stack {it} ({_effect(it, changed)})' for it in stacks)}")
    try:
        downtimes = Downtimes(session.objects, stage.namespace)
        expected = await downtimes.estimate(found.spec, found.status, targets.by_component, batches)
        if found.spec.rollout.strategy is Strategy.DIRECT:
            expected = with_surge(stage, targets, expected)
        print(f"expected downtime: {expected.said}")
        if left := balance(stage, targets.budgets, await downtimes.outages(), datetime.now(UTC)):
            print(left)
    except ForbiddenError as error:
        print(f"expected downtime: unknown to you: {error.message}")
    return DONE


def _batches(found: ReadProfile, stage: Stage) -> Sequence[Sequence[str]]:
    """Those of a stage that has begun, which stay as they are."""
    state = by_name(found.status).get(stage.name)
    return [it.stacks for it in state.batches] if state is not None else ()


def _effect(stack: str, changed: "set[str]") -> str:
    return "stopped and started again" if stack in changed else "nothing changes"


def _lines(spec: ProfileSpec, component: str, target: GrantTarget, deployment: Object) -> Iterator[str]:
    """One variable after the other, as `diff` writes it."""
    containers = deployment["spec"]["template"]["spec"]["containers"]
    entries: list[Object] = [
        entry for it in containers if it["name"] == target.container for entry in it.get("env") or ()
    ]
    today = {str(it["name"]): it.get("value", "(from elsewhere)" if "valueFrom" in it else "") for it in entries}
    for change in spec.changes:
        if change.component != component or today.get(change.env) == change.to:
            continue
        if change.env in today:
            yield f"  - {change.env}={today[change.env]}"
        yield f"  + {change.env}={change.to}"
