from cotune.measurement.contract import InterferenceCell, Spread
from cotune.measurement.interference import interference_cell, slowdowns
from cotune.measurement.record import StreamRecord, Window
from cotune.measurement.requests import Lengths, Phase


def spread(p95: float, samples: int = 40) -> Spread:
    return Spread(p50=p95 / 2, p95=p95, p99=p95, largest=p95, samples=samples)


def cell(loaded: tuple[str, ...], component: str, p95: float | None, samples: int = 40) -> InterferenceCell:
    latency = None if p95 is None else spread(p95, samples)
    return InterferenceCell(loaded=loaded, component=component, latency=latency)


ALL = ("judge", "stt")


def test_a_slowdown_is_the_window_over_alone_and_rests_on_the_smaller_sample() -> None:
    window = [cell(ALL, "judge", 700, samples=60), cell(ALL, "stt", 240, samples=120)]
    rounds = [cell(("judge",), "judge", 700, samples=90), cell(("stt",), "stt", 80, samples=40)]

    found = {it.metric: (it.value, it.samples) for it in slowdowns(window, rounds)}

    assert found == {"judge.slowdown.p95": ("1", 60), "stt.slowdown.p95": ("3", 40)}


def test_what_is_not_known_has_no_slowdown() -> None:
    window = [cell(ALL, "judge", None), cell(ALL, "stt", 240), cell(ALL, "other", 5)]
    rounds = [cell(("judge",), "judge", 700), cell(("stt",), "stt", None), cell(("other", "stt"), "other", 5)]

    assert list(slowdowns(window, rounds)) == []


def test_a_cell_is_over_all_streams_of_its_component() -> None:
    window = Window(100.0, 10.0, 0.0)
    records = [StreamRecord(window), StreamRecord(window)]
    for record, latency in zip(records, (0.1, 0.3), strict=True):
        record.latency.finished(101.0, 101.0 + latency)

    found = interference_cell(ALL, "judge", records)

    assert found.latency is not None
    assert (found.loaded, found.component, found.latency.samples) == (ALL, "judge", 2)
    assert found.latency.p50 < 110 < 290 < found.latency.largest


def test_without_an_answer_a_cell_has_no_latency() -> None:
    assert interference_cell(("judge",), "judge", [StreamRecord(Window(0.0, 1.0, 0.0))]).latency is None


def test_a_rounds_requests_are_of_the_windows_lengths_and_of_other_words() -> None:
    lengths = Lengths(100, 20, spread=0.5)
    window = [lengths.request(7, Phase.WINDOW, it) for it in range(50)]
    keys = {it.key for it in window}

    for number in (1, 2, 63):
        again = [it.in_round(number) for it in window]
        assert [(it.number, it.prompt_tokens, it.output_tokens) for it in again] == [
            (it.number, it.prompt_tokens, it.output_tokens) for it in window
        ]
        assert not keys & {it.key for it in again}
        keys |= {it.key for it in again}
    assert [it.in_round(0) for it in window] == window
