"""What others do to the workloads of a stage while it is in progress: told apart from what cotune has done itself."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from cotune.rollout.convergence import lacks_values
from cotune.rollout.state import ObservedWorkload, Revision


def edited(
    target: Revision, observed: Mapping[str, ObservedWorkload], markers: Mapping[str, str | None], written: str
) -> Sequence[str]:
    """Components whose variables somebody has changed after cotune had written them.

    The mark in the pod template goes with the variables in one write: where it is there and they are not, somebody else
    was there.

    Args:
        target: what the stage shall be.
        observed: what it is, by component.
        markers: component to the mark that its template carries.
        written: the mark of `target`. A template that carried it before the stage began tells nothing: leave it out
            of `markers`.
    """
    return [
        it.component
        for it in target.workloads
        if it.component in observed and markers.get(it.component) == written and lacks_values(it, observed)
    ]


def scaled_by_others(goal: Revision, observed: Mapping[str, ObservedWorkload]) -> Sequence[str]:
    """Components that run with other replicas than they shall have: cotune only ever sets these or zero."""
    return [
        it.component
        for it in goal.workloads
        if it.component in observed and observed[it.component].replicas not in {0, it.replicas}
    ]


def with_their_replicas(
    goal: Revision, observed: Mapping[str, ObservedWorkload], autoscaled: Collection[str]
) -> Revision:
    """The goal with the replicas that an autoscaler has set: it would set them again, whatever cotune says.

    One at zero is asleep for an autoscaler, too: it is started as the goal has it.
    """
    return Revision(
        tuple(
            replace(it, replicas=observed[it.component].replicas or it.replicas)
            if it.component in autoscaled and it.component in observed
            else it
            for it in goal.workloads
        )
    )
