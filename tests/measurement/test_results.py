import pytest
from cotune.measurement.card import Reading, card_conduct
from cotune.measurement.clients import Answer
from cotune.measurement.latency import Percentiles
from cotune.measurement.open_loop import StreamResult
from cotune.measurement.results import ComponentRecord, card_measurements, component_measurements
from cotune.measurement.vllm_metrics import CacheFacts

LATENCY = Percentiles(p50=1.5, p95=2.5, p99=3.5, samples=4, censored=1)


def named(record: ComponentRecord, loop: StreamResult, cache: CacheFacts | None = None) -> dict[str, tuple[str, int]]:
    found = component_measurements("x", record, loop, 10.0, cache)
    return {it.metric: (it.value, it.samples) for it in found}


def test_a_component_without_a_request_measured_nothing() -> None:
    assert named(ComponentRecord(), StreamResult(None, 0, 0, 0.0)) == {}


def test_only_what_was_complete_in_the_window_is_throughput() -> None:
    record = ComponentRecord()
    record.answered(Answer(first_token=0.1, tokens=50), is_in_window=True)
    record.answered(Answer(first_token=0.1, tokens=50), is_in_window=False)

    found = named(record, StreamResult(LATENCY, 4, 1, 0.0))

    assert found["x.latency.p95"] == ("2.5", 4)
    assert found["x.throughput"] == ("0.1", 4)
    assert found["x.tokensPerSecond"] == ("5", 2)
    assert found["x.errorRate"] == ("0.25", 4)


def test_a_request_without_its_first_token_counts_with_the_time_it_waited() -> None:
    record = ComponentRecord(unfinished=[Answer(first_token=30.0)])
    record.answered(Answer(first_token=0.1, between_tokens=[0.02]), is_in_window=True)

    found = named(record, StreamResult(LATENCY, 2, 0, 0.0))

    value, samples = found["x.ttft.p99"]
    assert float(value) > 29_000
    assert samples == 2
    assert found["x.itl.p95"][1] == 1


def test_the_real_time_factor_is_over_all_audio() -> None:
    record = ComponentRecord()
    record.answered(Answer(heard=("a b", "a c"), audio_seconds=4.0, processing_seconds=1.0), is_in_window=True)
    record.answered(Answer(heard=("a b", "a b"), audio_seconds=1.0, processing_seconds=1.0), is_in_window=True)

    found = named(record, StreamResult(LATENCY, 2, 0, 0.0))

    assert found["x.realTimeFactor"] == ("0.4", 2)
    assert found["x.wer"] == ("0.25", 2)
    assert "x.ttft.p50" not in found


def test_the_cache_is_stated_as_far_as_it_is_known() -> None:
    loop = StreamResult(None, 0, 0, 0.0)

    assert named(ComponentRecord(), loop, CacheFacts(6976, None)) == {"x.kvCache.tokens": ("6976", 1)}
    assert named(ComponentRecord(), loop, CacheFacts(6976, 3.40625))["x.kvCache.concurrency"] == ("3.40625", 1)


def test_the_card_is_stated_by_its_worst_memory_and_its_mean_use() -> None:
    readings = [Reading(100.0, 900.0, 1000.0, 0.5, 1), Reading(300.0, 700.0, 1000.0, 1.0, 1)]

    found = {it.metric: (it.value, it.samples) for it in card_measurements(readings)}

    assert found == {"gpu.freeMiB": ("700", 2), "gpu.usedMiB": ("300", 2), "gpu.utilization": ("0.75", 2)}
    assert list(card_measurements([])) == []


def test_a_card_is_idle_without_processes_and_without_memory_of_processes_that_are_not_listed() -> None:
    assert Reading(615.0, 143_156.0, 143_771.0, 0.0, 0).is_idle
    assert not Reading(615.0, 143_156.0, 143_771.0, 0.0, 1).is_idle
    assert not Reading(1500.0, 142_271.0, 143_771.0, 0.0, 0).is_idle
    assert not Reading(512.0, 11_776.0, 12_288.0, 0.0, 0).is_idle


def read(used: float = 5_120.0, reasons: int | None = 0, **held: float) -> Reading:
    processes = {int(pid.removeprefix("p")): mib for pid, mib in held.items()}
    return Reading(used, 12_288.0 - used, 12_288.0, 0.5, len(processes), processes, reasons)


def test_a_window_keeps_the_least_that_each_process_held_and_who_came_in_it() -> None:
    readings = [read(p1=5_000.0), read(p1=4_000.0, p2=60.0), read(p1=5_000.0, p2=70.0)]

    found = card_conduct("GPU-1", read(120.0), readings)

    assert [(it.pid, it.least_mib) for it in found.processes] == [(1, 4_000.0)]
    assert [(it.pid, it.least_mib) for it in found.newcomers] == [(2, 60.0)]
    assert found.rise_mib == 5_000.0


def test_a_process_that_ends_in_the_window_held_nothing_at_its_end() -> None:
    found = card_conduct("GPU-1", read(120.0), [read(p1=5_000.0), read(120.0)])

    assert [(it.pid, it.least_mib) for it in found.processes] == [(1, 0.0)]


@pytest.mark.parametrize(("held", "are_all"), [(5_000.0, True), (4_000.0, False)])
def test_memory_that_no_listed_process_holds_is_that_of_one_that_is_not_listed(held: float, are_all: bool) -> None:
    assert card_conduct("GPU-1", read(120.0), [read(p1=held)]).are_all_listed == are_all


def test_only_what_slows_the_card_against_its_will_is_throttling() -> None:
    idle, capped, hot, braked = 0x1, 0x4, 0x20 | 0x4, 0x80

    found = card_conduct("GPU-1", read(120.0), [read(reasons=it) for it in (idle, capped, hot, braked)])

    assert (found.readings, found.throttled) == (4, 2)
    assert found.throttle_reasons == ("HwPowerBrakeSlowdown", "SwThermalSlowdown")
    assert card_conduct("GPU-1", read(120.0), [read(reasons=None)]).throttled is None
