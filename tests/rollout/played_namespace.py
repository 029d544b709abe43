"""A namespace without a cluster: Deployments, their controller and kubelets, in steps as small as the test likes.

And passes over it that are cut into their calls, for machines that let anything happen between any two of them.
"""

import os
import random
from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar

from cotune.rollout.convergence import Action, Scale, SetValues
from cotune.rollout.state import ObservedWorkload, Revision, WorkloadRevision
from cotune.trials.pod_failure import PodFailure
from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

SEED = int(os.environ.get("COTUNE_SEED") or random.randrange(2**32))
NOW = datetime(2026, 1, 1, tzinfo=UTC)


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


class PassesInAnyOrder(RuleBasedStateMachine):
    """One namespace, and an operator that makes a call at a time and may be ended before any."""

    seen: ClassVar[Counter[str]]
    """What was reached, in all runs together."""
    world: PlayedNamespace
    now: datetime
    pass_in_work: Generator[None] | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.seen = Counter()

    def one_pass(self) -> Generator[None]:
        """As the reconciler makes it; it stops after every call."""
        raise NotImplementedError

    def call_was_made(self) -> None:
        """After each of them."""

    def pass_is_over(self) -> None:
        """It has ended, or died: nothing is left of it but what it has done."""
        self.pass_in_work = None

    @rule(calls=st.integers(1, 12))
    def the_operator_makes_calls(self, calls: int) -> None:
        for _ in range(calls):
            self.seen["calls"] += 1
            if self.pass_in_work is None:
                self.pass_in_work = self.one_pass()
            try:
                next(self.pass_in_work)
            except (StopIteration, ConflictingError):
                self.pass_is_over()
            self.call_was_made()

    def dies_with_an_action_untold(self, calls: int) -> bool:
        """Whether it has, within so many calls: what it has done stands nowhere but in the world."""
        before = [it.version for it in self.world.workloads.values()]
        for _ in range(calls):
            self.the_operator_makes_calls(1)
            if self.pass_in_work is not None and before != [it.version for it in self.world.workloads.values()]:
                self.seen["died with an action untold"] += 1
                self.pass_is_over()
                return True
        return False


def run_in_any_order(machine: type[PassesInAnyOrder], examples: int, steps: int) -> Counter[str]:
    """Let a machine look for what must not be; what it has reached. COTUNE_SEED=N repeats a run."""
    print(f"COTUNE_SEED={SEED}")
    machine.seen.clear()
    run_state_machine_as_test(  # pyright: ignore[reportUnknownMemberType]
        seed(SEED)(machine), settings=settings(max_examples=examples, stateful_step_count=steps)
    )
    print("; ".join(f"{what}: {times}" for what, times in sorted(machine.seen.items())))
    return machine.seen
