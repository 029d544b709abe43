"""What a stage is and what it should be."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from cotune.api.grant import GrantTarget
from cotune.trials.pod_failure import PodFailure


@dataclass(frozen=True)
class WorkloadRevision:
    """One workload of the stack as it was, or as it shall be."""

    component: str
    values: Mapping[str, str | None]
    """The environment variables that cotune sets; None: cotune does not set it, the workload's own value holds."""
    replicas: int


@dataclass(frozen=True)
class Revision:
    """The whole stack of one namespace, in the order in which it starts: values and replicas go together."""

    workloads: tuple[WorkloadRevision, ...]

    def with_values(self, changes: Mapping[tuple[str, str], str]) -> "Revision":
        """This revision with `(component, variable) -> value` on top of it.

        Raises:
            KeyError: a component is not part of the stack.
        """
        unknown = {component for component, _ in changes} - {it.component for it in self.workloads}
        if unknown:
            raise KeyError(", ".join(sorted(unknown)))
        return Revision(
            tuple(
                WorkloadRevision(
                    it.component,
                    {**it.values, **{env: to for (component, env), to in changes.items() if component == it.component}},
                    it.replicas,
                )
                for it in self.workloads
            )
        )


@dataclass(frozen=True)
class StoredRevision:
    """A revision and how it is marked in the pod templates."""

    name: str
    number: int
    """It goes up from 0 with every revision that is stored in the namespace."""
    revision: Revision
    markers: Mapping[str, str | None]
    """Component to the mark that its template carried: a rollback restores it, so that the old ReplicaSet is found."""
    targets: Mapping[str, GrantTarget]
    """Component to the workload that was meant: the way back leads there, whatever grants have come to say."""
    was_found: bool
    """It is what a namespace had when all of it was ready; else what it was to have."""


@dataclass(frozen=True)
class ObservedWorkload:
    """One workload, read once."""

    values: Mapping[str, str | None]
    """The variables that cotune has set, as they stand in the pod template now."""
    replicas: int
    """`spec.replicas`."""
    pods: int
    """Pods that still exist, whatever their state: each of them may still hold memory on the card."""
    is_ready: bool
    """Every wanted replica is ready, and the workload's controller has seen the newest spec."""
    failure: PodFailure | None = None
    """The worst sign of a pod made from the template as it is now."""
    leaving: int = 0
    """Of the pods, those that are being deleted or were made from another template: they hold what a new one needs."""
    unready: str = ""
    """What the pods that are not ready do, by pod and container."""
    generation: int = 0
    """Of the Deployment: with each change of its spec it is another."""
    uid: str = field(default="", compare=False)
    """Of the Deployment: one that was made anew has another."""
    unbindable: str = ""
    """Why its variables cannot be written: its owner has changed the container since; `values` are empty then."""
    made_at: datetime | None = None
    """When the first of the pods that are neither leaving nor of another template was made, cut to the second."""
    ready_at: datetime | None = None
    """When the last of them became ready, cut to the second; None: one is not."""
