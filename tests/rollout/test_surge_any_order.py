"""A stage with a bridge under whatever may happen, in whatever order: a state machine looks for what must not be.

As in test_any_order.py a pass is as small as its calls, and death may come between any two. COTUNE_SEED=N repeats it.
"""

from collections.abc import Generator, Mapping
from datetime import timedelta

import pytest
from cotune.api.downtime import StageDowntime
from cotune.api.profile import Mend, ProfilePhase, Stage, StageStatus
from cotune.api.surge import StageSurge, Surge, SurgePhase
from cotune.rollout.bridge import CreateBridge
from cotune.rollout.convergence import Action, Scale
from cotune.rollout.progress import IN_PROGRESS, ON_THE_WAY_BACK
from cotune.rollout.stage import StageStep, decide
from cotune.rollout.state import ObservedWorkload, Revision, WorkloadRevision
from cotune.rollout.surge import IN_WORK, follow_bridged, keep, restarts_clock, serves, start
from cotune.trials.pod_failure import PodFailure
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from rollout.played_namespace import (
    NOW,
    ConflictingError,
    PassesInAnyOrder,
    PlayedNamespace,
    PlayedWorkload,
    run_in_any_order,
)

GOOD = Revision((WorkloadRevision("judge", {"JUDGE_MEMORY": None}, 1), WorkloadRevision("stt", {"SIZE": None}, 2)))
TARGET = GOOD.with_values({("judge", "JUDGE_MEMORY"): "0.55", ("stt", "SIZE"): "tiny"})
COMPONENTS = [it.component for it in GOOD.workloads]
CRASH = PodFailure("ComponentEnded", "exit code 1")
NO_NODE = PodFailure("Unschedulable", "no node", Mend.ROOM)
ENDED = {ProfilePhase.PROMOTED, ProfilePhase.ROLLED_BACK}

component = st.sampled_from(COMPONENTS)


class SurgeInAnyOrder(PassesInAnyOrder):
    """One stage with a bridge, from its beginning."""

    @initialize(
        breaks_target=st.booleans(),
        breaks_stack=st.sampled_from([True, False, False]),
        has_room=st.sampled_from([True, True, False]),
        is_required=st.sampled_from([True, False, False]),
    )
    def begin(self, breaks_target: bool, breaks_stack: bool, has_room: bool, is_required: bool) -> None:
        self.breaks_target = breaks_target and not breaks_stack
        """The new values let no pod start."""
        self.breaks_stack = breaks_stack
        """They let none start on the card of the stack, though the bridge's does."""
        self.has_room = has_room
        surge = Surge.REQUIRE if is_required else Surge.IF_ROOM
        self.stage = Stage(
            name="only", namespace="n", readiness_deadline_seconds=60, bake_seconds=20, guard_seconds=0, surge=surge
        )
        self.world = PlayedNamespace.of(GOOD)
        self.bridge: dict[str, PlayedWorkload] = {}
        self.now = NOW
        self.status = StageStatus(
            name="only",
            phase=ProfilePhase.PROGRESSING,
            started_at=NOW,
            phase_started_at=NOW,
            downtime=StageDowntime(expected_seconds=90),
            surge=StageSurge(phase=SurgePhase.STARTING, since=NOW),
        )
        self.is_aborted = False
        self.is_disturbed = False
        """Somebody has done something to pods or workloads."""
        self.was_down = False
        """There was a moment in which neither the stack nor the bridge was ready."""
        self.writes_to_stack = 0
        self.has_begun_to_go = False

    # The operator.

    @rule(rounds=st.integers(1, 25), calls=st.integers(1, 10))
    def nobody_disturbs_them(self, rounds: int, calls: int) -> None:
        for _ in range(rounds):
            self.the_operator_makes_calls(calls)
            self.kubelets_get_on()
            self.now += timedelta(seconds=1)

    @precondition(lambda self: self.pass_in_work is not None)
    @rule(seconds=st.sampled_from([0, 0, 1, 20]))
    def the_operator_dies(self, seconds: int) -> None:
        self.seen["died in a pass"] += 1
        self.pass_is_over()
        self.now += timedelta(seconds=seconds)

    def one_pass(self) -> Generator[None]:
        """As the profile's reconciler makes it; it stops after every call."""
        now, state = self.now, self.status
        yield
        if state.phase not in IN_PROGRESS:
            return
        surge = state.surge
        assert surge is not None
        observed: dict[str, ObservedWorkload] = {}
        versions: dict[str, int] = {}
        for name in COMPONENTS:
            versions[name] = self.world.workloads[name].version
            if (found := self.world.workloads[name].observe()) is not None:
                observed[name] = found
            yield
        copies: dict[str, ObservedWorkload] = {}
        if surge.phase in IN_WORK:
            for name in COMPONENTS:
                if name in self.bridge and (found := self.bridge[name].observe()) is not None:
                    copies[name] = found
                yield
        is_back = state.phase in ON_THE_WAY_BACK
        if self.is_aborted and not is_back:
            step = StageStep(ProfilePhase.ROLLING_BACK, "aborted")
        elif surge.phase is SurgePhase.STARTING and not is_back:
            step = start(self.stage, state, surge, TARGET, observed, copies, now)
        else:
            since = state.phase_started_at or now
            step = decide(
                self.stage, state.phase, since, TARGET, GOOD, observed, now, state.unready_since, state.chances
            )
        if surge.phase in IN_WORK:
            step = keep(state.phase, surge, step, TARGET, GOOD, observed, copies, now)
        for it in step.bridging:
            if isinstance(it, CreateBridge):
                self._create(it.component)
            else:
                self._judge_removal(state, observed)
                self.bridge.pop(it.component, None)
            yield
        for action in step.actions:
            self._judge(action, state, copies)
            self.world.act(action, versions[action.component])
            self.writes_to_stack += 1
            yield
        before = state.downtime or StageDowntime()
        is_served = surge.phase in IN_WORK and serves(TARGET, copies)
        followed = follow_bridged("lab/p", "only", before, state, step, GOOD, observed, is_served, now)
        entered = step.phase is not state.phase
        is_restarted = entered or restarts_clock(surge, step.surge)
        after = step.surge or surge
        if after.phase is not surge.phase:
            self.seen[f"bridge {surge.phase} -> {after.phase}"] += 1
        if entered:
            self.seen[f"{state.phase} -> {step.phase}"] += 1
        self.status = state.model_copy(
            update={
                "phase": step.phase,
                "phase_started_at": self.now if is_restarted else state.phase_started_at,
                "unready_since": step.unready_since,
                "chances": step.chances if step.chances is not None else state.chances,
                "downtime": followed.record,
                "surge": after,
            }
        )
        if step.phase in ENDED:
            self._judge_end(observed)

    def _create(self, name: str) -> None:
        """The API server makes it once, however often it is told to."""
        [wanted] = [it for it in TARGET.workloads if it.component == name]
        if name not in self.bridge:
            self.bridge[name] = PlayedWorkload(dict(wanted.values), wanted.replicas)

    def _judge(
        self,
        action: Action,
        state: StageStatus,
        copies: Mapping[str, ObservedWorkload],
    ) -> None:
        surge = state.surge
        assert surge is not None
        assert surge.phase is not SurgePhase.STARTING, "the stack was touched before its bridge served"
        assert state.phase is not ProfilePhase.BAKING
        is_first = isinstance(action, Scale) and action.replicas == 0 and self.writes_to_stack == 0
        if is_first and self.stage.surge is Surge.REQUIRE and not self.is_aborted:
            assert serves(TARGET, copies), "the stack was stopped, and nothing serves in its place"
        if surge.phase is SurgePhase.REMOVING and surge.reason and copies:
            assert state.phase in ON_THE_WAY_BACK, "the stack was touched before what could not serve was gone"

    def _judge_removal(self, state: StageStatus, observed: Mapping[str, ObservedWorkload]) -> None:
        """A bridge that serves goes when the stack is ready; after its first part has gone, all of it goes."""
        assert state.surge is not None
        if state.surge.phase is SurgePhase.SERVING:
            assert self._is_whole(observed), "the bridge was removed, and the stack is not there yet"

    def _judge_end(self, observed: Mapping[str, ObservedWorkload]) -> None:
        state = self.status
        assert self.bridge == {}, "something of the bridge is left"
        assert state.surge is not None
        assert state.surge.phase not in IN_WORK
        goal = TARGET if state.phase is ProfilePhase.PROMOTED else GOOD
        for wanted in goal.workloads:
            assert dict(observed[wanted.component].values) == dict(wanted.values)
        if state.surge.phase is SurgePhase.FAILED and not self.is_disturbed:
            assert self.writes_to_stack == 0, "the bridge has failed, and the stack was touched"
        assert state.downtime is not None
        assert state.downtime.since is None
        if not self.is_disturbed and not self.was_down:
            self.seen["never down"] += 1
            assert not state.downtime.measured_seconds, "nothing was ever down, and something is charged"
        if not self.is_disturbed and self.was_down:
            self.seen["down"] += 1
            assert state.downtime.measured_seconds is not None

    @staticmethod
    def _is_whole(observed: Mapping[str, ObservedWorkload]) -> bool:
        return all(
            it.component in observed
            and observed[it.component].replicas == it.replicas
            and observed[it.component].is_ready
            for it in GOOD.workloads
        )

    def call_was_made(self) -> None:
        stack = {name: seen for name, it in self.world.workloads.items() if (seen := it.observe()) is not None}
        bridge = {name: seen for name, it in self.bridge.items() if (seen := it.observe()) is not None}
        if not self._is_whole(stack) and not serves(TARGET, bridge):
            self.was_down = True
            if not self.is_disturbed and self.status.surge is not None:
                assert self.status.surge.phase is not SurgePhase.SERVING, "all is down, and the bridge should serve"

    # Kubernetes.

    @rule()
    def kubelets_get_on(self) -> None:
        for is_bridge, workloads in ((False, self.world.workloads), (True, self.bridge)):
            for it in workloads.values():
                it.pods = [pod for pod in it.pods if not pod.is_ending]
                for pod in it.pods:
                    if is_bridge and not self.has_room and not pod.is_ready:
                        pod.failure = NO_NODE
                        continue
                    is_new = pod.values.get("JUDGE_MEMORY") == "0.55"
                    is_broken = is_new and (self.breaks_target or (self.breaks_stack and not is_bridge))
                    pod.failure = CRASH if is_broken else None
                    pod.is_ready = not is_broken
                it.controller()

    @rule(name=component)
    def a_controller_looks(self, name: str) -> None:
        self.world.workloads[name].controller()
        if name in self.bridge:
            self.bridge[name].controller()

    @rule(is_so=st.booleans())
    def room_comes_and_goes(self, is_so: bool) -> None:
        self.has_room = is_so

    @rule(seconds=st.sampled_from([1, 5, 16, 61]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(name=component, is_meant=st.sampled_from([True, False, False]))
    def a_pod_of_the_bridge_is_evicted(self, name: str, is_meant: bool) -> None:
        if is_meant and name in self.bridge and self.bridge[name].pods:
            self.is_disturbed = True
            for pod in self.bridge[name].pods[:1]:
                pod.is_ending = True

    @rule(name=component, is_crash=st.booleans(), is_meant=st.sampled_from([True, False, False]))
    def a_pod_of_the_stack_fails(self, name: str, is_crash: bool, is_meant: bool) -> None:
        if is_meant:
            self.is_disturbed = True
            for pod in self.world.workloads[name].pods[:1]:
                pod.is_ready = False
                pod.failure = CRASH if is_crash else None

    # People.

    @rule(name=component, is_meant=st.sampled_from([True, False, False]))
    def somebody_deletes_a_part_of_the_bridge(self, name: str, is_meant: bool) -> None:
        if is_meant and self.bridge.pop(name, None) is not None:
            self.is_disturbed = True

    @precondition(lambda self: self.status.surge.phase is SurgePhase.STARTING and self.has_room)
    @rule(name=component, is_meant=st.sampled_from([True, False]))
    def a_pod_of_a_bridge_is_evicted_that_has_just_come_to_serve(self, name: str, is_meant: bool) -> None:
        """Whoever sees it serve, sees it lost before anything is stopped."""
        for _ in range(60 if is_meant else 0):
            self.the_operator_makes_calls(1)
            self.kubelets_get_on()
            surge = self.status.surge
            assert surge is not None
            if surge.phase is not SurgePhase.STARTING:
                self.pass_is_over()
                self.a_pod_of_the_bridge_is_evicted(name, True)
                self.kubelets_get_on()
                self.the_operator_makes_calls(10)
                return

    @rule(is_meant=st.sampled_from([True, *[False] * 9]))
    def the_stage_is_aborted(self, is_meant: bool) -> None:
        self.is_aborted = self.is_aborted or is_meant

    @invariant()
    def what_has_ended_is_left_alone(self) -> None:
        if getattr(self, "status", None) is not None and self.status.phase in ENDED:
            assert self.bridge == {}

    def teardown(self) -> None:
        """Left alone, with room, it ends, and nothing of the bridge is left."""
        if not hasattr(self, "status"):
            return
        self.pass_is_over()
        self.has_room = True
        for _ in range(600):
            try:
                for _ in self.one_pass():
                    self.call_was_made()
            except ConflictingError:
                pass
            self.kubelets_get_on()
            self.now += timedelta(seconds=1)
            if self.status.phase in ENDED:
                break
        self.seen[f"ends {self.status.phase}"] += 1
        assert self.status.surge is not None
        self.seen[f"ends with a bridge {self.status.surge.phase}"] += 1
        assert self.status.phase in ENDED, self.status


@pytest.mark.timeout(300)
def test_a_stage_with_a_bridge_ends_well_in_whatever_order_things_happen() -> None:
    seen = run_in_any_order(SurgeInAnyOrder, examples=250, steps=60)

    assert seen["calls"] > 5_000
    assert seen["died in a pass"] > 50
    for phase in ENDED:
        assert seen[f"ends {phase}"]
    for end in (SurgePhase.DONE, SurgePhase.FAILED, SurgePhase.NO_ROOM):
        assert seen[f"ends with a bridge {end}"]
    for before, after in (
        (SurgePhase.STARTING, SurgePhase.SERVING),
        (SurgePhase.STARTING, SurgePhase.REMOVING),
        (SurgePhase.SERVING, SurgePhase.REMOVING),
        (SurgePhase.SERVING, SurgePhase.STARTING),
    ):
        assert seen[f"bridge {before} -> {after}"]
    assert seen["never down"] > 5
    assert seen["down"]
