"""A stage's bridge, step by step; test_surge_any_order.py looks at all the ways through them."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cotune.api.downtime import StageDowntime
from cotune.api.grant import GrantSpec
from cotune.api.profile import Mend, ProfilePhase, ProfileSpec, Stage, StageStatus
from cotune.api.surge import StageSurge, Surge, SurgePhase
from cotune.rollout.bridge import CreateBridge, RemoveBridge
from cotune.rollout.convergence import Scale
from cotune.rollout.downtime import Estimate
from cotune.rollout.stage import StageStep
from cotune.rollout.state import ObservedWorkload, Revision, WorkloadRevision
from cotune.rollout.surge import NoBridge, follow_bridged, keep, restarts_clock, start, wanted, with_surge
from cotune.rollout.targets import Refusal, Targets, resolve
from cotune.trials.pod_failure import PodFailure
from support.resources import manifest

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STAGE = Stage(name="production", namespace="prod", readiness_deadline_seconds=60)
REQUIRING = STAGE.model_copy(update={"surge": Surge.REQUIRE})
GOOD = Revision((WorkloadRevision("judge", {"MEMORY": "0.5"}, 1), WorkloadRevision("stt", {}, 1)))
TARGET = GOOD.with_values({("judge", "MEMORY"): "0.6"})
STARTING = StageSurge(phase=SurgePhase.STARTING, since=NOW)
SERVING = StageSurge(phase=SurgePhase.SERVING, since=NOW, served_until=NOW)
REMOVING = StageSurge(phase=SurgePhase.REMOVING, since=NOW, served_until=NOW)
FORWARD, BACK = ProfilePhase.PROGRESSING, ProfilePhase.ROLLING_BACK
NO_NODE = PodFailure("Unschedulable", "0/2 nodes are available", Mend.ROOM)


def seconds(count: float) -> datetime:
    return NOW + timedelta(seconds=count)


def workload(is_ready: bool = True, failure: PodFailure | None = None, replicas: int = 1) -> ObservedWorkload:
    return ObservedWorkload({"MEMORY": "0.5"}, replicas, replicas, is_ready, failure)


def ready(*names: str) -> dict[str, ObservedWorkload]:
    return {it: workload() for it in names}


STACK = {"judge": workload(), "stt": replace(workload(), values={})}
STOPPED = {name: replace(it, replicas=0, pods=0) for name, it in STACK.items()}


def state(surge: StageSurge, phase: ProfilePhase = FORWARD, **more: object) -> StageStatus:
    made = StageStatus(name="production", phase=phase, phase_started_at=NOW, surge=surge)
    return made.model_copy(update=more)


def begin(
    bridge: Mapping[str, ObservedWorkload],
    now: datetime = NOW,
    stage: Stage = STAGE,
    surge: StageSurge = STARTING,
    why_not: NoBridge | None = None,
    before: StageStep | None = None,
) -> StageStep:
    chances = before.chances if before is not None and before.chances is not None else ()
    return start(stage, state(surge, chances=chances), surge, TARGET, STACK, bridge, now, why_not)


def kept(
    surge: StageSurge,
    step: StageStep,
    bridge: Mapping[str, ObservedWorkload],
    phase: ProfilePhase = FORWARD,
    stack: Mapping[str, ObservedWorkload] = STACK,
    now: datetime = NOW,
) -> StageStep:
    return keep(phase, surge, step, TARGET, GOOD, stack, bridge, now)


def phase_of(step: StageStep) -> tuple[SurgePhase, str]:
    assert step.surge is not None
    return step.surge.phase, step.surge.reason


def test_it_starts_in_order_each_ready_before_the_next() -> None:
    assert begin({}).bridging == (CreateBridge("judge"),)
    waiting = begin({"judge": workload(is_ready=False)})
    assert (waiting.bridging, waiting.message) == ((), "waiting for judge of the bridge to be ready")
    assert begin(ready("judge")).bridging == (CreateBridge("stt"),)
    serving = begin(ready("judge", "stt"), seconds(9))
    assert phase_of(serving) == (SurgePhase.SERVING, "")
    assert serving.phase is FORWARD
    assert serving.actions == ()
    assert serving.surge is not None
    assert serving.surge.served_until == seconds(9)


def test_what_has_no_node_is_given_its_time_and_is_no_room_then() -> None:
    bridge = {"judge": workload(is_ready=False, failure=NO_NODE)}

    first = begin(bridge)
    late = begin(bridge, seconds(16), before=first)

    assert phase_of(first) == (SurgePhase.STARTING, "")
    assert phase_of(late) == (SurgePhase.REMOVING, "NoRoom")
    assert late.phase is FORWARD
    assert late.message.startswith("without a bridge: judge: Unschedulable: 0/2 nodes are available")


@pytest.mark.parametrize(
    ("reason", "is_of_the_node"),
    [
        ("ImagePullFailed", True),
        ("ErrImageNeverPull", True),
        ("CreateContainerConfigError", True),
        ("CardTaken", True),
        ("NoCacheBlocks", False),
        ("OOMKilled", False),
        ("CudaOutOfMemory", False),
        ("CrashLoopBackOff", False),
    ],
)
def test_a_failure_that_the_values_have_no_part_in_is_no_reason_to_take_the_stage_back(
    reason: str, is_of_the_node: bool
) -> None:
    step = begin({"judge": workload(is_ready=False, failure=PodFailure(reason, "so"))})

    if is_of_the_node:
        assert (step.phase, *phase_of(step)) == (FORWARD, SurgePhase.REMOVING, "NoRoom")
    else:
        assert (step.phase, *phase_of(step)) == (BACK, SurgePhase.REMOVING, "BridgeFailed")
        assert step.message == f"the bridge: judge: {reason}: so; nothing of the stack was touched"


def test_one_that_is_not_ready_in_time_has_failed() -> None:
    bridge = {"judge": workload(is_ready=False)}

    assert begin(bridge, seconds(60)).phase is FORWARD
    assert begin(bridge, seconds(61)).message == (
        "the bridge: not ready within 60 s, waiting for judge of the bridge to be ready; "
        "nothing of the stack was touched"
    )


def test_one_whose_original_is_gone_is_not_waited_for_for_ever() -> None:
    assert begin({}, seconds(60)).bridging == (CreateBridge("judge"),)
    assert begin({}, seconds(61)).phase is BACK


def test_one_that_still_has_no_node_at_the_deadline_had_no_room() -> None:
    patient = STAGE.model_copy(update={"unschedulable_grace_seconds": 60})
    bridge = {"judge": workload(is_ready=False, failure=NO_NODE)}
    first = begin(bridge, seconds(5), patient)

    late = begin(bridge, seconds(61), patient, before=first)

    assert (late.phase, *phase_of(late)) == (FORWARD, SurgePhase.REMOVING, "NoRoom")


def test_a_stage_that_requires_room_waits_and_has_its_whole_deadline_from_when_there_is_some() -> None:
    bridge = {"judge": workload(is_ready=False, failure=NO_NODE)}
    first = begin(bridge, stage=REQUIRING)
    waiting = begin(bridge, seconds(4000), REQUIRING, before=first)

    assert phase_of(waiting) == (SurgePhase.STARTING, "NoRoom")
    assert waiting.obstacle is not None
    assert waiting.obstacle.reason == "NoRoom"
    assert waiting.surge is not None
    again = begin({"judge": workload(is_ready=False)}, seconds(4001), REQUIRING, waiting.surge)
    assert phase_of(again) == (SurgePhase.STARTING, "")
    assert again.surge is not None
    assert again.surge.since == seconds(4001)
    assert begin({"judge": workload(is_ready=False)}, seconds(4061), REQUIRING, again.surge).phase is FORWARD


@pytest.mark.parametrize("edited", [STAGE, STAGE.model_copy(update={"surge": Surge.NEVER})])
def test_a_stage_that_required_room_does_not_go_on_without_when_it_is_edited(edited: Stage) -> None:
    required = STARTING.model_copy(update={"is_required": True})

    step = begin({}, stage=edited, surge=required, why_not=NoBridge("NoRoom", "no node has room"))

    assert (step.phase, step.actions) == (BACK, ())
    assert "retry it without" in step.message
    assert step.surge is not None
    assert step.surge.phase is SurgePhase.REMOVING


def test_what_has_come_to_light_against_it_ends_it() -> None:
    step = begin(ready("judge"), why_not=NoBridge("SharingMismatch", "MPS there"))

    assert phase_of(step) == (SurgePhase.REMOVING, "SharingMismatch")
    assert step.bridging == ()


def test_a_container_that_takes_the_variable_no_more_turns_the_stage_back() -> None:
    stack = STACK | {"judge": replace(STACK["judge"], unbindable="no such container")}

    step = start(STAGE, state(STARTING), STARTING, TARGET, stack, {}, NOW)

    assert step.phase is BACK
    assert step.obstacle is not None
    assert step.obstacle.reason == "NotBindable"


def test_what_could_not_be_had_is_gone_before_anything_is_stopped() -> None:
    surge = REMOVING.model_copy(update={"reason": "NoRoom", "served_until": None})
    stop = StageStep(FORWARD, "waiting for stt to stop", (Scale("stt", 0),))

    held = kept(surge, stop, ready("judge", "stt"))
    last = kept(surge, stop, ready("judge"))
    gone = kept(surge, stop, {})

    assert (held.actions, held.bridging) == ((), (RemoveBridge("stt"),))
    assert (last.actions, last.bridging) == ((), (RemoveBridge("judge"),))
    assert gone.actions == stop.actions
    assert phase_of(gone) == (SurgePhase.NO_ROOM, "NoRoom")


def test_nothing_is_stopped_while_the_bridge_is_not_ready() -> None:
    stop = StageStep(FORWARD, "waiting for stt to stop", (Scale("stt", 0),))

    assert kept(SERVING, stop, ready("judge", "stt")).actions == stop.actions
    held = kept(SERVING, stop, ready("judge"))
    assert held.actions == ()
    assert phase_of(held) == (SurgePhase.STARTING, "")
    on = kept(SERVING, stop, ready("judge"), stack=STACK | {"stt": STOPPED["stt"]})
    assert on.actions == stop.actions


@pytest.mark.parametrize(("phase", "end"), [(FORWARD, ProfilePhase.BAKING), (BACK, ProfilePhase.ROLLED_BACK)])
def test_a_stage_does_not_end_before_its_bridge_is_gone_in_reverse_order(
    phase: ProfilePhase, end: ProfilePhase
) -> None:
    first = kept(SERVING, StageStep(end), ready("judge", "stt"), phase)
    assert (first.phase, first.bridging) == (phase, (RemoveBridge("stt"),))
    assert first.surge is not None
    second = kept(first.surge, StageStep(end), ready("judge"), phase)
    assert (second.phase, second.bridging) == (phase, (RemoveBridge("judge"),))
    gone = kept(first.surge, StageStep(end), {}, phase)
    assert (gone.phase, gone.bridging, *phase_of(gone)) == (end, (), SurgePhase.DONE, "")


def test_a_bridge_serves_on_while_the_stack_goes_back_and_one_that_has_not_served_goes() -> None:
    back = StageStep(BACK, "judge: CrashLoopBackOff", (Scale("judge", 0),))

    serving = kept(SERVING, back, ready("judge", "stt"), BACK, STOPPED)
    starting = kept(STARTING, StageStep(BACK, "Aborted"), ready("judge"))

    assert (serving.bridging, serving.actions, phase_of(serving)[0]) == ((), back.actions, SurgePhase.SERVING)
    assert (starting.bridging, *phase_of(starting)) == ((RemoveBridge("judge"),), SurgePhase.REMOVING, "")


def test_that_it_serves_is_written_down_every_ten_seconds() -> None:
    step = StageStep(FORWARD, "waiting")

    assert kept(SERVING, step, ready("judge", "stt"), stack=STOPPED, now=seconds(9)).surge == SERVING
    later = kept(SERVING, step, ready("judge", "stt"), stack=STOPPED, now=seconds(10)).surge
    assert later is not None
    assert later.served_until == seconds(10)


def test_the_stages_deadline_begins_with_its_own_change() -> None:
    no_room = StageSurge(phase=SurgePhase.NO_ROOM, since=NOW, reason="NoRoom")

    assert restarts_clock(STARTING, SERVING)
    assert restarts_clock(REMOVING, no_room)
    assert not restarts_clock(SERVING, REMOVING)
    assert not restarts_clock(SERVING, SERVING)
    assert not restarts_clock(None, None)


def followed(
    surge: StageSurge,
    stack: Mapping[str, ObservedWorkload],
    is_served: bool,
    step: StageStep,
    before: StageDowntime | None = None,
    now: datetime = NOW,
    phase: ProfilePhase = FORWARD,
) -> tuple[StageDowntime, int | None]:
    """The record, and the seconds of an outage that is over."""
    before = before or StageDowntime(expected_seconds=90)
    found = follow_bridged("lab/p", "production", before, state(surge, phase), step, GOOD, stack, is_served, now)
    return found.record, found.outage.seconds if found.outage is not None else None


def test_nothing_is_down_while_the_bridge_starts_or_serves() -> None:
    acting = StageStep(FORWARD, actions=(Scale("stt", 0),))

    assert followed(STARTING, STOPPED, False, StageStep(FORWARD)) == (StageDowntime(expected_seconds=90), None)
    assert followed(SERVING, STACK, True, acting) == (StageDowntime(expected_seconds=0), None)
    assert followed(SERVING, STOPPED, True, StageStep(FORWARD)) == (StageDowntime(expected_seconds=0), None)
    record, outage = followed(REMOVING, STACK, False, StageStep(ProfilePhase.BAKING), now=seconds(40))
    assert (record.measured_seconds, record.error_seconds, outage) == (0, 0, None)


def test_a_bridge_that_is_lost_is_downtime_from_when_it_was_last_seen() -> None:
    surge = SERVING.model_copy(update={"served_until": seconds(20)})

    record, _ = followed(surge, STOPPED, False, StageStep(FORWARD), now=seconds(27))
    assert record.since == seconds(20)
    back, outage = followed(surge, STOPPED, True, StageStep(FORWARD), record, seconds(35))
    assert (back.since, back.measured_seconds, outage) == (None, 15, 15)
    up, outage = followed(surge, STACK, False, StageStep(ProfilePhase.BAKING), record, seconds(50))
    assert (up.since, up.measured_seconds, up.error_seconds, outage) == (None, 30, 30, 30)
    twice, _ = followed(surge, STACK, False, StageStep(ProfilePhase.BAKING), back, seconds(60))
    assert (twice.measured_seconds, twice.error_seconds) == (15, 15)


def test_a_stage_without_room_is_measured_as_ever() -> None:
    surge = StageSurge(phase=SurgePhase.NO_ROOM, since=NOW, reason="NoRoom")

    record, _ = followed(surge, STOPPED, False, StageStep(FORWARD), now=seconds(5))

    assert (record.since, record.expected_seconds) == (NOW, 90)


GRANTED = Targets({}, may_surge=True)


@pytest.mark.parametrize(
    ("surge", "may", "what"),
    [
        (None, True, Surge.IF_ROOM),
        (None, False, Surge.NEVER),
        (Surge.NEVER, True, Surge.NEVER),
        (Surge.IF_ROOM, False, Surge.NEVER),
        (Surge.REQUIRE, False, Surge.REQUIRE),
    ],
)
def test_a_stage_surges_where_the_owner_lets_it_unless_it_says_otherwise(
    surge: Surge | None, may: bool, what: Surge
) -> None:
    assert wanted(STAGE.model_copy(update={"surge": surge}), Targets({}, may_surge=may)) is what


def test_what_it_will_cost_is_said_both_ways() -> None:
    expected = Estimate(91, "91 s: so")

    assert with_surge(STAGE, GRANTED, expected) == Estimate(91, "0 s if there is room on another card, else 91 s: so")
    assert with_surge(REQUIRING, GRANTED, Estimate(None, "unknown: no")).seconds == 0
    assert with_surge(STAGE, Targets({}), expected) == expected
    assert with_surge(REQUIRING, GRANTED, Estimate(0, "0 s: nothing changes")).said == "0 s: nothing changes"


@pytest.mark.parametrize(("allow", "may"), [(["Rollout"], False), (["Rollout", "Surge"], True)])
def test_the_owner_lets_a_stack_surge_of_which_a_grant_names_every_workload(allow: list[str], may: bool) -> None:
    spec = ProfileSpec.model_validate(manifest("GpuProfile")["spec"])
    body = manifest("GpuTuningGrant")["spec"]
    rollout = GrantSpec.model_validate(body | {"allow": ["Rollout"]})
    surging = GrantSpec.model_validate(body | {"allow": allow})
    part = GrantSpec.model_validate(body | {"allow": ["Rollout", "Surge"], "targets": body["targets"][:1]})

    found = resolve(spec, "voice-lab", "x", [rollout, surging])
    partly = resolve(spec, "voice-lab", "x", [rollout, part])

    assert not isinstance(found, Refusal)
    assert found.may_surge is may
    assert not isinstance(partly, Refusal)
    assert partly.may_surge is (set(spec.start_order) == {part.targets[0].component})
