import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cotune.api.experiment import ExperimentSpec, Gpu, Sharing
from cotune.api.trial import Measurement, PredictedHolding, Prediction
from cotune.experiments.predictions import plan_experiment
from cotune.measurement.agent.contract import Tenant, TenantProcess
from cotune.measurement.contract import (
    CardConduct,
    CardProcess,
    Conduct,
    InterferenceCell,
    Punctuality,
    RoundConduct,
    Spread,
)
from cotune.planning.model_config import read_model_config
from cotune.search.space import Space
from cotune.trials.tenancy import Share, Tenancy
from cotune.trials.truth import ComponentEvidence, Evidence, breach
from cotune_simulation.card.products import card_product
from cotune_simulation.whisper.figures import size_figures
from support.examples import documents
from support.resources import manifest

START = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
END = START + timedelta(seconds=60)
CARD = "GPU-1"


def voice(gpu: bool = True, **workload: Any) -> ExperimentSpec:
    spec = manifest("GpuAllocationExperiment")["spec"]
    for it in spec["stack"]["components"]:
        it["template"]["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    spec["workload"] |= workload
    if not gpu:
        del spec["gpu"]
    return ExperimentSpec.model_validate(spec)


def processes(*mib: float) -> tuple[CardProcess, ...]:
    return tuple(CardProcess(pid=pid, least_mib=it) for pid, it in enumerate(mib, 100))


SEEN = CardConduct(
    uuid=CARD,
    readings=100,
    rise_mib=6_800,
    processes=processes(6_000, 800),
    are_all_listed=True,
    throttled=0,
    sm_clock_mhz=1_777,
    temperature_celsius=66,
)
PLANNED = Prediction(
    fits=True,
    holdings=(
        PredictedHolding(component="judge", least_mib=5_500),
        PredictedHolding(component="stt", least_mib=350),
    ),
)


def measured(metric: str, value: str, samples: int) -> dict[str, Measurement]:
    return {metric: Measurement(metric=metric, value=value, samples=samples)}


WELL = Evidence(
    voice(),
    Conduct(
        started_at=START,
        ended_at=END,
        punctuality=(
            Punctuality(component="judge", requests=60, late_p99_ms=2),
            Punctuality(component="stt", requests=120, late_p99_ms=2),
        ),
        card=SEEN,
    ),
    {
        "probe": ComponentEvidence(frozenset({CARD})),
        "judge": ComponentEvidence(frozenset({CARD}), [START - timedelta(seconds=90)]),
        "stt": ComponentEvidence(frozenset({CARD}), [START - timedelta(seconds=30)]),
    },
    {
        **measured("judge.latency.p95", "700", 60),
        **measured("stt.latency.p95", "85", 120),
        **measured("stt.wer", "0.05", 120),
    },
    PLANNED,
)


def on_card(**seen: Any) -> Evidence:
    return replace(WELL, conduct=WELL.conduct.model_copy(update={"card": SEEN.model_copy(update=seen)}))


def in_a_round(evidence: Evidence = WELL, requests: int = 60, late_ms: float = 2.0, **seen: Any) -> Evidence:
    """Beside the window, speech was loaded alone for a minute; its p95 was 80 ms."""
    alone = RoundConduct(
        loaded=("stt",),
        started_at=END + timedelta(seconds=5),
        ended_at=END + timedelta(seconds=65),
        punctuality=(Punctuality(component="stt", requests=requests, late_p99_ms=late_ms),),
        card=SEEN.model_copy(update=seen),
    )
    latency = Spread(p50=50, p95=80, p99=90, largest=95, samples=max(requests, 1))
    cell = InterferenceCell(loaded=("stt",), component="stt", latency=latency)
    conduct = evidence.conduct.model_copy(update={"rounds": (alone,)})
    return replace(evidence, conduct=conduct, interference=(cell,))


def late(milliseconds: float, component: str = "stt", requests: int = 120) -> Evidence:
    it = Punctuality(component=component, requests=requests, late_p99_ms=milliseconds)
    return replace(WELL, conduct=WELL.conduct.model_copy(update={"punctuality": (it,)}))


def with_component(name: str, it: ComponentEvidence) -> Evidence:
    return replace(WELL, components={**WELL.components, name: it})


def with_samples(requests: int, samples: int) -> Evidence:
    it = Punctuality(component="stt", requests=requests, late_p99_ms=0)
    return replace(
        WELL,
        conduct=WELL.conduct.model_copy(update={"punctuality": (it,)}),
        measurements=measured("stt.latency.p95", "85", samples),
    )


def reason(evidence: Evidence) -> str | None:
    found = breach(evidence)
    return None if found is None else found.reason


def test_a_trial_that_went_well_breaks_no_gate() -> None:
    assert breach(WELL) is None


@pytest.mark.parametrize("component", ["judge", "stt", "probe"])
def test_a_container_on_another_card_is_seen(component: str) -> None:
    found = breach(with_component(component, ComponentEvidence(frozenset({"GPU-2"}))))

    assert found is not None
    assert (found.reason, found.blames_the_candidate) == ("NotColocated", False)
    assert re.search(rf"GPU-2: {component}\b", found.message)


def test_where_the_kubelet_says_nothing_of_cards_nothing_is_held_against_the_trial() -> None:
    assert breach(with_component("stt", ComponentEvidence())) is None


def test_who_comes_to_the_card_in_the_window_spoils_it() -> None:
    found = breach(on_card(newcomers=(CardProcess(pid=4711, least_mib=512),)))

    assert found is not None
    assert (found.reason, found.message) == (
        "SecondTenant",
        "came to the card within the window: process 4711 with 512 MiB",
    )


@pytest.mark.parametrize(
    ("held", "who"),
    [
        ((6_000.0,), "not every component has its"),
        ((6_000.0, 300.0), "not every component has its"),
        ((800.0, 700.0), "judge has no"),
        ((), "not every component has its"),
        ((6_000.0, 0.0), "not every component has its"),
    ],
)
def test_a_component_that_is_not_on_the_card_is_seen_by_the_share_that_is_missing(
    held: tuple[float, ...], who: str
) -> None:
    found = breach(on_card(processes=processes(*held)))

    assert found is not None
    assert found.reason == "DeviceFallback"
    assert found.message.startswith(f"{who} share of the card: wanted at least judge 5500 MiB, stt 350 MiB; processes")


def test_a_component_may_have_several_processes() -> None:
    assert breach(on_card(processes=processes(3_000, 2_600, 360))) is None


@pytest.mark.parametrize(("rise", "expected"), [(5_800.0, "DeviceFallback"), (5_900.0, None)])
def test_without_a_full_list_of_processes_the_card_as_a_whole_is_compared(rise: float, expected: str | None) -> None:
    assert reason(on_card(processes=(), are_all_listed=False, rise_mib=rise)) == expected


def test_an_unplanned_component_that_asks_for_a_card_has_some_process_on_it() -> None:
    unplanned = replace(WELL, prediction=None)
    alone = replace(on_card(processes=processes(6_000)), prediction=None)

    assert (reason(unplanned), reason(alone)) == (None, "DeviceFallback")


def test_without_a_card_no_component_is_looked_for_on_one() -> None:
    conduct = WELL.conduct.model_copy(update={"card": None})

    assert breach(replace(WELL, spec=voice(gpu=False), conduct=conduct)) is None


@pytest.mark.parametrize(("readings", "expected"), [(None, None), (0, None), (5, None), (6, "Throttled")])
def test_clocks_that_heat_has_slowed_spoil_the_window(readings: int | None, expected: str | None) -> None:
    found = breach(on_card(throttled=readings, throttle_reasons=("SwThermalSlowdown",) if readings else ()))

    assert (found.reason if found else None) == expected
    if found is not None:
        assert found.message == "SwThermalSlowdown in 6 of 100 readings, down to 1777 MHz, up to 66 C"


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (START - timedelta(seconds=1), None),
        (START, "ComponentRestarted"),
        (END - timedelta(seconds=1), "ComponentRestarted"),
        (END + timedelta(seconds=1), None),
    ],
)
def test_a_container_starts_or_ends_outside_of_the_window_only(moment: datetime, expected: str | None) -> None:
    assert reason(with_component("stt", ComponentEvidence(frozenset(), [moment]))) == expected


def test_a_restart_in_the_windows_first_second_is_seen_though_kubernetes_cuts_its_times_to_seconds() -> None:
    evidence = with_component("stt", ComponentEvidence(frozenset(), [START]))
    begun_later = evidence.conduct.model_copy(update={"started_at": START + timedelta(seconds=0.4)})

    assert reason(replace(evidence, conduct=begun_later)) == "ComponentRestarted"


def test_a_service_that_ran_out_of_memory_within_the_window_has_failed() -> None:
    log = "INFO\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 102.00 MiB."

    found = breach(with_component("stt", ComponentEvidence(frozenset(), [END], log)))

    assert found is not None
    assert (found.reason, found.blames_the_candidate) == ("CudaOutOfMemory", True)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (late(49), None),
        (late(51), "ProbeStarved"),
        (late(69, "judge"), None),
        (late(71, "judge"), "ProbeStarved"),
        (late(249, requests=99), None),
        (late(251, requests=99), "ProbeStarved"),
    ],
)
def test_a_probe_that_sends_late_measures_itself(evidence: Evidence, expected: str | None) -> None:
    assert reason(evidence) == expected


@pytest.mark.parametrize(
    ("requests", "samples", "expected", "is_to_blame"),
    [
        (120, 120, None, False),
        (20, 20, None, False),
        (19, 19, "SampleTooSmall", False),
        (120, 19, "TooFewAnswers", True),
    ],
)
def test_what_decides_rests_on_enough_answers(
    requests: int, samples: int, expected: str | None, is_to_blame: bool
) -> None:
    found = breach(with_samples(requests, samples))

    assert (found.reason if found else None) == expected
    assert (found is not None and found.blames_the_candidate) == is_to_blame


def test_a_metric_without_a_single_request_due_is_no_result_of_the_candidate() -> None:
    evidence = replace(with_samples(0, 0), measurements={})

    assert reason(evidence) == "SampleTooSmall"


def test_how_many_are_enough_is_the_experiments_to_say() -> None:
    assert breach(replace(with_samples(3, 3), spec=voice(minimumSamples=3))) is None


STRANGER = CardProcess(pid=4711, least_mib=512)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (in_a_round(), None),
        (in_a_round(newcomers=(STRANGER,)), "SecondTenant"),
        (in_a_round(processes=(*SEEN.processes, STRANGER)), "SecondTenant"),
        (in_a_round(throttled=6, throttle_reasons=("HwSlowdown",)), "Throttled"),
        (in_a_round(throttled=5, throttle_reasons=("HwSlowdown",)), None),
        (in_a_round(late_ms=51, requests=100), "ProbeStarved"),
        (in_a_round(late_ms=51, requests=99), None),
    ],
)
def test_a_round_of_the_interference_matrix_meets_the_gates_of_the_window(
    evidence: Evidence, expected: str | None
) -> None:
    found = breach(evidence)

    assert (found.reason if found else None) == expected
    assert found is None or ", in the round of stt" in found.message or "within the window, in the" in found.message


@pytest.mark.parametrize(("seconds", "expected"), [(4, None), (30, "ComponentRestarted"), (70, None)])
def test_a_restart_counts_until_the_last_round_is_over(seconds: int, expected: str | None) -> None:
    moment = (END if seconds > 4 else START - timedelta(seconds=10)) + timedelta(seconds=seconds)
    components = {**WELL.components, "stt": ComponentEvidence(frozenset({CARD}), [moment])}

    assert reason(replace(in_a_round(), components=components)) == expected


def slowed_down(requests: int, samples: int) -> Evidence:
    spec = manifest("GpuAllocationExperiment")["spec"]
    spec["workload"]["interference"] = {"durationSeconds": 30}
    spec["constraints"] = [{"metric": "stt.slowdown.p95", "max": "2"}]
    spec["objectives"] = [{"metric": "stability", "goal": "Maximize", "weight": "1"}]
    found = measured("stt.slowdown.p95", "1.1", samples)
    return replace(
        in_a_round(requests=requests),
        spec=ExperimentSpec.model_validate(spec),
        measurements={**WELL.measurements, **found},
    )


@pytest.mark.parametrize(
    ("requests", "samples", "expected"),
    [(20, 20, None), (19, 19, "SampleTooSmall"), (30, 19, "TooFewAnswers")],
)
def test_a_slowdown_rests_on_the_requests_of_its_own_round_too(
    requests: int, samples: int, expected: str | None
) -> None:
    assert reason(slowed_down(requests, samples)) == expected


@pytest.mark.parametrize(
    ("metric", "requests", "samples", "expected"),
    [
        ("stt.wer", 60, 60, None),
        ("stt.wer.snr10", 60, 20, None),
        # 59 requests under three conditions: none of them was due twenty times, and no candidate is to blame.
        ("stt.wer.snr10", 59, 19, "SampleTooSmall"),
        ("stt.wer.snrMinus5", 59, 19, "SampleTooSmall"),
        ("stt.wer.snr10", 60, 19, "TooFewAnswers"),
        ("judge.quality", 60, 3, None),
    ],
)
def test_a_condition_has_its_share_of_the_requests_and_questions_are_few_on_purpose(
    metric: str, requests: int, samples: int, expected: str | None
) -> None:
    made = manifest("GpuAllocationExperiment")["spec"]
    made["workload"]["streams"][0]["corpusRef"]["noise"] = {"snrDb": [10, -5]}
    made["constraints"] = [{"metric": metric, "max": "1"}]
    made["objectives"] = [{"metric": "stability", "goal": "Maximize", "weight": "1"}]
    component = metric.split(".")[0]
    conduct = Conduct(
        started_at=START,
        ended_at=END,
        punctuality=(Punctuality(component=component, requests=requests, late_p99_ms=0),),
    )
    evidence = Evidence(ExperimentSpec.model_validate(made), conduct, {}, measured(metric, "0.1", samples))

    assert reason(evidence) == expected


@pytest.mark.parametrize("product", ["NVIDIA-GeForce-RTX-3060", "NVIDIA-H200"])
@pytest.mark.parametrize("size", ["tiny", "base", "small"])
def test_what_the_planner_looks_for_on_the_card_is_more_than_a_context_and_less_than_the_server_holds(
    size: str, product: str
) -> None:
    models, experiment = documents("voice-stack.yaml")[:2]
    experiment["spec"]["gpu"]["product"] = product
    spec = ExperimentSpec.model_validate(experiment["spec"])
    (text,) = models["data"].values()
    plan = plan_experiment(spec, {"judge": read_model_config(text)}, {})
    candidate = next(it for it in Space(spec.parameters) if it.values == {"judgeMemory": "0.50", "whisperModel": size})

    prediction = plan.predict(candidate)

    assert prediction is not None
    least = {it.component: it.least_mib for it in prediction.holdings}
    held = size_figures(size, product).resident_bytes
    assert card_product(product).context_bytes < least["stt"] << 20 < held
    assert least["neighbour"] == 1229 // 2
    assert 5_000 < least["judge"] < 6_000


# --- With a node agent, whose the processes are is known.

OURS = {"probe": Share(0, 0), "judge": Share(6_000, 6_400), "stt": Share(800, 900)}


def seen_by_agent(evidence: Evidence = WELL, **tenancy: Any) -> Evidence:
    return replace(evidence, tenancy=replace(Tenancy(600, OURS), **tenancy))


def stranger(name: str = "python3", pod: str = "uid-other") -> Tenant:
    process = TenantProcess(pid=4711, name=name, container="0" * 64)
    return Tenant(pod=pod, containers=("0" * 64,), processes=(process,), least_mib=700, most_mib=812)


def test_what_the_agent_has_seen_of_a_trial_that_went_well_breaks_no_gate() -> None:
    assert breach(seen_by_agent()) is None


def test_a_process_of_the_trials_own_may_come_within_the_window() -> None:
    came = on_card(newcomers=processes(300))

    assert reason(came) == "SecondTenant"
    assert reason(seen_by_agent(came)) is None


def test_a_tenant_that_was_there_before_and_is_as_large_as_who_is_missing_is_seen() -> None:
    as_large = on_card(processes=processes(6_000, 812))
    assert reason(as_large) is None, "by size alone it is taken for the component"

    found = breach(seen_by_agent(as_large, shares=OURS | {"stt": Share(0, 0)}, strangers=(stranger(),)))

    assert found is not None
    assert found.reason == "SecondTenant"
    assert found.message == (
        "not of this trial: pod uid-other, container 000000000000: process 4711 (python3) with 812 MiB"
    )


def test_the_component_that_fell_back_is_named_though_several_could_be_meant() -> None:
    alike = on_card(processes=processes(6_000))

    found = breach(seen_by_agent(alike, shares=OURS | {"stt": Share(0, 20)}))

    assert found is not None
    assert (found.reason, found.message) == (
        "DeviceFallback",
        "stt held 0 MiB of the card, and should hold 350 MiB at least",
    )


def test_a_component_that_left_the_card_for_a_moment_was_not_on_it() -> None:
    assert reason(seen_by_agent(shares=OURS | {"judge": Share(0, 6_400)})) == "DeviceFallback"


def test_processes_that_do_not_account_for_the_cards_memory_do_not_matter_where_owners_are_known() -> None:
    assert reason(seen_by_agent(on_card(are_all_listed=False, rise_mib=0))) is None


def test_a_process_of_which_nobody_knows_whose_it_was_spoils_the_window() -> None:
    found = breach(seen_by_agent(lost=(4711,)))

    assert found is not None
    assert (found.reason, found.message) == (
        "SecondTenant",
        "not of this trial: process 4711, which ended before it could be read whose it was",
    )


@pytest.mark.parametrize(("sharing", "expected"), [("MPS", None), ("TimeSlicing", "SecondTenant")])
def test_the_server_of_mps_is_no_tenant_where_the_card_is_shared_by_it(sharing: str, expected: str | None) -> None:
    spec = WELL.spec.model_copy(update={"gpu": Gpu(product="NVIDIA-L4", sharing=Sharing(sharing))})

    assert (
        reason(
            seen_by_agent(replace(WELL, spec=spec, sharing=Sharing(sharing)), strangers=(stranger("nvidia-cuda-mps"),))
        )
        == expected
    )


# --- The card itself.


@pytest.mark.parametrize(
    ("seen", "message", "blames_the_card"),
    [
        ({"xids": (79,)}, "Xid 79 within the window", True),
        ({"xids": (31, 31)}, "Xid 31, 31 within the window", False),
        ({"xids": (13, 48)}, "Xid 13, 48 within the window", True),
        ({"uncorrected_ecc_errors": 2}, "2 new uncorrected ECC errors within the window", True),
        (
            {"xids": (94,), "uncorrected_ecc_errors": 1, "needs_reset": True},
            "Xid 94 within the window; 1 new uncorrected ECC errors within the window; "
            "it waits for a reset to replace the memory concerned",
            True,
        ),
    ],
)
def test_a_card_that_fails_within_the_window_spoils_it(
    seen: dict[str, Any], message: str, blames_the_card: bool
) -> None:
    found = breach(on_card(**seen))

    assert found is not None
    assert (found.reason, found.message) == ("CardError", f"{CARD}: {message}")
    assert (found.blames_the_card, found.blames_the_candidate) == (blames_the_card, False)


@pytest.mark.parametrize(
    "seen", [{"xids": ()}, {"xids": None}, {"uncorrected_ecc_errors": 0}, {"needs_reset": True}, {"needs_reset": None}]
)
def test_what_the_driver_does_not_tell_and_what_was_before_are_not_held_against_the_trial(seen: dict[str, Any]) -> None:
    assert breach(on_card(**seen)) is None


def test_what_explains_the_other_gates_is_said_first() -> None:
    assert reason(on_card(xids=(79,), newcomers=processes(300), throttled=100)) == "CardError"
