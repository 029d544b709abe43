"""The surfaces that were recorded on real cards can be played back, and are as large and as repeated as they say."""

from pathlib import Path

import pytest
from cotune_bench.surface import Point, Surface, SurfaceError

FOLDER = Path(__file__).parents[1] / "data" / "surfaces"
VOICE = tuple(FOLDER / f"h100-2026-11-28-{it}" / "surface.json" for it in ("time-slicing", "time-slicing-2", "mps"))
ALONE = {it: FOLDER / f"h100-2026-11-28-{it}" / "surface.json" for it in ("llm-alone", "stt-alone")}
BASELINE = {"sharing": "TimeSlicing", "llmMemory": "0.30", "llmMaxSeqs": "128", "whisperModel": "base"}
pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def voice() -> Surface:
    return Surface.read(*VOICE)


def measured(surface: Surface) -> "list[Point]":
    return [it for it in surface.points if it.failure is None]


def test_no_recording_is_left_out_here() -> None:
    assert {*VOICE, *ALONE.values()} == set(FOLDER.glob("*/surface.json"))


def test_the_voice_surface_has_at_least_forty_candidates_with_repeats(voice: Surface) -> None:
    repeated = [it for it in measured(voice) if len(it.runs) >= 3]

    assert len({tuple(sorted(it.parameters.items())) for it in voice.points}) == len(voice.points) == 84
    assert len(measured(voice)) == 60
    assert len(repeated) >= 40
    assert {it.parameters["sharing"] for it in repeated} == {"TimeSlicing", "MPS"}
    assert dict(voice.baseline) == BASELINE


def test_repeats_of_a_candidate_in_two_recordings_are_one_candidates(voice: Surface) -> None:
    both = voice.evaluate({**BASELINE, "llmMemory": "0.05"}, fidelity=60)

    assert both.repeats == 6


def test_every_feasible_candidate_gives_measurements_and_the_seconds_they_took(voice: Surface) -> None:
    for point in measured(voice):
        found = voice.evaluate(point.parameters, fidelity=5)
        everything = voice.evaluate(point.parameters, fidelity=3600)

        assert not found.is_failure
        assert {"stt.latency.p95", "llm.latency.p95", "llm.ttft.p50", "gpu.usedMiB"} <= set(found.measurements)
        assert found.measurements["llm.latency.p95"] > 0
        assert found.repeats == 1
        assert found.seconds == pytest.approx(point.start_seconds + point.runs[0].seconds)
        assert everything.repeats == len(point.runs)
        assert everything.seconds == pytest.approx(point.start_seconds + sum(it.seconds for it in point.runs))


def test_every_infeasible_candidate_says_why_and_costs_its_attempt(voice: Surface) -> None:
    infeasible = [it for it in voice.points if it.failure is not None]

    assert {it.parameters["llmMemory"] for it in infeasible} == {"0.02"}
    assert len(infeasible) == 24
    for point in infeasible:
        found = voice.evaluate(point.parameters, fidelity=15)
        assert found.is_failure
        assert found.failure is not None
        assert found.failure.startswith("llm: ValueError: No available memory for the cache blocks")
        assert (found.repeats, dict(found.measurements)) == (0, {})
        assert found.seconds > 10


def test_a_speech_server_that_was_seen_ready_late_does_not_cost_what_the_recorder_did_meanwhile(voice: Surface) -> None:
    """The recordings with warm starts looked for it after 45 s of something else."""
    speech = {it.parameters["whisperModel"]: it.start_seconds for it in measured(voice) if _is_mps_baseline(it)}
    of_vllm = 57.6

    assert {size: round(seconds - of_vllm, 1) for size, seconds in speech.items()} == {
        "tiny.en": 14.9,
        "base": 11.7,
        "small-sized": 17.1,
        "medium-sized": 17.9,
    }


@pytest.mark.parametrize(("name", "component", "candidates"), [("llm-alone", "llm", 2), ("stt-alone", "stt", 4)])
def test_a_service_alone_is_a_surface_of_its_own_metrics(name: str, component: str, candidates: int) -> None:
    surface = Surface.read(ALONE[name])

    assert len(surface.points) == candidates
    for point in surface.points:
        found = surface.evaluate(point.parameters, fidelity=15)
        loaded = {it.partition(".")[0] for it in found.measurements if it.endswith(".latency.p95")}
        assert (found.repeats, loaded) == (3, {component})


def test_a_service_alone_is_no_part_of_the_voice_surface() -> None:
    with pytest.raises(SurfaceError, match="other parameters"):
        Surface.read(VOICE[0], ALONE["llm-alone"])


def test_what_a_recording_had_no_time_for_is_no_guess(voice: Surface) -> None:
    with pytest.raises(SurfaceError, match="was not recorded"):
        voice.evaluate({**BASELINE, "llmMemory": "0.10", "llmMaxSeqs": "32"}, fidelity=5)


def _is_mps_baseline(point: Point) -> bool:
    return (point.parameters["sharing"], point.parameters["llmMemory"], point.parameters["llmMaxSeqs"]) == (
        "MPS",
        "0.30",
        "128",
    )
