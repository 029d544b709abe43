"""A stage under whatever may happen, in whatever order: a state machine looks for a way to break what must hold.

A pass is as small as its calls: each workload is read, each action sent and the status written one at a time, and
between any two of them kubelets, owners, the clock and death may have their turn. COTUNE_SEED=N repeats a run.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest
from cotune.api.downtime import StageDowntime
from cotune.api.profile import ProfilePhase, Stage
from cotune.rollout.convergence import Action, Scale, SetValues
from cotune.rollout.downtime import Followed, follow
from cotune.rollout.progress import IN_PROGRESS, ON_THE_WAY_BACK
from cotune.rollout.stage import StageStep, decide
from cotune.rollout.state import ObservedWorkload, Revision, WorkloadRevision
from cotune.trials.pod_failure import PodFailure
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from rollout.played_namespace import NOW, ConflictingError, PassesInAnyOrder, PlayedNamespace, run_in_any_order

STAGE = Stage(name="staging", namespace="voice-staging", readiness_deadline_seconds=60, bake_seconds=20)
GOOD = Revision(
    (
        WorkloadRevision("embeddings", {}, 1),
        WorkloadRevision("judge", {"JUDGE_MEMORY": None}, 1),
        WorkloadRevision("stt", {"ASR_WHISPER_SIZE": None}, 2),
    )
)
TARGET = GOOD.with_values({("judge", "JUDGE_MEMORY"): "0.55", ("stt", "ASR_WHISPER_SIZE"): "tiny"})
EARLIER = GOOD.with_values({("stt", "ASR_WHISPER_SIZE"): "base"})
"""Stood ready there once."""
COMPONENTS = [it.component for it in GOOD.workloads]
CRASH = PodFailure("ComponentEnded", "exit code 1")
ENDED = {ProfilePhase.PROMOTED, ProfilePhase.ROLLED_BACK}
ALLOWED = {
    (ProfilePhase.PROGRESSING, ProfilePhase.BAKING),
    (ProfilePhase.PROGRESSING, ProfilePhase.ROLLING_BACK),
    (ProfilePhase.BAKING, ProfilePhase.PROMOTED),
    (ProfilePhase.BAKING, ProfilePhase.ROLLING_BACK),
    (ProfilePhase.ROLLING_BACK, ProfilePhase.ROLLED_BACK),
    (ProfilePhase.ROLLING_BACK, ProfilePhase.DEGRADED),
    (ProfilePhase.DEGRADED, ProfilePhase.ROLLED_BACK),
}
"""Forward once, back once: nothing leads from a way back to anything but its end, unless a person says so."""

component = st.sampled_from(COMPONENTS)


@dataclass
class Status:
    """What of a stage survives its operator."""

    phase: ProfilePhase = ProfilePhase.PROGRESSING
    since: datetime = NOW
    unready_since: datetime | None = None
    way_back: Revision = GOOD
    """The last good revision, or the one that a person has asked for."""
    downtime: StageDowntime = field(default_factory=StageDowntime)


def values_of(revision: Revision) -> dict[str, dict[str, str | None]]:
    return {it.component: dict(it.values) for it in revision.workloads}


class AnyOrder(PassesInAnyOrder):
    """One stage, from its beginning or from when all of it was ready."""

    breaks_target = False
    """The profile's values let no pod start."""
    breaks_everything = False
    """No pod becomes ready any more, whatever its values: a lost card."""

    @initialize(breaks_target=st.booleans(), is_baking=st.sampled_from([True, False, False]))
    def begin(self, breaks_target: bool, is_baking: bool) -> None:
        self.breaks_target = breaks_target
        self.world = PlayedNamespace.of(TARGET if is_baking else GOOD)
        self.status = Status(ProfilePhase.BAKING if is_baking else ProfilePhase.PROGRESSING)
        self.now = NOW
        self.is_deleted = False
        self.is_disturbed = False
        """Somebody else has scaled or changed something since the pass in work began to read."""
        self.stopped_at: datetime | None = None
        """When the operator has first stopped a service of a stack that it has not seen whole since."""

    # The operator.

    @rule(rounds=st.integers(1, 15), calls=st.integers(1, 8))
    def nobody_disturbs_them(self, rounds: int, calls: int) -> None:
        for _ in range(rounds):
            self.the_operator_makes_calls(calls)
            self.kubelets_get_on()
            self.now += timedelta(seconds=1)

    @precondition(lambda self: self.pass_in_work is not None)
    @rule()
    def the_operator_dies(self) -> None:
        self.seen["died in a pass"] += 1
        self.pass_is_over()

    @rule(seconds=st.sampled_from([1, 30]))
    def the_operator_dies_with_an_action_that_it_has_not_told(self, seconds: int) -> None:
        """And is away for a while."""
        if self.dies_with_an_action_untold(calls=12):
            self.now += timedelta(seconds=seconds)

    def one_pass(self) -> Generator[None]:
        """As the profile's reconciler makes it; it stops after every call."""
        self.is_disturbed = False
        now = self.now
        status = replace(self.status)
        yield
        if status.phase not in IN_PROGRESS or (self.is_deleted and status.phase is ProfilePhase.DEGRADED):
            return
        observed: dict[str, ObservedWorkload] = {}
        versions: dict[str, int] = {}
        for name in COMPONENTS:
            workload = self.world.workloads[name]
            versions[name] = workload.version
            if (found := workload.observe()) is not None:
                observed[name] = found
            yield
        if status.downtime.since is None and self._is_whole(observed):
            self.stopped_at = None
        if self.is_deleted and status.phase not in ON_THE_WAY_BACK:
            step = StageStep(ProfilePhase.ROLLING_BACK, "the profile was deleted in the middle of its rollout")
        else:
            way_back = status.way_back
            step = decide(STAGE, status.phase, status.since, TARGET, way_back, observed, self.now, status.unready_since)
        for action in step.actions:
            self._judge(action, status.phase, step)
            self.world.act(action, versions[action.component])
            self._judge_written(action)
            yield
        followed = follow("lab/p", STAGE.name, status.downtime, status.phase, status.since, step, GOOD, observed, now)
        self._judge_downtime(status, followed, step, now)
        if step.phase in ENDED:
            self._judge_end(step.phase, observed)
        if step.phase is not status.phase:
            assert (status.phase, step.phase) in ALLOWED
            self.seen[f"{status.phase} -> {step.phase}"] += 1
            self.status = Status(step.phase, self.now, step.unready_since, status.way_back, followed.record)
        else:
            self.status.unready_since = step.unready_since
            self.status.downtime = followed.record

    def _judge(self, action: Action, phase: ProfilePhase, step: StageStep) -> None:
        """What an action must be, before anything is known of what the world makes of it."""
        assert phase in IN_PROGRESS
        assert phase is not ProfilePhase.BAKING, "a stage that bakes is only watched"
        assert step.phase not in ENDED, "what has ended is left alone"
        if isinstance(action, SetValues):
            goal = self.status.way_back if phase in ON_THE_WAY_BACK else TARGET
            assert dict(action.values) == values_of(goal)[action.component], "values go with the phase"

    def _judge_written(self, action: Action) -> None:
        """What the world is when the API server has taken an action: it takes none that rests on an old reading."""
        workload = self.world.workloads[action.component]
        match action:
            case SetValues():
                assert (workload.replicas, workload.pods) == (0, []), "a running workload was changed"
                theirs = [it for it in self.world.workloads.values() if it.exists and it.pods]
                assert self.is_disturbed or not theirs, "values were written while a pod of the stack exists"
            case Scale(name, replicas) if replicas:
                wanted = next(it for it in GOOD.workloads if it.component == name)
                assert replicas == wanted.replicas
            case Scale():
                self.stopped_at = self.stopped_at or self.now

    def _judge_downtime(self, status: Status, followed: Followed, step: StageStep, now: datetime) -> None:
        """Whatever dies: no second is lost in which the operator kept a service down, and none is counted twice."""
        if self.stopped_at is not None and status.phase is not ProfilePhase.BAKING:
            since = followed.outage.since if followed.outage is not None else followed.record.since
            assert since is not None, "services are down, and nobody knows"
            assert since <= self.stopped_at
        if step.phase in {ProfilePhase.BAKING, *ENDED} and status.phase is not ProfilePhase.BAKING:
            assert followed.record.since is None
            self.stopped_at = None
        if followed.outage is not None:
            self.seen["outages"] += 1
            assert followed.outage.until == now
            before = status.downtime.measured_seconds or 0
            assert followed.record.measured_seconds == before + followed.outage.seconds

    @staticmethod
    def _is_whole(observed: Mapping[str, ObservedWorkload]) -> bool:
        return all(
            it.component in observed
            and observed[it.component].replicas == it.replicas
            and observed[it.component].is_ready
            for it in GOOD.workloads
        )

    def _judge_end(self, phase: ProfilePhase, observed: dict[str, ObservedWorkload]) -> None:
        goal = TARGET if phase is ProfilePhase.PROMOTED else self.status.way_back
        for wanted in goal.workloads:
            found = observed[wanted.component]
            assert dict(found.values) == dict(wanted.values)
            assert found.is_ready
            if phase is ProfilePhase.ROLLED_BACK:
                assert found.replicas == wanted.replicas, "values and replicas go together"

    # Kubernetes.

    @rule(name=component)
    def a_controller_looks(self, name: str) -> None:
        self.world.workloads[name].controller()

    @rule()
    def kubelets_get_on(self) -> None:
        for workload in self.world.workloads.values():
            workload.pods = [it for it in workload.pods if not it.is_ending]
            for pod in workload.pods:
                if not self.breaks_everything:
                    pod.failure = CRASH if self._cannot_run(pod.values) else None
                    pod.is_ready = pod.failure is None
            workload.controller()

    @rule(name=component, is_crash=st.booleans())
    def a_pod_fails(self, name: str, is_crash: bool) -> None:
        for pod in self.world.workloads[name].pods[:1]:
            pod.is_ready = False
            pod.failure = CRASH if is_crash else None

    @rule(name=component)
    def a_pod_is_evicted(self, name: str) -> None:
        for pod in self.world.workloads[name].pods[:1]:
            pod.is_ending = True

    @rule(seconds=st.sampled_from([1, 5, 30, 61, 3600]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(is_so=st.booleans())
    def the_card_is_lost_or_mended(self, is_so: bool) -> None:
        self.breaks_everything = is_so
        for pod in self.world.pods:
            pod.is_ready = pod.is_ready and not is_so

    # People.

    @rule(name=component, replicas=st.integers(0, 3))
    def somebody_scales(self, name: str, replicas: int) -> None:
        self.is_disturbed = True
        workload = self.world.workloads[name]
        workload.replicas = replicas
        workload.change()

    @rule(value=st.sampled_from([None, "0.55", "0.60"]))
    def somebody_changes_a_variable(self, value: str | None) -> None:
        self.is_disturbed = True
        workload = self.world.workloads["judge"]
        workload.values["JUDGE_MEMORY"] = value
        workload.change()

    @precondition(lambda self: self.status.phase is ProfilePhase.BAKING)
    @rule()
    def somebody_changes_what_bakes(self) -> None:
        self.somebody_changes_a_variable("0.60")

    @rule(name=component)
    def somebody_deletes_a_workload(self, name: str) -> None:
        self.is_disturbed = True
        workload = self.world.workloads[name]
        workload.exists = False
        workload.change()
        for pod in workload.pods:
            pod.is_ending = True

    @rule(name=component)
    def somebody_makes_it_again(self, name: str) -> None:
        self._make_again(name)

    @rule(name=component, is_so=st.booleans())
    def somebody_makes_a_container_unbindable_or_not(self, name: str, is_so: bool) -> None:
        workload = self.world.workloads[name]
        workload.unbindable = f"{name} has no such container" if is_so else ""
        workload.change()

    @precondition(lambda self: self.status.phase in {*ENDED, ProfilePhase.DEGRADED} and not self.is_deleted)
    @rule(revision=st.sampled_from([GOOD, EARLIER, TARGET]))
    def somebody_asks_for_a_revision(self, revision: Revision) -> None:
        """The answer is written over what was read: a pass in work finds its status changed, and is over."""
        if revision is TARGET and self.breaks_target:
            return  # It never stood ready, and is refused.
        self.seen[f"{self.status.phase}, and a revision asked for"] += 1
        self.pass_is_over()
        self.status = Status(ProfilePhase.ROLLING_BACK, self.now, None, revision, self.status.downtime)

    @rule(is_meant=st.sampled_from([True, False, False, False]))
    def the_profile_is_deleted(self, is_meant: bool) -> None:
        self.is_deleted = self.is_deleted or is_meant

    @invariant()
    def nothing_is_written_outside_of_a_stage(self) -> None:
        """A pass over a stage that has ended must read and write nothing: it has no call in work."""
        if getattr(self, "status", None) is not None and self.status.phase in ENDED:
            made = self.one_pass()
            next(made)
            assert next(made, None) is None

    def teardown(self) -> None:
        """People leave it alone, and Kubernetes does its part: where does the stage end?"""
        if not hasattr(self, "world"):
            return
        self.pass_is_over()
        for name in COMPONENTS:
            self._make_again(name)
            self.world.workloads[name].unbindable = ""
        if self.status.phase is ProfilePhase.BAKING:
            self._wake()
        self._left_alone()
        if self.status.phase is ProfilePhase.BAKING:
            self._wake_what_somebody_has_scaled_to_zero()
            self._left_alone()
        if self.breaks_everything:
            assert self.status.phase in {ProfilePhase.DEGRADED, *ENDED}, self.status
            if self.status.phase is ProfilePhase.DEGRADED and not self.is_deleted:
                assert self.world.revision() == self.status.way_back, "Degraded, and not worked at"
            self.breaks_everything = False
            self._left_alone()
        asleep = [it for it in GOOD.workloads if self.world.workloads[it.component].replicas == 0]
        if self.status.phase is ProfilePhase.BAKING and asleep:
            # Held up by whoever has scaled it to zero, until they scale it up.
            for it in asleep:
                self.world.workloads[it.component].replicas = it.replicas
                self.world.workloads[it.component].change()
            self._left_alone()
        self.seen[f"ends {self.status.phase}"] += 1
        if self.is_deleted and self.status.phase is ProfilePhase.DEGRADED:
            return  # A person has taken over.
        assert self.status.phase in ENDED, self.status
        if not self.is_deleted:
            self.somebody_asks_for_a_revision(EARLIER)
            self._left_alone()
            assert (self.status.phase, self.world.revision()) == (ProfilePhase.ROLLED_BACK, EARLIER)

    def _wake(self) -> None:
        """What the operator asks of a person: a stage that somebody has put to sleep while it bakes is held up."""
        for wanted in GOOD.workloads:
            workload = self.world.workloads[wanted.component]
            if workload.replicas == 0:
                workload.replicas = wanted.replicas
                workload.change()

    def _wake_what_somebody_has_scaled_to_zero(self) -> None:
        """It holds a stage up for as long as it is asleep, and nothing else does."""
        asleep = [name for name in COMPONENTS if self.world.workloads[name].replicas == 0]
        assert asleep, self.status
        self.seen["held up by a workload that sleeps"] += 1
        for name in asleep:
            self.somebody_scales(name, 1)

    def _left_alone(self) -> None:
        for _ in range(400):
            for _ in self._quietly():
                pass
            self.kubelets_get_on()
            self.now += timedelta(seconds=1)
            if self.status.phase in ENDED:
                return

    def _quietly(self) -> Generator[None]:
        try:
            yield from self.one_pass()
        except ConflictingError:
            return

    def _make_again(self, name: str) -> None:
        """As its owner has it: with the owner's replicas, and none of cotune's values."""
        workload = self.world.workloads[name]
        if workload.exists:
            return
        self.is_disturbed = True
        [wanted] = [it for it in GOOD.workloads if it.component == name]
        workload.exists, workload.values, workload.replicas = True, dict(wanted.values), wanted.replicas
        workload.unbindable = ""
        workload.change()

    def _cannot_run(self, values: Mapping[str, str | None]) -> bool:
        return self.breaks_target and values.get("JUDGE_MEMORY") == "0.55"


@pytest.mark.timeout(300)
def test_a_stage_ends_well_in_whatever_order_things_happen() -> None:
    seen = run_in_any_order(AnyOrder, examples=250, steps=80)

    assert seen["calls"] > 5_000
    assert seen["died in a pass"] > 50
    assert seen["outages"] > 50
    assert seen["died with an action untold"] > 50
    assert not {f"{before} -> {after}" for before, after in ALLOWED} - seen.keys()
    for phase in (*ENDED, ProfilePhase.DEGRADED):
        assert seen[f"{phase}, and a revision asked for"]
