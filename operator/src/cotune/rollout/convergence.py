"""One step from what a stage is towards what it should be, on a card without room to surge.

The whole stack stops in reverse start order, the values are written when no pod is left, and it starts in order, each
workload ready before the next: vLLM measures free memory when it starts. The function keeps no memory: called again
after any interruption, it goes on where the cluster stands.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cotune.rollout.state import ObservedWorkload, Revision, WorkloadRevision
from cotune.trials.pod_failure import PodFailure


@dataclass(frozen=True)
class Scale:
    """Set a workload's replicas."""

    component: str
    replicas: int


@dataclass(frozen=True)
class SetValues:
    """Write a stopped workload's variables; None: take cotune's value away."""

    component: str
    values: Mapping[str, str | None]


Action = Scale | SetValues


@dataclass(frozen=True)
class Convergence:
    """What to do now, and what is being waited for."""

    actions: tuple[Action, ...] = ()
    waiting_for: str = ""
    failure: tuple[str, PodFailure] | None = None
    """The component that cannot start, and why."""

    @property
    def is_complete(self) -> bool:
        """Whether the stage is what it should be, every workload ready."""
        return not self.actions and not self.waiting_for and self.failure is None


def converge(
    target: Revision, observed: Mapping[str, ObservedWorkload], in_order: bool = True, is_way_back: bool = False
) -> Convergence:
    """The next step towards `target`.

    A workload that is gone is waited for: it is somebody's deletion, not cotune's to undo. On the way back the others
    are brought back all the same: nobody knows whether it will ever be there again. One whose variables cannot
    be written is started as its owner has it now, and waited for: cotune's value is in it no more.

    Args:
        target: what the stage shall be.
        observed: what it is, by component.
        in_order: start each workload when those before it are ready; else all at once, so that one that never becomes
            ready does not keep the others from serving.
        is_way_back: to what was there before.
    """
    missing = [it.component for it in target.workloads if it.component not in observed]
    gone = Convergence(waiting_for=f"workload of {', '.join(missing)}")
    if missing and not is_way_back:
        return gone
    target = Revision(tuple(it for it in target.workloads if it.component in observed))
    if lack_values(target, observed):
        return _stop_and_write(target, observed)
    started = _start(target, observed) if in_order else _start_all(target, observed)
    if started.is_complete and (why := unbindable(observed)):
        return Convergence(waiting_for=f"what can be bound: {why}")
    return gone if started.is_complete and missing else started


def unbindable(observed: Mapping[str, ObservedWorkload]) -> str:
    """Why variables of some workloads cannot be written; empty when all can."""
    return "; ".join(it.unbindable for it in observed.values() if it.unbindable)


def stop(target: Revision, observed: Mapping[str, ObservedWorkload]) -> Convergence:
    """The next step towards a stack of which no pod is left, in the reverse order of its start."""
    for workload in reversed(target.workloads):
        now = observed[workload.component]
        if now.replicas > 0:
            return Convergence((Scale(workload.component, 0),), f"{workload.component} to stop")
        if now.pods > 0:
            return Convergence(waiting_for=f"{workload.component} to stop")
    return Convergence()


def _stop_and_write(target: Revision, observed: Mapping[str, ObservedWorkload]) -> Convergence:
    stopping = stop(target, observed)
    if not stopping.is_complete:
        return stopping
    return Convergence(
        tuple(SetValues(it.component, it.values) for it in target.workloads if lacks_values(it, observed)),
        "the values to be written",
    )


def _start(target: Revision, observed: Mapping[str, ObservedWorkload]) -> Convergence:
    for workload in target.workloads:
        now = observed[workload.component]
        if now.replicas != workload.replicas:
            return Convergence((Scale(workload.component, workload.replicas),), f"{workload.component} to start")
        if now.failure is not None:
            return Convergence(failure=(workload.component, now.failure))
        if workload.replicas > 0 and not now.is_ready:
            doing = f" ({now.unready})" if now.unready else ""
            return Convergence(waiting_for=f"{workload.component} to be ready{doing}")
    return Convergence()


def _start_all(target: Revision, observed: Mapping[str, ObservedWorkload]) -> Convergence:
    behind = [it for it in target.workloads if observed[it.component].replicas != it.replicas]
    unready = [it.component for it in target.workloads if it.replicas > 0 and not observed[it.component].is_ready]
    actions = tuple(Scale(it.component, it.replicas) for it in behind)
    return Convergence(actions, f"{', '.join(unready)} to be ready" if unready else "")


def lack_values(target: Revision, observed: Mapping[str, ObservedWorkload]) -> bool:
    """Whether values are still to be written to some workload; those that are gone have none."""
    return any(it.component in observed and lacks_values(it, observed) for it in target.workloads)


def lacks_values(wanted: WorkloadRevision, observed: Mapping[str, ObservedWorkload]) -> bool:
    """Whether a workload has other values than it shall have, and can be given them."""
    now = observed[wanted.component]
    return not now.unbindable and any(now.values.get(name) != value for name, value in wanted.values.items())
