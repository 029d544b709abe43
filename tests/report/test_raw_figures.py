"""What is drawn from raw results: distributions, the card's memory, interference."""

from collections.abc import Sequence

import pytest
from cotune.api.trial import InterferenceFigure
from cotune.measurement.contract import InterferenceCell, Spread
from cotune.measurement.latency import LatencyRecorder
from cotune.report.candidates import Role
from cotune.report.card_memory import readings
from cotune.report.interference import interference_matrix
from cotune.report.latencies import latency_figures
from cotune.report.raw import RawResultError
from cotune.trials.interference import figures
from support.played_experiment import Played
from support.told_report import PlayedResults, experiment, told, told_without_raw_results


def test_a_distribution_has_every_value_and_the_percentiles_of_its_histogram() -> None:
    recorder = LatencyRecorder()
    for milliseconds in (10, 20, 30, 40):
        recorder.finished(0.0, milliseconds / 1000)

    found = LatencyRecorder.decoded(recorder.encoded()).distribution()

    assert found is not None
    assert [at for at, _ in found.steps] == pytest.approx([10, 20, 30, 40], rel=1e-3)
    assert [share for _, share in found.steps] == [0.25, 0.5, 0.75, 1.0]
    assert found.percentiles.samples == 4
    assert LatencyRecorder().distribution() is None


def test_all_confirming_runs_are_in_the_curves_of_both_sides(voice: Played) -> None:
    found = told(voice)

    assert [(it.component, it.quantity.split(",")[0]) for it in found.latencies] == [
        ("stt", "latency"),
        ("judge", "latency"),
        ("judge", "time to the first token"),
        ("neighbour", "latency"),
    ]
    for it in found.latencies:
        assert {(curve.role, curve.runs) for curve in it.curves} == {(Role.BASELINE, 7), (Role.CHALLENGER, 7)}


def test_a_text_that_is_no_histogram_is_refused_with_its_component(voice: Played) -> None:
    whole = experiment(voice)
    results = PlayedResults(voice.records)
    result = next(it for trial in whole.trials if (it := results.of(trial)) is not None)
    broken = result.streams[0].histograms[0].model_copy(update={"encoded": "no histogram"})
    streams = (result.streams[0].model_copy(update={"histograms": (broken,)}),)

    with pytest.raises(RawResultError, match="stt: no histogram"):
        latency_figures({Role.BASELINE: [result.model_copy(update={"streams": streams})]})


def test_thinned_readings_keep_the_largest_and_gaps_stay_gaps() -> None:
    seconds = [float(it) for it in range(2_000)]
    used: Sequence[float | None] = [None if it < 10 else 9_999.0 if it == 777 else 100.0 for it in range(2_000)]

    found = readings(seconds, used)

    assert len(found) <= 400
    assert max(it for _, it in found if it is not None) == 9_999.0
    assert found[0][1] is None, "what the driver did not say is not drawn as anything"
    assert readings(seconds, [None] * 2_000) == ()


def test_the_cards_size_is_what_was_free_and_used_together(voice: Played) -> None:
    found = told(voice).card_memory

    assert found is not None
    assert len(found.traces) == 14
    assert found.total_mib == pytest.approx(12_288, rel=0.01)


def test_a_matrix_has_each_service_alone_beside_every_other_and_among_all() -> None:
    found = interference_matrix(Role.BASELINE, "t", _cells({"a": 10.0, "ab": 30.0, "ac": 15.0, "abc": 40.0}, "a"))

    assert found is not None
    alone, beside_b, beside_c, all_loaded = found.cells[0]
    assert (alone.is_alone, alone.ratio) == (True, 1.0)
    assert [it.ratio for it in (beside_b, beside_c, all_loaded)] == [3.0, 1.5, 4.0]


def test_a_slowdown_is_unknown_without_the_figure_alone_and_a_service_that_answered_nothing_has_none() -> None:
    silent = InterferenceFigure(loaded=("a", "b"), component="b")

    found = interference_matrix(Role.BASELINE, "t", (*_cells({"ab": 30.0}, "a"), silent))

    assert found is not None
    assert (found.cells[0][1].p95_ms, found.cells[0][1].ratio) == (30.0, None)
    assert (found.cells[1][0].p95_ms, found.cells[1][0].ratio) == (None, None)
    assert interference_matrix(Role.BASELINE, "t", ()) is None


def test_without_raw_results_nothing_is_made_up(voice: Played) -> None:
    found = told_without_raw_results(voice)

    assert (found.latencies, found.card_memory) == ((), None)
    assert (found.raw_runs, found.compared_runs) == (0, 14)
    assert found.interference, "the trials' statuses have it"


def _cells(p95: dict[str, float], component: str) -> tuple[InterferenceFigure, ...]:
    def spread(it: float) -> Spread:
        return Spread(p50=it, p95=it, p99=it, largest=it, samples=200)

    cells = [InterferenceCell(loaded=tuple(load), component=component, latency=spread(it)) for load, it in p95.items()]
    others = sorted({it for load in p95 for it in load} - {component})
    return figures((*cells, *(InterferenceCell(loaded=(it,), component=it, latency=spread(1.0)) for it in others)))
