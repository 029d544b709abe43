import pytest
from cotune.api.trial import Measurement, PredictedHolding, Prediction
from cotune.measurement.agent.contract import NodeReport, OutOfMemoryKills
from cotune.measurement.contract import ProbeResult, ServiceFacts
from cotune.trials.holdings import observed_devices
from cotune.trials.out_of_memory import Ends
from cotune.trials.outcome import ComponentRun, NoResultError, measurements, observed_server, probe_result
from cotune.trials.tenancy import PodIdentity, Share, Tenancy
from cotune.trials.truth import ComponentEvidence
from support.resources import voice_experiment

SPEC = voice_experiment()
RESULT = ProbeResult(
    measurements=(
        Measurement(metric="stt.latency.p95", value="85.2", samples=240),
        Measurement(metric="stt.errorRate", value="0", samples=240),
        Measurement(metric="judge.kvCache.tokens", value="7000", samples=1),
    )
)
VLLM_LOG = """\
INFO 11-23 10:00:00 [kv_cache_utils.py:1087] GPU KV cache size: 6,976 tokens
INFO 11-23 10:00:00 [kv_cache_utils.py:1091] Maximum concurrency for 2,048 tokens per request: 3.41x
"""
QUIET = ComponentRun("", 0, 3.0)
RUNS = {"judge": ComponentRun(VLLM_LOG, 0, 44.0), "stt": QUIET}


def values(result: ProbeResult = RESULT, **runs: ComponentRun) -> dict[str, str]:
    return {it.metric: it.value for it in measurements(SPEC, result, {**RUNS, **runs})}


def test_what_the_probe_the_kubelet_and_the_logs_say_is_one_list() -> None:
    assert values() == {
        "gpu.oomEvents": "0",
        "judge.kvCache.concurrency": "3.41",
        "judge.kvCache.tokens": "6976",
        "judge.restarts": "0",
        "judge.startup": "44",
        "stability": "1",
        "stt.errorRate": "0",
        "stt.latency.p95": "85.2",
        "stt.restarts": "0",
        "stt.startup": "3",
    }


def test_without_a_line_in_the_log_the_probes_reading_of_the_cache_stands() -> None:
    assert values(judge=QUIET)["judge.kvCache.tokens"] == "7000"


def test_running_out_of_memory_is_counted_and_is_not_stable() -> None:
    found = values(stt=ComponentRun("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB", 0, None))

    assert (found["gpu.oomEvents"], found["stability"]) == ("1", "0")
    assert "stt.startup" not in found


@pytest.mark.parametrize("metric", ["stt.errorRate", "judge.errorRate"])
def test_errors_and_restarts_are_not_stable(metric: str) -> None:
    failing = ProbeResult(measurements=(Measurement(metric=metric, value="0.01", samples=100),))

    assert values(failing)["stability"] == "0"
    assert values(stt=ComponentRun("", 1, 3.0))["stability"] == "0"


def test_the_result_is_the_last_line_of_the_probes_log() -> None:
    line = RESULT.model_dump_json(by_alias=True)

    assert probe_result(f"warming up\n{line}\n\n") == RESULT
    with pytest.raises(NoResultError, match="is no result: 'done'"):
        probe_result(f"{line}\ndone")
    with pytest.raises(NoResultError):
        probe_result("")


@pytest.mark.parametrize(
    ("line", "compiled"),
    [
        ("Compiling a graph for compile range (1, 8192) takes 9.81 s", True),
        ("Directly load the compiled graph(s) for compile range (1, 8192) from the cache, took 0.7 s", False),
        ("Directly load AOT compilation from path /root/.cache/vllm", False),
        ("", None),
    ],
)
def test_a_servers_log_says_whether_it_compiled(line: str, compiled: bool | None) -> None:
    found = observed_server("judge", f"{line}\nAvailable KV cache memory: 0.37 GiB")

    assert found is not None
    assert found.compiled is compiled


def test_memory_on_the_card_is_stated_where_it_is_known_whose_it_was_and_never_taken_from_the_card() -> None:
    known = Tenancy(readings=600, shares={"judge": Share(5_900, 6_100.25), "stt": Share(0, 0)})

    without = {it.metric for it in measurements(SPEC, RESULT, RUNS)}
    with_agent = {it.metric: it for it in measurements(SPEC, RESULT, RUNS, known)}

    assert not [it for it in without if it.endswith(".gpuMemoryMiB")]
    assert (with_agent["judge.gpuMemoryMiB"].value, with_agent["judge.gpuMemoryMiB"].samples) == ("6100.25", 600)
    assert with_agent["stt.gpuMemoryMiB"].value == "0"


def test_out_of_memory_is_counted_from_all_who_tell_of_it() -> None:
    said = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB"
    evidence = ComponentEvidence(identity=PodIdentity("uid-stt", frozenset({"s"})))
    node = NodeReport(
        node="lab",
        card="GPU-1",
        readings=1,
        kills=(
            OutOfMemoryKills(container="s", pod="uid-stt", kills=2),
            OutOfMemoryKills(container="x", pod="uid-x", kills=9),
        ),
    )
    result = RESULT.model_copy(update={"node": node, "services": (ServiceFacts(component="judge", out_of_memory=4),)})
    stt = ComponentRun("up again", 1, 3.0, evidence, previous_logs=(said,), ends=Ends((said,), ("before",)))

    assert values(result, stt=stt)["gpu.oomEvents"] == str(1 + 2 + 1 + 4)


def test_a_component_computes_where_it_holds_what_it_was_planned_to_hold() -> None:
    plan = Prediction(fits=True, holdings=(PredictedHolding(component="judge", least_mib=5_500),))
    known = Tenancy(readings=600, shares={"judge": Share(500, 700), "stt": Share(800, 900), "probe": Share(0, 0)})

    found = observed_devices(SPEC, plan, known)

    asked = {it.component: (str(it.device), it.least_mib, it.most_mib) for it in found}
    assert asked["stt"] == ("cuda", 800, 900)
    assert asked["judge"][1:] == (500, 700)
    assert set(asked) == {"judge", "stt"}
    assert observed_devices(SPEC, plan, None) == ()
