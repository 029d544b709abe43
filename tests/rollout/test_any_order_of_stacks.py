"""A stage of several stacks under whatever may happen, in whatever order; as test_any_order.py, batch by batch.

A pass is as small as its calls, and between any two of them kubelets, owners, the clock and death may have their turn.
COTUNE_SEED=N repeats a run.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest
from cotune.api.batches import StageBatch
from cotune.api.downtime import StageDowntime
from cotune.api.profile import ProfilePhase, Stage
from cotune.rollout.batches import Course, decide_in_batches, first_batch, next_batch, part, with_begun
from cotune.rollout.convergence import Action, Scale, SetValues
from cotune.rollout.downtime import follow
from cotune.rollout.progress import IN_PROGRESS, ON_THE_WAY_BACK
from cotune.rollout.stacks import key_of, of_stacks, stack_of
from cotune.rollout.stage import StageStep
from cotune.rollout.state import ObservedWorkload, Revision, WorkloadRevision
from cotune.trials.pod_failure import PodFailure
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from rollout.played_namespace import NOW, ConflictingError, PassesInAnyOrder, PlayedNamespace, run_in_any_order

STAGE = Stage(
    name="production",
    namespace="voice-prod",
    readiness_deadline_seconds=60,
    bake_seconds=5,
    guard_seconds=600,
    unready_tolerance_seconds=10,
)
PLAN = (("a",), ("b", "c"), ("d",))
STACKS = [stack for batch in PLAN for stack in batch]
GOOD = Revision(
    tuple(
        workload
        for stack in STACKS
        for workload in (
            WorkloadRevision(key_of(stack, "judge"), {"JUDGE_MEMORY": None}, 1),
            WorkloadRevision(key_of(stack, "stt"), {"ASR_WHISPER_SIZE": "small"}, 1),
        )
    )
)
TARGET = GOOD.with_values({(key_of(it, "stt"), "ASR_WHISPER_SIZE"): "tiny" for it in STACKS})
EARLIER = GOOD.with_values({(key_of(it, "stt"), "ASR_WHISPER_SIZE"): "base" for it in STACKS})
KEYS = [it.component for it in GOOD.workloads]
NO_STACK: frozenset[str] = frozenset()
CRASH = PodFailure("ComponentEnded", "exit code 1")
ENDED = {ProfilePhase.PROMOTED, ProfilePhase.ROLLED_BACK}
ALLOWED = {
    (ProfilePhase.PROGRESSING, ProfilePhase.BAKING),
    (ProfilePhase.PROGRESSING, ProfilePhase.ROLLING_BACK),
    (ProfilePhase.BAKING, ProfilePhase.PROGRESSING),
    (ProfilePhase.BAKING, ProfilePhase.PROMOTED),
    (ProfilePhase.BAKING, ProfilePhase.ROLLING_BACK),
    (ProfilePhase.ROLLING_BACK, ProfilePhase.ROLLED_BACK),
    (ProfilePhase.ROLLING_BACK, ProfilePhase.DEGRADED),
    (ProfilePhase.DEGRADED, ProfilePhase.ROLLED_BACK),
}

workload_key = st.sampled_from(KEYS)


@dataclass(frozen=True)
class Status:
    """What of a stage survives its operator."""

    phase: ProfilePhase = ProfilePhase.PROGRESSING
    since: datetime = NOW
    batch: int = 1
    batches: tuple[StageBatch, ...] = field(default_factory=lambda: first_batch(PLAN, NOW))
    unready_since: datetime | None = None
    way_back: Revision = GOOD
    downtime: StageDowntime = field(default_factory=StageDowntime)

    @property
    def course(self) -> Course:
        return Course(self.batches, self.batch)


class AnyOrderOfStacks(PassesInAnyOrder):
    """One stage of four stacks in three batches."""

    breaks_in = NO_STACK
    """Stacks in which the profile's values let no pod start."""
    has_others = True
    """Somebody else has a hand in it, or pods fail: else a batch is all that is ever down."""
    lost = NO_STACK
    """Stacks whose card is lost: no pod becomes ready, whatever its values."""

    @initialize(
        breaks_in=st.sampled_from(
            [NO_STACK, NO_STACK, frozenset("a"), frozenset("c"), frozenset("bd"), frozenset("d")]
        ),
        has_others=st.booleans(),
    )
    def begin(self, breaks_in: frozenset[str], has_others: bool) -> None:
        self.has_others = has_others
        self.breaks_in = breaks_in
        self.world = PlayedNamespace.of(GOOD)
        self.status = Status()
        self.now = NOW
        self.is_paused = self.is_aborted = self.fails_its_gate = False
        self.is_disturbed = False
        """Somebody else has changed something, or a pod has failed that was ready."""
        self.changed_by_others: set[str] = set()

    # The operator.

    @rule(rounds=st.integers(5, 60), calls=st.integers(4, 14))
    def nobody_disturbs_them(self, rounds: int, calls: int) -> None:
        for _ in range(rounds):
            self.the_operator_makes_calls(calls)
            self.kubelets_get_on()
            self.now += timedelta(seconds=1)
            self.at_most_one_batch_is_down()

    @precondition(lambda self: self.pass_in_work is not None)
    @rule()
    def the_operator_dies(self) -> None:
        self.seen["died in a pass"] += 1
        self.pass_is_over()

    @rule(seconds=st.sampled_from([1, 30]))
    def the_operator_dies_with_an_action_that_it_has_not_told(self, seconds: int) -> None:
        if self.dies_with_an_action_untold(calls=16):
            self.now += timedelta(seconds=seconds)

    def one_pass(self) -> Generator[None]:
        """As the profile's reconciler makes it; it stops after every call."""
        now, status, is_paused = self.now, self.status, self.is_paused
        yield
        if status.phase not in IN_PROGRESS:
            return
        course = status.course
        observed: dict[str, ObservedWorkload] = {}
        versions: dict[str, int] = {}
        for key in (it for it in KEYS if stack_of(it) in course.begun):
            versions[key] = self.world.workloads[key].version
            if (found := self.world.workloads[key].observe()) is not None:
                observed[key] = found
            yield
        if self.is_aborted and status.phase not in ON_THE_WAY_BACK:
            step = StageStep(ProfilePhase.ROLLING_BACK, "Aborted")
        else:
            way_back = status.way_back
            step = decide_in_batches(
                STAGE, course, status.phase, status.since, TARGET, way_back, observed, now, status.unready_since
            )
            if self.fails_its_gate and status.phase is ProfilePhase.BAKING:
                step = StageStep(ProfilePhase.ROLLING_BACK, "gate")
            step = next_batch(course, step, is_paused)
        for action in step.actions:
            self._judge(action, status, step, observed)
            self.world.act(action, versions[action.component])
            yield
        concerned = course.current if status.phase is ProfilePhase.PROGRESSING else course.begun
        before, seen = part(GOOD, concerned), of_stacks(observed, concerned)
        record = follow(
            "lab/p", STAGE.name, status.downtime, status.phase, status.since, step, before, seen, now, course.is_last
        ).record
        if any(isinstance(it, Scale) and it.replicas == 0 for it in step.actions):
            assert record.since is not None, "a stack was stopped, and nobody knows"
        if step.phase in ENDED:
            self._judge_end(step.phase, status, observed)
        batch = step.batch or status.batch
        if (step.phase, batch) != (status.phase, status.batch):
            self._judge_transition(status, step.phase, batch)
        is_new = step.phase is not status.phase or batch != status.batch
        self.status = replace(
            status,
            phase=step.phase,
            since=self.now if is_new else status.since,
            batch=batch,
            batches=with_begun(status.batches, batch, self.now),
            unready_since=step.unready_since,
            downtime=record,
        )

    def _judge(self, action: Action, status: Status, step: StageStep, observed: Mapping[str, ObservedWorkload]) -> None:
        stack, course = stack_of(action.component), status.course
        assert status.phase in IN_PROGRESS - {ProfilePhase.BAKING}
        assert stack in self.status.course.begun, "a stack was touched whose batch has not begun"
        if status.phase is ProfilePhase.PROGRESSING:
            assert stack in course.current, "an earlier batch was touched on the way forward"
        else:
            later = [it for n, it in enumerate(course.batches, 1) if it.started_at and n > course.number_of(stack)]
            theirs = [key for it in later for name in it.stacks for key in of_stacks(observed, [name])]
            is_last = all(self._is(status.way_back, key, observed) for key in theirs)
            assert is_last or not self._serves(stack, observed), "a stack that serves was stopped before its turn"
        if isinstance(action, SetValues):
            goal = status.way_back if status.phase in ON_THE_WAY_BACK else TARGET
            [wanted] = [it for it in goal.workloads if it.component == action.component]
            assert dict(action.values) == dict(wanted.values)
            pods = [pod for key in of_stacks(self.world.workloads, [stack]) for pod in self.world.workloads[key].pods]
            assert self.is_disturbed or not pods, "values were written while a pod of the stack exists"

    @staticmethod
    def _is(goal: Revision, key: str, observed: Mapping[str, ObservedWorkload]) -> bool:
        [wanted] = [it for it in goal.workloads if it.component == key]
        found = observed[key]
        return found.is_ready and found.replicas == wanted.replicas and dict(found.values) == dict(wanted.values)

    @staticmethod
    def _serves(stack: str, observed: Mapping[str, ObservedWorkload]) -> bool:
        return all(it.is_ready and it.replicas for it in of_stacks(observed, [stack]).values())

    def _judge_transition(self, status: Status, phase: ProfilePhase, batch: int) -> None:
        if phase is not status.phase:
            assert (status.phase, phase) in ALLOWED
            self.seen[f"{status.phase} -> {phase}"] += 1
        if batch > status.batch:
            assert (status.phase, phase, batch) == (ProfilePhase.BAKING, ProfilePhase.PROGRESSING, status.batch + 1)
            assert not self.is_aborted or self.pass_in_work is not None
            self.seen[f"batch {batch} begins"] += 1
        elif batch < status.batch:
            assert status.phase in ON_THE_WAY_BACK
            self.seen["a batch goes back in its turn"] += 1

    def _judge_end(self, phase: ProfilePhase, status: Status, observed: Mapping[str, ObservedWorkload]) -> None:
        if phase is ProfilePhase.PROMOTED:
            assert status.batch == len(PLAN)
            assert set(observed) == set(KEYS)
        goal = TARGET if phase is ProfilePhase.PROMOTED else status.way_back
        for key, found in observed.items():
            [wanted] = [it for it in goal.workloads if it.component == key]
            assert dict(found.values) == dict(wanted.values)
            assert found.is_ready
        self.seen[f"ends {phase} in batch {status.batch}"] += 1

    # Kubernetes.

    @rule(key=workload_key)
    def a_controller_looks(self, key: str) -> None:
        self.world.workloads[key].controller()

    @rule()
    def kubelets_get_on(self) -> None:
        for key, workload in self.world.workloads.items():
            workload.pods = [it for it in workload.pods if not it.is_ending]
            for pod in workload.pods:
                if stack_of(key) in self.lost:
                    pod.is_ready = False
                    continue
                is_broken = stack_of(key) in self.breaks_in and pod.values.get("ASR_WHISPER_SIZE") == "tiny"
                pod.failure = CRASH if is_broken else None
                pod.is_ready = pod.failure is None
            workload.controller()

    @precondition(lambda self: self.has_others)
    @rule(key=workload_key, is_crash=st.booleans())
    def a_pod_fails(self, key: str, is_crash: bool) -> None:
        self.is_disturbed = True
        for pod in self.world.workloads[key].pods[:1]:
            pod.is_ready = False
            pod.failure = CRASH if is_crash else None

    @rule(seconds=st.sampled_from([1, 5, 30, 61]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @precondition(lambda self: self.has_others)
    @rule(stacks=st.sampled_from([NO_STACK, frozenset("a"), frozenset("c"), frozenset("bd")]))
    def cards_are_lost_or_mended(self, stacks: frozenset[str]) -> None:
        self.is_disturbed = True
        self.lost = stacks

    # People.

    @rule(is_so=st.booleans())
    def the_profile_is_paused_or_not(self, is_so: bool) -> None:
        self.is_paused = is_so

    @rule(is_meant=st.sampled_from([True, False, False]))
    def the_profile_is_aborted(self, is_meant: bool) -> None:
        self.is_aborted = self.is_aborted or is_meant

    @rule(is_so=st.sampled_from([True, False, False]))
    def a_gate_fails(self, is_so: bool) -> None:
        self.fails_its_gate = is_so

    @precondition(lambda self: self.has_others)
    @rule(key=workload_key, replicas=st.integers(0, 2))
    def somebody_scales(self, key: str, replicas: int) -> None:
        self.is_disturbed = True
        self.changed_by_others.add(key)
        self.world.workloads[key].replicas = replicas
        self.world.workloads[key].change()

    @precondition(lambda self: self.has_others)
    @rule(stack=st.sampled_from(STACKS), value=st.sampled_from(["small", "medium"]))
    def somebody_changes_a_variable(self, stack: str, value: str) -> None:
        self.is_disturbed = True
        key = key_of(stack, "stt")
        self.changed_by_others.add(key)
        self.world.workloads[key].values["ASR_WHISPER_SIZE"] = value
        self.world.workloads[key].change()

    @precondition(lambda self: self.status.phase in ENDED)
    @rule()
    def somebody_asks_for_a_revision(self) -> None:
        """Of all stacks, also of those that no batch has reached; the last batch goes first."""
        self.seen["a revision asked for"] += 1
        self.pass_is_over()
        self.status = Status(
            ProfilePhase.ROLLING_BACK,
            self.now,
            len(PLAN),
            with_begun(self.status.batches, len(PLAN), self.now),
            None,
            EARLIER,
            self.status.downtime,
        )

    @invariant()
    def at_most_one_batch_is_down(self) -> None:
        if getattr(self, "world", None) is None or self.is_disturbed:
            return
        down = {stack_of(it) for it in KEYS if not self._is_served(it)}
        self.seen["one batch was down, and no other"] += bool(down)
        assert len({n for n, batch in enumerate(PLAN) if set(batch) & down}) <= 1, f"{down} are down at once"

    def _is_served(self, key: str) -> bool:
        found = self.world.workloads[key].observe()
        return found is not None and found.replicas > 0 and len(self.world.workloads[key].pods) > 0 and found.is_ready

    @invariant()
    def later_batches_are_as_they_were(self) -> None:
        if getattr(self, "world", None) is None:
            return
        untouched = [it for it in KEYS if stack_of(it) not in self.status.course.begun]
        for key in set(untouched) - self.changed_by_others:
            [good] = [it for it in GOOD.workloads if it.component == key]
            workload = self.world.workloads[key]
            assert (workload.values, workload.replicas, workload.version) == (dict(good.values), good.replicas, 0)

    def teardown(self) -> None:
        """People leave it alone, and Kubernetes does its part: where does the stage end?"""
        if not hasattr(self, "world"):
            return
        self.pass_is_over()
        self._left_alone()
        if self.lost and self.status.phase not in ENDED and self.status.phase is not ProfilePhase.BAKING:
            assert self.status.phase is ProfilePhase.DEGRADED, self.status
            self.seen["degraded, and the others serve"] += 1
        self.lost, self.is_paused = NO_STACK, False
        for _ in range(4):
            self._left_alone()
            if self.status.phase in ENDED:
                break
            for key in KEYS:
                if self.world.workloads[key].replicas == 0 and self.status.phase is ProfilePhase.BAKING:
                    self.somebody_scales(key, 1)
        assert self.status.phase in ENDED, self.status
        if self.status.phase is ProfilePhase.ROLLED_BACK:
            goal = {it.component: dict(it.values) for it in self.status.way_back.workloads}
            for key in set(KEYS) - self.changed_by_others:
                assert self.world.workloads[key].values == goal[key], "a failure ends with every stack on the last good"
        self.somebody_asks_for_a_revision()
        self.fails_its_gate = False
        self._left_alone()
        assert (self.status.phase, self.world.revision()) == (ProfilePhase.ROLLED_BACK, EARLIER)

    def _left_alone(self) -> None:
        for _ in range(600):
            try:
                for _ in self.one_pass():
                    pass
            except ConflictingError:
                pass
            self.kubelets_get_on()
            self.now += timedelta(seconds=1)
            if self.status.phase in ENDED:
                return


@pytest.mark.timeout(300)
def test_a_stage_of_several_stacks_ends_well_in_whatever_order_things_happen() -> None:
    seen = run_in_any_order(AnyOrderOfStacks, examples=100, steps=50)

    assert seen["calls"] > 5_000
    assert seen["died in a pass"] > 20
    assert seen["died with an action untold"] > 10
    assert not {f"{before} -> {after}" for before, after in ALLOWED} - seen.keys()
    assert seen["one batch was down, and no other"] > 300
    assert seen["batch 3 begins"]
    assert seen["a batch goes back in its turn"]
    assert seen["degraded, and the others serve"]
    assert seen["a revision asked for"]
