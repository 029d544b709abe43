"""A namespace without a cluster: Deployments, their controller and kubelets, in steps as small as the test likes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cotune.rollout.convergence import Action, Scale, SetValues
from cotune.rollout.state import ObservedWorkload, Revision, WorkloadRevision
from cotune.trials.pod_failure import PodFailure


class ConflictingError(Exception):
    """The workload is not the one that was read."""


@dataclass
class Pod:
    """One pod, made from the template as it was then."""

    values: Mapping[str, str | None]
    is_ready: bool = False
    failure: PodFailure | None = None
    is_ending: bool = False
    """Deleted, and its processes still run: it may hold memory on the card."""


@dataclass
class PlayedWorkload:
    """A Deployment with the strategy Recreate, its controller, and its pods."""

    values: dict[str, str | None]
    replicas: int
    pods: list[Pod] = field(default_factory=list[Pod])
    version: int = 0
    """Goes up with every change of the spec and of what the controller says of it."""
    is_seen: bool = True
    """By its controller, as it is now."""
    exists: bool = True
    generation: int = 1
    """Goes up with every change of the spec."""
    unbindable: str = ""

    def change(self) -> None:
        self.version += 1
        self.generation += 1
        self.is_seen = False

    def controller(self) -> None:
        """One step of the Deployment's controller: old pods end before new ones begin."""
        if not self.exists:
            return
        if not self.is_seen:
            self.version += 1
        self.is_seen = True
        outdated = [it for it in self.pods if it.values != self.values]
        living = [it for it in self.pods if it.values == self.values and not it.is_ending]
        for pod in [*outdated, *living[self.replicas :]]:
            pod.is_ending = True
        if not any(it.values != self.values for it in self.pods):
            self.pods += [Pod(dict(self.values)) for _ in range(self.replicas - len(living))]

    def observe(self) -> ObservedWorkload | None:
        if not self.exists:
            return None
        living = [it for it in self.pods if not it.is_ending]
        return ObservedWorkload(
            values=dict(self.values) if not self.unbindable else {},
            replicas=self.replicas,
            pods=len(self.pods),
            is_ready=self.is_seen and len(self.pods) == self.replicas and all(it.is_ready for it in living),
            failure=next((it.failure for it in living if it.failure and it.values == self.values), None),
            generation=self.generation,
            unbindable=self.unbindable,
        )


@dataclass
class PlayedNamespace:
    """The workloads of one stage."""

    workloads: dict[str, PlayedWorkload]

    @classmethod
    def of(cls, revision: Revision) -> "PlayedNamespace":
        """As it is when a stage begins: everything ready."""
        made = {it.component: PlayedWorkload(dict(it.values), it.replicas) for it in revision.workloads}
        for workload in made.values():
            workload.controller()
            for pod in workload.pods:
                pod.is_ready = True
        return cls(made)

    def act(self, action: Action, version: int) -> None:
        """What the API server does with it.

        Raises:
            ConflictingError: the workload was changed, or deleted, since it was read as `version`.
        """
        workload = self.workloads[action.component]
        if workload.version != version or not workload.exists:
            raise ConflictingError(action.component)
        match action:
            case Scale(_, replicas):
                workload.replicas = replicas
            case SetValues(_, values):
                workload.values.update(values)
        workload.change()

    @property
    def pods(self) -> list[Pod]:
        return [pod for it in self.workloads.values() for pod in it.pods]

    def revision(self) -> Revision:
        return Revision(tuple(WorkloadRevision(n, dict(it.values), it.replicas) for n, it in self.workloads.items()))
