"""A stage that was taken back starts anew: its attempt is taken off the record, and the next pass begins it."""

from datetime import datetime, timedelta

from cotune.api.conditions import looked_at, with_condition
from cotune.api.profile import ProfileStatus
from cotune.cluster.events import Events
from cotune.cluster.kinds import PROFILE
from cotune.cluster.objects import Object, Objects
from cotune.handlers.statuses import condition, write_status


async def start_anew(
    objects: Objects, events: Events, body: Object, old: ProfileStatus, new: ProfileStatus, now: datetime
) -> timedelta:
    """Write the status with which the next pass begins the stage."""
    generation = body["metadata"]["generation"]
    message = f"stage {old.stage} starts anew, retry {new.retries}"
    conditions = old.conditions
    for type_, holds in (("Progressing", True), ("Ready", False), ("Degraded", False), ("Stalled", False)):
        conditions = with_condition(conditions, condition(type_, holds, generation, now, "Retrying", message))
    update = {"conditions": looked_at(conditions, generation), "observed_generation": generation}
    if await write_status(objects, PROFILE, body, old, new.model_copy(update=update)):
        await events.tell(body, "Retrying", message, "Rollout", now)
    return timedelta()
