"""Production that is stopped for trials, under whatever may happen, in whatever order: it comes back.

A pass is as small as its calls: each workload is read, each action sent, the record and the status written one at a
time, and between any two of them kubelets, trials, owners, the clock and death may have their turn. COTUNE_SEED=N
repeats a run.
"""

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from cotune.api.quiesce import QuiescedWorkload, QuiescePhase, QuiesceStatus
from cotune.api.trial import TrialPhase
from cotune.handlers.quiesces import keeps_waiting
from cotune.rollout.convergence import Scale
from cotune.rollout.quiesce import IN_PROGRESS, ON_THE_WAY_BACK, Ending, QuiesceStep, decide, is_asked_for, is_untouched
from cotune.rollout.state import ObservedWorkload, Revision, WorkloadRevision
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from rollout.played_namespace import NOW, ConflictingError, PassesInAnyOrder, PlayedNamespace, Pod, run_in_any_order

GOOD = Revision(
    (WorkloadRevision("embeddings", {}, 1), WorkloadRevision("judge", {}, 1), WorkloadRevision("stt", {}, 2))
)
COMPONENTS = [it.component for it in GOOD.workloads]
MAXIMUM, DEADLINE, TRIAL = timedelta(seconds=300), timedelta(seconds=60), timedelta(seconds=40)
ENDED = {QuiescePhase.WAITING, QuiescePhase.RESTORED}
ALLOWED = {
    (QuiescePhase.STOPPING, QuiescePhase.QUIESCED),
    (QuiescePhase.STOPPING, QuiescePhase.RESTORING),
    (QuiescePhase.STOPPING, QuiescePhase.WAITING),
    (QuiescePhase.QUIESCED, QuiescePhase.RESTORING),
    (QuiescePhase.RESTORING, QuiescePhase.RESTORED),
    (QuiescePhase.RESTORING, QuiescePhase.DEGRADED),
    (QuiescePhase.DEGRADED, QuiescePhase.RESTORED),
}
"""Down once, back once: nothing leads from the way back to anything but its end."""

component = st.sampled_from(COMPONENTS)


@dataclass
class Stretch:
    """What has happened since production was begun to be stopped."""

    stopped: Counter[str] = field(default_factory=Counter[str])
    """How often cotune has stopped each workload."""
    foreign: set[str] = field(default_factory=set[str])
    """Workloads that somebody else has scaled."""
    is_hindered: bool = False
    """By a card that is lost, an operator that was away, or others: times do not hold."""


class AnyOrder(PassesInAnyOrder):
    """One namespace, and one experiment that wants its card."""

    breaks_everything = False
    """No pod of production becomes ready any more."""

    @initialize()
    def begin(self) -> None:
        self.world = PlayedNamespace.of(GOOD)
        self.now = NOW
        self.has_record = False
        self.holds_experiment = True
        self.ending: Ending | None = None
        self.is_deleted = False
        self.is_turn_taken = False
        self.trial: list[Pod] = []
        self._stop_it()

    def _stop_it(self) -> None:
        self.stretch = Stretch()
        self.holds_experiment = True
        self.status = QuiesceStatus(
            phase=QuiescePhase.STOPPING,
            namespace="prod",
            workloads=tuple(
                QuiescedWorkload(
                    component=name, deployment=name, container=name, replicas=it.replicas, generation=it.generation
                )
                for name, it in self.world.workloads.items()
            ),
            since=self.now,
            until=self.now + MAXIMUM,
            restore_at=self.now + MAXIMUM - DEADLINE,
            phase_started_at=self.now,
            trial_seconds=int(TRIAL.total_seconds()),
        )

    # The operator.

    @rule(rounds=st.integers(1, 60), calls=st.integers(4, 12))
    def nobody_disturbs_them(self, rounds: int, calls: int) -> None:
        for _ in range(rounds):
            self.the_operator_makes_calls(calls)
            self.the_trial_has_its_pass()
            self.kubelets_get_on()
            self.now += timedelta(seconds=1)

    @precondition(lambda self: self.pass_in_work is not None)
    @rule(seconds=st.sampled_from([0, 1, 30]))
    def the_operator_dies(self, seconds: int) -> None:
        self.seen["died in a pass"] += 1
        self.pass_is_over()
        if seconds:
            self.time_passes(seconds)

    @rule()
    def the_operator_dies_with_an_action_that_it_has_not_told(self) -> None:
        self.dies_with_an_action_untold(calls=12)

    def pass_is_over(self) -> None:
        super().pass_is_over()
        self.is_turn_taken = False

    def one_pass(self) -> Generator[None]:
        """As the experiment's reconciler makes it; it stops after every call."""
        status = self.status
        yield
        if status.phase not in IN_PROGRESS:
            self.has_record = False
            yield
            self.holds_experiment = False
            return
        is_forward = status.phase not in ON_THE_WAY_BACK
        self.is_turn_taken = is_forward
        observed: dict[str, ObservedWorkload] = {}
        versions: dict[str, int] = {}
        for name in COMPONENTS:
            workload = self.world.workloads[name]
            versions[name] = workload.version
            if (found := workload.observe()) is not None:
                observed[name] = found
            yield
        ending = self.ending if is_forward else None
        if status.phase is QuiescePhase.STOPPING and is_untouched(status.workloads, observed):
            if ending is not None or status.restore_at is None or self.now >= status.restore_at:
                self._write(status, QuiesceStep(QuiescePhase.WAITING, "", ""))
                return
            self.has_record = True
            yield
        elif is_forward and not self.has_record:
            if status.phase is QuiescePhase.STOPPING and is_asked_for(status, observed):
                self._write(status, QuiesceStep(QuiescePhase.WAITING, "", ""))
                return
            ending = ending or Ending("RecordGone", "")
        for pod in self.trial if not is_forward else ():
            pod.is_ending = True
        step = decide(status, observed, len(self.trial), ending, DEADLINE, self.now)
        for action in step.actions:
            self._judge(status, action)
            self.world.act(action, versions[action.component])
            if action.replicas == 0:
                self.stretch.stopped[action.component] += 1
            yield
        self._write(status, step)

    def _judge(self, status: QuiesceStatus, action: Scale) -> None:
        assert self.has_record or status.phase in ON_THE_WAY_BACK, "stopped without a record of what was there"
        if action.replicas == 0:
            assert status.phase is QuiescePhase.STOPPING
            return
        wanted = next(it for it in GOOD.workloads if it.component == action.component)
        assert action.replicas == wanted.replicas
        assert status.phase in ON_THE_WAY_BACK
        elapsed = self.now - (status.phase_started_at or self.now)
        if self.trial and status.phase is QuiescePhase.RESTORING:
            assert elapsed >= DEADLINE / 2, "production was started beside a trial"

    def _write(self, status: QuiesceStatus, step: QuiesceStep) -> None:
        if step.phase is not status.phase:
            assert (status.phase, step.phase) in ALLOWED
            self.seen[f"{status.phase} -> {step.phase}"] += 1
        if step.phase is QuiescePhase.WAITING:
            assert not self.stretch.stopped, "what was stopped is left alone"
        is_entered = step.phase is not status.phase and status.phase not in ON_THE_WAY_BACK
        started = self.now if is_entered else status.phase_started_at
        self.status = status.model_copy(update={"phase": step.phase, "phase_started_at": started})
        if step.phase is QuiescePhase.RESTORED:
            self._judge_end()

    def _judge_end(self) -> None:
        if self.stretch.is_hindered:
            return
        self.seen["back in time"] += 1
        assert self.status.until is not None
        assert self.now <= self.status.until, "production was down for longer than it may be"

    # The trial, whose passes take turns with the operator's that stop production.

    @rule()
    def the_trial_has_its_pass(self) -> None:
        if self.is_turn_taken:
            return
        body: dict[str, Any] = {"metadata": {"deletionTimestamp": ""} if self.is_deleted else {}}
        body["status"] = {"quiesce": self.status.model_dump(mode="json", by_alias=True)}
        phase = TrialPhase.MEASURING if self.trial else TrialPhase.PENDING
        if keeps_waiting(body, phase, self.now) is not None:
            for pod in self.trial:
                self.seen["a trial was ended for production"] += not pod.is_ending
                pod.is_ending = True
        elif not self.trial:
            self.seen["a trial began"] += 1
            beside = [name for name, it in self.world.workloads.items() if it.pods and name not in self.stretch.foreign]
            assert not beside, f"a trial runs beside {beside}"
            self.trial.append(Pod({}))

    @precondition(lambda self: self.trial)
    @rule()
    def the_trial_ends(self) -> None:
        self.trial.clear()

    # Kubernetes.

    @rule(name=component)
    def a_controller_looks(self, name: str) -> None:
        self.world.workloads[name].controller()

    @rule()
    def kubelets_get_on(self) -> None:
        self.trial = [it for it in self.trial if not it.is_ending]
        for workload in self.world.workloads.values():
            workload.pods = [it for it in workload.pods if not it.is_ending]
            for pod in workload.pods:
                pod.is_ready = not self.breaks_everything
            workload.controller()

    @rule(seconds=st.sampled_from([5, 30, 61, 3600]))
    def time_passes(self, seconds: int) -> None:
        """And no operator is there."""
        self.stretch.is_hindered = True
        self.now += timedelta(seconds=seconds)

    @rule(is_so=st.sampled_from([True, False, False]))
    def the_card_is_lost_or_mended(self, is_so: bool) -> None:
        self.breaks_everything = is_so
        self.stretch.is_hindered = True

    # People.

    @rule(name=component, replicas=st.integers(0, 3))
    def somebody_scales(self, name: str, replicas: int) -> None:
        self._disturb(name)
        workload = self.world.workloads[name]
        workload.replicas = replicas
        workload.change()

    @rule(name=component)
    def somebody_deletes_a_workload(self, name: str) -> None:
        self._disturb(name)
        workload = self.world.workloads[name]
        workload.exists = False
        workload.change()
        for pod in workload.pods:
            pod.is_ending = True

    @rule(name=component)
    def somebody_makes_it_again(self, name: str) -> None:
        workload = self.world.workloads[name]
        if workload.exists:
            return
        self._disturb(name)
        [wanted] = [it for it in GOOD.workloads if it.component == name]
        workload.exists, workload.replicas = True, wanted.replicas
        workload.change()

    def _disturb(self, name: str) -> None:
        self.stretch.foreign.add(name)
        self.stretch.is_hindered = True

    @rule(is_meant=st.sampled_from([True, False, False]))
    def somebody_deletes_the_record(self, is_meant: bool) -> None:
        if is_meant and self.status.phase is QuiescePhase.QUIESCED:
            self.seen["the record was deleted"] += 1
            self.has_record = False

    @rule(is_meant=st.sampled_from([True, False, False]))
    def the_grant_is_withdrawn_or_the_experiment_ends(self, is_meant: bool) -> None:
        if is_meant:
            self.ending = Ending("NoGrant", "")

    @rule(is_meant=st.sampled_from([True, False, False, False]))
    def the_experiment_is_deleted(self, is_meant: bool) -> None:
        if is_meant:
            self.is_deleted, self.ending = True, Ending("ExperimentDeleted", "")

    @precondition(lambda self: self.status.phase in ENDED and not self.holds_experiment and not self.is_deleted)
    @rule()
    def another_window_opens(self) -> None:
        """What begins only begins with a stack that is whole."""
        self.breaks_everything = False
        for _ in range(5):
            for wanted in GOOD.workloads:
                workload = self.world.workloads[wanted.component]
                if not workload.exists or workload.replicas != wanted.replicas:
                    workload.exists, workload.replicas = True, wanted.replicas
                    workload.change()
            self.kubelets_get_on()
        self.pass_is_over()
        self.ending = None
        self.now += timedelta(days=1)
        self.trial.clear()
        self._stop_it()
        self.seen["another window"] += 1

    # What must hold.

    @invariant()
    def nothing_is_stopped_twice(self) -> None:
        if hasattr(self, "stretch"):
            assert all(times <= 1 for times in self.stretch.stopped.values()), self.stretch.stopped

    @invariant()
    def nothing_is_stopped_that_nobody_will_start(self) -> None:
        """As long as anything of production is stopped, the experiment stays."""
        if hasattr(self, "world") and not self.holds_experiment:
            asleep = [name for name, it in self.world.workloads.items() if it.exists and not it.replicas]
            assert not set(asleep) - self.stretch.foreign, asleep

    def teardown(self) -> None:
        """People leave it alone, and Kubernetes does its part: production is back."""
        if not hasattr(self, "world"):
            return
        self.pass_is_over()
        touched = set(self.stretch.foreign)
        is_open = self.status.phase in {QuiescePhase.STOPPING, QuiescePhase.QUIESCED}
        patience = MAXIMUM + DEADLINE if is_open else DEADLINE
        self._left_alone(patience)
        if self.breaks_everything and self.holds_experiment:
            assert self.status.phase is QuiescePhase.DEGRADED, self.status
            self.seen["ends Degraded, as long as the card is lost"] += 1
            self.breaks_everything = False
            self._left_alone(DEADLINE)
        assert self.status.phase in ENDED, self.status
        assert not self.has_record
        assert not self.holds_experiment
        self.seen[f"ends {self.status.phase}"] += 1
        self.kubelets_get_on()  # What befell pods that cotune never touched is mended by their kubelets alone.
        for wanted in GOOD.workloads:
            workload = self.world.workloads[wanted.component]
            if wanted.component not in touched:
                assert workload.replicas == wanted.replicas
                assert self.breaks_everything or all(it.is_ready for it in workload.pods)

    def _left_alone(self, patience: timedelta) -> None:
        deadline = self.now + patience + timedelta(seconds=60)
        while self.now < deadline and self.holds_experiment:
            try:
                for _ in self.one_pass():
                    pass
            except ConflictingError:
                pass
            self.pass_is_over()
            self.the_trial_has_its_pass()
            self.kubelets_get_on()
            self.now += timedelta(seconds=1)


@pytest.mark.timeout(300)
def test_production_comes_back_in_whatever_order_things_happen() -> None:
    seen = run_in_any_order(AnyOrder, examples=150, steps=60)

    assert seen["calls"] > 5_000
    for what in ("died in a pass", "died with an action untold", "a trial began"):
        assert seen[what] > 20, what
    for what in ("a trial was ended for production", "back in time", "another window", "the record was deleted"):
        assert seen[what] > 2, what
    assert not {f"{before} -> {after}" for before, after in ALLOWED} - seen.keys()
