"""Whether a stage's workloads are fit for a change: checked before anything is touched."""

from collections.abc import Mapping, Sequence

from cotune.rollout.convergence import unbindable
from cotune.rollout.progress import Waiting
from cotune.rollout.state import ObservedWorkload


def unfit(
    start_order: Sequence[str],
    namespace: str,
    workloads: Mapping[str, str],
    observed: Mapping[str, ObservedWorkload],
    autoscalers: Mapping[str, str],
    needs_health: bool = True,
) -> Waiting | None:
    """Why a stage must not begin; None when it may.

    Args:
        start_order: the components of the stack.
        namespace: the stage's.
        workloads: component to the name of its Deployment.
        observed: component to what was seen of it; those that do not exist are absent.
        autoscalers: component to the HorizontalPodAutoscaler that scales it.
        needs_health: whether the workloads must run and be ready.
    """
    if missing := [workloads[it] for it in start_order if it not in observed]:
        message = f"namespace {namespace} has no Deployment {', '.join(missing)}"
        return Waiting("WorkloadNotFound", message, is_stalled=True)
    if why := unbindable(observed):
        return Waiting("NotBindable", why, is_stalled=True)
    if needs_health and (asleep := [it for it in start_order if observed[it].replicas == 0]):
        # Nothing would start, so nothing would be shown; and the way back would lead to nothing.
        return Waiting(
            "WorkloadAtZero", f"namespace {namespace} has {', '.join(asleep)} at 0 replicas", is_stalled=True
        )
    if scaled := [f"{it} by {autoscalers[it]}" for it in start_order if it in autoscalers]:
        # The two would undo each other's replicas all through the stage.
        message = f"namespace {namespace}: a HorizontalPodAutoscaler scales {', '.join(scaled)}"
        return Waiting("WorkloadAutoscaled", message, is_stalled=True)
    if needs_health and (unready := [it for it in start_order if not observed[it].is_ready]):
        # A stack that was not well before the change would be taken back for what the change has not done.
        return Waiting(
            "StageNotReady", f"before the change, {', '.join(unready)} in namespace {namespace} must be ready"
        )
    return None
