"""What a person does to a rollout, as edits of `spec.rollout` that a commit could make just as well.

An edit that has been made already changes nothing: doing it twice is doing it once.
"""

from dataclasses import dataclass

from cotune.api.profile import Approval, ProfilePhase, ProfileSpec, ProfileStatus, Rollout
from cotune.rollout.progress import IN_PROGRESS, ON_THE_WAY_BACK, by_name, current_stage


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
    """Let no further stage begin."""
    return Edit(spec.rollout.model_copy(update={"paused": True}), "paused: no further stage begins")


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
    edited = spec.rollout.model_copy(update={"abort": False, "retries": retries})
    return Edit(edited, f"stage {failed} starts anew")
