import itertools
from dataclasses import replace

import pytest
from cotune.api.workload import ArrivalType
from cotune.measurement.card import Reading, card_conduct, card_samples
from cotune.measurement.clients import Answer, AnswerError, ErrorKind
from cotune.measurement.contract import CardSamples, ErrorCount, Steadiness
from cotune.measurement.latency import LatencyRecorder
from cotune.measurement.record import StreamRecord, Window
from cotune.measurement.results import card_measurements, component_measurements, stream_report
from cotune.measurement.vllm_metrics import CacheFacts
from cotune.measurement.word_error_rate import Heard
from hdrh.histogram import HdrHistogram  # pyright: ignore[reportMissingTypeStubs]
from hypothesis import given
from hypothesis import strategies as st

WINDOW = Window(start=100.0, seconds=10.0, grace_seconds=30.0)


def recorded(*answers: tuple[float, float, Answer]) -> StreamRecord:
    """Good answers by due time, end and what they said; sent a millisecond after they were due."""
    record = StreamRecord(WINDOW)
    for due, end, answer in answers:
        record.sent(due, due + 0.001, scheduled=True)
        record.answered(due, due + 0.001, end, answer)
    return record


def named(*records: StreamRecord, cache: CacheFacts | None = None) -> dict[str, tuple[str, int]]:
    found = component_measurements("x", records, cache)
    return {it.metric: (it.value, it.samples) for it in found}


def test_a_component_without_a_request_measured_nothing() -> None:
    assert named(StreamRecord(WINDOW)) == {}


def test_throughput_is_what_ended_in_the_window_and_latency_is_of_what_was_due_in_it() -> None:
    record = recorded(
        (99.5, 100.5, Answer(first_token=100.0, tokens=50)),
        (101.0, 102.0, Answer(first_token=101.5, tokens=50)),
        (109.5, 110.5, Answer(first_token=110.0, tokens=50)),
    )
    record.sent(105.0, 105.0, scheduled=True)
    record.failed(105.0, 106.0, AnswerError("no", ErrorKind.STATUS), Answer(), is_streamed=True)

    found = named(record)

    assert found["x.throughput"] == ("0.2", 3)
    assert found["x.tokensPerSecond"] == ("10", 2)
    assert found["x.errorRate"] == ("0.333333", 3)
    assert found["x.latency.p95"][1] == found["x.ttft.p50"][1] == 2
    assert float(found["x.latency.p95"][0]) == pytest.approx(1000, rel=0.001)
    assert float(found["x.ttft.p50"][0]) == pytest.approx(500, rel=0.001)


def test_the_streams_of_a_component_are_one() -> None:
    fast = recorded(*((100.0 + it / 10, 100.01 + it / 10, Answer()) for it in range(90)))
    slow = recorded(*((100.0 + it, 101.0 + it, Answer()) for it in range(9)))

    found = named(fast, slow)

    assert found["x.latency.p95"][1] == 99
    assert float(found["x.latency.p50"][0]) == pytest.approx(10, rel=0.001)
    assert float(found["x.latency.p95"][0]) == pytest.approx(1000, rel=0.001)


def test_tokens_a_second_are_absent_where_one_server_does_not_say_its_tokens() -> None:
    found = named(recorded((101.0, 102.0, Answer(first_token=101.5, tokens=None))))

    assert "x.ttft.p50" in found
    assert "x.tokensPerSecond" not in found


def test_a_request_without_its_first_token_counts_with_the_time_it_waited() -> None:
    record = recorded((101.0, 102.0, Answer(first_token=101.1, between_tokens=[0.02])))
    record.sent(105.0, 105.0, scheduled=True)
    record.open_at_end(105.0, 140.0, Answer(), is_streamed=True)

    found = named(record)

    value, samples = found["x.ttft.p99"]
    assert float(value) == pytest.approx(35_000, rel=0.001)
    assert samples == 2
    assert found["x.itl.p95"][1] == 1


def test_the_real_time_factor_is_over_all_audio() -> None:
    found = named(
        recorded(
            (101.0, 102.0, Answer(heard=Heard("a b", "a c"), audio_seconds=4.0, processing_seconds=1.0)),
            (103.0, 104.0, Answer(heard=Heard("a b", "a b"), audio_seconds=1.0, processing_seconds=1.0)),
        )
    )

    assert found["x.realTimeFactor"] == ("0.4", 2)
    assert found["x.wer"] == ("0.25", 2)
    assert "x.ttft.p50" not in found


def test_the_cache_is_stated_as_far_as_it_is_known() -> None:
    none = StreamRecord(WINDOW)

    assert named(none, cache=CacheFacts(6976, None)) == {"x.kvCache.tokens": ("6976", 1)}
    assert named(none, cache=CacheFacts(6976, 3.40625))["x.kvCache.concurrency"] == ("3.40625", 1)


def test_the_report_says_how_late_the_probe_was_what_failed_and_whether_the_state_was_steady() -> None:
    record = recorded(*((100.0 + it / 20, 100.3 + it / 20, Answer(tokens=3, prompt_tokens=8)) for it in range(200)))
    record.sent(109.99, 109.99, scheduled=True)
    record.failed(109.99, 109.999, AnswerError("cut", ErrorKind.TRUNCATED), Answer(), is_streamed=True)

    report = stream_report("x", 0, ArrivalType.CONSTANT, record, ())

    assert report.requests == 201
    assert report.errors == (ErrorCount(kind="Truncated", count=1),)
    assert report.schedule_error is not None
    assert report.schedule_error.p50 == pytest.approx(1.0, rel=0.01)
    assert report.schedule_error.samples == 201
    assert report.steadiness is Steadiness.STEADY
    assert (report.prompt_tokens, report.output_tokens) == (1600, 600)


def test_the_raw_histograms_can_be_read_and_added_again() -> None:
    report = stream_report("x", 0, ArrivalType.CONSTANT, recorded((101.0, 102.0, Answer())), ())

    encoded = {it.name: it.encoded for it in report.histograms}
    assert set(encoded) == {"latency", "service", "scheduleError"}
    histogram = HdrHistogram.decode(encoded["latency"])  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    assert histogram.get_total_count() == 1  # pyright: ignore[reportUnknownMemberType]
    assert histogram.get_max_value() == pytest.approx(1_000_000, rel=0.001)  # pyright: ignore[reportUnknownMemberType]


def test_merging_loses_nothing() -> None:
    several = [LatencyRecorder() for _ in range(3)]
    for number, it in enumerate(several, 1):
        it.finished(0.0, 0.1 * number)
    several[0].unfinished(0.0, 9.0)

    found = LatencyRecorder.merged(several).percentiles()

    assert found is not None
    assert (found.samples, found.censored) == (4, 1)
    assert found.largest == pytest.approx(9000, rel=0.001)


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


def test_the_server_of_mps_stays_on_an_idle_card() -> None:
    after_a_trial = Reading(689.0, 143_082.0, 143_771.0, 0.0, processes=0, mps_server_mib=66.0)
    small_card = Reading(300.0, 11_988.0, 12_288.0, 0.0, processes=0)

    assert after_a_trial.is_idle
    assert after_a_trial.unlisted_mib == 623.0
    assert not small_card.is_idle
    assert replace(small_card, mps_server_mib=66.0).is_idle


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


def filled(*used: float) -> list[Reading]:
    return [replace(read(it), seconds=number / 10) for number, it in enumerate(used)]


def test_every_reading_of_a_window_is_kept_and_what_the_driver_does_not_say_is_none() -> None:
    readings = [*filled(100.0), replace(read(200.25), seconds=0.1004, power_watts=70.5, temperature_celsius=61)]

    found = card_samples(readings)

    assert (found.seconds, found.used_mib, found.utilization) == ((0.0, 0.1), (100.0, 200.25), (0.5, 0.5))
    assert (found.power_watts, found.temperature_celsius) == ((None, 70.5), (None, 61))
    assert found.sm_clock_mhz == (None, None)


@given(
    used=st.lists(st.floats(0, 12_288), min_size=1, max_size=60),
    most=st.integers(3, 20),
)
def test_of_too_many_readings_first_last_and_fullest_stay(used: list[float], most: int) -> None:
    found = card_samples(filled(*used), most)

    assert len(found.seconds) == min(len(used), most)
    assert max(found.used_mib) == round(max(used), 6)
    assert (found.seconds[0], found.seconds[-1]) == (0.0, round((len(used) - 1) / 10, 3))
    assert list(found.seconds) == sorted(set(found.seconds))


def test_what_is_left_of_too_many_readings_lies_evenly() -> None:
    found = card_samples(filled(*([1.0] * 10_000)))

    gaps = {round((after - before) * 10) for before, after in itertools.pairwise(found.seconds)}
    assert (len(found.seconds), gaps) == (2_000, {5, 6})


def test_lists_of_samples_that_are_not_parallel_are_refused() -> None:
    said = card_samples(filled(1.0, 2.0)).model_dump(by_alias=True)

    with pytest.raises(ValueError, match="one reading has one in each"):
        CardSamples.model_validate(said | {"usedMiB": [1.0]})


def test_a_histogram_is_read_back_without_loss() -> None:
    kept = LatencyRecorder()
    for it in range(1, 1_000):
        kept.finished(0.0, it * it / 1_000)

    assert LatencyRecorder.decoded(kept.encoded()).percentiles() == kept.percentiles()


@pytest.mark.parametrize("text", ["", "no histogram", "HISTFAAAAAA="])
def test_what_is_no_histogram_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="no histogram"):
        LatencyRecorder.decoded(text)


def test_every_condition_of_a_corpus_has_a_word_error_rate_of_its_own() -> None:
    heard = (
        Heard("a b", "a b", "clean"),
        Heard("a b", "a c", "snr0"),
        Heard("a b", "c c", "snr0"),
        Heard("a b", "a b", "snrMinus5"),
    )
    found = named(recorded(*((101.0 + at, 102.0 + at, Answer(heard=it)) for at, it in enumerate(heard))))

    assert {name: it for name, it in found.items() if ".wer" in name} == {
        "x.wer": ("0.375", 4),
        "x.wer.clean": ("0", 1),
        "x.wer.snr0": ("0.75", 2),
        "x.wer.snrMinus5": ("0", 1),
    }
