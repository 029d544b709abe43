"""Profiles as rivals for a namespace."""

from datetime import datetime

from cotune.api.profile import ProfileSpec, ProfileStatus
from cotune.cluster.objects import Object
from cotune.handlers.from_git import awaits_commit
from cotune.handlers.statuses import status_of
from cotune.rollout.progress import Rival


def rival_of(body: Object) -> Rival:
    """A profile, as far as the order of rollouts in a namespace is concerned."""
    metadata = body["metadata"]
    status = ProfileStatus.model_validate(status_of(body))
    stalled = any(it.type == "Stalled" and it.status == "True" for it in status.conditions)
    return Rival(
        metadata["namespace"],
        metadata["name"],
        datetime.fromisoformat(metadata["creationTimestamp"]),
        ProfileSpec.model_validate(body["spec"]),
        status,
        is_stalled=stalled or awaits_commit(status) or "deletionTimestamp" in metadata,
    )
