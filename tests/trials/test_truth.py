import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cotune.api.experiment import ExperimentSpec
from cotune.api.trial import Measurement, PredictedHolding, Prediction
from cotune.experiments.predictions import plan_experiment
from cotune.measurement.contract import CardConduct, CardProcess, Conduct, Punctuality
from cotune.planning.model_config import read_model_config
from cotune.search.space import Space
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
