import pytest
from cotune.measurement.engine import EngineFacts, EngineReading, engine_facts, engine_reading
from cotune.measurement.results import engine_measurements
from cotune.measurement.service_counters import out_of_memory

VLLM = """\
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="Qwen/Qwen2.5 {7B}"} 3.0
vllm:num_requests_waiting{engine="1",model_name="Qwen/Qwen2.5 {7B}"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.75
vllm:num_preemptions_total{engine="0"} 7.0
vllm:num_preemptions_created{engine="0"} 1.764e+09
"""


def test_all_engines_behind_one_server_are_read_together() -> None:
    assert engine_reading(VLLM) == EngineReading(preemptions=7, waiting=7, cache_usage=0.75)


def test_what_an_older_vllm_calls_its_cache_is_known_too_and_what_it_does_not_say_is_unknown() -> None:
    assert engine_reading("vllm:gpu_cache_usage_perc 0.5\n") == EngineReading(None, None, 0.5)


@pytest.mark.parametrize("text", ["", "<html>", "http_requests_total 3\n", "other:num_requests_waiting 3\n"])
def test_what_is_not_vllms_is_not_read(text: str) -> None:
    assert engine_reading(text) is None


def test_preemptions_are_those_of_the_window_and_the_queue_is_over_all_looks() -> None:
    found = engine_facts([EngineReading(7, 0, 0.2), EngineReading(9, 6, 0.9), EngineReading(12, 0, 0.4)])

    assert found == EngineFacts(3, preemptions=5, most_waiting=6, mean_waiting=2, most_cache_usage=0.9)
    assert {it.metric: (it.value, it.samples) for it in engine_measurements("judge", found)} == {
        "judge.preemptions": ("5", 3),
        "judge.queue.max": ("6", 3),
        "judge.queue.mean": ("2", 3),
        "judge.kvCache.usage": ("0.9", 3),
    }


@pytest.mark.parametrize(
    "readings",
    [
        [EngineReading(7, 0, None)],
        [EngineReading(7, 0, None), EngineReading(2, 0, None)],
        [EngineReading(None, 0, None), EngineReading(2, 0, None)],
    ],
    ids=["one look", "the counter began anew", "not said"],
)
def test_preemptions_that_cannot_be_known_are_left_out(readings: list[EngineReading]) -> None:
    found = engine_facts(readings)

    assert found.preemptions is None
    assert {it.metric for it in engine_measurements("judge", found)} == {"judge.queue.max", "judge.queue.mean"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stt_out_of_memory_total 2.0\n", 2),
        ('stt_out_of_memory_total{stage="load"} 1.0\nstt_out_of_memory_total{stage="decode"} 2.0\n', 3),
        ("oom_total 1\n", 1),
        ("tts_oom_events_total 4\n", 4),
        ("stt_out_of_memory_created 1.7e9\n", None),
        ("room_total 5\n", None),
        (VLLM, None),
        ("", None),
    ],
)
def test_a_server_that_counts_its_out_of_memory_errors_is_believed_and_preemptions_are_none(
    text: str, expected: int | None
) -> None:
    assert out_of_memory(text) == expected
