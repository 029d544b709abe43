import pytest
from cotune.measurement.latency import LatencyRecorder


def test_percentiles_are_in_milliseconds_and_state_their_sample_size() -> None:
    recorder = LatencyRecorder()
    for milliseconds in range(1, 101):
        recorder.finished(10.0, 10.0 + milliseconds / 1000)

    found = recorder.percentiles()

    assert found is not None
    assert found.p50 == pytest.approx(50, rel=0.01)
    assert found.p95 == pytest.approx(95, rel=0.01)
    assert found.p99 == pytest.approx(99, rel=0.01)
    assert (found.samples, found.censored) == (100, 0)


def test_an_unfinished_request_is_counted_not_missing() -> None:
    recorder = LatencyRecorder()
    recorder.finished(0.0, 0.010)
    recorder.unfinished(0.0, 30.0)

    found = recorder.percentiles()

    assert found is not None
    assert found.p99 == pytest.approx(30_000, rel=0.01)
    assert (found.samples, found.censored) == (2, 1)


def test_nothing_measured_is_none() -> None:
    assert LatencyRecorder().percentiles() is None


def test_an_answer_before_its_request_is_an_error() -> None:
    with pytest.raises(ValueError, match="before it was due"):
        LatencyRecorder().finished(1.0, 0.5)
