"""How the winner gets into production and out of it again: commands with the real names, to be copied."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from cotune.api.experiment import Outcome
from cotune.api.profile import Approval, Change, ProfilePhase, Strategy
from cotune.profiles.making import changes
from cotune.report.resources import Experiment, Profile


@dataclass(frozen=True)
class Instruction:
    """One thing to do."""

    title: str
    text: str
    command: str = ""
    """Empty: there is nothing to type."""


@dataclass(frozen=True)
class StageState:
    """One stage and how far it is."""

    name: str
    namespace: str
    approval: str
    phase: str
    message: str


@dataclass(frozen=True)
class RolloutGuide:
    """What to do with the result."""

    state: str
    stages: tuple[StageState, ...]
    instructions: tuple[Instruction, ...]


def rollout_guide(experiment: Experiment, outcome: Outcome | None) -> RolloutGuide:
    """What there is to do, from the profile if it was made, else from the winner."""
    if experiment.profile is not None:
        return _of_profile(experiment, experiment.profile)
    if experiment.status.profile is not None:
        name = experiment.status.profile
        command = _kubectl("get", "gpp", name, "-n", experiment.namespace, "-o", "yaml")
        look = Instruction("Look at it", "Give the report its GpuProfile too, and it says more.", command)
        return RolloutGuide(f"The profile {name} was made; it is not among the objects of this report.", (), (look,))
    if outcome is Outcome.BETTER and experiment.challenger is not None:
        changed = changes(experiment.spec, experiment.challenger)
        if not changed:
            return RolloutGuide("There is nothing to change.", (), ())
        own = Instruction(
            "Make a profile",
            "The experiment has no profileTemplate, so no profile was made. Put the namespaces of your stages in place "
            "of NAMESPACE; each must have invited cotune with a GpuTuningGrant.",
            _apply(_manifest(experiment, f"{experiment.name}-winner", changed, _order(experiment))),
        )
        return RolloutGuide("The winner is not on its way yet.", (), (own,))
    return RolloutGuide("There is nothing to roll out: what runs today stays.", (), ())


def _of_profile(experiment: Experiment, profile: Profile) -> RolloutGuide:
    known = {it.name: it for it in profile.status.stages}
    stages = tuple(
        StageState(
            it.name,
            it.namespace,
            str(it.approval),
            str(known[it.name].phase) if it.name in known else "not begun",
            known[it.name].message if it.name in known else "",
        )
        for it in profile.spec.rollout.stages
    )
    instructions = tuple(_instructions(experiment, profile))
    return RolloutGuide(f"The profile {profile.name} is {profile.status.phase}.", stages, instructions)


def _instructions(experiment: Experiment, profile: Profile) -> Iterator[Instruction]:
    namespace, stages = experiment.namespace, profile.spec.rollout.stages
    promoted = {it.name for it in profile.status.stages if it.phase is ProfilePhase.PROMOTED}
    yield Instruction(
        "Watch it",
        "The rollout goes through its stages by itself, one after the other.",
        _cotune("get", "profile", profile.name, "-n", namespace, "-w"),
    )
    for it in stages:
        if it.approval is Approval.MANUAL and it.name not in promoted:
            yield Instruction(
                f"Approve {it.name}",
                f"The stage {it.name} in {it.namespace} waits as AwaitingApproval until this is said.",
                _cotune("approve", profile.name, "-n", namespace, "--stage", it.name),
            )
    yield Instruction(
        "Pause",
        "No further stage begins; one in progress goes on to its end.",
        _cotune("pause", profile.name, "-n", namespace),
    )
    yield Instruction(
        "Roll back a stage in progress",
        "A stage that fails goes back by itself. By hand: the stage returns to its last good revision, and no further "
        "one begins. Stages that were promoted keep the new values.",
        _cotune("abort", profile.name, "-n", namespace),
    )
    yield from _undo(profile, namespace)
    yield Instruction(
        "See what was there before",
        "Every state that cotune applied or found is kept as a revision in the stage's namespace.",
        _cotune("history", profile.name, "-n", namespace),
    )


def _undo(profile: Profile, namespace: str) -> Iterator[Instruction]:
    """Promoted stages, each to what it had before."""
    before = {it.name: it.last_good_revision for it in profile.status.stages if it.phase is ProfilePhase.PROMOTED}
    for stage in profile.spec.rollout.stages:
        revision = before.get(stage.name)
        if revision is None:
            continue
        if profile.spec.rollout.strategy is Strategy.GIT:
            yield Instruction(
                f"Take {stage.name} back",
                f"Revert in Git the commit that brought the profile to {stage.namespace}: cotune writes nothing there.",
            )
            continue
        yield Instruction(
            f"Take {stage.name} back",
            f"The stack in {stage.namespace} returns to the revision that it had before, as a rollback does: it is "
            "stopped, and started in order.",
            _cotune("rollback", profile.name, "-n", namespace, "--stage", stage.name, "--to-revision", revision),
        )


def _manifest(experiment: Experiment, name: str, changed: Sequence[Change], order: Sequence[str]) -> "dict[str, Any]":
    stages = [{"name": "staging", "namespace": "NAMESPACE"}, {"name": "production", "namespace": "NAMESPACE"}]
    return {
        "apiVersion": "cotune.dev/v1alpha1",
        "kind": "GpuProfile",
        "metadata": {"name": name, "namespace": experiment.namespace},
        "spec": {
            "changes": [it.model_dump(mode="json", by_alias=True, exclude_none=True) for it in changed],
            "startOrder": list(order),
            "rollout": {"stages": stages},
        },
    }


def _order(experiment: Experiment) -> tuple[str, ...]:
    return tuple(it.name for it in experiment.spec.stack.components)


def _kubectl(*words: str) -> str:
    return shlex.join(("kubectl", *words))


def _cotune(*words: str) -> str:
    return _kubectl("cotune", *words)


def _apply(body: "dict[str, Any]") -> str:
    text = yaml.safe_dump(body, sort_keys=False, default_flow_style=None, width=1000)
    return f"kubectl apply -f - <<'EOF'\n{text}EOF"
