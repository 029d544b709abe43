"""A stage against a simulated namespace: a few lines that do what Deployments and kubelets do, and break on demand."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from cotune.api.profile import Chance, Mend, ProfilePhase, Stage
from cotune.rollout.convergence import Action, Scale, SetValues
from cotune.rollout.stage import Obstacle, StageStep, decide
from cotune.rollout.state import ObservedWorkload, Revision, WorkloadRevision
from cotune.trials.pod_failure import PodFailure
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STAGE = Stage(name="staging", namespace="voice-staging", readiness_deadline_seconds=60, bake_seconds=5)
GOOD = Revision(
    (
        WorkloadRevision("embeddings", {}, 1),
        WorkloadRevision("judge", {"JUDGE_MEMORY": None}, 1),
        WorkloadRevision("stt", {"ASR_WHISPER_SIZE": None}, 2),
    )
)
TARGET = GOOD.with_values({("judge", "JUDGE_MEMORY"): "0.55", ("stt", "ASR_WHISPER_SIZE"): "tiny"})
BROKEN = GOOD.with_values({("judge", "JUDGE_MEMORY"): "0.40"})
NO_BLOCKS = PodFailure("NoCacheBlocks", "No available memory for the cache blocks")


@dataclass
class SimulatedNamespace:
    """Workloads that follow their spec one step behind."""

    values: dict[str, dict[str, str | None]] = field(
        default_factory=lambda: {it.component: dict(it.values) for it in GOOD.workloads}
    )
    replicas: dict[str, int] = field(default_factory=lambda: {it.component: it.replicas for it in GOOD.workloads})
    pods: dict[str, int] = field(default_factory=lambda: {it.component: it.replicas for it in GOOD.workloads})
    log: list[Action] = field(default_factory=list[Action])
    never_ready: bool = False
    unbindable: set[str] = field(default_factory=set[str])

    def observe(self) -> Mapping[str, ObservedWorkload]:
        return {
            name: ObservedWorkload(
                values=dict(self.values[name]) if name not in self.unbindable else {},
                replicas=self.replicas[name],
                pods=self.pods[name],
                is_ready=self.pods[name] == self.replicas[name]
                and not self.cannot_start(name)
                and not self.never_ready,
                failure=NO_BLOCKS if self.pods[name] and self.cannot_start(name) else None,
                unbindable=f"{name} has no such container" if name in self.unbindable else "",
            )
            for name in self.values
        }

    def cannot_start(self, name: str) -> bool:
        return self.values[name].get("JUDGE_MEMORY") == "0.40"

    def apply(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            self.log.append(action)
            match action:
                case Scale(component, replicas):
                    self.replicas[component] = replicas
                case SetValues(component, values):
                    assert self.pods[component] == 0, "values are written to stopped workloads only"
                    self.values[component].update(values)

    def settle(self) -> None:
        self.pods = dict(self.replicas)

    @property
    def revision(self) -> Revision:
        return Revision(tuple(WorkloadRevision(n, dict(v), self.replicas[n]) for n, v in self.values.items()))


def run(
    namespace: SimulatedNamespace, target: Revision, seconds_a_pass: int = 1, lose_every: int = 0
) -> list[ProfilePhase]:
    """Pass after pass until the stage is over; `lose_every` n-th pass dies before its status is written."""
    phase, since, now = ProfilePhase.PENDING, NOW, NOW
    phases = [phase]
    for number in range(1, 400):
        step = decide(STAGE, phase, since, target, GOOD, namespace.observe(), now)
        namespace.apply(step.actions)
        namespace.settle()
        now += timedelta(seconds=seconds_a_pass)
        if lose_every and number % lose_every == 0:
            continue
        if step.phase is not phase:
            phase, since = step.phase, now
            phases.append(phase)
        if phase in {ProfilePhase.PROMOTED, ProfilePhase.ROLLED_BACK, ProfilePhase.DEGRADED}:
            return phases
    raise AssertionError(f"the stage never ended: {phases}")


def test_a_good_profile_is_promoted() -> None:
    namespace = SimulatedNamespace()

    assert run(namespace, TARGET) == [
        ProfilePhase.PENDING,
        ProfilePhase.PROGRESSING,
        ProfilePhase.BAKING,
        ProfilePhase.PROMOTED,
    ]
    assert namespace.revision == TARGET


def test_the_stack_stops_in_reverse_and_starts_in_order() -> None:
    namespace = SimulatedNamespace()
    run(namespace, TARGET)

    assert namespace.log == [
        Scale("stt", 0),
        Scale("judge", 0),
        Scale("embeddings", 0),
        SetValues("judge", {"JUDGE_MEMORY": "0.55"}),
        SetValues("stt", {"ASR_WHISPER_SIZE": "tiny"}),
        Scale("embeddings", 1),
        Scale("judge", 1),
        Scale("stt", 2),
    ]


def test_a_profile_that_cannot_start_is_taken_back_without_waiting_for_the_deadline() -> None:
    namespace = SimulatedNamespace()

    phases = run(namespace, BROKEN)

    assert phases[-2:] == [ProfilePhase.ROLLING_BACK, ProfilePhase.ROLLED_BACK]
    assert ProfilePhase.BAKING not in phases
    assert namespace.revision == GOOD
    step = decide(
        STAGE,
        ProfilePhase.PROGRESSING,
        NOW,
        BROKEN,
        GOOD,
        {
            "embeddings": ObservedWorkload({}, 1, 1, True),
            "judge": ObservedWorkload({"JUDGE_MEMORY": "0.40"}, 1, 1, False, NO_BLOCKS),
            "stt": ObservedWorkload({"ASR_WHISPER_SIZE": None}, 0, 0, False),
        },
        NOW,
    )
    assert step.message == "judge: NoCacheBlocks: No available memory for the cache blocks"


def starting(failure: PodFailure | None = None, unready: str = "", leaving: int = 0) -> dict[str, ObservedWorkload]:
    """The stack of TARGET while its second component starts."""
    return {
        "embeddings": ObservedWorkload({}, 1, 1, True),
        "judge": ObservedWorkload({"JUDGE_MEMORY": "0.55"}, 1, 1, False, failure, leaving, unready),
        "stt": ObservedWorkload({"ASR_WHISPER_SIZE": "tiny"}, 0, 0, False),
    }


def progress(observed: Mapping[str, ObservedWorkload], seconds: float, chances: tuple[Chance, ...] = ()) -> StageStep:
    now = NOW + timedelta(seconds=seconds)
    return decide(STAGE, ProfilePhase.PROGRESSING, NOW, TARGET, GOOD, observed, now, chances=chances)


def test_a_start_that_may_have_met_an_accident_goes_on_and_the_next_one_decides() -> None:
    taken = PodFailure("CardTaken", "pod judge-1: container vllm exited with 1: Free memory", Mend.RESTART)

    first = progress(starting(taken), 10)
    assert first.chances is not None
    second = progress(starting(replace(taken, mend=None)), 20, first.chances)

    assert (first.phase, first.message) == (
        ProfilePhase.PROGRESSING,
        f"waiting for judge to be ready (CardTaken: {taken.message} (the container's next run decides))",
    )
    assert [(it.component, it.reason) for it in first.chances] == [("judge", "CardTaken")]
    assert (second.phase, second.message) == (ProfilePhase.ROLLING_BACK, f"judge: CardTaken: {taken.message}")
    assert second.chances == first.chances


def test_signs_of_the_stack_that_is_being_stopped_use_up_no_chance() -> None:
    crashed = PodFailure("Error", "pod judge-0: container vllm exited with 143", Mend.RESTART)
    stopping = starting(crashed) | {"judge": ObservedWorkload({"JUDGE_MEMORY": None}, 1, 1, False, crashed)}

    assert progress(stopping, 1).chances is None


@given(seconds=st.integers(0, 59), failure=st.sampled_from([None, PodFailure("Unschedulable", "no", Mend.ROOM)]))
def test_a_stage_that_only_does_not_become_ready_has_its_whole_deadline(
    seconds: int, failure: PodFailure | None
) -> None:
    observed = starting(failure, "pod judge-1: container vllm: runs and is not ready")

    assert progress(observed, seconds).phase is ProfilePhase.PROGRESSING
    late = progress(starting(None, "pod judge-1: container vllm: runs and is not ready"), 60.001)
    assert (late.phase, late.message) == (
        ProfilePhase.ROLLING_BACK,
        "not ready within 60 s, waiting for judge to be ready (pod judge-1: container vllm: runs and is not ready)",
    )


def test_a_rollback_is_not_rolled_back() -> None:
    namespace = SimulatedNamespace(never_ready=True)

    phases = run(namespace, TARGET)

    assert phases[-2:] == [ProfilePhase.ROLLING_BACK, ProfilePhase.DEGRADED]


def way_back(namespace: SimulatedNamespace, phase: ProfilePhase, away_seconds: int) -> list[ProfilePhase]:
    """Passes from a way back on which nobody has been for a while, until it has ended or for a long time."""
    since, now = NOW, NOW + timedelta(seconds=away_seconds)
    phases = [phase]
    for _ in range(400):
        step = decide(STAGE, phase, since, TARGET, GOOD, namespace.observe(), now)
        namespace.apply(step.actions)
        namespace.settle()
        now += timedelta(seconds=1)
        if step.phase is not phase:
            phase, since = step.phase, now
            phases.append(phase)
        if phase is ProfilePhase.ROLLED_BACK:
            break
    return phases


@pytest.mark.parametrize("phase", [ProfilePhase.ROLLING_BACK, ProfilePhase.DEGRADED])
@given(away=st.integers(0, 10_000), stopped=st.booleans(), written=st.booleans())
def test_a_way_back_leads_back_however_long_no_operator_was_there(
    phase: ProfilePhase, away: int, stopped: bool, written: bool
) -> None:
    namespace = SimulatedNamespace()
    if written:
        namespace.values["judge"]["JUDGE_MEMORY"] = "0.55"
    if stopped:
        namespace.replicas = dict.fromkeys(namespace.replicas, 0)
        namespace.settle()

    assert way_back(namespace, phase, away)[-1] is ProfilePhase.ROLLED_BACK
    assert namespace.revision == GOOD


def test_a_workload_that_never_becomes_ready_does_not_keep_the_others_stopped() -> None:
    namespace = SimulatedNamespace(never_ready=True)
    namespace.replicas = dict.fromkeys(namespace.replicas, 0)
    namespace.settle()

    phases = way_back(namespace, ProfilePhase.ROLLING_BACK, 0)

    assert phases == [ProfilePhase.ROLLING_BACK, ProfilePhase.DEGRADED]
    assert namespace.replicas == {it.component: it.replicas for it in GOOD.workloads}


@given(lose_every=st.integers(2, 7), broken=st.booleans())
def test_an_operator_that_dies_between_passes_ends_in_the_same_place(lose_every: int, broken: bool) -> None:
    namespace = SimulatedNamespace()

    phases = run(namespace, BROKEN if broken else TARGET, lose_every=lose_every)

    assert phases[-1] is (ProfilePhase.ROLLED_BACK if broken else ProfilePhase.PROMOTED)
    assert namespace.revision == (GOOD if broken else TARGET)


def baking(namespace: SimulatedNamespace, seconds: int, stage: Stage = STAGE) -> list[StageStep]:
    """A reading of a promoted stage each second, until it no longer bakes or the time is over."""
    steps: list[StageStep] = []
    unready_since: datetime | None = None
    for second in range(seconds):
        now = NOW + timedelta(seconds=second)
        step = decide(stage, ProfilePhase.BAKING, NOW, TARGET, GOOD, namespace.observe(), now, unready_since)
        assert step.actions == ()
        steps.append(step)
        if step.phase is not ProfilePhase.BAKING:
            break
        unready_since = step.unready_since
    return steps


def promoted_namespace() -> SimulatedNamespace:
    namespace = SimulatedNamespace()
    run(namespace, TARGET)
    return namespace


def test_a_stage_that_stays_unready_while_baking_is_taken_back_when_its_tolerance_is_over() -> None:
    namespace = promoted_namespace()
    namespace.never_ready = True

    steps = baking(namespace, 60)

    assert len(steps) == STAGE.unready_tolerance_seconds + 2
    assert steps[-1].phase is ProfilePhase.ROLLING_BACK
    assert steps[-1].message == "no longer ready while baking, for more than 30 s: embeddings, judge, stt"


def test_a_bad_reading_while_baking_is_forgotten_once_the_stage_is_ready_again() -> None:
    namespace = promoted_namespace()
    namespace.never_ready = True
    bad = baking(namespace, 3)[-1]
    namespace.never_ready = False

    good = baking(namespace, 3)[-1]

    assert (bad.phase, bad.unready_since) == (ProfilePhase.BAKING, NOW)
    assert (good.phase, good.unready_since) == (ProfilePhase.BAKING, None)


def test_a_pod_that_cannot_start_while_baking_is_not_waited_for() -> None:
    namespace = promoted_namespace()
    namespace.values["judge"]["JUDGE_MEMORY"] = "0.40"
    step = decide(STAGE, ProfilePhase.BAKING, NOW, BROKEN, GOOD, namespace.observe(), NOW)

    assert step.phase is ProfilePhase.ROLLING_BACK
    assert "judge: NoCacheBlocks" in step.message


def test_what_somebody_else_writes_into_a_stage_that_bakes_ends_it() -> None:
    namespace = promoted_namespace()
    namespace.values["judge"]["JUDGE_MEMORY"] = "0.60"

    (step,) = baking(namespace, 1)

    assert (step.phase, step.message) == (
        ProfilePhase.ROLLING_BACK,
        "while baking: judge: somebody else has changed its variables",
    )


def test_a_workload_that_somebody_scales_up_while_baking_has_the_readiness_deadline() -> None:
    namespace = promoted_namespace()
    namespace.replicas["judge"] = 2

    starting = baking(namespace, 60)
    namespace.settle()
    ready = baking(namespace, 60)

    assert {it.phase for it in starting} == {ProfilePhase.BAKING}
    assert ready[0].message.endswith("judge has 2 replicas, not 1")
    assert ready[-1].phase is ProfilePhase.PROMOTED
    namespace.replicas["judge"] = 3
    assert baking(namespace, 70)[-1].message == (
        "scaled by somebody else while baking, and not ready within 60 s: judge has 3 replicas, not 1"
    )


def test_a_workload_that_somebody_puts_to_sleep_while_baking_is_neither_promoted_nor_taken_back() -> None:
    namespace = promoted_namespace()
    namespace.replicas["judge"] = 0
    namespace.settle()

    steps = baking(namespace, 600)

    assert {it.phase for it in steps} == {ProfilePhase.BAKING}
    assert steps[-1].obstacle == Obstacle("ScaledByOthers", "judge has 0 replicas, not 1")


def test_a_deleted_workload_is_waited_for_until_the_deadline() -> None:
    observed = dict(SimulatedNamespace().observe())
    del observed["judge"]

    early = decide(STAGE, ProfilePhase.PROGRESSING, NOW, TARGET, GOOD, observed, NOW)
    late = decide(STAGE, ProfilePhase.PROGRESSING, NOW, TARGET, GOOD, observed, NOW + timedelta(seconds=61))

    assert (early.phase, early.actions) == (ProfilePhase.PROGRESSING, ())
    assert late.phase is ProfilePhase.ROLLING_BACK
    assert "workload of judge" in late.message


def test_a_workload_that_cannot_be_written_does_not_keep_the_others_stopped_on_the_way_back() -> None:
    namespace = SimulatedNamespace()
    namespace.values["judge"]["JUDGE_MEMORY"] = "0.55"
    namespace.unbindable = {"stt"}

    phases = way_back(namespace, ProfilePhase.ROLLING_BACK, 0)

    assert phases == [ProfilePhase.ROLLING_BACK, ProfilePhase.DEGRADED]
    assert namespace.revision == GOOD


@pytest.mark.parametrize("phase", [ProfilePhase.PROGRESSING, ProfilePhase.BAKING])
def test_a_workload_that_can_no_longer_be_written_turns_the_stage_back(phase: ProfilePhase) -> None:
    namespace = SimulatedNamespace(unbindable={"judge"})

    step = decide(STAGE, phase, NOW, TARGET, GOOD, namespace.observe(), NOW)

    assert (step.phase, step.actions) == (ProfilePhase.ROLLING_BACK, ())
    assert step.obstacle == Obstacle("NotBindable", "judge has no such container")


def test_a_change_of_a_component_outside_the_stack_is_an_error() -> None:
    with pytest.raises(KeyError, match="tts"):
        GOOD.with_values({("tts", "VOICE"): "x"})
