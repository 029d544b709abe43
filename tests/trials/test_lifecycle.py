from datetime import UTC, datetime, timedelta

import pytest
from cotune.api.trial import TrialPhase
from cotune.trials.lifecycle import Deadlines, Observed, ObservedPod, PodState, Step, decide
from cotune.trials.pod_failure import PodFailure
from hypothesis import given
from hypothesis import strategies as st
from support.resources import voice_experiment

COMPONENTS = voice_experiment().stack.components
NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEADLINES = Deadlines(timedelta(seconds=60), timedelta(seconds=300), timedelta(seconds=120))
WAITING, READY = ObservedPod(PodState.WAITING), ObservedPod(PodState.READY)
NO_BLOCKS = "ValueError: No available memory for the cache blocks."


def step(phase: TrialPhase, probe: ObservedPod | None = None, seconds: int = 0, **pods: ObservedPod) -> Step:
    return decide(COMPONENTS, phase, NOW, Observed(True, probe, pods), DEADLINES, NOW + timedelta(seconds=seconds))


def test_nothing_starts_before_the_card_is_held() -> None:
    observed = Observed(False, None, {})

    assert decide(COMPONENTS, TrialPhase.PENDING, NOW, observed, DEADLINES, NOW).phase is TrialPhase.PENDING
    assert step(TrialPhase.PENDING) == Step(TrialPhase.DRAINING, start_probe=True)


def test_the_stack_waits_for_a_drained_card() -> None:
    assert step(TrialPhase.DRAINING, WAITING).phase is TrialPhase.DRAINING
    assert step(TrialPhase.DRAINING, READY) == Step(TrialPhase.STARTING)


def test_components_start_in_the_order_of_their_dependencies() -> None:
    assert step(TrialPhase.STARTING, READY).start == ("judge",)
    assert step(TrialPhase.STARTING, READY, judge=WAITING).start == ()
    assert step(TrialPhase.STARTING, READY, judge=READY).start == ("stt",)
    assert step(TrialPhase.STARTING, READY, judge=READY, stt=WAITING).start == ()
    assert step(TrialPhase.STARTING, READY, judge=READY, stt=READY) == Step(TrialPhase.MEASURING)


def test_a_server_that_cannot_start_fails_the_trial_with_its_own_message() -> None:
    ended = step(TrialPhase.STARTING, READY, judge=ObservedPod(PodState.FAILED, f"INFO\n{NO_BLOCKS}\nRuntimeError: x"))

    assert ended == Step(TrialPhase.FAILED, "NoCacheBlocks", f"judge: {NO_BLOCKS}")


def test_what_the_candidate_is_not_to_blame_for_makes_the_trial_invalid() -> None:
    disturbed = ObservedPod(PodState.FAILED, "AssertionError: Error in memory profiling. Initial free memory 1 GiB")

    assert step(TrialPhase.STARTING, READY, judge=disturbed).phase is TrialPhase.INVALID
    assert step(TrialPhase.MEASURING, READY, judge=READY).reason == "PodVanished"
    assert step(TrialPhase.MEASURING, ObservedPod(PodState.FAILED), judge=READY, stt=READY).reason == "ProbeEnded"


@pytest.mark.parametrize("phase", [TrialPhase.DRAINING, TrialPhase.STARTING, TrialPhase.MEASURING])
@pytest.mark.parametrize("probe", [None, WAITING, READY, ObservedPod(PodState.SUCCEEDED, log=None)])
def test_on_a_lost_node_nothing_is_waited_for_and_nobody_is_blamed(
    phase: TrialPhase, probe: ObservedPod | None
) -> None:
    failed = ObservedPod(PodState.FAILED, NO_BLOCKS)
    observed = Observed(True, probe, {"judge": WAITING, "stt": failed}, lost_node="lab is silent")

    for seconds in (0, 3600):
        later = NOW + timedelta(seconds=seconds)
        ended = decide(COMPONENTS, phase, NOW, observed, DEADLINES, later)
        assert ended == Step(TrialPhase.INVALID, "NodeLost", "lab is silent")


def test_a_trial_that_has_ended_is_cleaned_up_on_a_lost_node_too() -> None:
    observed = Observed(True, READY, {}, lost_node="lab is silent")

    assert decide(COMPONENTS, TrialPhase.INVALID, NOW, observed, DEADLINES, NOW).clean_up


def test_a_result_stands_whatever_ends_after_it() -> None:
    done = ObservedPod(PodState.SUCCEEDED)

    ended = step(TrialPhase.MEASURING, done, judge=ObservedPod(PodState.FAILED), stt=READY)
    assert ended.phase is TrialPhase.SUCCEEDED


def test_a_result_beside_a_pod_that_is_gone_is_invalid_for_its_log_is_gone_too() -> None:
    assert step(TrialPhase.MEASURING, ObservedPod(PodState.SUCCEEDED), judge=READY).reason == "PodVanished"


def test_a_result_measured_without_the_card_is_invalid() -> None:
    observed = Observed(False, ObservedPod(PodState.SUCCEEDED), {"judge": READY, "stt": READY})

    ended = decide(COMPONENTS, TrialPhase.MEASURING, NOW, observed, DEADLINES, NOW)

    assert (ended.phase, ended.reason) == (TrialPhase.INVALID, "CardLost")


@pytest.mark.parametrize(
    ("phase", "seconds", "ends_in", "reason"),
    [
        (TrialPhase.DRAINING, 61, TrialPhase.INVALID, "NotDrained"),
        (TrialPhase.STARTING, 301, TrialPhase.FAILED, "NotReadyInTime"),
        (TrialPhase.MEASURING, 121, TrialPhase.INVALID, "ProbeTimedOut"),
    ],
)
def test_no_phase_lasts_for_ever(phase: TrialPhase, seconds: int, ends_in: TrialPhase, reason: str) -> None:
    probe = WAITING if phase is TrialPhase.DRAINING else READY
    pods = {"judge": READY, "stt": WAITING}

    assert step(phase, probe, seconds - 2, **pods).phase is phase
    late = step(phase, probe, seconds, **pods)
    assert (late.phase, late.reason, late.clean_up) == (ends_in, reason, False)


UNSCHEDULABLE = ObservedPod(PodState.WAITING, hindrance=PodFailure("Unschedulable", "1 Insufficient cpu"))


@pytest.mark.parametrize("seconds", [10, 301])
def test_what_the_cluster_lacks_is_waited_for_and_is_not_the_candidates_failure(seconds: int) -> None:
    found = step(TrialPhase.STARTING, READY, seconds, judge=READY, stt=UNSCHEDULABLE)

    assert found.phase is (TrialPhase.STARTING if seconds == 10 else TrialPhase.INVALID)
    assert (found.reason, found.message) == ("Unschedulable", "stt: 1 Insufficient cpu")
    assert step(TrialPhase.DRAINING, UNSCHEDULABLE, seconds).reason == "Unschedulable"


def test_a_pod_that_the_quota_never_let_in_is_not_the_candidates_failure() -> None:
    observed = Observed(True, READY, {"judge": READY}, PodFailure("QuotaExceeded", "pods=9"))

    late = decide(COMPONENTS, TrialPhase.STARTING, NOW, observed, DEADLINES, NOW + timedelta(seconds=301))

    assert (late.phase, late.reason) == (TrialPhase.INVALID, "QuotaExceeded")


@pytest.mark.parametrize(("seconds", "phase"), [(10, TrialPhase.MEASURING), (121, TrialPhase.INVALID)])
def test_a_log_that_cannot_be_read_is_waited_for_as_long_as_the_phase_lasts(seconds: int, phase: TrialPhase) -> None:
    unread = ObservedPod(PodState.SUCCEEDED, log=None)

    found = step(TrialPhase.MEASURING, unread, seconds, judge=READY, stt=READY)

    assert (found.phase, found.reason) == (phase, "LogUnreadable")


PODS = st.builds(
    ObservedPod,
    st.sampled_from(PodState),
    st.sampled_from(["", NO_BLOCKS, None]),
    st.sampled_from([None, PodFailure("ImagePullFailed", "no such image")]),
)
OBSERVED = st.builds(
    Observed,
    st.booleans(),
    st.none() | PODS,
    st.dictionaries(st.sampled_from([it.name for it in COMPONENTS]), PODS),
    lost_node=st.sampled_from(["", "lab is silent"]),
)
ORDER = [TrialPhase.PENDING, TrialPhase.DRAINING, TrialPhase.STARTING, TrialPhase.MEASURING]


@given(phase=st.sampled_from(TrialPhase), observed=OBSERVED, seconds=st.integers(0, 1000))
def test_whatever_is_observed_a_trial_keeps_its_promises(phase: TrialPhase, observed: Observed, seconds: int) -> None:
    following = decide(COMPONENTS, phase, NOW, observed, DEADLINES, NOW + timedelta(seconds=seconds))

    if phase.is_finished():
        assert following.phase is phase
    elif not following.phase.is_finished():
        assert ORDER.index(following.phase) - ORDER.index(phase) in {0, 1}
        assert observed.holds_card or phase is TrialPhase.PENDING
    if following.clean_up:
        assert phase.is_finished(), "pods go when the result is stored, not before"
    if following.start:
        assert phase is TrialPhase.STARTING
        assert observed.holds_card
        assert not set(following.start) & observed.components.keys()
    if following.phase is TrialPhase.SUCCEEDED and phase is not TrialPhase.SUCCEEDED:
        assert observed.holds_card
        assert observed.probe is not None
        assert observed.probe.state is PodState.SUCCEEDED


@given(observed=OBSERVED)
def test_a_finished_trial_cleans_up_until_nothing_is_left(observed: Observed) -> None:
    left = observed.holds_card or observed.probe is not None or bool(observed.components)

    assert decide(COMPONENTS, TrialPhase.FAILED, NOW, observed, DEADLINES, NOW).clean_up == left


@pytest.mark.parametrize(
    ("phase", "probe", "judge", "message"),
    [
        (TrialPhase.DRAINING, "probe: error: NVML: GPU is lost", None, "NVML: GPU is lost"),
        (TrialPhase.MEASURING, "measuring\nprobe: error: NVML: GPU requires reset", None, "NVML: GPU requires reset"),
        (
            TrialPhase.MEASURING,
            None,
            "RuntimeError: CUDA error: uncorrectable ECC error encountered\nbye",
            "judge: RuntimeError: CUDA error: uncorrectable ECC error encountered",
        ),
    ],
)
def test_a_card_that_fails_is_to_blame_and_not_the_candidate(
    phase: TrialPhase, probe: str | None, judge: str | None, message: str
) -> None:
    of_probe = READY if probe is None else ObservedPod(PodState.FAILED, probe)
    of_judge = READY if judge is None else ObservedPod(PodState.FAILED, judge)

    ended = step(phase, of_probe, judge=of_judge, stt=READY)

    assert ended == Step(TrialPhase.INVALID, "CardError", message, blames_the_card=True)


def test_a_container_that_the_kernel_ended_would_end_so_again() -> None:
    killed = ObservedPod(PodState.FAILED, "loading\n", oom_killed=("vllm",))
    known = ObservedPod(PodState.FAILED, NO_BLOCKS, oom_killed=("vllm",))

    ended = step(TrialPhase.STARTING, READY, judge=killed)

    assert (ended.phase, ended.reason) == (TrialPhase.FAILED, "OOMKilled")
    assert ended.message == "judge: the kernel ended container vllm for want of memory of the machine"
    assert step(TrialPhase.STARTING, READY, judge=known).reason == "NoCacheBlocks", "the log knows it better"


def test_a_card_that_is_not_drained_in_time_is_left_alone_and_other_ends_are_not_held_against_it() -> None:
    assert step(TrialPhase.DRAINING, WAITING, seconds=61).blames_the_card
    assert not step(TrialPhase.DRAINING, ObservedPod(PodState.FAILED, "no corpus")).blames_the_card
