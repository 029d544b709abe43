"""When production may be stopped for trials, and what brings it back: tables."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cotune.api.downtime import DowntimeBudget, WhenUnknown
from cotune.api.gate import BeginWindow
from cotune.api.grant import GrantSpec
from cotune.api.quiesce import Quiesce, QuiescedWorkload, QuiescePhase, QuiesceStatus
from cotune.rollout.convergence import Scale
from cotune.rollout.downtime import Outage
from cotune.rollout.progress import Waiting
from cotune.rollout.quiesce import (
    Allowed,
    Ending,
    Needs,
    Plan,
    allowed,
    decide,
    expected_trial,
    is_asked_for,
    is_untouched,
    no_longer,
    plan,
    refused,
    reserved,
)
from cotune.rollout.state import ObservedWorkload
from cotune.rollout.targets import Refusal
from cotune.trials.pod_failure import PodFailure

NIGHT = BeginWindow.model_validate({"from": "22:00", "to": "04:00"})
AT_TEN = datetime(2026, 7, 3, 22, tzinfo=UTC)
NEEDS = Needs(stop=60, trial=600, restoration=300)
DEADLINE = timedelta(seconds=300)
TARGETS = [
    {
        "component": name,
        "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"{name}-server"},
        "container": "main",
    }
    for name in ("judge", "stt")
]
WORKLOADS = tuple(
    QuiescedWorkload(component=it, deployment=f"{it}-server", container="main", replicas=1, generation=4)
    for it in ("judge", "stt")
)
READY = ObservedWorkload({}, replicas=1, pods=1, is_ready=True, generation=4)
STOPPED = ObservedWorkload({}, replicas=0, pods=0, is_ready=True, generation=5)
STARTING = ObservedWorkload({}, replicas=1, pods=1, is_ready=False, generation=6)
BACK = ObservedWorkload({}, replicas=1, pods=1, is_ready=True, generation=6)


def quiesce(**fields: Any) -> Quiesce:
    given = {"namespace": "prod", "window": {"from": "22:00", "to": "04:00"}, "maximumSeconds": 7200}
    return Quiesce.model_validate(given | {"restorationSeconds": 300} | fields)


def grant(**fields: Any) -> GrantSpec:
    given = {"from": [{"namespace": "lab"}], "allow": ["Quiesce"], "targets": TARGETS}
    return GrantSpec.model_validate(given | {"quiesce": {"maximumSeconds": 3600}} | fields)


def may(maximum: int = 7200, budgets: tuple[DowntimeBudget, ...] = (), window: BeginWindow = NIGHT) -> Allowed:
    return Allowed({}, maximum, (window,), budgets)


def status(phase: QuiescePhase = QuiescePhase.QUIESCED, **fields: Any) -> QuiesceStatus:
    given: dict[str, Any] = {
        "namespace": "prod",
        "since": AT_TEN,
        "until": AT_TEN + timedelta(hours=1),
        "phase_started_at": AT_TEN,
    }
    restore_at = AT_TEN + timedelta(hours=1) - DEADLINE
    return QuiesceStatus(phase=phase, workloads=WORKLOADS, restore_at=restore_at, **(given | fields))


def test_of_several_limits_the_strictest_hold() -> None:
    owners = {"from": "23:00", "to": "02:00"}
    found = allowed(
        quiesce(startOrder=["stt", "judge"]),
        "lab",
        [grant(), grant(quiesce={"maximumSeconds": 1800, "window": owners}, downtimeBudget={"secondsPerDay": 900})],
    )

    assert isinstance(found, Allowed)
    assert list(found.targets) == ["stt", "judge"]
    assert found.maximum_seconds == 1800
    assert [it.from_ for it in found.windows] == ["22:00", "23:00"]
    assert [it.seconds_per_day for it in found.budgets] == [900]


def test_without_an_order_of_its_own_an_experiment_takes_the_grants() -> None:
    found = allowed(quiesce(), "lab", [grant()])

    assert isinstance(found, Allowed)
    assert list(found.targets) == ["judge", "stt"]


@pytest.mark.parametrize(
    ("source", "grants", "order", "reason"),
    [
        ("lab", [], [], "NoGrant"),
        ("elsewhere", [grant()], [], "NoGrant"),
        ("lab", [grant(allow=["Rollout"], quiesce=None)], [], "NoGrant"),
        ("lab", [grant()], ["judge", "chat"], "WorkloadNotFound"),
        ("lab", [grant(), grant(targets=[TARGETS[0] | {"container": "other"}])], [], "AmbiguousGrant"),
    ],
)
def test_what_the_grants_do_not_allow_is_refused(
    source: str, grants: list[GrantSpec], order: list[str], reason: str
) -> None:
    found = allowed(quiesce(startOrder=order), source, grants)

    assert isinstance(found, Refusal)
    assert found.reason == reason


def test_production_is_back_before_its_time_and_before_the_window_closes() -> None:
    assert plan(may(), NEEDS, (), None, AT_TEN) == Plan(
        until=AT_TEN + timedelta(hours=2), restore_at=AT_TEN + timedelta(hours=2) - DEADLINE
    )
    late = AT_TEN + timedelta(hours=5)
    found = plan(may(), NEEDS, (), None, late)
    assert isinstance(found, Plan)
    assert found.until == AT_TEN + timedelta(hours=6)


@pytest.mark.parametrize(
    ("found", "reason", "is_stalled", "words"),
    [
        (plan(may(959), NEEDS, (), None, AT_TEN), "QuiesceTooShort", True, "959 s: it never fits"),
        (
            plan(may(window=BeginWindow.model_validate({"from": "22:00", "to": "22:15"})), NEEDS, (), None, AT_TEN),
            "QuiesceTooShort",
            True,
            "too short",
        ),
        (
            plan(may(), NEEDS, (), None, AT_TEN - timedelta(seconds=1)),
            "OutsideWindow",
            False,
            "opens at 2026-07-03T22:00",
        ),
        (
            plan(may(), NEEDS, (), None, AT_TEN + timedelta(hours=6, seconds=-959)),
            "OutsideWindow",
            False,
            "07-04T22:00",
        ),
        (plan(may(), NEEDS, (), AT_TEN, AT_TEN + timedelta(hours=2)), "OutsideWindow", False, "in this window already"),
        (
            plan(may(window=BeginWindow.model_validate({"timeZone": "Mars/Olympus"})), NEEDS, (), None, AT_TEN),
            "UnknownTimeZone",
            True,
            "Mars",
        ),
        (
            plan(may(budgets=(DowntimeBudget(seconds_per_day=900),)), NEEDS, (), None, AT_TEN),
            "DowntimeBudget",
            True,
            "it never fits",
        ),
    ],
)
def test_production_is_not_stopped(found: Plan | Waiting, reason: str, is_stalled: bool, words: str) -> None:
    assert isinstance(found, Waiting)
    assert (found.reason, found.is_stalled) == (reason, is_stalled)
    assert words in found.message


def test_in_the_next_window_production_is_stopped_again() -> None:
    assert isinstance(plan(may(), NEEDS, (), AT_TEN - timedelta(hours=20), AT_TEN), Plan)


def test_what_is_left_of_a_budget_is_the_time_there_is() -> None:
    spent = Outage("lab/other", "only", AT_TEN - timedelta(hours=3, seconds=800), AT_TEN - timedelta(hours=3))
    budget = DowntimeBudget(seconds_per_day=2000, on_unknown=WhenUnknown.WAIT)

    found = plan(may(budgets=(budget,)), NEEDS, (spent,), None, AT_TEN)

    assert isinstance(found, Plan)
    assert found.until == AT_TEN + timedelta(seconds=1200)
    assert isinstance(plan(may(budgets=(budget,)), NEEDS, (spent, spent), None, AT_TEN), Waiting)


@pytest.mark.parametrize(
    ("stated", "measured", "interrupted", "seconds"),
    [(None, [], None, 900), (60, [], None, 60), (60, [41.2, 70.1], None, 71), (60, [70.1], 400, 401), (60, [], 20, 60)],
)
def test_a_trial_is_given_what_trials_have_taken(
    stated: int | None, measured: list[float], interrupted: int | None, seconds: int
) -> None:
    assert expected_trial(stated, timedelta(seconds=900), measured, interrupted) == seconds


def test_what_was_measured_while_no_operator_was_there_stalls_no_experiment_for_ever() -> None:
    at_most = timedelta(seconds=900)

    assert expected_trial(420, at_most, [20_000.0], None) == 900
    assert expected_trial(None, at_most, [60.0], 21_000) == 900
    assert expected_trial(1_000, at_most, [], 21_000) == 1_000


def test_a_way_back_that_took_hours_keeps_no_more_than_twice_the_stated_time() -> None:
    stated = quiesce()

    assert reserved(stated, None) == 300
    assert [reserved(stated, status(restoration_seconds=it)) for it in (None, 200, 450, 25_200)] == [300, 300, 450, 600]


def test_a_workload_that_its_owner_makes_anew_is_not_stopped_again() -> None:
    stopped, anew = status(), replace(READY, uid="made-anew")

    step = decide(stopped, {"judge": STOPPED, "stt": anew}, 0, None, DEADLINE, AT_TEN + timedelta(seconds=60))

    assert (step.phase, step.reason) == (QuiescePhase.RESTORING, "ScaledByOthers")


def test_a_stack_stops_in_the_reverse_order_of_its_start_each_gone_before_the_next() -> None:
    stopping = status(QuiescePhase.STOPPING)

    def step(judge: ObservedWorkload, stt: ObservedWorkload) -> tuple[QuiescePhase, tuple[Scale, ...]]:
        made = decide(stopping, {"judge": judge, "stt": stt}, 0, None, DEADLINE, AT_TEN)
        return made.phase, made.actions

    assert step(READY, READY) == (QuiescePhase.STOPPING, (Scale("stt", 0),))
    assert step(READY, replace(STOPPED, pods=1)) == (QuiescePhase.STOPPING, ())
    assert step(READY, STOPPED) == (QuiescePhase.STOPPING, (Scale("judge", 0),))
    assert step(replace(STOPPED, pods=1), STOPPED) == (QuiescePhase.STOPPING, ())
    assert step(STOPPED, STOPPED) == (QuiescePhase.QUIESCED, ())


def test_it_comes_back_in_order_each_ready_before_the_next_when_no_pod_of_a_trial_is_left() -> None:
    restoring, now = status(QuiescePhase.RESTORING), AT_TEN + timedelta(seconds=10)

    def step(judge: ObservedWorkload, stt: ObservedWorkload, pods: int = 0) -> tuple[QuiescePhase, tuple[Scale, ...]]:
        made = decide(restoring, {"judge": judge, "stt": stt}, pods, None, DEADLINE, now)
        return made.phase, made.actions

    assert step(STOPPED, STOPPED, pods=2) == (QuiescePhase.RESTORING, ())
    assert step(STOPPED, STOPPED) == (QuiescePhase.RESTORING, (Scale("judge", 1),))
    assert step(STARTING, STOPPED) == (QuiescePhase.RESTORING, ())
    assert step(BACK, STOPPED) == (QuiescePhase.RESTORING, (Scale("stt", 1),))
    assert step(BACK, BACK) == (QuiescePhase.RESTORED, ())


def test_a_pod_of_a_trial_that_does_not_go_is_waited_for_a_minute_only() -> None:
    restoring = status(QuiescePhase.RESTORING)
    observed = {"judge": STOPPED, "stt": STOPPED}

    assert not decide(restoring, observed, 1, None, DEADLINE, AT_TEN + timedelta(seconds=59)).actions
    assert decide(restoring, observed, 1, None, DEADLINE, AT_TEN + timedelta(seconds=60)).actions


@pytest.mark.parametrize("phase", [QuiescePhase.STOPPING, QuiescePhase.QUIESCED])
@pytest.mark.parametrize(
    ("observed", "ending", "seconds", "reason"),
    [
        ({"judge": STOPPED, "stt": STOPPED}, Ending("NoGrant", "withdrawn"), 60, "NoGrant"),
        ({"judge": STOPPED, "stt": STOPPED}, None, 3300, "TimeIsOver"),
        ({"judge": STOPPED, "stt": STARTING}, None, 60, "ScaledByOthers"),
        ({"judge": STOPPED, "stt": replace(READY, generation=5)}, None, 60, "ScaledByOthers"),
        ({"judge": STOPPED}, None, 60, "ScaledByOthers"),
    ],
)
def test_whatever_happens_production_comes_back(
    phase: QuiescePhase, observed: dict[str, ObservedWorkload], ending: Ending | None, seconds: int, reason: str
) -> None:
    step = decide(status(phase), observed, 0, ending, DEADLINE, AT_TEN + timedelta(seconds=seconds))

    assert (step.phase, step.reason, step.actions) == (QuiescePhase.RESTORING, reason, ())


def test_what_somebody_has_changed_meanwhile_at_zero_replicas_ends_nothing() -> None:
    observed = {"judge": replace(STOPPED, generation=9), "stt": STOPPED}

    assert decide(status(), observed, 0, None, DEADLINE, AT_TEN).phase is QuiescePhase.QUIESCED


def test_other_replicas_that_somebody_has_set_stay() -> None:
    observed = {"judge": replace(BACK, replicas=3, pods=3), "stt": STOPPED}

    step = decide(status(QuiescePhase.RESTORING), observed, 0, None, DEADLINE, AT_TEN)

    assert step.actions == (Scale("stt", 1),)


def test_a_workload_that_somebody_has_deleted_is_not_waited_for() -> None:
    restoring = status(QuiescePhase.RESTORING)

    assert decide(restoring, {"stt": BACK}, 0, None, DEADLINE, AT_TEN).phase is QuiescePhase.RESTORED
    assert decide(restoring, {}, 0, None, DEADLINE, AT_TEN).phase is QuiescePhase.RESTORED


def test_a_way_back_that_takes_too_long_is_degraded_and_starts_all_that_is_missing() -> None:
    crash = PodFailure("ComponentEnded", "exit code 1")
    observed = {"judge": replace(STARTING, failure=crash), "stt": STOPPED}
    late = AT_TEN + DEADLINE + timedelta(seconds=1)

    step = decide(status(QuiescePhase.RESTORING), observed, 0, None, DEADLINE, late)
    then = decide(status(QuiescePhase.DEGRADED), observed, 1, None, DEADLINE, late)

    assert (step.phase, step.reason, step.is_stalled) == (QuiescePhase.DEGRADED, "RestorationOverdue", True)
    assert "judge: ComponentEnded: exit code 1" in step.message
    assert (then.phase, then.actions) == (QuiescePhase.DEGRADED, (Scale("stt", 1),))
    back = decide(status(QuiescePhase.DEGRADED), {"judge": BACK, "stt": BACK}, 0, None, DEADLINE, late)
    assert back.phase is QuiescePhase.RESTORED


def test_a_refusal_turns_back_and_is_no_reason_to_give_the_way_back_up() -> None:
    why, late = Ending("Forbidden", "no"), AT_TEN + DEADLINE + timedelta(seconds=1)

    assert refused(status(), why, DEADLINE, AT_TEN).phase is QuiescePhase.RESTORING
    assert refused(status(QuiescePhase.RESTORING), why, DEADLINE, AT_TEN).phase is QuiescePhase.RESTORING
    assert refused(status(QuiescePhase.RESTORING), why, DEADLINE, late).phase is QuiescePhase.DEGRADED


def test_a_quiesce_ends_when_less_is_allowed_than_when_it_began() -> None:
    now = AT_TEN + timedelta(minutes=20)

    assert no_longer(may(), AT_TEN, DEADLINE, now) is None
    assert no_longer(may(1500), AT_TEN, DEADLINE, now) == Ending("TimeIsOver", "the time for trials is over")
    later = BeginWindow.model_validate({"from": "23:00", "to": "04:00"})
    assert no_longer(may(window=later), AT_TEN, DEADLINE, now) is not None
    strange = BeginWindow.model_validate({"timeZone": "Mars/Olympus"})
    assert no_longer(may(window=strange), AT_TEN, DEADLINE, now) == Ending(
        "UnknownTimeZone", "the operator knows no time zone Mars/Olympus"
    )


def test_what_has_been_touched_and_given_back_is_told() -> None:
    assert is_untouched(WORKLOADS, {"judge": READY, "stt": READY})
    assert not is_untouched(WORKLOADS, {"judge": READY, "stt": STOPPED})
    assert not is_untouched(WORKLOADS, {"judge": READY})
    assert not is_untouched(WORKLOADS, {"judge": READY, "stt": replace(READY, uid="made-anew")})
    assert is_asked_for(status(), {"judge": STARTING, "stt": BACK})
    assert not is_asked_for(status(), {"judge": STOPPED, "stt": BACK})
    assert is_asked_for(status(), {"judge": STARTING})
