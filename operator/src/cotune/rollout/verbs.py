"""What a person does to a rollout, as edits of `spec.rollout` that a commit could make just as well.

An edit that has been made already changes nothing: doing it twice is doing it once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cotune.api.profile import (
    Approval,
    AskedOutcome,
    ProfilePhase,
    ProfileSpec,
    ProfileStatus,
    Rollout,
    Stage,
    StageStatus,
)
from cotune.rollout.progress import IN_PROGRESS, ON_THE_WAY_BACK, begun, by_name, current_stage
from cotune.rollout.stacks import spread, stacks_of_stage
from cotune.rollout.state import StoredRevision
from cotune.rollout.targets import Refusal
from cotune.rollout.to_revision import choose, of_stack


class NotNowError(ValueError):
    """The profile is not where this would mean something; the message says where it is."""


@dataclass(frozen=True)
class Edit:
    """What `spec.rollout` becomes."""

    rollout: Rollout
    said: str
    """What follows, for a person."""


def approve(spec: ProfileSpec, status: ProfileStatus, stage: str | None) -> Edit:
    """Let a stage begin; without a name, the next one.

    Raises:
        NotNowError: there is no such stage, or none is left.
    """
    if stage is None:
        current = current_stage(spec, status)
        if current is None:
            raise NotNowError(f"no stage is left to approve: the profile is {status.phase}")
        stage = current.name
    names = [it.name for it in spec.rollout.stages]
    if stage not in names:
        raise NotNowError(f"there is no stage {stage}: it has {', '.join(names)}")
    stages = tuple(
        it.model_copy(update={"approval": Approval.AUTO}) if it.name == stage else it for it in spec.rollout.stages
    )
    is_new = stages != spec.rollout.stages
    said = f"stage {stage} is approved" if is_new else f"stage {stage} needs no approval"
    return Edit(spec.rollout.model_copy(update={"stages": stages}), said)


def pause(spec: ProfileSpec) -> Edit:
    """Let no further stage begin, and no further batch."""
    said = "paused: no further stage begins, and no further batch"
    return Edit(spec.rollout.model_copy(update={"paused": True}), said)


def resume(spec: ProfileSpec) -> Edit:
    """Let stages begin again: neither paused nor aborted. A stage that was taken back stays so."""
    return Edit(spec.rollout.model_copy(update={"paused": False, "abort": False}), "stages may begin")


def abort(spec: ProfileSpec, status: ProfileStatus) -> Edit:
    """Take the stage in progress back, and let no further one begin.

    Raises:
        NotNowError: the profile's way is over.
    """
    stage = current_stage(spec, status)
    if stage is None:
        raise NotNowError(f"nothing is in progress: the profile is {status.phase}")
    state = by_name(status).get(stage.name)
    said = "aborted: no further stage begins"
    if state is not None and state.phase in ON_THE_WAY_BACK:
        said = f"stage {stage.name} is on its way back already"
    elif state is not None and state.phase in IN_PROGRESS:
        said = f"aborted: stage {stage.name} is taken back"
    return Edit(spec.rollout.model_copy(update={"abort": True}), said)


def retry(spec: ProfileSpec, status: ProfileStatus) -> Edit:
    """Start the stage that was taken back anew.

    Raises:
        NotNowError: none was.
    """
    failed = next((it.name for it in status.stages if it.phase is ProfilePhase.ROLLED_BACK), None)
    if failed is None:
        raise NotNowError(f"no stage was taken back: the profile is {status.phase}")
    retries = max(spec.rollout.retries, status.retries + 1)
    stages = _with_revision(spec.rollout, failed, None)
    edited = spec.rollout.model_copy(update={"abort": False, "retries": retries, "stages": stages})
    return Edit(edited, f"stage {failed} starts anew")


def begun_stage(spec: ProfileSpec, status: ProfileStatus, name: str | None) -> tuple[Stage, StageStatus]:
    """The stage of this name, or the only one, that has begun.

    Raises:
        NotNowError: there is none, or without a name there are several.
    """
    names = [it.name for it in spec.rollout.stages]
    if name is not None and name not in names:
        raise NotNowError(f"there is no stage {name}: it has {', '.join(names)}")
    found = [(stage, state) for stage, state in begun(spec, status) if name in {None, stage.name}]
    if not found:
        who = "no stage has" if name is None else f"stage {name} has not"
        raise NotNowError(f"{who} begun: there is nothing to take back")
    if len(found) > 1:
        raise NotNowError(f"several stages have begun: say --stage, {' or '.join(stage.name for stage, _ in found)}")
    return found[0]


def find_revision(
    spec: ProfileSpec, stage: Stage, state: StageStatus, stored: Sequence[StoredRevision], wanted: str
) -> StoredRevision:
    """The revision of the stage's namespace that a person means by its name or its number.

    Raises:
        NotNowError: there is none to which the stage may go; the message lists those that there are.
    """
    components = spread(spec, stacks_of_stage(state)).start_order
    names = [it.name for it in of_stack(stored, components) if wanted in {it.name, str(it.number)}]
    if len(names) > 1:
        raise NotNowError(f"several revisions have the number {wanted}: name one, {' or '.join(names)}")
    found = choose(names[0] if names else wanted, stored, components, state, stage.namespace)
    if isinstance(found, Refusal):
        raise NotNowError(f"{found.reason}: {found.message}")
    return found


def to_revision(spec: ProfileSpec, stage: Stage, state: StageStatus, chosen: StoredRevision, is_present: bool) -> Edit:
    """Take a stage to a stored revision of its namespace.

    Raises:
        NotNowError: it was taken there before, and somebody else has changed the namespace since.
    """
    name, named = chosen.name, f"revision {chosen.name} ({chosen.number})"
    is_in_progress = state.phase in IN_PROGRESS
    if is_present and not is_in_progress:
        return Edit(spec.rollout, f"namespace {stage.namespace} has {named} already")
    edited = spec.rollout.model_copy(update={"stages": _with_revision(spec.rollout, stage.name, name)})
    asked = state.asked
    if asked is not None and (asked.revision, stage.to_revision) == (name, name):
        if not is_in_progress and asked.outcome in {AskedOutcome.TAKEN, AskedOutcome.ALREADY_THERE}:
            raise NotNowError(
                f"stage {stage.name} went to {named} at {asked.at:%Y-%m-%dT%H:%M:%SZ}, and somebody else has changed "
                "the namespace since: roll back the profile that did so, or take toRevision away first"
            )
        return Edit(edited, f"stage {stage.name}: {asked.message}")
    if state.phase in {ProfilePhase.PROGRESSING, ProfilePhase.BAKING}:
        return Edit(edited, f"stage {stage.name} is taken back, and then to {named}")
    if state.phase is ProfilePhase.ROLLING_BACK:
        return Edit(edited, f"stage {stage.name} is taken to {named} when it is back")
    return Edit(edited, f"stage {stage.name} is taken to {named}")


def _with_revision(rollout: Rollout, stage: str, revision: str | None) -> tuple[Stage, ...]:
    return tuple(it.model_copy(update={"to_revision": revision}) if it.name == stage else it for it in rollout.stages)
