"""Signs of failure that may be accidents: each component has one chance of each kind, and it stands in the status."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cotune.api.profile import Chance, Mend
from cotune.rollout.state import ObservedWorkload
from cotune.trials.pod_failure import PodFailure

PULL_AGAIN = timedelta(seconds=30)
"""Within which a kubelet has tried again: it backs off for 10 s, and looks at a pod in trouble every 10 to 15 s."""
ROOM_MADE = timedelta(seconds=15)
"""Within which a controller has tried again to make a pod after others have left."""

_NO_NODE = "Unschedulable"
"""What a node that is still to come may mend, where a cluster's autoscaler adds them; it raises no quota."""


@dataclass(frozen=True)
class Weighed:
    """A stage's workloads whose signs of failure have been weighed."""

    observed: Mapping[str, ObservedWorkload]
    """With only the failures that are decisive now; the others are said in `unready`."""
    chances: tuple[Chance, ...]
    """To be recorded in the stage's status."""


def weigh(
    observed: Mapping[str, ObservedWorkload], chances: Sequence[Chance], now: datetime, node_within: timedelta
) -> Weighed:
    """Tell the failures that are decisive from those that are still waited for.

    - `Restart`: the next run of the container decides, or a pod that was made after the chance was given.
    - `Pull`: decisive when the kubelet must have tried again in vain.
    - `Room`: says nothing as long as pods of the stage are leaving; decisive when a node should have been found since.

    A chance that was used stays on record; that of `Room` is none, and is forgotten once the pod has its node.

    Args:
        observed: the stage's workloads, by component.
        chances: those on record.
        now: the time.
        node_within: how long a pod may find no node.
    """
    given = {(it.component, it.mend): it for it in chances}
    are_leaving = any(it.leaving for it in observed.values())
    weighed: dict[str, ObservedWorkload] = {}
    for component, workload in observed.items():
        failure = workload.failure
        if failure is None or failure.mend is not Mend.ROOM:
            given.pop((component, Mend.ROOM), None)
        if failure is None or failure.mend is None:
            weighed[component] = workload
            continue
        chance = given.get((component, failure.mend))
        if chance is None or (failure.mend is Mend.ROOM and are_leaving):
            chance = Chance(component=component, mend=failure.mend, reason=failure.reason, since=now)
        given[component, failure.mend] = chance
        said = f"{failure.reason}: {failure.message}"
        if (why := _is_used(chance, failure, now, node_within)) is not None:
            decisive = replace(failure, message=f"{failure.message} ({why})", mend=None)
            weighed[component] = replace(workload, failure=decisive)
        else:
            weighed[component] = replace(workload, failure=None, unready=f"{said} ({_awaited(failure.mend)})")
    return Weighed(weighed, tuple(given[it] for it in sorted(given)))


def _is_used(chance: Chance, failure: PodFailure, now: datetime, node_within: timedelta) -> str | None:
    """Why a sign is not waited for any longer; None: it is."""
    waited = now - chance.since
    match chance.mend:
        case Mend.RESTART:
            again = failure.pod_since is not None and failure.pod_since > chance.since
            return f"after {chance.reason} was given its one chance at {_time(chance.since)}" if again else None
        case Mend.PULL:
            return f"for {waited.total_seconds():.0f} s, through another attempt" if waited > PULL_AGAIN else None
        case Mend.ROOM:
            if waited <= (node_within if failure.reason == _NO_NODE else ROOM_MADE):
                return None
            return f"for {waited.total_seconds():.0f} s with no pod of the stage leaving"


def _awaited(mend: Mend) -> str:
    match mend:
        case Mend.RESTART:
            return "the container's next run decides"
        case Mend.PULL:
            return "the next attempt to pull decides"
        case Mend.ROOM:
            return "others may be about to make room"


def _time(moment: datetime) -> str:
    return f"{moment:%H:%M:%S}"
