"""Which stacks of a stage go together, as the cluster is now."""

from collections.abc import Sequence

from cotune.api.batches import BatchesBy
from cotune.api.profile import Stage
from cotune.cluster.objects import Objects
from cotune.cluster.workloads import Workloads
from cotune.rollout.batches import plan
from cotune.rollout.targets import Targets


async def planned(objects: Objects, stage: Stage, targets: Targets) -> Sequence[Sequence[str]]:
    """The batches of a stage as it would begin now; none: its namespace has one stack, which is not divided."""
    if not targets.stacks:
        return ()
    if stage.batches_by is BatchesBy.STACK:
        return plan(stage.batches, targets.stacks)
    nodes = await Workloads(objects, stage.namespace).nodes(targets.by_component)
    return plan(stage.batches, targets.stacks, nodes)
