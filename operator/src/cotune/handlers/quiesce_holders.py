"""Which experiment keeps the production of a namespace stopped."""

from cotune.api.experiment import ExperimentStatus
from cotune.cluster.kinds import EXPERIMENT
from cotune.cluster.objects import Object, Objects
from cotune.cluster.quiesces import Holder, QuiesceRecords
from cotune.handlers.statuses import status_of
from cotune.rollout.quiesce import IN_PROGRESS

FINALIZER = "cotune.dev/quiesce"


def is_in_progress(body: Object, status: ExperimentStatus) -> bool:
    """Whether production is, or may be, kept stopped for an experiment."""
    is_so = status.quiesce is not None and status.quiesce.phase in IN_PROGRESS
    return is_so or FINALIZER in body["metadata"].get("finalizers", ())


async def is_left_behind(objects: Objects, holder: Holder) -> bool:
    """Whether nobody works at what a record of a namespace says: its experiment is gone, or done with it."""
    if holder.since is None:
        return False  # Somebody's object of our name.
    namespace, _, name = holder.experiment.partition("/")
    found = await objects.find(EXPERIMENT, namespace, name)
    if found is None or found["metadata"]["uid"] != holder.uid:
        return True
    return not is_in_progress(found, ExperimentStatus.model_validate(status_of(found)))


async def holding(objects: Objects, namespace: str) -> Holder | None:
    """The experiment that keeps production there stopped; one that has left its record behind does not."""
    holder = await QuiesceRecords(objects, namespace).holder()
    return None if holder is None or await is_left_behind(objects, holder) else holder
